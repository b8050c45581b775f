"""Categories, orders and declared gaps, from a firm's file to everything that is made of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from greylag_client.cli import app
from greylag_client.data_tags import record_tags
from greylag_client.local_models.alone import fit_alone
from greylag_client.mapping.questions import Question, take_proposals
from greylag_client.mapping.table_files import map_file
from greylag_client.personal.artefact import Personal, encode_personal, facts_of, parse_personal
from greylag_client.personal.fitting import fit_personal
from greylag_client.prediction import Predictor, predict_csv
from greylag_client.quality.checks import Examination, examine
from greylag_client.table import Table, load_table, parse_table, read_cells
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.terms import DataTerms
from typer.testing import CliRunner

PLAN = """
[run]
name = "castings"
purpose = "numbers made up for a test"
[data]
standard = "castings@1.0"
task = "regression"
targets = [ { name = "strength", unit = "MPa", range = [0, 100] },
            { name = "strain", unit = "%", range = [0, 10] } ]
features = [
  { names = ["heat"], unit = "degC", range = [0, 1000], missing = "zero-and-flag" },
  { names = ["alloy"], categories = ["AlSi", "AlCu", "Zn"], other = true, multiplier = 2 },
  { names = ["coat"], categories = ["none", "Oxide"] },
  { names = ["finish"], categories = ["rough", "plain", "polished"], ordered = true },
]
missing_values = ["-99", "?"]
expected_records = 1000
max_records_per_firm = 1000
[model]
hidden = [4]
[privacy]
noise_multiplier = 2.0
delta = 1e-5
max_colluding = 1
min_firms = 3
[training]
rounds = 2
sampling_rate = 0.5
"""
TERMS = settle_terms(parse_plan(PLAN), consortium="makers", run_id="castings-1")
DATA = TERMS.data
HEADER = "heat,alloy,coat,finish,strength,strain"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def made_up(rows: int = 240) -> tuple[list[str], Table]:
    """Strength depends on the alloy and the coat; a third of the targets is missing."""
    rng = np.random.default_rng(4)
    lines = []
    for row in range(rows):
        alloy, coat = rng.choice(["AlSi", "AlCu", "Zn", "Mg"]), rng.choice(["none", "Oxide"])
        level = {"AlSi": 20, "AlCu": 80, "Zn": 35, "Mg": 60}[str(alloy)] + 15 * (coat == "Oxide")
        strength, strain = level + rng.normal(), 8 - level / 20 + rng.normal() / 4
        gap = row % 3
        heat = rng.choice(["-99", "450.5", "700"])
        finish = rng.choice(["rough", "plain", "polished"])
        lines.append(
            f"{heat},{alloy},{coat},{finish},{'' if gap == 0 else f'{strength:.3f}'},"
            f"{'?' if gap == 1 else f'{strain:.3f}'}"
        )
    columns = zip(*(line.split(",") for line in lines), strict=True)
    cells = pl.DataFrame(dict(zip(HEADER.split(","), columns, strict=True)))
    cells = cells.with_columns(pl.when(pl.all() == "").then(None).otherwise(pl.all()).name.keep())
    return lines, parse_table(cells, DATA, what="made up")


def test_cells_become_numbers_of_categories_and_gaps(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "500, AlSi ,none,rough,?,5",
        "-99.0,Brass,Oxide,polished,-99,9.5",
        ",Zn,Oxide,plain,50,-99.00",
    )
    table = load_table(path, DATA)
    nan = np.nan
    np.testing.assert_array_equal(table.features, [[500, 0, 0, 0], [nan, 3, 1, 2], [nan, 2, 1, 1]])
    np.testing.assert_array_equal(table.targets, [[nan, 5], [nan, 9.5], [50, nan]])
    assert table.records(np.array([1])).inputs.tolist() == [
        [0, 0, 0, 0, 2, 0, 1, 1, 1]  # heat, alloy or another, coat, finish, flag of heat alone
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("500,AlSi,oxyde,rough,1,1",
         "column 'coat': 1 row with a value that is not among the terms' categories (they have "
         "'none', 'Oxide'); did you mean 'Oxide'? (row 3)"),
        ("500,AlSi,Oxide,smooth,1,1", "column 'finish': 1 row with a value that is not among"),
        ("500,?,Oxide,rough,1,1", "column 'alloy': 1 row without a value"),
        ("500,AlSi,,rough,1,1", "column 'coat': 1 row without a value"),
        ("500,AlSi,Oxide,rough,?,-99", "1 row without any target value; remove them (row 3)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_by_column_and_row(tmp_path: Path, row: str, said: str) -> None:
    path = write(tmp_path / "a.csv", "1,AlSi,none,rough,1,1", row, "1,Zn,none,rough,1,1")
    with pytest.raises(ConfigError) as caught:
        load_table(path, DATA)
    assert said in str(caught.value)
    assert "oxyde" not in str(caught.value)
    assert "smooth" not in str(caught.value)


def test_braces_in_a_columns_name_are_part_of_it(tmp_path: Path) -> None:
    data = replace(DATA, features=(replace(DATA.features[0], names=("{x}", "{}")),))
    path = write(tmp_path / "a.csv", "1,2000,3,4", header="{x},{},strength,strain")
    with pytest.raises(ConfigError, match=r"outside the public range"):
        load_table(path, data)


def test_prediction_reads_columns_as_training_does(tmp_path: Path) -> None:
    weights = np.zeros((4, DATA.input_width))
    weights[0, 2] = 1.0  # AlCu
    layers = ((weights, np.zeros(4)), (np.ones((2, 4)), np.zeros(2)))
    predictor = Predictor(terms=TERMS, layers=layers)
    path = write(
        tmp_path / "a.csv", "-99,AlCu,none,rough", "500,Tin,none,rough", "1001,Zn,none,rough",
        header="heat,alloy,coat,finish",
    )  # fmt: skip
    frame = predict_csv(predictor, path)
    assert frame["heat"].to_list() == ["-99", "500", "1001"]  # the firm's own cells
    assert frame["strength_predicted"].round(2).to_list() == [98.2, 50, 50]
    assert frame["out_of_range"].to_list() == [False, False, True]
    with pytest.raises(ConfigError, match="'finish': 1 row with a value that is not among"):
        predict_csv(predictor, write(path, "1,AlCu,none,dull", header="heat,alloy,coat,finish"))


def test_a_category_is_known_again_by_its_name() -> None:
    _, table = made_up(30)
    turned = (DATA.features[0], replace(DATA.features[1], categories=("Zn", "AlCu", "AlSi")))
    data = replace(DATA, features=(*turned, *DATA.features[2:]))
    features = table.features.copy()
    features[:, 1] = np.array([2, 1, 0, 3])[features[:, 1].astype(int)]
    other = replace(table, data=data, features=features)
    assert record_tags(table, bytes(32)) == record_tags(other, bytes(32))
    assert record_tags(table, bytes(32)) != record_tags(replace(other, data=DATA), bytes(32))
    first = table.features[:1].repeat(2, axis=0)
    first[1, 2] = 1 - first[1, 2]  # none is a category like any other
    both = replace(table, features=first, groups=("a", "b"))
    assert len(set(record_tags(both, bytes(32)))) == 2


def test_trees_and_networks_of_the_firms_own_learn_from_categories() -> None:
    _, table = made_up()
    alone = fit_alone(table, DATA, TERMS.model, 0)
    truth = table.targets[table.holdout]
    error = np.sqrt(np.nanmean((alone(table.features[table.holdout]) - truth) ** 2, axis=0))
    assert error[0] < 8  # the alloy and the coat move it by tens
    assert error[1] < 0.8


def test_a_firms_own_version_keeps_its_trees_over_categories() -> None:
    _, table = made_up()
    rng = np.random.default_rng(0)
    layers = tuple(
        (rng.normal(size=item.shape), np.zeros(item.shape[0]))
        for item in TERMS.parameters
        if len(item.shape) == 2
    )
    fitted = fit_personal(TERMS, layers, table)
    assert any(part.forest is not None for part in fitted.blend.parts)
    assert fitted.intervals is not None
    assert len(fitted.intervals.reach) == 2
    facts = facts_of(fitted.blend, b"w", rows=9, groups=9, intervals=fitted.intervals)
    files = encode_personal(Personal(facts=facts, blend=fitted.blend))
    back = parse_personal(files["personal.json"], files["personal.safetensors"], TERMS, b"w")
    values = table.features[table.holdout]
    guess = back.blend.predict(DATA, "tanh", values)
    np.testing.assert_array_equal(guess, fitted.blend.predict(DATA, "tanh", values))
    error = np.sqrt(np.nanmean((guess - table.targets[table.holdout]) ** 2, axis=0))
    assert error[0] < 10


def examined(data: DataTerms, path: Path) -> Examination:
    return examine(read_cells(path), data, None)


def test_check_counts_gaps_and_strange_values_of_categories(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "-99,AlSi,None,rough,1,1", "1,Tin,none,rough,?,2", "2,,none,rough,3,3"
    )
    found = {column.name: column for column in examined(DATA, path).columns}
    assert found["heat"].gaps.tolist() == [True, False, False]
    assert found["strength"].gaps.tolist() == [False, True, False]
    assert found["alloy"].unread.tolist() == [False, False, False]  # another: allowed
    assert found["alloy"].gaps.tolist() == [False, False, True]
    assert found["coat"].unread.tolist() == [True, False, False]
    kinds = {(item.kind, item.column) for item in examined(DATA, path).findings}
    assert ("unread", "coat") in kinds
    assert ("constant", "finish") in kinds
    assert not {kind for kind, _ in kinds} & {"at_edge", "always_zero"}


def test_neighbouring_categories_are_no_near_copies() -> None:
    many = tuple(f"c{number}" for number in range(900))
    data = replace(DATA, features=(replace(DATA.features[1], categories=many),))
    cells = pl.DataFrame(
        {"alloy": [*many[:400], None], "strength": ["1"] * 401, "strain": ["1"] * 401}
    )
    column = examine(cells, data, None).columns[0]
    assert np.diff(np.sort(column.scaled)).min() >= 0.01 - 1e-12


def test_check_as_a_command(tmp_path: Path) -> None:
    lines, _ = made_up(60)
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN, encoding="utf-8")
    table = write(tmp_path / "a.csv", *lines)
    page = tmp_path / "page.html"
    options = ["check", str(table), "--plan", str(plan), "--page", str(page), "--format", "json"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    columns = {item["name"]: item for item in json.loads(result.stdout)["columns"]}
    assert columns["alloy"]["role"] == "category"
    assert columns["heat"]["missing"] == sum(line.startswith("-99") for line in lines)
    assert "分类特征" in page.read_text(encoding="utf-8")


def no_question(question: Question) -> int:
    raise AssertionError(question.text)


def test_map_keeps_categories_and_declared_gaps(tmp_path: Path) -> None:
    """Names are spelt as the plan does, -99 is no temperature, and "none" is no gap where the plan
    lists it."""
    path = write(
        tmp_path / "messy.csv",
        "alsi;none;ROUGH;773,15;10;1",
        "Brass;NONE;plain;-99;20;2",
        "?;oxide;plain;773,15;30;3",
        "Zn;-;plain;773,15;30;3",
        "AlCu;Oxide;polished;;-99;3,5",
        header="Alloy;Coat;Finish;Heat (K);Strength (MPa);Strain (%)",
    )
    mapped = map_file(path, DATA, out=None, mapping_path=None, normalise=False, ask=no_question)
    assert mapped.unfit is None
    table = load_table(mapped.out, DATA)
    nan = np.nan
    np.testing.assert_array_equal(table.features, [[500, 0, 0, 0], [nan, 3, 0, 1], [nan, 1, 1, 2]])
    np.testing.assert_array_equal(table.targets, [[10, 1], [20, 2], [nan, 3.5]])
    assert any("2 rows without all features" in note for note in mapped.notes)
    again = map_file(
        path, DATA, out=tmp_path / "b.csv", mapping_path=mapped.mapping_path, normalise=False,
        ask=no_question,
    )  # fmt: skip
    assert again.out.read_bytes() == mapped.out.read_bytes()


def test_map_leaves_a_column_of_categories_out_only_where_it_may_be_missing(
    tmp_path: Path,
) -> None:
    rows = ["AlSi;rough;500;10;1", "Zn;plain;500;20;2"]
    header = "Alloy;Finish;Heat (°C);Strength (MPa);Strain (%)"
    path = write(tmp_path / "a.csv", *rows, header=header)
    with pytest.raises(ConfigError, match="no column for 'coat'"):
        map_file(path, DATA, out=None, mapping_path=None, normalise=False, ask=take_proposals)
    coat = replace(DATA.features[2], missing="zero-and-flag")
    data = replace(DATA, features=(*DATA.features[:2], coat, DATA.features[3]))
    mapped = map_file(path, data, out=None, mapping_path=None, normalise=False, ask=take_proposals)
    assert mapped.unfit is None
    assert np.isnan(load_table(mapped.out, data).features[:, 2]).all()
