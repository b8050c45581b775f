"""The accountants at full length, against known figures and against Opacus: slow, so apart."""

import itertools

import pytest
from greylag_protocols import accounting
from greylag_protocols.accounting import (
    Mechanism,
    epsilon_of,
    epsilon_of_copies,
    poisson_gaussian,
    solve_noise_multiplier,
)


def _mechanism(sigma: float, rate: float = 0.2, records: int = 5000) -> Mechanism:
    return poisson_gaussian(sampling_rate=rate, noise_multiplier=sigma, records_cap=records)


GLASS = _mechanism(10.07)


@pytest.mark.parametrize(("copies", "epsilon"), [(1, 2.0), (2, 4.3), (5, 12.6), (10, 30.7)])
def test_known_epsilon_of_copies(copies, epsilon):
    found = epsilon_of_copies(GLASS, copies=copies, releases=500, delta=1e-6)
    assert found == pytest.approx(epsilon, rel=0.01)


@pytest.mark.parametrize(("sigma", "rate", "releases"), [(4.0, 0.2, 50), (1.1, 0.01, 100)])
@pytest.mark.filterwarnings("ignore:Optimal order is the largest:UserWarning")  # PRV's own grid
@pytest.mark.filterwarnings("ignore:divide by zero encountered in log:RuntimeWarning")
def test_opacus_agrees(sigma, rate, releases):
    prv = pytest.importorskip("opacus.accountants").PRVAccountant()
    from opacus.accountants.analysis import rdp

    prv.history = [(sigma, rate, releases)]
    ours = epsilon_of(_mechanism(sigma, rate), releases=releases, delta=1e-6)
    # PRV's estimate errs by 0.01 at most; ours is pessimistic, never optimistic.
    assert ours == pytest.approx(prv.get_epsilon(1e-6), abs=0.03)
    orders = [float(order) for order in range(2, 64)]
    spent = rdp.compute_rdp(q=rate, noise_multiplier=sigma, steps=releases, orders=orders)
    bound, _ = rdp.get_privacy_spent(orders=orders, rdp=spent, delta=1e-6)
    assert ours <= bound
    mine = accounting._rdp_epsilon(_mechanism(sigma, rate), releases, 1e-6, orders)
    assert mine == pytest.approx(bound, rel=1e-6)


def test_epsilon_grows_with_releases_and_falls_with_noise():
    counts = [epsilon_of(GLASS, releases=n, delta=1e-6) for n in (0, 1, 10, 11)]
    assert counts[0] == 0
    assert all(a < b for a, b in itertools.pairwise(counts))
    noises = [epsilon_of(_mechanism(s), releases=10, delta=1e-6) for s in (2.0, 4.0, 8.0)]
    assert noises == sorted(noises, reverse=True)
    assert epsilon_of(GLASS, releases=11, delta=1e-8) > counts[3]
    assert epsilon_of(GLASS.scaled(2), releases=11, delta=1e-6) < counts[3]


@pytest.mark.parametrize(
    ("epsilon", "rate", "releases", "records"),
    [(2.0, 0.2, 550, 5000), (8.0, 1.0, 30, 500)],
)
def test_solved_noise_is_enough_and_no_more(epsilon, rate, releases, records):
    sigma = solve_noise_multiplier(
        _mechanism(1.0, rate, records), epsilon=epsilon, delta=1e-6, releases=releases
    )
    assert sigma == round(sigma, 4)
    spent = epsilon_of(_mechanism(sigma, rate, records), releases=releases, delta=1e-6)
    assert spent <= epsilon
    less = epsilon_of(_mechanism(sigma * 0.999, rate, records), releases=releases, delta=1e-6)
    assert less > epsilon


@pytest.mark.parametrize(("sigma", "rate", "records"), [(1.0, 0.01, 100), (2.0, 0.02, 50)])
def test_small_firms_do_not_pay_for_the_cut(sigma, rate, records):
    cut = epsilon_of(_mechanism(sigma, rate, records), releases=100, delta=1e-6)
    whole = epsilon_of(_mechanism(sigma, rate, 10**6), releases=100, delta=1e-6)
    assert cut == pytest.approx(whole, rel=0.01)
