"""How long an attempt is waited for, and where its seconds went. Pure: time is an argument.

A firm that does not answer voids the attempt: everybody else has paid for nothing, the roster
changes, and a second time it is out. So the full patience is kept until there is evidence, few are
missing, and the run can do without them.
"""

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

EVIDENCE = 20  # completed rounds before anybody is dropped early
REMEMBERED = 64
QUANTILE = 0.9
FACTOR = 5.0
MOST_EARLY_VOIDS = 4  # half of the roster changes that a firm's policy allows unless it says more
STRAGGLERS = 0.1  # of the roster; if more are late, the network is slow, or this machine
PHASES = ("firms", "stragglers", "lead")


def attempt_deadline_s(times_s: Sequence[float], *, least_s: float, most_s: float) -> float:
    """After how long an attempt may be given up, from how long the last rounds took to be answered.

    Five times what nine of ten rounds needed; never below ``least_s`` nor above ``most_s``, which
    holds alone until ``EVIDENCE`` rounds were seen.
    """
    if len(times_s) < EVIDENCE:
        return most_s
    ranked = sorted(times_s)
    usual_s = ranked[math.ceil(QUANTILE * len(ranked)) - 1]
    return min(most_s, max(least_s, FACTOR * usual_s))


def may_drop(*, waiting: int, roster: int, min_firms: int, voids: int) -> bool:
    """Whether those that are late may be dropped before the full patience is over.

    Args:
        voids: how many firms' silences voided attempts of this run so far.
    """
    few = waiting <= max(1, int(STRAGGLERS * roster))
    return waiting > 0 and few and roster - waiting >= min_firms and voids < MOST_EARLY_VOIDS


@dataclass(slots=True)
class Pace:
    """What was seen of one run's rounds by this process."""

    answered_s: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    rounds_s: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    parts: deque[dict[str, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _attempt: int = 0
    _sent_s: float = 0.0
    _first_s: float | None = None
    _done: int | None = None
    _done_s: float | None = None

    def sent(self, attempt: int, now_s: float) -> None:
        """Attempt ``attempt`` has gone out."""
        if attempt != self._attempt:
            self._attempt, self._sent_s, self._first_s = attempt, now_s, None

    def took(
        self, *, arrived_s: float, handled_s: float, rounds_done: int, first: bool
    ) -> dict[str, float] | None:
        """An answer arrived and was handled.

        Args:
            first: whether it was the first to its attempt.

        Returns:
            The round's parts, if the answer completed one.
        """
        if first and self._first_s is None:
            self._first_s = arrived_s
        last, self._done = self._done, rounds_done
        if last is None or rounds_done == last:
            return None
        first_s = arrived_s if self._first_s is None else self._first_s
        durations = (first_s - self._sent_s, arrived_s - first_s, handled_s - arrived_s)
        parts = dict(zip(PHASES, durations, strict=True))
        self.answered_s.append(arrived_s - self._sent_s)
        self.parts.append(parts)
        if self._done_s is not None:
            self.rounds_s.append(arrived_s - self._done_s)
        self._done_s = arrived_s
        return parts

    def begin(self, rounds_done: int) -> None:
        """The run is taken up with so many rounds done."""
        self._done = rounds_done

    def interrupted(self) -> None:
        """The run was held: the time until it goes on is no round's."""
        self._done_s = None

    def summary(self) -> tuple[float, dict[str, float]] | None:
        """Median seconds a round, and the mean of its parts."""
        if not self.rounds_s:
            return None
        means = {name: statistics.fmean(item[name] for item in self.parts) for name in PHASES}
        return statistics.median(self.rounds_s), means
