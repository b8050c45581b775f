"""How long an attempt is waited for."""

import pytest
from greylag_server.deadlines import (
    EVIDENCE,
    MOST_EARLY_VOIDS,
    PHASES,
    Pace,
    attempt_deadline_s,
    may_drop,
)


def test_nobody_is_dropped_early_on_thin_evidence() -> None:
    few = [1.0] * (EVIDENCE - 1)
    assert attempt_deadline_s(few, least_s=2.0, most_s=120.0) == 120.0
    assert attempt_deadline_s([*few, 1.0], least_s=2.0, most_s=120.0) == 5.0


def test_the_deadline_keeps_its_bounds() -> None:
    assert attempt_deadline_s([0.01] * 64, least_s=20.0, most_s=120.0) == 20.0
    assert attempt_deadline_s([60.0] * 64, least_s=20.0, most_s=120.0) == 120.0


def test_a_few_slow_rounds_do_not_move_it_and_many_do() -> None:
    assert attempt_deadline_s([1.0] * 19 + [90.0], least_s=1.0, most_s=120.0) == 5.0
    assert attempt_deadline_s([1.0] * 15 + [10.0] * 5, least_s=1.0, most_s=120.0) == 50.0


@pytest.mark.parametrize(
    ("waiting", "roster", "min_firms", "voids", "dropped"),
    [
        (1, 5, 4, 0, True),
        (0, 5, 4, 0, False),  # nobody is late
        (2, 5, 2, 0, False),  # two of five: the network, not a straggler
        (3, 30, 4, 0, True),
        (1, 5, 5, 0, False),  # the run would end
        (1, 5, 4, MOST_EARLY_VOIDS, False),  # too many changes of roster already
    ],
)
def test_only_stragglers_are_dropped_early(
    waiting: int, roster: int, min_firms: int, voids: int, dropped: bool
) -> None:
    answer = may_drop(waiting=waiting, roster=roster, min_firms=min_firms, voids=voids)
    assert answer is dropped


def test_the_pace_splits_a_round_into_its_parts() -> None:
    pace = Pace()
    pace.begin(0)
    pace.sent(1, 10.0)
    assert pace.took(arrived_s=12.0, handled_s=12.0, rounds_done=0, first=True) is None
    parts = pace.took(arrived_s=13.0, handled_s=13.5, rounds_done=1, first=False)
    assert parts == dict(zip(PHASES, (2.0, 1.0, 0.5), strict=True))
    assert list(pace.answered_s) == [3.0]
    assert pace.summary() is None  # one end is no distance
    pace.sent(2, 14.0)
    pace.took(arrived_s=16.0, handled_s=16.5, rounds_done=2, first=True)
    known = pace.summary()
    assert known is not None
    assert known[0] == 3.0
    assert known[1]["firms"] == 2.0


def test_a_pause_is_no_slow_round() -> None:
    pace = Pace()
    pace.begin(0)
    for attempt, now_s in enumerate((1.0, 2.0, 3.0), start=1):
        pace.sent(attempt, now_s - 0.5)
        pace.took(arrived_s=now_s, handled_s=now_s, rounds_done=attempt, first=True)
    pace.interrupted()
    pace.sent(4, 1000.0)
    pace.took(arrived_s=1000.5, handled_s=1000.5, rounds_done=4, first=True)
    assert list(pace.rounds_s) == [1.0, 1.0]
