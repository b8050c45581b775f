"""What runs cost together: by unit, by data set, by year, and which limit is named."""

import math

import pytest
from greylag_client.budget import UNITS, Charge, check_limits, total_charge
from greylag_client.policy import Limits
from greylag_protocols.errors import BudgetExceededError
from greylag_protocols.terms import Unit

MAIN = frozenset({"main"})
ALONE = dict.fromkeys(UNITS, MAIN)


def charge(unit: Unit, epsilon: float, delta: float = 0.0, on: str = "main") -> Charge:
    return Charge(unit, epsilon, delta, frozenset(on.split()))


def test_runs_of_one_unit_add_up() -> None:
    for unit in UNITS:
        both = [charge(unit, 1.0, 1e-6), charge(unit, 2.5, 1e-7)]
        assert total_charge(both, ALONE) == (3.5, 1.1e-6)
    assert total_charge([], ALONE) == (0.0, 0.0)


def test_a_run_of_a_coarser_unit_counts_twice_for_a_finer_one() -> None:
    record, group, firm = (charge(unit, 1.0, 1e-6) for unit in UNITS)
    twice = 1e-6 * (1 + math.e)
    assert total_charge([record, group], ALONE) == pytest.approx((3.0, 1e-6 + twice))
    assert total_charge([record, firm], ALONE) == pytest.approx((3.0, 1e-6 + twice))
    assert total_charge([group, firm, firm], ALONE) == pytest.approx((5.0, 1e-6 + 2 * twice))
    assert total_charge([record, group, firm], ALONE) == pytest.approx((5.0, 1e-6 + 2 * twice))
    # The coarse unit itself may come off worst: fine runs promise it nothing to add up.
    assert total_charge([charge("record", 0.1), charge("firm", 2.0)], ALONE)[0] == 4.1
    assert total_charge([charge("firm", 900.0, 1e-9)], ALONE) == (900.0, 1e-9)


def test_a_run_counts_for_the_data_sets_that_share_its_unit() -> None:
    """``fresh`` has new rows of old families: its records are untouched, its groups are not."""
    both = frozenset({"main", "fresh"})
    fresh: dict[Unit, frozenset[str]] = {
        "record": frozenset({"fresh"}),
        "group": both,
        "firm": both,
    }
    runs = [charge("record", 1.0), charge("group", 2.0), charge("record", 4.0, on="fresh")]
    assert total_charge(runs, fresh)[0] == 4.0  # for a record; a group has 2.0
    assert total_charge(runs, ALONE)[0] == 5.0  # 1 + 2 * 2
    assert total_charge([charge("group", 2.0), charge("group", 3.0, on="fresh")], fresh)[0] == 5.0
    assert total_charge([charge("firm", 2.0), charge("record", 1.0, on="fresh")], fresh)[0] == 2.0
    assert total_charge([charge("record", 3.0, on="main fresh")], fresh)[0] == 3.0


@pytest.mark.parametrize("name", ["lifetime_epsilon", "lifetime_delta", "yearly_epsilon"])
def test_each_limit_is_named_when_it_is_passed(name: str) -> None:
    limits = {"lifetime_epsilon": 9.0, "lifetime_delta": 1e-4, "yearly_epsilon": 9.0}
    runs = [charge("record", 2.0, 1e-6), charge("record", 1.0, 1e-6)]
    check_limits("main", runs, ALONE, Limits(**limits))
    exact = {"lifetime_epsilon": 3.0, "lifetime_delta": 2e-6, "yearly_epsilon": 3.0}
    check_limits("main", runs, ALONE, Limits(**limits | {name: exact[name]}))
    with pytest.raises(BudgetExceededError, match=f"{name} = .* of data set 'main'"):
        check_limits("main", runs, ALONE, Limits(**limits | {name: 0.99 * exact[name]}))


def test_a_year_is_over_for_an_old_run_and_no_limit_is_none() -> None:
    runs = [charge("record", 2.0)._replace(recent=False), charge("record", 1.0)]
    check_limits(
        "main", runs, ALONE, Limits(lifetime_epsilon=3, lifetime_delta=1, yearly_epsilon=1)
    )
    free = Limits(lifetime_epsilon=3, lifetime_delta=1, yearly_epsilon=None)
    check_limits("main", runs, ALONE, free)
