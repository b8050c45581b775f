"""Statistics for the tests of the mathematics: how far a figure lies from what was promised.

Every statistic is in standard deviations of a normal. ``LIMIT`` is five of them: a true promise
fails with probability 5.7e-7, once; after that the fixed seeds repeat themselves. A test whose
wrong variant is caught shows that the sample was large enough to tell.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LIMIT = 5.0


def deviation_of_mean(values: NDArray[np.float64], std: float, mean: float = 0.0) -> float:
    """How far the mean of independent values lies from ``mean``."""
    return float((values.mean() - mean) * math.sqrt(values.size) / std)


def deviation_of_variance(
    values: NDArray[np.float64], variance: float, mean: float = 0.0, kurtosis: float = 3.0
) -> float:
    """How far the variance of independent values around ``mean`` lies from ``variance``.

    For normal values ``n`` ratios have a chi-square distribution, of standard deviation
    ``sqrt(2 / n)``; in general it is ``sqrt((kurtosis - 1) / n)``.
    """
    ratio = float(np.mean((values - mean) ** 2)) / variance
    return (ratio - 1.0) / math.sqrt((kurtosis - 1.0) / values.size)


def deviation_of_kurtosis(values: NDArray[np.float64]) -> float:
    """How far the fourth moment lies from that of a normal: 3, with variance 24 / n."""
    standard = (values - values.mean()) / values.std()
    return float((np.mean(standard**4) - 3.0) * math.sqrt(values.size / 24.0))


def deviation_of_count(count: int, trials: int, probability: float) -> float:
    """How far a binomial count lies from its mean."""
    spread = math.sqrt(trials * probability * (1.0 - probability))
    return (count - trials * probability) / spread


def deviation_of_uniformity(counts: Sequence[int] | NDArray[np.intp]) -> float:
    """How far counts that should be alike are from it: chi-square by the normal that Wilson and
    Hilferty (1931) found for it."""
    found = np.asarray(counts, dtype=np.float64)
    free = len(found) - 1
    square = float(((found - found.mean()) ** 2).sum() / found.mean())
    step = 2.0 / (9.0 * free)
    return ((square / free) ** (1 / 3) - (1.0 - step)) / math.sqrt(step)


def normal_tail(deviations: float) -> float:
    """The probability that a normal lies above so many standard deviations."""
    return math.erfc(deviations / math.sqrt(2.0)) / 2.0
