"""What is written of a release, and the lead's own rows; no process runs here."""

import json
from pathlib import Path

import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from greylag_protocols.errors import ConfigError
from greylag_protocols.releases import Holdout
from greylag_server.release.artefacts import Draft, Licence, keep_files, make_draft, make_model
from greylag_server.release.holdout import error_of, measure, read_rows
from greylag_server.store import Store
from made_release import CLASSES, FIRMS, NAME, PLAN, make_record, make_terms

LICENCE = Licence(
    text="For members.",
    permitted_uses=("predictions", "teaching"),
    issued_s=1_800_000_000,
    expires_s=1_800_000_000 + 86_400,
)
MEASURED = Holdout(rows=40, metric="error", value=0.125, before=0.25)


def draft_of(plan: str = PLAN, holdout: Holdout | None = MEASURED, because: str = "") -> Draft:
    record = make_record(make_terms(plan))
    assert record.state is not None
    return make_draft(
        record,
        make_model(record, record.state),
        consortium=NAME,
        version=3,
        firms=len(FIRMS),
        licence=LICENCE,
        public_key=b"a public key\n",
        cosigners=2,
        holdout=holdout,
        because=because,
    )


def test_the_same_release_gives_the_same_bytes() -> None:
    assert draft_of() == draft_of()


@pytest.mark.parametrize("plan", [PLAN, CLASSES], ids=["regression", "classes"])
@pytest.mark.parametrize("holdout", [MEASURED, None], ids=["measured", "unmeasured"])
def test_the_bill_of_materials_is_valid_cyclonedx(plan: str, holdout: Holdout | None) -> None:
    draft = draft_of(plan, holdout)
    text = draft.files["ml-bom.cdx.json"].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    component = json.loads(text)["metadata"]["component"]
    weights = next(item for item in draft.facts.files if item.name == "model.safetensors")
    assert component["hashes"] == [{"alg": "SHA-256", "content": weights.sha256}]
    card = component["modelCard"]
    assert card["considerations"]["useCases"] == ["predictions", "teaching"]
    assert len(card["quantitativeAnalysis"]["performanceMetrics"]) == (holdout is not None)


def test_the_card_says_what_the_holdout_is_worth_in_both_languages() -> None:
    card = draft_of(because="new melts").files["card.md"].decode()
    assert "0.125; the version before had 0.25 on the same rows" in card
    assert "outside every guarantee" in card
    assert "released nevertheless: new melts" in card
    assert "不在任何保证之内" in card
    assert "valid\nuntil 2027-01-16" in card
    unmeasured = draft_of(holdout=None).files["card.md"].decode()
    assert "named no rows to measure that" in unmeasured
    assert "nevertheless" not in unmeasured


def test_a_plugins_model_is_released_without_onnx(tmp_path: Path) -> None:
    plan = PLAN.replace(
        "hidden = [7]",
        'family = "plugin:forest"\n[model.plugin]\ndistribution = "forest"\nversion = "1.0"\n'
        f'sha256 = "{"0" * 64}"\n[[model.parameters]]\nname = "leaf.weight"\nshape = [1, 5]',
    )
    draft = draft_of(plan, holdout=None)
    assert "model.onnx" not in draft.files
    assert "forest 1.0" in draft.files["ml-bom.cdx.json"].decode()
    store = Store(tmp_path / "log.sqlite", origin=NAME)
    with store.transaction():
        keep_files(store, draft)
    kept = [store.artefact(bytes.fromhex(item.sha256)) for item in draft.facts.files]
    assert kept == list(draft.files.values())


def write_rows(
    path: Path, rows: list[str], heading: str = "copper,nickel,furnace,strength"
) -> Path:
    path.write_text("\n".join([heading, *rows]) + "\n")
    return path


def test_the_leads_rows_are_read_as_the_plan_says(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "own.csv",
        ["900,10,1,arc,3", "100,20,2,NA,4", ",30,3,gas,5"],
        heading="strength,copper,nickel,furnace,other",
    )
    features, targets = read_rows(path, make_terms().data)
    np.testing.assert_array_equal(features, [[10, 1, 0], [20, 2, np.nan], [30, 3, 1]])
    np.testing.assert_array_equal(targets, [[900], [100], [np.nan]])


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["1,2,coal,3"], "line 2, column furnace: 'coal' is not a value"),
        (["1,2,arc,3", "1,,arc,3"], "line 3, column nickel"),
        (["1,inf,arc,3"], "column nickel"),
        (["1,2"], "column strength|no value"),
        ([], "has no rows"),
        (['"1,2,arc,3'], "not CSV"),
    ],
)
def test_rows_that_the_plan_does_not_allow(tmp_path: Path, rows: list[str], reason: str) -> None:
    record = make_record(make_terms())
    assert record.state is not None
    model = make_model(record, record.state)
    with pytest.raises(ConfigError, match=reason):
        measure(
            write_rows(tmp_path / "own.csv", rows), model.terms, model.graph or b"", before=None
        )


def test_columns_files_and_texts_that_are_not_there(tmp_path: Path) -> None:
    data = make_terms().data
    with pytest.raises(ConfigError, match="no column nickel, furnace"):
        read_rows(write_rows(tmp_path / "own.csv", ["1,2"], heading="copper,strength"), data)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rows(tmp_path / "absent.csv", data)
    (tmp_path / "own.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_rows(tmp_path / "own.csv", data)


def test_errors_are_shares_of_the_range(tmp_path: Path) -> None:
    record = make_record(make_terms())
    assert record.state is not None
    model = make_model(record, record.state)
    assert model.graph is not None
    values = [f"{copper},5,arc," for copper in (0, 30, 60)]
    from onnxruntime import InferenceSession

    session = InferenceSession(model.graph, providers=["CPUExecutionProvider"])
    rows = np.array([[0, 5, 0], [30, 5, 0], [60, 5, 0]], dtype=np.float32)
    (predicted,) = session.run(None, {"features": rows})
    shifted = [f"{row}{value + 80:.6f}" for row, value in zip(values, predicted[:, 0], strict=True)]
    path = write_rows(tmp_path / "own.csv", shifted)
    found = measure(path, model.terms, model.graph, before=0.5)
    assert (found.rows, found.metric, found.before) == (3, "error", 0.5)
    assert found.value == pytest.approx(0.1, abs=1e-5)  # 80 of a range of 800


def test_of_classes_the_loss_is_measured(tmp_path: Path) -> None:
    record = make_record(make_terms(CLASSES))
    assert record.state is not None
    model = make_model(record, record.state)
    assert model.graph is not None
    heading = "copper,nickel,furnace,fault"
    yes = write_rows(tmp_path / "yes.csv", ["10,5,arc,yes"], heading)
    no = write_rows(tmp_path / "no.csv", ["10,5,arc,no"], heading)
    losses = [error_of(path, model.terms, model.graph)[0] for path in (yes, no)]
    assert np.exp(-np.array(losses)).sum() == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ConfigError, match="'perhaps' is not a value"):
        error_of(
            write_rows(tmp_path / "x.csv", ["10,5,arc,perhaps"], heading), model.terms, model.graph
        )
