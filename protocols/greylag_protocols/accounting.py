"""Privacy accounting: what epsilon a run costs, and the noise for a wanted epsilon.

Neighbours: one unit added or removed; a unit is a record, a group or a firm (see ``terms``).
Accountant of record: privacy loss distributions (dp-accounting, Doroshenko et al. 2022,
pessimistic, interval 1e-3). Cross-check: Renyi DP (Mironov 2017); PLD above RDP means a fault in
one of them and is refused. A Gaussian-DP approximation is never used, since it can report too
little.

One release of records or groups is the Poisson-subsampled Gaussian mechanism on the union of the
firms' units, with the sample of each firm cut at a public ``batch_cap`` (arXiv 2508.15089 for the
cut). One release of firms is the plain Gaussian mechanism: a firm's data emptied, its noise kept.
The noise counted is what ``|R| - t`` firms add; rounding is paid for in ``quantise``.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from greylag_protocols.errors import ConfigError, VerificationError

if TYPE_CHECKING:
    from dp_accounting import dp_event

# dp_accounting is imported where it is used: it takes a second (scipy), and most commands that
# read a plan never account for anything.

PLD_INTERVAL = 1e-3
RDP_ORDERS = tuple([1 + x / 4 for x in range(1, 40)] + list(range(11, 64)) + [
    80, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
])  # fmt: skip
MIN_NOISE_MULTIPLIER = 0.3  # with less noise the accountants lose their footing
COARSE_ORDERS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
MAX_NOISE_MULTIPLIER = 1e4
MAX_EPSILON = 1e3  # beyond this nothing is promised, and a loss distribution may not fit in memory
CAP_DEVIATIONS = 6.0

# Event types, once released, never change their meaning; unknown ones are refused.
EventType = Literal["poisson-gaussian/v1", "firm-gaussian/v1"]
POISSON_GAUSSIAN: EventType = "poisson-gaussian/v1"
FIRM_GAUSSIAN: EventType = "firm-gaussian/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """One release.

    Attributes:
        sampling_rate: ``q``, the same at every firm; 1 for firms.
        noise_multiplier: ``sigma``, noise standard deviation over sensitivity.
        records_cap: most units that a firm may hold.
        batch_cap: most units of one firm that enter one release.
    """

    event_type: EventType = POISSON_GAUSSIAN
    sampling_rate: float
    noise_multiplier: float
    records_cap: int
    batch_cap: int

    def event(self) -> "dp_event.DpEvent":
        """This release as a dp-accounting event."""
        from dp_accounting import dp_event

        if self.event_type == FIRM_GAUSSIAN:
            return dp_event.GaussianDpEvent(self.noise_multiplier)
        return dp_event.TruncatedSubsampledGaussianDpEvent(
            self.records_cap, self.sampling_rate, self.batch_cap, self.noise_multiplier
        )

    def with_noise(self, noise_multiplier: float) -> "Mechanism":
        """The same release with other noise."""
        return replace(self, noise_multiplier=noise_multiplier)

    def scaled(self, factor: float) -> "Mechanism":
        """The same release with ``factor`` times the noise."""
        return self.with_noise(self.noise_multiplier * factor)


def poisson_gaussian(
    *, sampling_rate: float, noise_multiplier: float, records_cap: int
) -> Mechanism:
    """A release of sampled units whose cut follows from the other numbers."""
    return Mechanism(
        sampling_rate=sampling_rate,
        noise_multiplier=noise_multiplier,
        records_cap=records_cap,
        batch_cap=batch_cap(records_cap, sampling_rate),
    )


def batch_cap(records_cap: int, sampling_rate: float) -> int:
    """The public size at which a firm's Poisson sample is cut: six deviations above its mean.

    And ``6^2 / 3`` records more: small samples have longer tails than a normal. By Bernstein's
    inequality a sample is then cut with probability below ``exp(-6^2 / 2)``, about 1.5e-8.
    """
    mean = records_cap * sampling_rate
    slack = CAP_DEVIATIONS * math.sqrt(mean * (1 - sampling_rate)) + CAP_DEVIATIONS**2 / 3
    return max(1, min(records_cap, math.ceil(mean + slack)))


class Accountant(Protocol):
    """Works out the functions of the same names, with their errors."""

    def epsilon_of(self, mechanism: Mechanism, *, releases: int, delta: float) -> float:
        """See the function."""

    def advantage_of(self, mechanism: Mechanism, *, releases: int) -> float:
        """See the function."""


_elsewhere: list[Accountant] = []  # one at most


def leave_sums_to(accountant: Accountant | None) -> None:
    """From now on what terms cost is worked out by ``accountant``; None: here again.

    For processes that live long and train, and would not want the accountants' libraries all along.
    """
    _elsewhere[:] = [] if accountant is None else [accountant]


@functools.lru_cache(maxsize=4096)
def epsilon_of(mechanism: Mechanism, *, releases: int, delta: float) -> float:
    """Epsilon at ``delta`` of ``releases`` releases, by PLD.

    Raises:
        VerificationError: PLD and RDP contradict each other.
        ConfigError: it is beyond ``MAX_EPSILON``.
    """
    if releases == 0:
        return 0.0
    for accountant in _elsewhere:
        return accountant.epsilon_of(mechanism, releases=releases, delta=delta)
    bound = _rdp_epsilon(mechanism, releases, delta)
    if not bound <= MAX_EPSILON:
        raise ConfigError(
            f"{releases} releases with noise_multiplier {mechanism.noise_multiplier} cost epsilon "
            f"{bound:.0f}, which promises nothing (at most {MAX_EPSILON:.0f}): add noise, lower "
            "sampling_rate or use fewer rounds"
        )
    epsilon = _pld_epsilon(mechanism.event(), releases, delta)
    if epsilon > bound * 1.001 + PLD_INTERVAL:
        raise VerificationError(
            f"the accountants disagree (PLD {epsilon:.4f}, RDP {bound:.4f}); refusing to guess"
        )
    return epsilon


def _pld_epsilon(event: "dp_event.DpEvent", releases: int, delta: float) -> float:
    from dp_accounting import NeighboringRelation, pld

    accountant = pld.PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, PLD_INTERVAL)
    accountant.compose(event, releases)
    return float(accountant.get_epsilon(delta))


def _rdp_epsilon(
    mechanism: Mechanism, releases: int, delta: float, orders: Sequence[float] = RDP_ORDERS
) -> float:
    from dp_accounting import NeighboringRelation, dp_event, rdp

    accountant = rdp.RdpAccountant(orders, NeighboringRelation.ADD_OR_REMOVE_ONE)
    gaussian = dp_event.GaussianDpEvent(mechanism.noise_multiplier)
    accountant.compose(dp_event.PoissonSampledDpEvent(mechanism.sampling_rate, gaussian), releases)
    return float(accountant.get_epsilon(delta))


@functools.lru_cache(maxsize=1024)
def cost_of_copies(
    mechanism: Mechanism, *, copies: int, releases: int, delta: float
) -> tuple[float, float]:
    """Epsilon for ``copies`` equal units (records, say) that stand or fall together, and how much
    better than chance it can be told whether they took part (see ``advantage_of``).

    Each copy is sampled on its own, so their joint shift is binomial: a mixture of Gaussians
    (arXiv 2310.15526) with sensitivities 0..copies. Losses grow with the copies, and so may the
    interval by which they are rounded up: still a bound, less than a hundredth above that of the
    usual interval, in a tenth of the time.
    """
    rate = mechanism.sampling_rate
    shifts = list(range(copies + 1))
    weights = [math.comb(copies, k) * rate**k * (1 - rate) ** (copies - k) for k in shifts]
    from dp_accounting import NeighboringRelation, dp_event, pld

    interval = PLD_INTERVAL * copies
    accountant = pld.PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, interval)
    event = dp_event.MixtureOfGaussiansDpEvent(mechanism.noise_multiplier, shifts, weights)
    accountant.compose(event, releases)
    return float(accountant.get_epsilon(delta)), min(1.0, float(accountant.get_delta(0.0)))


def epsilon_of_copies(mechanism: Mechanism, *, copies: int, releases: int, delta: float) -> float:
    """The first part of ``cost_of_copies``."""
    return cost_of_copies(mechanism, copies=copies, releases=releases, delta=delta)[0]


@functools.lru_cache(maxsize=1024)
def solve_noise_multiplier(
    mechanism: Mechanism, *, epsilon: float, delta: float, releases: int
) -> float:
    """The least noise multiplier (to four decimals, upwards) with which ``releases`` of
    ``mechanism``, whatever its own noise, cost at most ``epsilon`` at ``delta``.

    Raises:
        ConfigError: no reasonable noise reaches that epsilon.
    """

    def enough(sigma: float) -> bool:
        return _pld_epsilon(mechanism.with_noise(sigma).event(), releases, delta) <= epsilon

    def hopeless(sigma: float) -> bool:
        # A loss distribution of that width might not fit in memory; the Renyi bound always does.
        # Coarse orders can overstate it, hence the allowance.
        bound = _rdp_epsilon(mechanism.with_noise(sigma), releases, delta, COARSE_ORDERS)
        return not bound <= 4 * MAX_EPSILON

    high = 1.0
    while hopeless(high) or not enough(high):
        high *= 2
        if high > MAX_NOISE_MULTIPLIER:
            raise ConfigError(
                f"epsilon {epsilon} at delta {delta} over {releases} releases is out of reach; "
                "allow more epsilon, fewer rounds or a lower sampling_rate"
            )
    low = high / 2
    if high == 1.0:
        low = MIN_NOISE_MULTIPLIER
        if not hopeless(low) and enough(low):
            return low

    def excess(sigma: float) -> float:
        if hopeless(sigma):
            return math.log(4 * MAX_EPSILON / epsilon)
        spent = _pld_epsilon(mechanism.with_noise(sigma).event(), releases, delta)
        return math.log(max(spent, 1e-12) / epsilon)

    from scipy import optimize

    # Brent's method needs half the evaluations of bisection, each a whole loss distribution.
    found = float(optimize.brentq(excess, low, high, xtol=1e-6, rtol=1e-12))
    return math.ceil((found + 1e-6) * 1e4) / 1e4


@functools.lru_cache(maxsize=1024)
def advantage_of(mechanism: Mechanism, *, releases: int) -> float:
    """How much better than chance ``releases`` releases tell whether one unit took part.

    The total variation distance between the outcomes with and without it, 0 to 1: delta at epsilon
    0. Who starts from even odds and knows everything else guesses right with probability
    ``(1 + advantage) / 2`` at most (Kairouz, Oh, Viswanath, "The composition theorem for
    differential privacy", 2015, section 2).
    """
    if releases == 0:
        return 0.0
    for elsewhere in _elsewhere:
        return elsewhere.advantage_of(mechanism, releases=releases)
    from dp_accounting import NeighboringRelation, pld

    accountant = pld.PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, PLD_INTERVAL)
    accountant.compose(mechanism.event(), releases)
    return min(1.0, float(accountant.get_delta(0.0)))


def cost_in_finer_unit(epsilon: float, delta: float) -> tuple[float, float]:
    """What a run of a coarser unit costs one unit inside it (a row of a group, a group of a firm).

    Taking out one row turns a group into another group: the old one is removed, the new one added,
    so the guarantee is used twice (group privacy: Dwork and Roth 2014, Theorem 2.2 with delta).
    """
    return 2.0 * epsilon, delta * (1.0 + math.exp(min(epsilon, 700.0)))  # stays a float
