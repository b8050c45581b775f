import math

import pytest
from greylag_protocols import accounting
from greylag_protocols.accounting import (
    Mechanism,
    advantage_of,
    batch_cap,
    epsilon_of,
    epsilon_of_copies,
    solve_noise_multiplier,
)
from greylag_protocols.errors import ConfigError, VerificationError


def _mechanism(sigma: float, rate: float = 0.2, records: int = 5000) -> Mechanism:
    return Mechanism(
        sampling_rate=rate,
        noise_multiplier=sigma,
        records_cap=records,
        batch_cap=batch_cap(records, rate),
    )


GLASS = _mechanism(10.07)


def test_known_epsilon():
    assert epsilon_of(GLASS, releases=500, delta=1e-6) == pytest.approx(2.0, rel=0.01)


def test_copies_cost_more_than_their_number_says():
    one, two = (
        epsilon_of_copies(_mechanism(10.07), copies=copies, releases=20, delta=1e-6)
        for copies in (1, 2)
    )
    assert two > 2 * one
    assert one == pytest.approx(epsilon_of(GLASS, releases=20, delta=1e-6), rel=0.01)


def test_solved_noise_is_enough_and_no_more():
    facts = {"delta": 1e-6, "releases": 30}
    sigma = solve_noise_multiplier(_mechanism(1.0, 1.0, 500), epsilon=8.0, **facts)
    assert sigma == round(sigma, 4)
    assert epsilon_of(_mechanism(sigma, 1.0, 500), **facts) <= 8.0
    assert epsilon_of(_mechanism(sigma * 0.999, 1.0, 500), **facts) > 8.0


def test_noise_out_of_reach_and_noise_without_need(monkeypatch):
    monkeypatch.setattr(accounting, "MAX_NOISE_MULTIPLIER", 8.0)  # fewer steps until it gives up
    mechanism = _mechanism(1.0, 1.0, 10)
    with pytest.raises(ConfigError, match="out of reach"):
        solve_noise_multiplier(mechanism, epsilon=1e-6, delta=1e-6, releases=10**5)
    floor = solve_noise_multiplier(mechanism, epsilon=500.0, delta=1e-6, releases=1)
    assert floor == accounting.MIN_NOISE_MULTIPLIER


@pytest.mark.parametrize("records", [1, 2, 10, 100, 5000, 10**9])
@pytest.mark.parametrize("rate", [1e-9, 0.001, 0.2, 0.999, 1.0])
def test_batch_cap_is_between_one_and_the_records(records, rate):
    cap = batch_cap(records, rate)
    assert 1 <= cap <= records
    if rate == 1.0:
        assert cap == records


@pytest.mark.parametrize(("records", "rate"), [(100, 0.01), (1000, 0.001), (50, 0.02), (5000, 0.2)])
def test_a_sample_is_hardly_ever_cut(records, rate):
    # The exact binomial tail: what the truncation may add to delta in one release.
    cap = batch_cap(records, rate)
    tail = sum(
        math.exp(
            math.lgamma(records + 1)
            - math.lgamma(k + 1)
            - math.lgamma(records - k + 1)
            + k * math.log(rate)
            + (records - k) * math.log1p(-rate)
        )
        for k in range(cap + 1, min(records, cap + 400) + 1)
    )
    assert tail < math.exp(-18)


def test_accountants_that_contradict_each_other_are_refused():
    # A batch cut right at its mean: the loss distribution pays for it, the Renyi bound does not.
    inconsistent = Mechanism(
        sampling_rate=0.2, noise_multiplier=4.0, records_cap=5000, batch_cap=1000
    )
    with pytest.raises(VerificationError, match="accountants disagree"):
        epsilon_of(inconsistent, releases=100, delta=1e-6)


def test_hopeless_noise_is_refused_before_it_fills_the_memory():
    with pytest.raises(ConfigError, match="promises nothing"):
        epsilon_of(_mechanism(0.3, rate=1.0), releases=10**9, delta=1e-6)


def test_a_release_of_firms_is_the_plain_gaussian_mechanism():
    """Balle and Wang 2018, Theorem 5: delta(eps) of the Gaussian mechanism, exactly."""
    firms = Mechanism(
        event_type=accounting.FIRM_GAUSSIAN,
        sampling_rate=1.0,
        noise_multiplier=6.0,
        records_cap=1,
        batch_cap=1,
    )
    epsilon = epsilon_of(firms, releases=9, delta=1e-6)  # 9 releases are one of a third the noise

    def tail(x):
        return 0.5 * math.erfc(x / math.sqrt(2))

    sigma = 2.0
    exact = tail(epsilon * sigma - 0.5 / sigma)
    exact -= math.exp(epsilon) * tail(epsilon * sigma + 0.5 / sigma)
    assert exact == pytest.approx(1e-6, rel=0.02)
    assert firms.scaled(2.0).noise_multiplier == 12.0
    assert epsilon_of(firms.scaled(2.0), releases=9, delta=1e-6) < epsilon
    assert epsilon_of(firms, releases=0, delta=1e-6) == 0.0


def test_less_noise_than_the_first_guess_is_found():
    sigma = solve_noise_multiplier(_mechanism(1.0, 1.0, 10), epsilon=8.0, delta=1e-6, releases=1)
    assert accounting.MIN_NOISE_MULTIPLIER < sigma < 1.0
    spent = epsilon_of(_mechanism(sigma, 1.0, 10), releases=1, delta=1e-6)
    assert spent <= 8.0


def test_a_coarser_unit_costs_a_finer_one_twice():
    epsilon, delta = accounting.cost_in_finer_unit(2.0, 1e-6)
    assert (epsilon, delta) == (4.0, pytest.approx(1e-6 * (1 + math.e**2)))
    assert math.isfinite(accounting.cost_in_finer_unit(1e3, 1e-6)[1])


def test_noise_is_found_next_to_where_nothing_can_be_computed(monkeypatch):
    """The lower end of the search may be so noiseless that its loss distribution is not tried."""
    monkeypatch.setattr(accounting, "MAX_EPSILON", 2.0)
    sigma = solve_noise_multiplier(_mechanism(1.0, 1.0, 11), epsilon=7.9, delta=1e-6, releases=1)
    assert 0.5 < sigma < 0.8


def test_the_advantage_is_that_of_two_gaussians():
    """One full release: normals one clip norm apart, total variation 2 Phi(1 / 2 sigma) - 1."""
    for sigma in (0.8, 2.0, 10.0):
        one = Mechanism(
            event_type=accounting.FIRM_GAUSSIAN,
            sampling_rate=1.0,
            noise_multiplier=sigma,
            records_cap=1,
            batch_cap=1,
        )
        exact = math.erf(1 / (2 * sigma) / math.sqrt(2))
        found = advantage_of(one, releases=1)
        assert exact <= found <= exact + 1e-3
        many = math.erf(3 / (2 * sigma) / math.sqrt(2))  # nine releases: sigma / 3
        assert many <= advantage_of(one, releases=9) <= many + 1e-3


def test_the_advantage_follows_epsilon():
    assert advantage_of(GLASS, releases=0) == 0.0
    assert 0.5 * (1 + advantage_of(GLASS, releases=500)) == pytest.approx(0.59, abs=0.01)
    assert advantage_of(_mechanism(0.3, 1.0, 500), releases=50) == pytest.approx(1.0, abs=1e-6)


class _Elsewhere:
    """An accountant in another process, as far as this one knows."""

    def epsilon_of(self, mechanism, *, releases, delta):
        return 1000.0 * releases + mechanism.noise_multiplier

    def advantage_of(self, mechanism, *, releases):
        return 0.001 * releases


def test_sums_can_be_left_to_somebody_else():
    one, other = _mechanism(7.125), _mechanism(7.25)  # what was worked out before stays
    accounting.leave_sums_to(_Elsewhere())
    try:
        assert epsilon_of(one, releases=3, delta=1e-6) == 3007.125
        assert advantage_of(one, releases=3) == 0.003
        assert epsilon_of(one, releases=0, delta=1e-6) == 0.0
    finally:
        accounting.leave_sums_to(None)
    assert epsilon_of(other, releases=3, delta=1e-6) < 10
