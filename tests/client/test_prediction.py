"""A released model used in numpy alone, and a release that nobody should trust."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from greylag_client.models import build_mlp
from greylag_client.prediction import Predictor, predict_csv
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.features import decode_outputs, encode_features
from greylag_protocols.parameters import split
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.terms import Terms

PLAN = """
[run]
name = "alloys"
purpose = "strength of new alloys"
[data]
standard = "alloys@1.0"
task = "regression"
targets = [ { name = "strength", unit = "MPa", range = [100, 900] },
            { name = "melting", unit = "K", range = [300, 2000], multiplier = 3 } ]
features = [ { names = ["copper", "nickel"], range = [0, 100], scale = "sqrt", multiplier = 4 },
             { names = ["heat"], unit = "K", range = [200, 1500] } ]
expected_records = 1000
max_records_per_firm = 400
[model]
hidden = [7, 5]
activation = "tanh"
[privacy]
noise_multiplier = 2.0
delta = 1e-5
max_colluding = 1
min_firms = 3
[training]
rounds = 2
sampling_rate = 0.5
"""
TWO_CLASSES = PLAN.replace(
    PLAN[PLAN.index("targets") : PLAN.index("features")],
    'targets = [ { name = "fault", classes = ["no", "yes"] } ]\n',
).replace('"regression"', '"classification"')


def make_terms(text: str = PLAN) -> Terms:
    return settle_terms(parse_plan(text), consortium="metals", run_id="alloys-1")


def random_weights(terms: Terms) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(0, 0.5, terms.dimension).astype(np.float32)


def write_sums(directory: Path) -> None:
    names = ("model.safetensors", "terms.json")
    lines = [f"{hashlib.sha256((directory / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (directory / "SHA256SUMS").write_text("".join(lines))


def write_release(directory: Path, terms: Terms, **changed: np.ndarray | None) -> Path:
    """A release of random weights; ``changed`` tensors replace or (None) remove some."""
    tensors = split(random_weights(terms), terms.parameters)
    tensors.update({name.replace("_", "."): value for name, value in changed.items()})
    directory.mkdir(exist_ok=True)
    kept = {name: np.ascontiguousarray(t) for name, t in tensors.items() if t is not None}
    (directory / "model.safetensors").write_bytes(safetensors.numpy.save(kept))
    (directory / "terms.json").write_bytes(terms.encode())
    write_sums(directory)
    return directory


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release", make_terms())


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("plan", [PLAN, TWO_CLASSES], ids=["regression", "classes"])
def test_predictions_are_those_of_the_torch_model(
    tmp_path: Path, plan: str, activation: str
) -> None:
    terms = make_terms(plan.replace('"tanh"', f'"{activation}"'))
    values = np.random.default_rng(1).uniform((0, 0, 200), (100, 100, 1500), (50, 3))
    predicted = Predictor.load(write_release(tmp_path / "r", terms)).predict(values)
    module = build_mlp(terms)
    named = split(random_weights(terms), terms.parameters)
    module.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in named.items()})
    with torch.no_grad():
        outputs = module(torch.from_numpy(encode_features(terms.data, values)))
    if terms.data.task == "regression":
        expected = decode_outputs(terms.data, outputs.numpy())
        assert len(np.unique(expected[:, 1])) > 10  # not all cut at the bounds
    else:
        expected = torch.softmax(outputs, 1).numpy()
    np.testing.assert_allclose(predicted, expected, rtol=1e-10)


def test_csv_gains_predictions_and_flags_rows_out_of_range(release: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("name,heat,copper,nickel\nfirst,300,1.50,2\nsecond,1501,1.5,2\n")
    frame = predict_csv(release, path)
    assert frame.columns == [
        "name", "heat", "copper", "nickel",
        "strength_predicted", "melting_predicted", "out_of_range",
    ]  # fmt: skip
    assert frame["copper"].to_list() == ["1.50", "1.5"]  # the firm's own cells as they were
    assert frame["out_of_range"].to_list() == [False, True]
    values = np.array([[1.5, 2, 300], [1.5, 2, 1500]])
    expected = Predictor.load(release).predict(values)
    np.testing.assert_allclose(
        frame.select("strength_predicted", "melting_predicted").to_numpy(), expected
    )


def test_csv_of_classes(tmp_path: Path) -> None:
    release = write_release(tmp_path / "r", make_terms(TWO_CLASSES))
    (tmp_path / "new.csv").write_text("heat,copper,nickel\n300,0,2\n900,50,90\n1200,10,0\n")
    frame = predict_csv(release, tmp_path / "new.csv")
    yes = frame["fault_probability_yes"].to_numpy()
    np.testing.assert_allclose(yes + frame["fault_probability_no"].to_numpy(), 1.0)
    assert frame["fault_predicted"].to_list() == ["yes" if p > 0.5 else "no" for p in yes]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("heat,copper,nikel\n300,1,2\n", "'nickel' is missing; did you mean 'nikel'?"),
        ("heat,copper,nickel\n300,1,\n", "'nickel': 1 row without a value"),
        ("heat,copper,nickel\n300,x,2\n", "'copper': 1 row with text"),
        ("heat,copper,nickel\n", "no rows"),
        ("heat,copper,nickel,out_of_range\n300,1,2,no\n", "'out_of_range' is there already"),
    ],
)
def test_csv_that_cannot_be_predicted(release: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "new.csv").write_text(text)
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        predict_csv(release, tmp_path / "new.csv")


@pytest.mark.parametrize("name", ["model.safetensors", "terms.json"])
def test_one_changed_bit_is_refused(release: Path, name: str) -> None:
    content = bytearray((release / name).read_bytes())
    content[-3] ^= 1
    (release / name).write_bytes(content)
    with pytest.raises(VerificationError, match=f"{name} does not match SHA256SUMS"):
        Predictor.load(release)


@pytest.mark.parametrize("name", ["model.safetensors", "terms.json", "SHA256SUMS"])
def test_an_absent_file_is_named(release: Path, name: str) -> None:
    (release / name).unlink()
    with pytest.raises(VerificationError, match=f"{name}: no such file"):
        Predictor.load(release)


@pytest.mark.parametrize(
    "sums",
    [
        "",
        "0" * 64 + "  model.safetensors\n",  # terms.json is not listed
        "0" * 63 + "  terms.json\n",
        "0" * 64 + "  ../terms.json\n",
        ("0" * 64 + "  terms.json\n") * 2,
        "\x00\xff" * 40,
    ],
)
def test_checksums_that_do_not_cover_the_files(release: Path, sums: str) -> None:
    (release / "SHA256SUMS").write_text(sums, encoding="latin-1")
    with pytest.raises(VerificationError, match="SHA256SUMS"):
        Predictor.load(release)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"0_bias": None}, "not the float32 ones"),
        ({"9_bias": np.zeros(3, np.float32)}, "not the float32 ones"),
        ({"0_weight": np.zeros((3, 7), np.float32)}, "not the float32 ones"),  # transposed
        ({"0_bias": np.zeros(7, np.float64)}, "not the float32 ones"),
        ({"0_bias": np.full(7, np.nan, np.float32)}, "not finite"),
        ({"0_bias": np.full(7, np.inf, np.float32)}, "not finite"),
        ({"0_bias": np.zeros(50_000, np.float32)}, "larger than"),
    ],
)
def test_tensors_unlike_the_terms_are_refused(
    tmp_path: Path, changed: dict[str, np.ndarray | None], said: str
) -> None:
    release = write_release(tmp_path / "r", make_terms(), **changed)
    with pytest.raises(VerificationError, match=said):
        Predictor.load(release)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x02" + b"\x00" * 7 + b"{}", b"\x80" * 300]
)
def test_bytes_that_are_no_safetensors(release: Path, content: bytes) -> None:
    (release / "model.safetensors").write_bytes(content)
    write_sums(release)
    with pytest.raises(VerificationError, match=r"model\.safetensors"):
        Predictor.load(release)


def test_terms_that_no_firm_could_accept(release: Path) -> None:
    terms = make_terms()
    dear = replace(terms, privacy=replace(terms.privacy, epsilon=terms.privacy.epsilon / 2))
    (release / "terms.json").write_bytes(dear.encode())
    write_sums(release)
    with pytest.raises(VerificationError, match="more than the"):
        Predictor.load(release)
    (release / "terms.json").write_bytes(b"{}")
    write_sums(release)
    with pytest.raises(VerificationError, match="missing"):
        Predictor.load(release)
