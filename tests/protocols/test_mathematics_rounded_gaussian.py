"""The sum of rounded Gaussians, by exact summation over the lattice.

What is claimed. Let ``h`` firms each add ``round(N(0, s^2))`` per coordinate (``s`` in grid steps),
and let ``v`` be the integer vector by which one record moves the rounded data. With ``V`` a sum of
``h - 1`` independent uniforms on [-1/2, 1/2],

1. ``round(N(v, h s^2) + V)`` is post-processing of a Gaussian, so its hockey-stick divergence is at
   most that of the Gaussian mechanism (Balle and Wang 2018, theorem 8).
2. The sum of rounded Gaussians has, at every integer, the probability of ``round(N(0, h s^2) + V)``
   times ``prod_{j=2..h} (1 + r_j)``, where ``|r_j| <= 2 sum_m exp(-2 pi^2 m^2 s^2 (j - 1) / j)``.
   Proof: adding the j-th summand replaces an integral of a product of two (smoothed) Gaussians by
   a sum over the lattice. That product is a Gaussian of variance ``s^2 (j - 1) / j`` in the
   variable of summation, and Poisson's formula gives the error as its Fourier transform at the
   integers. The worst case is ``j = 2``: ``exp(-pi^2 s^2)``.

So over ``d`` coordinates and ``T`` releases the total variation is O(h d T exp(-pi^2 s^2)), below
1e-420 for ``s >= MIN_NOISE_STEPS``. Kairouz, Liu and Steinke 2021 (distributed discrete Gaussian,
arXiv 2102.06387) have the same exponent for sums of discrete Gaussians; Canonne, Kamath and Steinke
2020 (arXiv 2004.00010) the case of one.
"""

import itertools
import math

import numpy as np
import pytest
from greylag_protocols.quantise import MIN_NOISE_STEPS
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.special import erfc

REACH = 9.0  # standard deviations; beyond it lies less than 1e-18
SUMMATION_ERROR = 1e-12  # of adding up to 1e5 doubles

Pmf = NDArray[np.float64]


def rounded(s: float, points: int) -> Pmf:
    """``round(N(0, s^2))`` on -points..points. Upper tails are subtracted: no digits are lost."""
    at = np.abs(np.arange(-points, points + 1.0))
    tails = [0.5 * erfc((at + side) / (s * math.sqrt(2))) for side in (-0.5, 0.5)]
    return tails[0] - tails[1]


def sum_of_rounded(s: float, firms: int) -> Pmf:
    one = rounded(s, math.ceil(REACH * s) + 2)
    total = one
    for _ in range(firms - 1):
        total = np.convolve(total, one)
    middle, points = len(total) // 2, math.ceil(REACH * s * math.sqrt(firms)) + firms
    return total[max(0, middle - points) : middle + points + 1]


def rounded_once(s: float, firms: int, points: int) -> Pmf:
    """``round(N(0, h s^2) + V)``: the uniforms by Gauss-Legendre, exact to rounding here."""
    nodes, weights = leggauss(12)
    at, deviation = np.arange(-points, points + 1.0), s * math.sqrt(2 * firms)
    result = np.zeros_like(at)
    for picks in itertools.product(range(12), repeat=firms - 1):
        shift = at - sum(nodes[k] / 2 for k in picks)
        weight = math.prod(float(weights[k]) / 2 for k in picks)
        result += weight * 0.5 * (erfc((shift - 0.5) / deviation) - erfc((shift + 0.5) / deviation))
    return result


def divergence(pmf: Pmf, shift: tuple[int, ...], epsilon: float) -> float:
    """Exact ``sum max(0, p(k) - e^epsilon p(k - v))``; as many dimensions as ``shift`` has."""
    still, moved = np.ones(1), np.ones(1)
    for step in shift:
        still = np.multiply.outer(still, np.pad(pmf, (0, step)))
        moved = np.multiply.outer(moved, np.pad(pmf, (step, 0)))
    return float(np.maximum(still - math.exp(epsilon) * moved, 0.0).sum())


def gaussian_divergence(std: float, shift: float, epsilon: float) -> float:
    """Balle and Wang 2018, theorem 8."""
    near, far = shift / (2 * std), epsilon * std / shift

    def phi(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    return phi(near - far) - math.exp(epsilon) * phi(-near - far)


def relative_error(s: float, firms: int) -> float:
    """The bound of claim 2 for one coordinate of one release."""
    bound = 1.0
    for j in range(2, firms + 1):
        exponent = 2 * math.pi**2 * s**2 * (j - 1) / j
        bound *= 1.0 + 2.0 * sum(math.exp(-exponent * m * m) for m in range(1, 6))
    return bound - 1.0


def check_private(s: float, firms: int, shift: tuple[int, ...]) -> None:
    """Noise of ``s`` steps a firm hides ``shift`` as the Gaussian does, but for what the theorem
    allows at the product's least noise."""
    pmf, length = sum_of_rounded(s, firms), math.hypot(*shift)
    assert pmf.sum() == pytest.approx(1.0, abs=1e-12)
    for epsilon in (0.5, 1.0, 2.0, 3.0):
        allowed = relative_error(MIN_NOISE_STEPS, firms) * len(shift) * (1 + math.exp(epsilon))
        exact = divergence(pmf, shift, epsilon)
        gaussian = gaussian_divergence(s * math.sqrt(firms), length, epsilon)
        assert exact <= gaussian + allowed + SUMMATION_ERROR, (s, firms, shift, epsilon)


@pytest.mark.parametrize("shift", [(1,), (5,), (14,), (40,), (3, 4), (10, 1), (25, 25)])
@pytest.mark.parametrize("firms", [1, 2, 3, 5])
def test_at_the_least_noise_a_sum_hides_as_a_gaussian_does(
    firms: int, shift: tuple[int, ...]
) -> None:
    check_private(MIN_NOISE_STEPS, firms, shift)


@pytest.mark.parametrize("shift", [(1,), (1, 1)])
@pytest.mark.parametrize("firms", [2, 3, 5])
def test_noise_below_the_grid_hides_less_and_is_caught(firms: int, shift: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError):
        check_private(0.3, firms, shift)


def test_noise_that_is_short_by_a_tenth_is_caught() -> None:
    """The exact sums are fine enough to tell: against the Gaussian of the promised width."""
    pmf = sum_of_rounded(0.9 * MIN_NOISE_STEPS, 2)
    for shift in ((14,), (10, 10)):
        promised = gaussian_divergence(MIN_NOISE_STEPS * math.sqrt(2), math.hypot(*shift), 1.0)
        assert divergence(pmf, shift, 1.0) > 1.2 * promised


def worst_ratio(s: float, firms: int) -> float:
    pmf = sum_of_rounded(s, firms)
    middle, points = len(pmf) // 2, math.ceil(4 * s * math.sqrt(firms))
    near = pmf[middle - points : middle + points + 1]
    return float(np.max(np.abs(near / rounded_once(s, firms, points) - 1.0)))


@pytest.mark.parametrize("s", [0.5, 0.7, 1.0, 1.3])
@pytest.mark.parametrize("firms", [2, 3])
def test_the_theorem_bounds_the_error_at_every_integer(s: float, firms: int) -> None:
    found, bound = worst_ratio(s, firms), relative_error(s, firms)
    assert found <= bound * (1 + 1e-6) + 1e-11
    if firms == 2:  # the worst case: the error is really there, within a factor of three
        assert found >= bound / 3


def test_bounds_that_claim_more_are_caught() -> None:
    """As if the error were that of one rounded Gaussian as wide as the sum; or of twice the
    exponent, which holds for a single firm only."""
    for s in (0.5, 0.7, 1.0):
        found = worst_ratio(s, 2)
        assert found > 3 * 2 * math.exp(-2 * math.pi**2 * 2 * s**2)
        assert found > 3 * 2 * math.exp(-2 * math.pi**2 * s**2)


def test_at_the_least_noise_the_error_is_nothing_for_any_run() -> None:
    """10,000 firms, 2e7 weights, 1e5 rounds; with noise of a single step it would be everything."""

    def log10_of_total_variation(s: float) -> float:
        return math.log10(1e4 * 2e7 * 1e5 * 2) - math.pi**2 * s**2 / math.log(10)

    assert log10_of_total_variation(MIN_NOISE_STEPS) < -400
    assert log10_of_total_variation(1.0) > 0
