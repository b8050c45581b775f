"""A firm's own version: what is chosen where firms differ in different ways, and its directory."""

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from greylag_client.cli import app
from greylag_client.local_models.forest import Forest
from greylag_client.local_models.layers import Layers
from greylag_client.local_models.trees import fit_trees
from greylag_client.personal.fitting import fit_personal
from greylag_client.personal.intervals import group_quantile
from greylag_client.personal.selection import blend_weights
from greylag_client.prediction import Predictor
from greylag_client.table import Table
from greylag_protocols.errors import VerificationError
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.terms import Terms
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from typer.testing import CliRunner

PLAN = """
[run]
name = "made-up"
purpose = "numbers made up for a test"
[data]
standard = "made-up@1.0"
task = "regression"
targets = [ { name = "y", unit = "K", range = [-10, 10], multiplier = 4 } ]
features = [ { names = ["a", "b"], range = [-1, 1] } ]
group = "g"
expected_records = 1000
max_records_per_firm = 1000
[model]
hidden = []
[privacy]
noise_multiplier = 2.0
delta = 1e-5
max_colluding = 1
min_firms = 3
[training]
rounds = 2
sampling_rate = 0.5
"""
# y = 4 a: the model without hidden layers is exact, in outputs of 4 y / 10.
SHARED: Layers = ((np.array([[1.6, 0.0]]), np.zeros(1)),)


def make_terms(text: str = PLAN) -> Terms:
    return settle_terms(parse_plan(text), consortium="makers", run_id="made-up-1")


def make_table(kind: str, rows: int = 240, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, (rows, 2))
    own = {
        "same": np.zeros(rows),
        "offset": np.full(rows, 1.5),
        "step": np.where(values[:, 1] > 0.2, 3.0, -1.0),
        "useless": -8.0 * values[:, 0] + 4.0 * values[:, 1],
    }[kind]
    targets = 4 * values[:, 0] + own + rng.normal(0, 0.5, rows)
    groups = tuple(f"g{row // 4}" for row in range(rows))
    cut = rows // 2 // 4 * 4
    return Table(
        data=make_terms().data, features=values, targets=targets[:, np.newaxis], groups=groups,
        train=np.arange(cut), holdout=np.arange(cut, rows),
    )  # fmt: skip


def error_of(table: Table, predict: object) -> float:
    guess = predict(table.features[table.holdout])  # type: ignore[operator]
    return float(np.sqrt(np.mean((guess - table.targets[table.holdout]) ** 2)))


@pytest.mark.parametrize(("kind", "most"), [("offset", 0.65), ("step", 0.75), ("useless", 0.65)])
def test_what_is_special_about_a_firm_is_learned(kind: str, most: float) -> None:
    terms, table = make_terms(), make_table(kind)
    fitted = fit_personal(terms, SHARED, table)
    own = error_of(table, lambda values: fitted.blend.predict(terms.data, "tanh", values))
    shared = error_of(table, Predictor(terms=terms, layers=SHARED).predict)
    assert own < most * shared or own < 0.65  # 0.5 is noise that nobody can learn
    assert own < 0.5 * shared


@pytest.mark.slow
def test_where_nothing_is_special_the_shared_model_is_hardly_spoiled() -> None:
    terms, ratios = make_terms(), []
    for seed in range(2):
        table = make_table("same", 160, seed)
        own = fit_personal(terms, SHARED, table).blend
        ours = error_of(table, partial(own.predict, terms.data, "tanh"))
        ratios.append(ours / error_of(table, Predictor(terms=terms, layers=SHARED).predict))
    assert max(ratios) < 1.1


def test_few_rows_move_the_model_by_little() -> None:
    terms, table = make_terms(), make_table("offset")
    few = replace(table, train=np.arange(16))
    fitted = fit_personal(terms, SHARED, few)
    names = [item.name for item in fitted.candidates]
    assert names == ["shared", "offset", "own trees", "the choice"]
    own = error_of(table, lambda values: fitted.blend.predict(terms.data, "tanh", values))
    assert own < 0.6 * error_of(table, Predictor(terms=terms, layers=SHARED).predict)
    lone = fit_personal(terms, SHARED, replace(table, train=np.arange(4)))  # one group
    assert [part.name for part in lone.blend.parts] == ["shared"]
    assert lone.intervals is None


def test_held_out_rows_are_never_looked_at() -> None:
    terms, table = make_terms(), make_table("step", 80)
    spoiled = table.targets.copy()
    spoiled[table.holdout] = 9.0
    probe = np.random.default_rng(1).uniform(-1, 1, (20, 2))
    first, second = (
        fit_personal(terms, SHARED, item).blend.predict(terms.data, "tanh", probe)
        for item in (table, replace(table, targets=spoiled))
    )
    np.testing.assert_array_equal(first, second)


def test_intervals_hold_what_they_say_for_rows_of_new_groups() -> None:
    rng, inside = np.random.default_rng(0), []
    for _ in range(2000):
        sizes = rng.integers(1, 9, 31)
        level = np.repeat(rng.exponential(1, 31), sizes)  # groups err alike
        errors = np.abs(level * rng.normal(0, 1, sizes.sum()))
        groups = np.repeat(np.arange(31), sizes).astype(object)
        old = groups < 30
        reach = group_quantile(errors[old], groups[old], 0.9)
        inside.append((errors[~old] <= reach).mean())
    assert 0.89 < np.mean(inside) < 0.94  # at least 90 %, at most 1 / 31 more; chance 0.006


def test_intervals_come_with_the_version() -> None:
    terms, table = make_terms(), make_table("offset")
    fitted = fit_personal(terms, SHARED, table)
    assert fitted.intervals is not None
    guess = fitted.blend.predict(terms.data, "tanh", table.features[table.holdout])
    off = np.abs(guess - table.targets[table.holdout])
    assert 0.8 < (off <= fitted.intervals.reach[0]).mean() < 0.99


def test_quantile_counts_groups_and_not_rows() -> None:
    errors = np.array([1.0] * 90 + [5.0, 6, 7, 8, 9, 10, 11, 12, 13])
    groups = np.array(["big"] * 90 + [f"g{i}" for i in range(9)], dtype=object)
    assert group_quantile(errors, groups, 0.5) == 9.0  # of 11 groups with the imaginary one
    assert group_quantile(errors, groups, 0.95) == np.inf


def test_blend_weights_are_the_best_on_the_simplex() -> None:
    data = make_terms().data
    truth = np.random.default_rng(0).normal(0, 1, (50000, 1))
    noise = np.random.default_rng(1).normal(0, 1, (2, 1, 50000, 1)) * [[[[1.0]]], [[[2.0]]]]
    weights = blend_weights(truth + noise, truth, data)
    np.testing.assert_allclose(weights, [0.8, 0.2], atol=0.01)  # inverse variances


def test_forest_predicts_what_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (300, 3))
    values[rng.random((300, 3)) < 0.2] = np.nan
    probe = np.where(rng.random((400, 3)) < 0.1, np.nan, rng.normal(0, 2, (400, 3)))
    smooth = np.nan_to_num(values[:, 0]) ** 2 + np.isnan(values[:, 1])
    regressor = HistGradientBoostingRegressor(max_iter=50).fit(values, smooth)
    forest = Forest.of({0: regressor}, np.zeros(1))
    np.testing.assert_allclose(forest(probe)[:, 0], regressor.predict(probe), atol=1e-9)
    staged = list(regressor.staged_predict(probe))
    np.testing.assert_allclose(forest.first(20)(probe)[:, 0], staged[19], atol=1e-9)
    np.testing.assert_allclose(forest.staged(probe, (7,))[0][:, 0], staged[6], atol=1e-9)
    for classes, link in ((2, "sigmoid"), (3, "softmax")):
        labels = np.digitize(smooth, [0.5, 1.5][: classes - 1])
        model = HistGradientBoostingClassifier(max_iter=20).fit(values, labels)
        trees = Forest.of({0: model}, np.zeros(1 if classes == 2 else 3), link)
        np.testing.assert_allclose(trees(probe), model.predict_proba(probe), atol=1e-9)


def test_forest_knows_classes_that_a_firm_never_saw() -> None:
    text = PLAN.replace('"regression"', '"classification"').replace(
        'name = "y", unit = "K", range = [-10, 10], multiplier = 4',
        'name = "y", classes = ["p", "q", "r"]',
    )
    values = np.random.default_rng(0).uniform(-1, 1, (60, 2))
    labels = np.where(values[:, :1] > 0, 2.0, 0.0)
    spread = fit_trees(values, labels, make_terms(text).data, 0)(values)
    np.testing.assert_allclose(spread.sum(axis=1), 1.0)
    assert (spread.argmax(axis=1) == labels[:, 0]).all()
    assert (spread[:, 1] < 1e-6).all()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A release, a table and the version that the command makes of them."""
    terms, table = make_terms(), make_table("step")
    release = tmp_path / "release"
    release.mkdir()
    tensors = {"0.weight": SHARED[0][0].astype(np.float32), "0.bias": np.zeros(1, np.float32)}
    (release / "model.safetensors").write_bytes(safetensors.numpy.save(tensors))
    (release / "terms.json").write_bytes(terms.encode())
    rewrite_sums(release)
    rows = ["a,b,y,g"]
    for (a, b), (y,), group in zip(table.features, table.targets, table.groups, strict=True):
        rows.append(f"{a},{b},{np.clip(y, -10, 10)},{group}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    asked = ["personalise", str(release), "--data", str(tmp_path / "own.csv"), "--format", "json"]
    found = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "own")])
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert document["private"] is False
    assert document["held_out"]["personalised"] < document["held_out"]["shared"]
    assert sum(item["weight"] for item in document["chosen"]) == pytest.approx(1)
    return tmp_path


def rewrite_sums(directory: Path) -> None:
    files = [path for path in directory.iterdir() if path.name != "SHA256SUMS"]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (directory / "SHA256SUMS").write_text("".join(lines))


def test_one_predictor_serves_both_and_says_which_is_private(made: Path) -> None:
    shared, own = Predictor.load(made / "release"), Predictor.load(made / "own")
    assert (shared.private, own.private) == (True, False)
    values = make_table("step").features
    assert not np.allclose(shared.predict(values), own.predict(values))
    assert not any(path.suffix in (".pkl", ".joblib") for path in (made / "own").iterdir())
    out = made / "out.csv"
    asked = ["predict", str(made / "own"), str(made / "own.csv"), "--out", str(out)]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0
    assert "not private" in found.stderr
    header = out.read_text().splitlines()[0]
    assert header == "a,b,y,g,y_predicted,y_low,y_high,out_of_range"


def test_what_does_not_belong_together_is_refused(made: Path) -> None:
    own = made / "own"
    facts = json.loads((own / "personal.json").read_text())
    arrays = safetensors.numpy.load((own / "personal.safetensors").read_bytes())
    trees = next(name[: -len("left")] for name in arrays if name.endswith("trees.left"))

    def refuse(said: str, facts: object, arrays: dict[str, np.ndarray]) -> None:
        (own / "personal.json").write_text(json.dumps(facts))
        (own / "personal.safetensors").write_bytes(safetensors.numpy.save(arrays))
        rewrite_sums(own)
        with pytest.raises(VerificationError, match=said):
            Predictor.load(own)

    refuse("personal.json", facts | {"private": True}, arrays)
    refuse("other weights", facts | {"shared_model": "0" * 64}, arrays)
    doubled = [item | {"weight": 1.0} for item in facts["parts"]]
    refuse("sum to 1", facts | {"parts": doubled}, arrays)
    refuse("does not name", facts, arrays | {"9.trees.left": np.zeros(1, np.int32)})
    circle = arrays[trees + "left"].copy()
    circle[np.flatnonzero(circle)[0]] = 0
    refuse("points nowhere", facts, arrays | {trees + "left": circle})
    refuse("differ in length", facts, arrays | {trees + "value": np.zeros(3)})
    (own / "SHA256SUMS").write_text("".join(
        line for line in (made / "release" / "SHA256SUMS").read_text().splitlines(True)
    ))  # fmt: skip
    with pytest.raises(VerificationError, match=r"does not list personal\.json"):
        Predictor.load(own)
