"""What a run lets others find out, in numbers that people can picture.

All of it follows from the terms and from how many firms took part. Neighbours, mechanism and the
accountant are those of ``greylag_protocols.accounting``.
"""

import math
from dataclasses import dataclass

from greylag_protocols.accounting import (
    MIN_NOISE_MULTIPLIER,
    PLD_INTERVAL,
    Mechanism,
    advantage_of,
    cost_of_copies,
    epsilon_of,
)
from greylag_protocols.errors import GreylagError
from greylag_protocols.terms import Terms

COPIES = (2, 5, 10)
MOST_POINTS = 25  # of the curve of cumulative epsilon; each is a loss distribution
LARGEST_EPSILON = 30.0  # of the trade-off curve; beyond, its corners cannot be told from the edge
CURVE_STEPS = 120
MOST_LOSS = 5000.0  # losses of copies grow with their square; beyond, nothing is left to reckon


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """How often somebody's best guess is right.

    Attributes:
        percent: of 100 guesses whether a unit took part, the most that can be right; even odds and
            all other knowledge are granted, 50 is pure guessing.
        copies: for so many equal units that stand or fall together, epsilon (None: it promises
            nothing) and the percentage.
        lone: epsilon if all other firms colluded, so that a firm's own noise alone counted, with
            the percentage; None: it promises nothing.
        curve: false alarms against detections at most, both 0 to 1, in order.
    """

    percent: float
    copies: tuple[tuple[int, float | None, float], ...]
    lone: tuple[float, float] | None
    curve: tuple[tuple[float, float], ...]


def odds_of(terms: Terms, *, largest_roster: int) -> Odds | None:
    """The odds after all attempts that the terms account for; None where no accountant can tell.

    Args:
        largest_roster: the more firms, the less of the noise is any one firm's own.
    """
    mechanism, releases = terms.mechanism, terms.privacy.max_attempts
    try:
        cost = terms.epsilon_after(releases)  # first: it refuses what no machine could work out
        percent = _percent(mechanism, releases)
        curve = tuple(_curve(mechanism, releases))
    except GreylagError:
        return None
    counts = () if terms.privacy.unit == "firm" else COPIES
    return Odds(
        percent=percent,
        copies=tuple(
            _for_copies(terms, count) if cost * count**2 <= MOST_LOSS else (count, None, 100.0)
            for count in counts
        ),
        lone=_lone(terms, largest_roster),
        curve=curve,
    )


def cumulative_epsilon(terms: Terms, attempts: int) -> tuple[tuple[int, float], ...]:
    """Epsilon after so many releases, from 0 to ``attempts``; empty where it cannot be told."""
    most = min(attempts, terms.privacy.max_attempts)
    step = max(1, math.ceil(most / MOST_POINTS))
    counts = sorted({*range(0, most + 1, step), most})
    try:
        return tuple((count, terms.epsilon_after(count)) for count in counts)
    except GreylagError:
        return ()


def _percent(mechanism: Mechanism, releases: int) -> float:
    return 50.0 * (1.0 + advantage_of(mechanism, releases=releases))


def _for_copies(terms: Terms, copies: int) -> tuple[int, float | None, float]:
    """As ``accounting.cost_of_copies``, the advantage as a percentage."""
    privacy = terms.privacy
    epsilon, advantage = cost_of_copies(
        terms.mechanism, copies=copies, releases=privacy.max_attempts, delta=privacy.delta
    )
    return copies, epsilon if math.isfinite(epsilon) else None, 50.0 * (1.0 + advantage)


def _lone(terms: Terms, roster: int) -> tuple[float, float] | None:
    """Each firm adds ``1 / (|R| - t)`` of the noise's variance."""
    alone = terms.mechanism.scaled(max(1, roster - terms.privacy.max_colluding) ** -0.5)
    if alone.noise_multiplier < MIN_NOISE_MULTIPLIER:
        return None
    releases = terms.privacy.max_attempts
    try:
        epsilon = epsilon_of(alone, releases=releases, delta=terms.privacy.delta)
        return epsilon, _percent(alone, releases)
    except GreylagError:  # beyond what is worth a number
        return None


def _curve(mechanism: Mechanism, releases: int) -> list[tuple[float, float]]:
    """Detections at most for so many false alarms.

    A test with false alarms ``a`` misses at least ``max_e (1 - delta(e) - exp(e) a)`` and
    ``max_e exp(-e) (1 - delta(e) - a)`` (Dong, Roth, Su, "Gaussian differential privacy", 2022,
    proposition 2.12), each over all epsilons ``e >= 0``.
    """
    from dp_accounting import NeighboringRelation, pld

    accountant = pld.PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, PLD_INTERVAL)
    accountant.compose(mechanism.event(), releases)
    pairs = []
    epsilon, step = 0.0, 0.05
    while epsilon <= LARGEST_EPSILON:
        delta = float(accountant.get_delta(epsilon))
        pairs.append((epsilon, delta))
        if delta < 1e-9:
            break
        epsilon, step = epsilon + step, step * 1.05
    found = []
    for number in range(CURVE_STEPS + 1):
        alarm = (number / CURVE_STEPS) ** 2  # denser where false alarms are rare
        missed = max(
            0.0,
            *(1.0 - delta - math.exp(at) * alarm for at, delta in pairs),
            *(math.exp(-at) * (1.0 - delta - alarm) for at, delta in pairs),
        )
        found.append((alarm, 1.0 - missed))
    return found
