"""The statistics of the probe: pure functions of what was seen, each with its source.

A p-value here is never too small for a build that keeps its promise: tests are exact or bounds.
Thresholds are shared out by Bonferroni, so that ``FALSE_ALARM`` holds for all tests together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, chi2

FALSE_ALARM = 5e-5  # of a true build, over all tests of one probe
STATISTICAL_TESTS = 5  # canaries, noise's size and freshness, sampling's rate and freshness
LEVEL = FALSE_ALARM / STATISTICAL_TESTS
MAX_EPSILON = 50.0  # where the search for a bound ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """How many of the guesses about canaries were made, and how many were right."""

    canaries: int
    made: int
    right: int

    def p_value(self, epsilon: float, delta: float) -> float:
        """At least how improbable so many right guesses are under (epsilon, delta).

        Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run", theorem 5.2:
        with ``f(v)`` the chance that a binomial of rate ``e^eps / (1 + e^eps)`` reaches ``v``, it
        is ``f(v) + 2 m delta max_i (f(v - i) - f(v)) / i``.
        """
        if self.right == 0:
            return 1.0
        rate = 1.0 / (1.0 + math.exp(-epsilon))
        beyond = float(binom.sf(self.right - 1, self.made, rate))
        steps = np.arange(1, self.right + 1)
        gained = np.cumsum(binom.pmf(self.right - steps, self.made, rate)) / steps
        return min(1.0, beyond + 2.0 * self.canaries * delta * float(gained.max()))

    def epsilon_bound(self, delta: float, level: float) -> float:
        """With confidence ``1 - level`` epsilon is at least this."""
        if self.p_value(0.0, delta) > level:
            return 0.0
        low, high = 0.0, MAX_EPSILON
        for _ in range(40):
            middle = (low + high) / 2
            if self.p_value(middle, delta) > level:
                high = middle
            else:
                low = middle
        return low


def shares_to_guess(canaries: int) -> tuple[int, ...]:
    """How many canaries to guess about; fixed beforehand, so that Bonferroni covers the choice."""
    wanted = {canaries // part // 2 * 2 for part in (1, 2, 4, 8, 16)}
    return tuple(sorted(made for made in wanted if made >= 2))


def bound_by_canaries(
    scores: NDArray[np.float64], present: NDArray[np.bool_], *, delta: float, level: float
) -> float:
    """The best lower bound on epsilon at confidence ``1 - level``.

    Args:
        scores: shape (canaries,); the higher, the likelier the canary was there.
        present: whether it was, shape (canaries,); a fair coin each.
    """
    order = np.argsort(scores, kind="stable")
    shares = shares_to_guess(len(scores))
    bounds = [0.0]
    for made in shares:
        half = made // 2
        right = int(present[order[-half:]].sum() + (~present[order[:half]]).sum())
        guesses = Guesses(canaries=len(scores), made=made, right=right)
        bounds.append(guesses.epsilon_bound(delta, level / len(shares)))
    return max(bounds)


def largest_bound(canaries: int, *, delta: float, level: float) -> float:
    """What ``bound_by_canaries`` gives if every guess is right: the probe sees no further."""
    present = np.arange(canaries) % 2 == 1
    return bound_by_canaries(present.astype(np.float64), present, delta=delta, level=level)


def p_of_variance(values: Sequence[NDArray[np.float64]], variance: float) -> tuple[float, float]:
    """Whether independent normal values of mean 0 have ``variance``: chi-square, both tails.

    Returns: the ratio of variances, and the p-value.
    """
    count = sum(part.size for part in values)
    square = sum(float(np.sum(np.square(part))) for part in values) / variance
    tail = min(float(chi2.sf(square, count)), float(chi2.cdf(square, count)))
    return square / count, min(1.0, 2.0 * tail)


def p_of_count(count: int, trials: int, rate: float) -> float:
    """Whether a count is binomial at ``rate``: exact, both tails (Clopper and Pearson 1934)."""
    low, high = float(binom.cdf(count, trials, rate)), float(binom.sf(count - 1, trials, rate))
    return min(1.0, 2.0 * min(low, high))
