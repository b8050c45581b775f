"""The demo's made-up firms: the same every time, plausible, and within the demo's plan."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from greylag_client.table import load_table
from greylag_lab.plastics import (
    ADDITIVES,
    INGREDIENTS,
    POLYMERS,
    PROCESS,
    PROPERTIES,
    make_firms,
    write_firms,
)
from greylag_protocols.plan import parse_plan
from greylag_protocols.terms import Plan

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "plastics.toml"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse_plan(EXAMPLE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def firms() -> dict[str, pl.DataFrame]:
    return make_firms()


def test_the_seed_decides_everything(firms: dict[str, pl.DataFrame]) -> None:
    again = make_firms(8, 0)
    assert list(again) == list(firms)
    assert all(again[name].equals(frame) for name, frame in firms.items())
    assert not make_firms(1, 1)["lead"].equals(firms["lead"])
    fewer = make_firms(3, 0)
    assert list(fewer) == ["lead", "supplier-01", "supplier-02"]
    assert all(fewer[name].equals(firms[name]) for name in fewer)


def test_rows_are_recipes(firms: dict[str, pl.DataFrame]) -> None:
    for frame in firms.values():
        assert frame.columns == ["family", *INGREDIENTS, *PROCESS, *PROPERTIES]
        assert 120 <= frame.height <= 420
        shares = frame.select(INGREDIENTS).to_numpy()
        np.testing.assert_array_equal(np.rint(shares * 10).sum(axis=1), 1000)  # 100.0 wt%
        assert shares.min() >= 0
        assert frame.select(POLYMERS).to_numpy().sum(axis=1).min() > 25
        sizes = frame.group_by("family").len()["len"]
        assert sizes.min() >= 2
        assert sizes.max() <= 6


def test_each_property_has_gaps_but_no_row_lacks_both(firms: dict[str, pl.DataFrame]) -> None:
    for frame in firms.values():
        gaps = frame.select(pl.col(PROPERTIES).is_null()).to_numpy()
        assert not gaps.all(axis=1).any()
        assert (gaps.mean(axis=0) > 0.04).all()
        assert (gaps.mean(axis=0) < 0.32).all()


def test_copies_of_a_family_are_near(firms: dict[str, pl.DataFrame]) -> None:
    frame = firms["lead"]
    spread = frame.group_by("family").agg(pl.col(INGREDIENTS).std())
    overall = frame.select(pl.col(INGREDIENTS).std())
    for name in ("pa6", "pbt", "glass_fibre", "impact_modifier"):
        assert spread[name].mean() < 0.15 * overall[name][0]


def test_firms_work_in_corners_of_their_own(firms: dict[str, pl.DataFrame]) -> None:
    means = {name: frame.select(pl.col(INGREDIENTS).mean()) for name, frame in firms.items()}
    polyamide = {name: (m["pa6"] + m["pa66"])[0] for name, m in means.items()}
    assert polyamide["lead"] > 1.4 * polyamide["supplier-03"]  # housings: PC and ABS
    assert max(means, key=lambda name: means[name]["impact_modifier"][0]) in (
        "supplier-04",
        "supplier-05",
    )


def test_properties_follow_what_compounders_know() -> None:
    rows = pl.concat(make_firms(24, 5).values())
    fibre, rubber = pl.col("glass_fibre"), pl.col("impact_modifier")
    modulus, impact = (pl.col(name).median() for name in PROPERTIES)
    polyamide = rows.filter(pl.col("pa6") + pl.col("pa66") > 35)
    plain = polyamide.filter((fibre < 1) & (rubber < 1)).select(modulus).item()
    filled = polyamide.filter((fibre > 25) & (fibre < 35)).select(modulus).item()
    assert 2000 < plain < 5000
    assert 6000 < filled < 13000  # a data sheet says about 9000 for 30 %
    bare = (fibre < 1) & (pl.col("mineral") < 1) & (pl.col("flame_retardant") < 1)
    brittle = polyamide.filter(bare & (rubber < 5)).select(impact).item()
    tough = polyamide.filter(bare & (rubber > 18)).select(impact).item()
    assert tough > 5 * brittle  # the rubber network has formed


def test_csv_files_pass_the_demo_plan(
    tmp_path: Path, plan: Plan, firms: dict[str, pl.DataFrame]
) -> None:
    paths = write_firms(tmp_path / "firms")
    assert list(paths) == list(firms)
    trained = 0
    for name, path in paths.items():
        table = load_table(path, plan.data)
        assert len(table) == firms[name].height
        assert table.largest_group <= 6
        trained += len(table.train)
    assert 0.75 < trained / plan.data.expected_records < 1.25


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_seeds_stay_within_the_plan(tmp_path: Path, plan: Plan, seed: int) -> None:
    for path in write_firms(tmp_path, 10, seed).values():
        load_table(path, plan.data)


def test_plan_keeps_to_the_demo_limits(plan: Plan) -> None:
    assert plan.privacy.epsilon is not None
    assert plan.privacy.epsilon <= 4.0
    assert plan.privacy.delta <= 1e-5
    assert set(plan.data.feature_names) == {*POLYMERS, *ADDITIVES, *PROCESS}
