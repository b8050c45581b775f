"""Firms that did not train, and comparisons of two models on the same rows."""

from dataclasses import replace

import numpy as np
import pytest
from greylag_client.prediction import Predictor
from greylag_client.table import Table
from greylag_lab.metrics import Outcome, clearly_worse, gain_over
from greylag_lab.newcomers import (
    choose_newcomers,
    first_rows,
    judge_newcomers,
    newcomer_facts,
)
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.terms import Terms

PLAN = """
[run]
name = "made-up"
purpose = "numbers made up for a test"
[data]
standard = "made-up@1.0"
task = "regression"
targets = [ { name = "y", range = [-10, 10] } ]
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


def make_terms() -> Terms:
    return settle_terms(parse_plan(PLAN), consortium="makers", run_id="made-up-1")


def make_table(rows: int, seed: int) -> Table:
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, (rows, 2))
    targets = 4 * values[:, :1] + 3 * np.sin(9 * values[:, 1:]) + rng.normal(0, 0.3, (rows, 1))
    held_out = np.arange(rows) % 16 < 4
    return Table(
        data=make_terms().data, features=values, targets=targets,
        groups=tuple(f"g{row // 4}" for row in range(rows)),
        train=np.flatnonzero(~held_out), holdout=np.flatnonzero(held_out),
    )  # fmt: skip


def test_newcomers_are_drawn_among_those_that_can_be_judged() -> None:
    tables = {f"f{seed}": make_table(64, seed) for seed in range(6)}
    tables["few"] = make_table(16, 9)  # four held-out rows
    chosen = choose_newcomers(tables, 3, seed=1)
    assert len(chosen) == 3
    assert "few" not in chosen
    assert chosen == choose_newcomers(tables, 3, seed=1)
    assert {choose_newcomers(tables, 3, seed) for seed in range(5)} != {chosen}
    with pytest.raises(ConfigError, match="fewer than 7"):
        choose_newcomers(tables, 7, seed=1)


def test_first_rows_come_group_after_group_from_training_rows() -> None:
    table = make_table(160, 0)
    rows = first_rows(table, 10, seed=2)
    assert len(rows) == 10
    assert set(rows) <= set(table.train)
    assert sorted(np.unique([table.groups[row] for row in rows], return_counts=True)[1]) == [
        2,
        4,
        4,
    ]


def test_newcomers_gain_from_a_shared_model_that_knows_the_trade() -> None:
    terms = make_terms()
    layers = ((np.array([[0.4, 0.0]]), np.zeros(1)),)  # y = 4 a
    tables = {f"f{seed}": make_table(96, seed) for seed in range(2)}
    seen: list[tuple[int, int]] = []
    predictor = Predictor(terms=terms, layers=layers)
    judged = judge_newcomers(predictor, tables, 0, lambda *step: seen.append(step))
    assert set(judged.outcomes) == {10, 30}  # nobody has 100 training rows
    assert len(seen) == 4
    facts = newcomer_facts(terms.data, [judged])
    assert [(size["own_rows"], size["firms"]) for size in facts] == [(10, 2), (30, 2)]
    gain = facts[0]["gain_over_alone"]
    difference = facts[0]["alone"]["value"] - facts[0]["personalised"]["value"]
    assert gain["value"] == pytest.approx(difference)
    assert gain["low"] < gain["value"] < gain["high"]
    assert gain["value"] > 0


def outcome(firm: str, errors: np.ndarray) -> Outcome:
    groups = tuple(f"g{row // 2}" for row in range(len(errors)))
    truth = np.zeros((len(errors), 1))
    return Outcome(firm=firm, train_rows=50, truth=truth, predicted=errors[:, None], groups=groups)


def test_worse_is_said_beyond_noise_only() -> None:
    data, rng = make_terms().data, np.random.default_rng(0)
    base = [outcome(firm, rng.normal(0, 1, 200)) for firm in "abc"]
    other = [outcome("a", rng.normal(0, 1.6, 200)), outcome("b", rng.normal(0, 1.02, 200)),
             replace(base[2], groups=("one",) * 200)]  # fmt: skip
    assert clearly_worse(data, other, base) == ["a"]
    assert gain_over(data, other[:1], base[:1]).value < 0
