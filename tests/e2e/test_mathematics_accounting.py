"""What runs cost: against exact figures where there are any, and with accountants that are wrong.

For the Gaussian mechanism composition is exact: ``T`` releases with noise ``sigma`` are one with
``sigma / sqrt(T)``, and Balle and Wang 2018 (theorem 8) give its delta in closed form.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from greylag_protocols import accounting
from greylag_protocols.accounting import (
    Mechanism,
    batch_cap,
    epsilon_of,
    poisson_gaussian,
    solve_noise_multiplier,
)
from scipy.optimize import brentq
from scipy.special import ndtr

DELTA = 1e-6
# Sampling rate, noise multiplier, releases.
GRID = [(0.2, 10.0, 500), (0.2, 4.0, 20), (1.0, 5.0, 50), (1.0, 20.0, 300)]

Accountant = Callable[[float, float, int], float]


def gaussian_delta(shift: float, epsilon: float) -> float:
    """Exact delta of one Gaussian release whose noise is ``1 / shift`` sensitivities wide."""
    far = epsilon / shift
    return float(ndtr(shift / 2 - far) - math.exp(epsilon) * ndtr(-shift / 2 - far))


def gaussian_epsilon(shift: float, delta: float) -> float:
    return float(brentq(lambda epsilon: gaussian_delta(shift, epsilon) - delta, 1e-9, 100))


def of_record(rate: float, sigma: float, releases: int) -> float:
    """The product's own."""
    mechanism = poisson_gaussian(sampling_rate=rate, noise_multiplier=sigma, records_cap=5000)
    return epsilon_of(mechanism, releases=releases, delta=DELTA)


@functools.cache
def optimistic(rate: float, sigma: float, releases: int, interval: float = 1e-3) -> float:
    """Losses rounded down instead of up: never more than the truth."""
    losses = privacy_loss_distribution.from_gaussian_mechanism(
        sigma,
        sampling_prob=rate,
        pessimistic_estimate=False,
        value_discretization_interval=interval,
        use_connect_dots=False,
    )
    return float(losses.self_compose(releases).get_epsilon_for_delta(DELTA))


def central_limit(rate: float, sigma: float, releases: int) -> float:
    """Gaussian DP by its central limit theorem (Bu et al. 2020, corollary 5.4): an estimate."""
    return gaussian_epsilon(rate * math.sqrt(releases * math.expm1(1 / sigma**2)), DELTA)


def at_least_the_truth(accountant: Accountant, case: tuple[float, float, int]) -> bool:
    """Whether the epsilon is none that an exact or an always too low figure contradicts."""
    rate, sigma, releases = case
    if rate == 1:
        least = gaussian_epsilon(math.sqrt(releases) / sigma, DELTA)
    else:
        least = optimistic(rate, sigma, releases, interval=3e-4)
    return accountant(rate, sigma, releases) >= least * (1 - 1e-9)


@pytest.mark.parametrize("case", GRID)
def test_what_is_reported_lies_between_the_truth_and_the_renyi_bound(
    case: tuple[float, float, int],
) -> None:
    rate, sigma, releases = case
    assert at_least_the_truth(of_record, case)
    mechanism = poisson_gaussian(sampling_rate=rate, noise_multiplier=sigma, records_cap=5000)
    renyi = accounting._rdp_epsilon(mechanism, releases, DELTA)
    assert of_record(*case) <= renyi
    # Nor is it far from the truth, or nobody would pay for it.
    assert of_record(*case) <= 1.1 * optimistic(*case, interval=3e-4)


@pytest.mark.parametrize("case", GRID)
def test_losses_rounded_down_are_caught(case: tuple[float, float, int]) -> None:
    assert optimistic(*case) < of_record(*case)
    assert not at_least_the_truth(optimistic, case)


def test_the_central_limit_is_caught() -> None:
    case = GRID[1]
    assert central_limit(*case) < of_record(*case)
    assert not at_least_the_truth(central_limit, case)


# -- composition in a run ------------------------------------------------------------------------


def whole_run(releases: int, sigma: float) -> float:
    return of_record(1.0, sigma, releases)


def is_the_price(price: Callable[[int, float], float], releases: int, sigma: float) -> bool:
    """At least the exact cost of the run, and at most two per cent more."""
    exact = gaussian_epsilon(math.sqrt(releases) / sigma, DELTA)
    return exact * (1 - 1e-9) <= price(releases, sigma) <= 1.02 * exact


@pytest.mark.parametrize(("releases", "sigma"), [(10, 10.0), (100, 15.0), (550, 60.0)])
def test_a_run_costs_what_its_releases_cost_together(releases: int, sigma: float) -> None:
    assert is_the_price(whole_run, releases, sigma)
    assert not is_the_price(lambda n, s: n * whole_run(1, s), releases, sigma)
    assert not is_the_price(lambda n, s: math.sqrt(n) * whole_run(1, s), releases, sigma)
    assert not is_the_price(lambda n, s: whole_run(round(n / 1.1), s), releases, sigma)


def test_noise_solved_for_the_rounds_alone_does_not_pay_for_all_attempts() -> None:
    rounds, attempts, epsilon = 100, 110, 2.0

    mechanism = poisson_gaussian(sampling_rate=1.0, noise_multiplier=1.0, records_cap=500)

    def solved_for(releases: int) -> float:
        return solve_noise_multiplier(mechanism, epsilon=epsilon, delta=DELTA, releases=releases)

    def keeps_its_promise(sigma: float) -> bool:
        return gaussian_delta(math.sqrt(attempts) / sigma, epsilon) <= DELTA

    assert keeps_its_promise(solved_for(attempts))
    assert not keeps_its_promise(solved_for(rounds))


# -- runs together, and runs that end early ------------------------------------------------------


def test_whole_runs_add_up_and_smaller_totals_are_caught() -> None:
    shifts = (0.8,) * 20  # sqrt(T) / sigma of twenty runs
    prices = [gaussian_epsilon(shift, DELTA) for shift in shifts]
    together = math.hypot(*shifts)

    def covers(epsilon: float) -> bool:
        return gaussian_delta(together, epsilon) <= len(shifts) * DELTA

    assert covers(sum(prices))
    assert not covers(math.hypot(*prices))  # as if epsilons added like standard deviations
    assert not covers(max(prices))


def test_a_part_price_for_a_run_that_ends_early_is_no_bound() -> None:
    """When a run ends is decided by who sees its results. Let the enemy end it as soon as the
    privacy loss has passed what the run costs so far: with the cost of the releases made so far,
    delta is exceeded; with the price of the whole run it is not."""
    delta, releases, shift, paths = 0.01, 100, 0.1, 20_000
    rng = np.random.default_rng(11)
    # Loss of a Gaussian release under the data: N(shift^2 / 2, shift^2), added up.
    losses = np.cumsum(rng.normal(shift**2 / 2, shift, (paths, releases)), axis=1)
    so_far = np.array([gaussian_epsilon(shift * math.sqrt(n + 1), delta) for n in range(releases)])

    def delta_when_ended_at_will(prices: np.ndarray) -> tuple[float, float]:
        """The hockey-stick divergence that the enemy reaches, and its standard error."""
        passed = losses > prices
        at = np.where(passed.any(axis=1), passed.argmax(axis=1), releases - 1)
        excess = prices[at] - losses[np.arange(paths), at]
        reached = np.maximum(0.0, -np.expm1(excess))
        return float(reached.mean()), float(reached.std() / math.sqrt(paths))

    whole, error = delta_when_ended_at_will(np.full(releases, so_far[-1]))
    assert whole <= delta + 5 * error
    part, error = delta_when_ended_at_will(so_far)
    assert part > delta + 5 * error


# -- the cut -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [1000, 1040, batch_cap(5000, 0.2)])
def test_a_cut_costs_at_least_as_much_as_none_and_forgetting_it_is_caught(cap: int) -> None:
    def cost(size: int) -> float:
        cut = Mechanism(
            sampling_rate=0.2, noise_multiplier=8.0, records_cap=5000, batch_cap=size
        ).event()
        return accounting._pld_epsilon(cut, 10, DELTA)

    assert cost(cap) >= cost(5000)  # cut at all the records there may be: never
    if cap <= 1040:  # in the midst of the samples' sizes
        assert not cost(5000) >= cost(cap)


def test_a_firm_with_fewer_records_than_allowed_is_covered_by_the_cap_on_them() -> None:
    costs = [
        accounting._pld_epsilon(
            Mechanism(
                sampling_rate=0.2, noise_multiplier=8.0, records_cap=most, batch_cap=1040
            ).event(),
            10,
            DELTA,
        )
        for most in (4500, 5000)
    ]
    assert costs[0] < costs[-1]


def exact_cut_delta(sigma: float, epsilon: float) -> float:
    """Two records -1 and 1, both sampled, the batch cut to one of them: a half of each. Without
    the second only -1 is left. By summation over a fine lattice, the worse of both directions."""
    at = np.linspace(-1 - 12 * sigma, 1 + 12 * sigma, 40_001)

    def density(mean: float) -> np.ndarray:
        return np.exp(-(((at - mean) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))

    both, one = (density(-1.0) + density(1.0)) / 2, density(-1.0)
    step, factor = at[1] - at[0], math.exp(epsilon)
    return float(
        max(np.maximum(both - factor * one, 0).sum(), np.maximum(one - factor * both, 0).sum())
        * step
    )


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_a_cut_replaces_a_record_and_that_is_paid_for(sigma: float) -> None:
    def covers(mechanism: Mechanism) -> bool:
        epsilon = accounting._pld_epsilon(mechanism.event(), 1, DELTA)
        return exact_cut_delta(sigma, epsilon) <= DELTA

    cut = Mechanism(sampling_rate=1.0, noise_multiplier=sigma, records_cap=2, batch_cap=1)
    assert covers(cut)
    uncut = Mechanism(sampling_rate=1.0, noise_multiplier=sigma, records_cap=2, batch_cap=2)
    assert not covers(uncut)
