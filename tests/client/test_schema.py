"""A drafted [data] section: it parses, it fits its table, and every bound in it is marked."""

import json
import re
import stat
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from greylag_client.cli import app
from greylag_client.quality.schema import MARK, draft_schema, outward, toml_string
from greylag_client.table import parse_table, read_cells
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan
from greylag_protocols.terms import Plan
from typer.testing import CliRunner

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "glass_tg_by_firm.csv.gz"
REST = """
[run]
name = "first"
purpose = "to see"
[privacy]
epsilon = 2.0
delta = 1e-6
max_colluding = 2
min_firms = 5
[training]
rounds = 10
sampling_rate = 0.2
"""


def recipes(count: int = 60) -> pl.DataFrame:
    """Batches of three near-copies, with a counter, remarks, a gap and a class."""
    random = np.random.default_rng(3)
    centres = random.uniform(5, 60, (count // 3, 2)).repeat(3, axis=0)
    mix = centres + random.uniform(0, 0.5, (count, 2))
    return pl.DataFrame(
        {
            "number": [str(row + 1) for row in range(count)],
            "batch_id": [str(7000 + row // 3) for row in range(count)],
            "cement": [f"{row[0]:.3f}" for row in mix],
            "水": [None if at == 5 else f"{row[1]:.3f}" for at, row in enumerate(mix)],
            "remark": [f"fine, {at} days" for at in range(count)],
            "fault": ["yes" if at % 4 else "no" for at in range(count)],
            "strength": [f"{value:.2f}" for value in random.uniform(11.3, 83.9, count)],
        }
    )


def plan_of(text: str) -> Plan:
    return parse_plan(text + REST)


def test_the_draft_parses_and_fits_its_own_table() -> None:
    cells = recipes()
    draft = draft_schema(cells, targets=("strength",), group=None)
    data = plan_of(draft.text).data
    assert data.task == "regression"
    assert data.feature_names == ("cement", "水", "fault")
    assert data.features[2].categories == ("no", "yes")
    assert data.target_names == ("strength",)
    assert data.group == draft.group == "batch_id"  # its rows are near-copies
    assert data.may_miss == (False, True, False)  # for the gap
    assert set(draft.left_out) == {"number", "remark"}
    assert len(parse_table(cells, data, what="a.csv")) == 60


def test_every_bound_is_marked_and_none_is_a_value_of_the_table() -> None:
    cells = recipes()
    draft = draft_schema(cells, targets=("strength",), group="batch_id")
    bounds = [
        line
        for line in draft.text.splitlines()
        if re.search(r"range =|classes =|categories =", line)
    ]
    assert len(bounds) == 4
    assert all(line.endswith(MARK) for line in bounds)
    values = {float(cell) for name in ("cement", "水", "strength") for cell in cells[name] if cell}
    data = plan_of(draft.text).data
    ends = {end for item in (*data.features, *data.targets) for end in item.range or ()}
    assert not ends & values
    assert "placeholder" in draft.text


def test_a_class_target_lists_its_classes() -> None:
    draft = draft_schema(recipes(), targets=("fault",), group=None)
    assert plan_of(draft.text).data.targets[0].classes == ("no", "yes")
    assert draft.features == ("cement", "水", "strength")
    line = next(line for line in draft.text.splitlines() if "classes =" in line)
    assert line.endswith(MARK)


def test_without_a_target_the_last_column_is_guessed_and_said() -> None:
    draft = draft_schema(recipes(), targets=(), group=None)
    assert draft.targets == ("strength",)
    assert "a guess" in draft.text
    assert "a guess" not in draft_schema(recipes(), targets=("strength",), group=None).text


def test_without_rows_that_resemble_each_other_no_group_is_made_up() -> None:
    random = np.random.default_rng(4)
    cells = recipes().with_columns(
        cement=pl.Series([f"{value:.3f}" for value in random.uniform(5, 60, 60)]),
        水=pl.Series([f"{value:.3f}" for value in random.uniform(5, 60, 60)]),
        pair=pl.Series([f"P{row // 2}" for row in range(60)]),  # fine, and says nothing
    )
    draft = draft_schema(cells, targets=("strength",), group=None)
    assert draft.group is None
    assert plan_of(draft.text).data.group is None


@pytest.mark.parametrize(
    ("targets", "group", "said"),
    [
        (("absent",), None, "no column 'absent'"),
        (("strength",), "absent", "no column 'absent'"),
        (("strength",), "strength", "only once"),
        (("strength", "strength"), None, "only once"),
        (("strength", "fault"), None, "a class stands alone"),
        (("constant",), None, "neither a number nor one of 2"),
    ],
)
def test_what_cannot_be_drafted_is_refused(
    targets: tuple[str, ...], group: str | None, said: str
) -> None:
    cells = recipes().with_columns(constant=pl.lit("same"))
    with pytest.raises(ConfigError, match=said):
        draft_schema(cells, targets=targets, group=group)


def test_tables_without_rows_or_features_are_refused() -> None:
    with pytest.raises(ConfigError, match="no rows"):
        draft_schema(recipes().head(0), targets=(), group=None)
    with pytest.raises(ConfigError, match="features must be either"):
        draft_schema(recipes()[["remark", "strength"]], targets=("strength",), group=None)


HOSTILE = 'a"]\nevil = 1 # \\ \x7f\x00 \u2028 \U000e0001 {'


@pytest.mark.parametrize("left_out", [False, True])
def test_names_cannot_break_out_of_their_string(left_out: bool) -> None:
    assert tomllib.loads(f"x = {toml_string(HOSTILE)}") == {"x": HOSTILE}
    old = "remark" if left_out else "cement"
    draft = draft_schema(recipes().rename({old: HOSTILE}), targets=("strength",), group=None)
    data = plan_of(draft.text).data
    assert (HOSTILE in data.feature_names) != left_out
    assert (HOSTILE in draft.left_out) == left_out
    hostile_class = recipes().with_columns(fault=pl.Series([HOSTILE, "b"] * 30))
    draft = draft_schema(hostile_class, targets=("fault",), group=None)
    assert set(plan_of(draft.text).data.targets[0].classes or ()) == {HOSTILE, "b"}


@pytest.mark.parametrize(
    ("low", "high", "bounds"),
    [
        (11.3, 83.9, (11, 84)),
        (0.0, 99.6, (0, 100)),
        (0.31, 0.789, (0.31, 0.79)),
        (-3.0, -3.0, (-3, -2)),
        (0.0, 0.0, (0, 1)),
        (1234.5, 98765.4, (1000, 99000)),
    ],
)
def test_bounds_are_rounded_outward(low: float, high: float, bounds: tuple[float, float]) -> None:
    assert outward(low, high) == bounds


@pytest.mark.parametrize("value", [0.0, 1e-300, 1e300, -7e12, 0.1 + 0.2, 1e17 + 2])
def test_bounds_always_hold_what_they_were_made_from(value: float) -> None:
    for other in (value, value * 1.0000001, value + 1, -value):
        low, high = outward(min(value, other), max(value, other))
        assert low <= min(value, other)
        assert high >= max(value, other)
        assert low < high


def test_the_command_writes_a_private_new_file(tmp_path: Path) -> None:
    table, out = tmp_path / "a.csv", tmp_path / "data.toml"
    recipes().write_csv(table)
    options = ["schema", str(table), "--target", "strength", "--out", str(out), "--format", "json"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["features"] == ["cement", "水", "fault"]
    assert out.read_text(encoding="utf-8") == facts["data"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    again = CliRunner().invoke(app, options)
    assert isinstance(again.exception, ConfigError)
    assert "exists" in str(again.exception)
    shown = CliRunner().invoke(app, ["schema", str(table), "--target", "strength"])
    assert plan_of(shown.stdout).data.feature_names == ("cement", "水", "fault")


@pytest.mark.skipif(not REAL.exists(), reason="the public glass table is not on this machine")
def test_real_glass_recipes_suggest_the_patent_as_group() -> None:
    cells = read_cells(REAL).head(4000)
    draft = draft_schema(cells, targets=("tg_k",), group=None)
    assert draft.group == "ref_id"
    assert {"firm", "glass_id"} == set(draft.left_out)
    data = plan_of(draft.text).data
    assert len(parse_table(cells, data, what="glass")) == 4000


@pytest.mark.parametrize(
    ("name", "is_feature"),
    [("melt_temperature_c", True), ("heat_flow", True), ("炉温", True), ("组分甲", True),
     ("melt", False), ("heat_no", False), ("批号", False), ("batch_id", False)],
)  # fmt: skip
def test_what_is_measured_is_no_number_of_a_batch(name: str, is_feature: bool) -> None:
    values = [str(210 + 7 * (row % 13)) for row in range(60)]
    draft = draft_schema(
        recipes().with_columns(pl.Series(name, values)), targets=("strength",), group=None
    )
    assert (name in draft.features) == is_feature
