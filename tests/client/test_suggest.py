"""Recipes by search: what is asked for is kept to, shown by means that the search does not use."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from greylag_client.local_models.layers import Layers
from greylag_client.prediction import Predictor
from greylag_client.suggest.goal import Goal
from greylag_client.suggest.known import Known, Metric, read_known
from greylag_client.suggest.report import as_document, as_text
from greylag_client.suggest.search import search
from greylag_client.suggest.space import Space
from greylag_client.suggest.wishes import Wishes, parse_wishes, read_prices
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.terms import DataTerms, Terms
from scipy.optimize import linprog
from scipy.stats import norm

PLAN = """
[run]
name = "made-up"
purpose = "numbers made up for a test"
[data]
standard = "made-up@1.0"
task = "regression"
targets = [ { name = "stiff", unit = "MPa", range = [0, 100] },
            { name = "tough", range = [0, 10] } ]
features = [
  { names = ["resin", "fibre", "chalk", "oil", "dye"], unit = "wt%", range = [0, 100] },
  { names = ["heat"], unit = "degC", range = [100, 300] },
  { names = ["mould"], categories = ["cold", "warm", "hot"] },
]
group = "family"
holdout = 0.5
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
TERMS: Terms = settle_terms(parse_plan(PLAN), consortium="makers", run_id="made-up-1")
DATA: DataTerms = TERMS.data
# Inputs: five amounts and heat at [-1, 1], then a column each for cold, warm, hot.
LAYERS: Layers = ((
    np.array([[0.0, 0.9, 0.2, -0.8, 0.0, 0.2, 0.0, 0.3, 0.0],
              [0.3, -0.5, -0.6, 0.5, 0.0, 0.0, 0.0, 0.0, 0.3]]),
    np.array([0.6, 0.2]),
),)  # fmt: skip
MODEL = Predictor(terms=TERMS, layers=LAYERS)
PLACE = {name: at for at, name in enumerate(DATA.feature_names)}


def wish(*targets: str, fix: tuple[str, ...] = (), total: float | None = 100.0,
         sum_of: str | None = None, most: int | None = None,
         prices: dict[str, float] | None = None) -> Wishes:  # fmt: skip
    return parse_wishes(
        DATA, targets=targets or ("stiff=60..70",), fixes=fix, total=total, sum_of=sum_of,
        most=most, prices=prices or {},
    )  # fmt: skip


def propose(
    wishes: Wishes, known: Known | None = None, *, count: int = 5, seed: int = 0
) -> dict[str, Any]:
    space, goal = Space.of(DATA, wishes, known), Goal(MODEL, wishes, known)
    found = search(space, goal, count=count, seed=seed, tick=lambda done, total: None)
    document = as_document(goal, space, wishes, found, seed=seed)
    assert json.loads(json.dumps(document, allow_nan=False))["seed"] == seed
    assert as_text(document)
    return document


def vector(recipe: dict[str, Any]) -> np.ndarray:
    labels = ("cold", "warm", "hot")
    return np.array([
        float(labels.index(recipe[name])) if name == "mould" else recipe.get(name, 0.0)
        for name in DATA.feature_names
    ])  # fmt: skip


def own_table(path: Path, rows: int = 60, seed: int = 0) -> Path:
    """Recipes of resin, fibre and chalk alone, twenty families of near-copies, some measured."""
    rng = np.random.default_rng(seed)
    lines = [",".join(["note", *DATA.feature_names, "stiff", "tough", "family"])]
    for row in range(rows):
        family = row // 3
        base = np.random.default_rng(family).dirichlet([3, 2, 1])
        resin, fibre, chalk = 100 * (0.98 * base + 0.02 * rng.dirichlet([1, 1, 1]))
        label = ("cold", "warm")[family % 2]
        values = np.array([[resin, fibre, chalk, 0, 0, 200, family % 2]])
        said = MODEL.predict(values)[0] + rng.normal(0, [2.0, 0.3])
        stiff = f"{np.clip(said[0], 0, 100):.4f}" if row % 6 else ""
        tough = f"{np.clip(said[1], 0, 10):.4f}" if row % 6 else ""
        lines.append(f"x,{resin},{fibre},{chalk},0,0,200,{label},{stiff},{tough},f{family}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"fix": ("fibr=3",)}, "did you mean 'fibre'"),
        ({"fix": ("mould=wram",)}, "did you mean 'warm'"),
        ({"fix": ("fibre=-1..3",)}, "the terms allow 0 to 100 wt%"),
        ({"fix": ("fibre=3..2",)}, "the lower end comes first"),
        ({"fix": ("fibre=nan",)}, "one number"),
        ({"fix": ("fibre=..",)}, "one number"),
        ({"fix": ("fibre",)}, "write NAME=LOW"),
        ({"fix": ("fibre=1", "fibre=2")}, "given twice"),
        ({"sum_of": "fibre,hat"}, "did you mean 'heat'"),
        ({"total": -1.0}, "positive number"),
        ({"total": None, "most": 3}, "need --sum"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_next_step(
    asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        wish(**asked)


def test_spans_of_targets() -> None:
    bands = {
        text: (wish(text).bands[0].low, wish(text).bands[0].high)
        for text in ("stiff=20..30", "stiff=20..", "stiff=..30", "stiff=20")
    }
    assert list(bands.values()) == [(20, 30), (20, 100), (0, 30), (19, 21)]
    for text, said in (("stif=3", "'stiff'"), ("stiff=120..130", "0 to 100 MPa"), ("", "NAME=")):
        with pytest.raises(ConfigError, match=said):
            wish(text)
    with pytest.raises(ConfigError, match="given twice"):
        wish("stiff=3", "stiff=4")


def test_shares_of_two_units_need_names() -> None:
    text = PLAN.replace('unit = "degC"', 'unit = "mol%"')
    data = parse_plan(text).data
    with pytest.raises(ConfigError, match=r"several such units.*--sum-of"):
        parse_wishes(data, targets=["stiff=3"], fixes=(), total=100, sum_of=None, most=None,
                     prices={})  # fmt: skip
    assert wish().summed == ("resin", "fibre", "chalk", "oil", "dye")  # heat is no share


def test_classes_are_refused() -> None:
    data = replace(DATA, task="classification")
    with pytest.raises(ConfigError, match="numbers"):
        parse_wishes(data, targets=["stiff=3"], fixes=(), total=None, sum_of=None, most=None,
                     prices={})  # fmt: skip


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (wish(fix=("resin=70..", "fibre=40..")), r"110, more than --sum 100: resin 70, fibre 40"),
        (wish(fix=("resin=1..", "fibre=1..", "oil=1.."), most=2), "--max-components 2: "),
        (wish(fix=("resin=..40", "fibre=..20", "chalk=..9", "oil=..9", "dye=0")),
         "78 at most.*--fix resin or --fix fibre"),
        (wish(fix=("resin=..40", "fibre=..20", "chalk=..20", "oil=..20", "dye=..20"), most=3),
         "80 at most.*--max-components 3"),
        (wish(prices={"resin": 1.0}, fix=("resin=..40",)), "40 at most.*without a price"),
        (wish(prices={"resin": 1.0}, fix=("oil=4",)), "oil has to be in.*no price"),
    ],
)  # fmt: skip
def test_what_conflicts_is_named(wishes: Wishes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Space.of(DATA, wishes, None)


def test_recipes_that_just_fit_are_found() -> None:
    wishes = wish(fix=("resin=..40", "fibre=..20", "chalk=..20", "oil=..20", "dye=..1"), most=4)
    for item in propose(wishes)["proposals"]:
        assert vector(item["recipe"])[:5].tolist() == [40, 20, 20, 20, 0]


def test_whether_a_recipe_exists_agrees_with_a_solver() -> None:
    """The closed form against HiGHS, over all sets of components."""
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(150):
        low = np.where(rng.random(5) < 0.4, rng.uniform(0, 45, 5), 0.0).round(1)
        high = (low + rng.uniform(0, 45, 5)).clip(max=100).round(1)
        most = int(rng.integers(1, 6))
        fixes = tuple(
            f"{name}={a}..{b}" for name, a, b in zip(DATA.feature_names, low, high, strict=False)
        )
        try:
            space = Space.of(DATA, wish(fix=fixes, most=most), None)
        except ConfigError:
            space = None
        exists = False
        for mask in range(32):
            inside = np.array([bool(mask >> at & 1) for at in range(5)])
            if inside.sum() <= most and not (low[~inside] > 0).any():
                bounds = [(a, b) if on else (0, 0)
                          for a, b, on in zip(low, high, inside, strict=True)]  # fmt: skip
                solved = linprog(np.zeros(5), A_eq=np.ones((1, 5)), b_eq=[100], bounds=bounds)
                exists |= solved.status == 0
        assert (space is not None) == exists
        verdicts.append(exists)
        if space is not None:
            values = rng.uniform(-20, 120, (40, 7)) * (rng.random((40, 7)) < 0.6)
            values[:, 5], values[:, 6] = 200, 1
            made = space.round(space.repair(values))
            amounts = made[:, :5]
            np.testing.assert_allclose(amounts.sum(axis=1), 100, atol=1e-6)
            assert (amounts >= low - 1e-9).all()
            assert (amounts <= high + 1e-9).all()
            assert ((amounts > 0).sum(axis=1) <= most).all()
    assert 20 < sum(verdicts) < 130


def test_every_wish_is_kept_and_the_targets_are_reached() -> None:
    wishes = wish(
        "stiff=70..75", "tough=5..6", fix=("fibre=10..30", "mould=warm", "heat=150..250"), most=4
    )
    found = propose(wishes, count=6)
    assert len(found["proposals"]) == 6
    for item in found["proposals"]:
        row = vector(item["recipe"])
        assert row[:5].sum() == pytest.approx(100, abs=1e-9)
        assert (row[:5] >= 0).all()
        assert (row[:5] > 0).sum() <= 4
        assert 10 <= row[PLACE["fibre"]] <= 30
        assert 150 <= row[PLACE["heat"]] <= 250
        assert item["recipe"]["mould"] == "warm"
        stiff, tough = MODEL.predict(row[np.newaxis])[0]
        assert 70 <= stiff <= 75
        assert 5 <= tough <= 6
        assert item["predictions"]["stiff"]["predicted"] == pytest.approx(stiff)
        assert item["flags"] == []
    rows = [vector(item["recipe"]) for item in found["proposals"]]
    apart = [np.abs(a[:5] - b[:5]).sum() / 200 + abs(a[5] - b[5]) / 200
             for at, a in enumerate(rows) for b in rows[:at]]  # fmt: skip
    assert min(apart) >= 0.0125


def test_every_category_is_tried() -> None:
    wishes = wish("stiff=..8")  # only oil in a mould that is not warm is that soft
    assert {item["recipe"]["mould"] for item in propose(wishes)["proposals"]} <= {"cold", "hot"}
    only = propose(wish("tough=10"))["proposals"][0]  # only hot
    assert only["recipe"]["mould"] == "hot"


def test_what_is_out_of_reach_is_said() -> None:
    found = propose(wish("stiff=99..100", fix=("fibre=..5", "chalk=..5")))
    assert all(item["flags"] == ["outside-band"] for item in found["proposals"])
    assert "0 predicted inside" in as_text(found)


def test_the_same_seed_finds_the_same() -> None:
    first, again, other = (propose(wish(), seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first["proposals"] != other["proposals"]


def test_cheap_recipes_come_near_to_the_cheapest() -> None:
    prices = {"resin": 3.0, "fibre": 9.0, "chalk": 0.5, "oil": 2.0, "dye": 40.0}
    wishes = wish("stiff=60..", fix=("mould=warm", "heat=200"), prices=prices)
    cheapest = propose(wishes)["proposals"][0]
    # Of the model above: stiff = 50 (1 + w x), x = amount / 50 - 1, with heat 0 and warm.
    weights, constant = LAYERS[0][0][0, :5], 0.6 + 0.3
    solved = linprog(
        np.array(list(prices.values())) / 100,
        A_eq=np.ones((1, 5)), b_eq=[100],
        A_ub=-weights[np.newaxis], b_ub=[50 * (constant + 1 - weights.sum() - 1.2)],
        bounds=[(0, 100)] * 5,
    )  # fmt: skip
    assert solved.status == 0
    row = vector(cheapest["recipe"])
    assert cheapest["cost"] == pytest.approx(row[:5] @ np.array(list(prices.values())) / 100)
    assert MODEL.predict(row[np.newaxis])[0, 0] >= 60
    assert solved.fun - 1e-9 <= cheapest["cost"] <= 1.25 * solved.fun + 0.2


def test_own_recipes_say_what_may_be_used_and_what_is_near(tmp_path: Path) -> None:
    known = read_known(own_table(tmp_path / "own.csv"), DATA)
    found = propose(wish("stiff=60..65"), known)
    assert found["constraints"]["components"] == ["resin", "fibre", "chalk"]
    lines = (tmp_path / "own.csv").read_text().splitlines()
    for item in found["proposals"]:
        row = vector(item["recipe"])
        assert row[3] == row[4] == 0
        assert item["recipe"]["mould"] in ("cold", "warm")  # hot was never made
        away = np.abs(known.values[:, :5] - row[:5]).sum(axis=1) / 200
        away += np.abs(known.values[:, 5] - row[5]) / 200 + (known.values[:, 6] != row[6])
        assert item["nearest"]["distance"] == pytest.approx(away.min())
        cells = lines[item["nearest"]["row"] - 1].split(",")  # as a spreadsheet counts
        assert float(cells[1]) == item["nearest"]["recipe"]["resin"]
        assert item["nearest"]["distance"] <= found["known"]["far_from"]
    # What is asked for by name may be new, and is then said to be far.
    new = propose(wish("stiff=20..40", fix=("dye=60..",)), known)
    assert all("far" in item["flags"] for item in new["proposals"])


def test_intervals_of_a_release_come_from_rows_that_nobody_trained_on(tmp_path: Path) -> None:
    bare = propose(wish())
    assert bare["interval"] is None
    assert bare["proposals"][0]["chance"] is None
    assert any("No interval" in note for note in bare["notes"])
    known = read_known(own_table(tmp_path / "own.csv", rows=240), DATA)
    assert known.table is not None
    found = propose(wish("stiff=60..65"), known)
    half = found["interval"]["targets"]["stiff"]
    assert half == pytest.approx(2.0 * norm.ppf(0.9), rel=0.25)  # the noise that was added
    held_out = known.table.holdout
    off = np.abs(MODEL.predict(known.table.features[held_out]) - known.table.targets[held_out])
    assert 0.75 < (off[:, 0] <= half).mean() < 0.9
    said = found["proposals"][0]["predictions"]["stiff"]
    assert said["high"] - said["predicted"] == pytest.approx(half)
    # A wrong model's release gets a wide interval from the same rows, whatever it trained on.
    wrong = replace(MODEL, layers=((LAYERS[0][0], LAYERS[0][1] + np.array([-0.4, 0.0])),))
    assert Goal(wrong, wish(), known).reach.half[0] > half + 10  # type: ignore[union-attr]


def test_chances_agree_with_drawn_errors(tmp_path: Path) -> None:
    known = read_known(own_table(tmp_path / "own.csv", rows=240), DATA)
    goal = Goal(MODEL, wish("stiff=60..65", "tough=4.."), known)
    values = known.values[:40]
    judged = goal.judge(values)
    rng = np.random.default_rng(0)
    errors = rng.normal(0, 1, (4000, 1, 2)) * goal.deviation
    drawn = judged.predicted + errors
    inside = (drawn[..., 0] >= 60) & (drawn[..., 0] <= 65) & (drawn[..., 1] >= 4)
    np.testing.assert_allclose(judged.chance, inside.mean(axis=0), atol=0.03)
    far = goal.judge(np.array([[0, 0, 0, 100, 0, 100, 0.0]]))
    assert math.isfinite(far.loss[0])
    assert far.loss[0] > judged.loss.max()


def test_a_neighbour_that_the_model_gets_wrong_is_told(tmp_path: Path) -> None:
    path = own_table(tmp_path / "own.csv", rows=240)
    known = read_known(path, DATA)
    wishes = wish("stiff=60..65", fix=("mould=cold",))
    assert not any("neighbour-missed" in item["flags"]
                   for item in propose(wishes, known)["proposals"][:1])  # fmt: skip
    shifted = known.measured.copy()
    shifted[:, 0] = 5.0  # a batch that went wrong, or a model that does
    goal = Goal(MODEL, wishes, replace(known, measured=shifted))
    assert (
        goal.judge(known.values).loss > Goal(MODEL, wishes, known).judge(known.values).loss
    ).all()


def test_tables_and_prices_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    lines = own_table(path).read_text().splitlines()
    path.write_text("\n".join(line.replace("warm", "tepid") for line in lines))
    with pytest.raises(ConfigError, match="categories"):
        read_known(path, DATA)
    path.write_text("resin,fibre\n1,2\n")
    with pytest.raises(ConfigError, match="'chalk' is missing"):
        read_known(path, DATA)
    prices = tmp_path / "prices.csv"
    for text, said in (
        ("column,price\nresin,2\n", "'cost' is missing"),
        ("column,cost\nresn,2\n", "row 2: .*'resin'"),
        ("column,cost\nresin,-2\n", "row 2: the cost"),
        ("column,cost\nresin,inf\n", "row 2: the cost"),
        ("column,cost\nresin,2\nresin,3\n", "row 3: .*already"),
        ("column,cost\n", "no prices"),
    ):
        prices.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_prices(prices, DATA)
    prices.write_text("column,cost\nresin,2\nheat,0.1\n")
    assert read_prices(prices, DATA) == {"resin": 2.0, "heat": 0.1}


def test_distance_is_the_share_that_differs() -> None:
    metric = Metric.of(DATA, wish())
    recipe = np.array([[50.0, 50, 0, 0, 0, 200, 0]])
    others = np.array([
        [50.0, 50, 0, 0, 0, 200, 0], [50, 0, 50, 0, 0, 200, 0], [0, 0, 100, 0, 0, 200, 0],
        [50, 50, 0, 0, 0, 220, 0], [50, 50, 0, 0, 0, 200, 2],
    ])  # fmt: skip
    np.testing.assert_allclose(metric.between(recipe, others)[0], [0, 0.5, 1, 0.1, 1])
