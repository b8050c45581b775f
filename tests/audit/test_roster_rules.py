"""Which rosters may follow which: the neighbours of what the tampered runs are refused for."""

import pytest
from consortium_in_memory import make_terms
from greylag_audit.findings import Findings
from greylag_audit.rosters import RosterRules

TERMS = make_terms()
ALL = ("firm-a", "firm-b", "firm-c", "firm-d")


def told(*attempts: tuple[int, tuple[str, ...], tuple[str, ...] | None]) -> list[str]:
    """What is broken by attempts: round, roster, and who was missing (None: it was completed)."""
    findings = Findings()
    rules = RosterRules(findings=findings)
    for position, (number, roster, missing) in enumerate(attempts):
        rules.check(
            roster,
            run="small-1",
            round_number=number,
            terms=TERMS,
            membership=None,
            position=position,
        )
        rules.ended(roster, missing)
    return [item.message for item in findings.kept]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(50, ["roster.rejoin:early"]), (51, []), (52, ["roster.rejoin:early"]), (101, [])],
)
def test_firms_join_at_every_50th_round(number: int, expected: list[str]) -> None:
    assert told((number - 1, ALL[:3], None), (number, ALL, None)) == expected


def test_a_roster_may_shrink_at_any_round() -> None:
    assert told((7, ALL, None), (8, ALL[:3], None)) == []


def test_a_repeated_round_has_fewer_firms_even_at_a_joining_round() -> None:
    void = (51, ALL, ("firm-d",))
    assert told(void, (51, ALL[:3], None)) == []
    assert told(void, (51, ALL, None)) == ["roster.retry:same"]
    assert told(void, (51, (*ALL[:3], "firm-e"), None)) == ["roster.retry:same"]


def test_one_failure_is_forgiven_and_two_are_not() -> None:
    first, second = (1, ALL, ("firm-d",)), (51, ALL, ("firm-d",))
    on = [(1, ALL[:3], None), (50, ALL[:3], None)]
    assert told(first, *on, (51, ALL, None)) == []
    later = [(51, ALL[:3], None), (100, ALL[:3], None), (101, ALL, None)]
    assert told(first, *on, second, *later) == ["roster.out:back"]


def test_the_least_roster_is_large_enough() -> None:
    assert told((1, ALL[:3], None)) == []
    assert told((1, ALL[:2], None)) == ["roster.size:small"]
