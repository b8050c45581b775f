"""The probe's experiments: each gives one check for every build it is shown."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from greylag_client.engine import make_engine
from greylag_client.local_training import LocalTrainer
from greylag_client.session import ClippedSums
from greylag_protocols import accounting
from greylag_protocols.features import Records
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_lab.probe import bounds, canaries
from greylag_lab.probe.release import NoData, Recorded, Roster, leave, release
from greylag_lab.probe.variants import Build

# Of one probe. A release of firms has as many vectors as canaries, and a group's gradient is formed
# by itself; records cost next to nothing.
CANARIES = {"record": 4000, "group": 2000, "firm": 600}
MAX_CANARY_ROWS = 32_768  # of one release and firm: a batch's memory
FEWEST_CANARIES = 200
AFFORDABLE = {"record": 1e12, "group": 1e9, "firm": 1e8}  # canaries times weights
REAL_UNITS = 64  # of each honest firm
REAL_ATTEMPTS = 4  # of the noise experiment in which there are data; later ones are noise alone
AUDIT_DELTA = 1e-9  # 2 m delta must stay far below the level; the terms claim an epsilon at any
RESIDUALS = 20_000
TRIALS = 40_000
UNITS_TRIED = 8
ENDLESS = 1e300

Progress = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one test found at one build.

    Attributes:
        flagged: the promise is broken, but for the stated chance of a false alarm.
        figure: what was measured; ``expected`` what the terms promise of it.
        p_value: None where no chance is involved, or (canaries) the figure is a bound.
    """

    test: str
    flagged: bool
    figure: float
    expected: float
    p_value: float | None
    words: str


def audit_terms(terms: Terms, units: int) -> Terms:
    """The same terms but for the sample: everybody takes part, in tables of ``units``."""
    data = terms.data
    if terms.privacy.unit == "record":
        data = replace(data, max_records_per_firm=units)
    if terms.privacy.unit == "group":
        data = replace(data, max_groups_per_firm=units)
    return replace(terms, data=data, training=replace(terms.training, sampling_rate=1.0))


def canary_releases(roster: Roster) -> tuple[int, int]:
    """How many releases, and how many canaries of each firm in one of them."""
    terms = roster.terms
    most = CANARIES[terms.privacy.unit]
    if terms.privacy.unit == "firm":
        each = 1
    else:
        rows = max(1, MAX_CANARY_ROWS // terms.rows_per_unit)
        each = max(1, min(most // roster.honest, terms.dimension // roster.honest, rows))
    afford = int(AFFORDABLE[terms.privacy.unit] / terms.dimension)
    total = min(most, max(FEWEST_CANARIES, afford))
    holders = min(roster.honest, terms.dimension)
    return math.ceil(total / (each * holders)), each


def check_canaries(
    roster: Roster, builds: Sequence[Build], rng: np.random.Generator, progress: Progress
) -> tuple[list[Check], int]:
    """The one-run audit: which canaries were there, guessed from what the coalition sees.

    Each canary has a weight of its own in one release, so that each could be there or not alone.

    Returns: a check for each build, and the number of canaries.
    """
    releases, each = canary_releases(roster)
    holders = min(roster.honest, roster.terms.dimension)  # firms that hold canaries
    terms = audit_terms(roster.terms, REAL_UNITS + each)
    step, loud = terms.grid(roster.firms).step, canaries.LOUD * terms.privacy.clip_norm
    weights = canaries.seeded_weights(terms, rng)
    real = canaries.made_up_records(terms, _real_units(terms), rng)
    known = _known_sums(terms, builds, real, weights, holders)
    scores: list[list[NDArray[np.float64]]] = [[] for _ in builds]
    present = []
    for number in range(releases):
        spots = rng.permutation(terms.dimension)[: holders * each].reshape(holders, each)
        coins = rng.random((holders, each)) < 0.5

        def engines(
            firm: int,
            believed: Terms,
            spots: NDArray[np.intp] = spots,
            coins: NDArray[np.bool_] = coins,
        ) -> ClippedSums:
            if firm >= holders:
                return NoData(terms)
            chosen = spots[firm][coins[firm]]
            if believed.privacy.unit == "firm":
                spot = int(chosen[0]) if len(chosen) else None
                return canaries.CanaryFirm(believed, real, coordinate=spot, loud=loud)
            return canaries.CanaryTrainer(believed, real, coordinates=chosen, loud=loud)

        opened = release(
            roster, builds, engines, terms=terms, weights=weights, labels=("canary", number)
        )
        for found, (seen, _), rest in zip(scores, opened, known, strict=True):
            found.append((seen * step - rest)[spots.ravel()])
        present.append(coins.ravel())
        progress()
    there = np.concatenate(present)
    mechanism = terms.mechanism
    delta = min(AUDIT_DELTA, terms.privacy.delta)
    claimed = accounting.epsilon_of(mechanism, releases=1, delta=delta)
    checks = []
    for found in scores:
        bound = bounds.bound_by_canaries(
            np.concatenate(found), there, delta=delta, level=bounds.LEVEL
        )
        checks.append(
            Check(
                test="canaries",
                flagged=bound > claimed,
                figure=bound,
                expected=claimed,
                p_value=None,
                words=f"epsilon is at least {bound:.2f}; the terms claim at most {claimed:.2f} for "
                f"one release that nobody is left out of (delta {delta:g})",
            )
        )
    return checks, len(there)


def _real_units(terms: Terms) -> int:
    most = terms.data.max_records_per_firm if terms.privacy.unit == "firm" else REAL_UNITS
    return min(REAL_UNITS, most)


def _known_sums(
    terms: Terms,
    builds: Sequence[Build],
    real: Records,
    weights: NDArray[np.float32],
    holders: int,
) -> list[NDArray[np.float64]]:
    """What everything but the canaries adds up to: the adversary knows it."""
    if terms.privacy.unit == "firm":  # a canary is all that its firm holds
        return [np.zeros(terms.dimension) for _ in builds]
    sums: dict[bool, NDArray[np.float64]] = {}
    for build in builds:
        if build.clips not in sums:
            engine = make_engine(build.engine_terms(terms), real, pad=False)
            units = np.arange(len(engine), dtype=np.intp)
            sums[build.clips] = holders * engine.clipped_sum(weights, units)
    return [sums[build.clips] for build in builds]


def check_noise(
    roster: Roster, builds: Sequence[Build], rng: np.random.Generator, progress: Progress
) -> list[list[Check]]:
    """What was released less the true sum, under the plan's own terms: its variance (chi-square),
    and that of the differences of two attempts, which is nought where noise comes again."""
    terms = roster.terms
    grid = terms.grid(roster.firms)
    weights = canaries.seeded_weights(terms, rng)
    units = min(_real_units(terms), terms.mechanism.records_cap)
    if terms.privacy.unit == "firm":
        units = _real_units(terms)
    real = canaries.made_up_records(terms, units, rng)
    kinds = {item.privacy.clip_norm: item for item in (b.engine_terms(terms) for b in builds)}
    with_data = {norm: Recorded(make_engine(item, real)) for norm, item in kinds.items()}
    # Noise is rounded, which adds a twelfth; both in grid steps.
    variance = roster.honest * ((grid.noise_std / grid.step) ** 2 + 1.0 / 12.0)
    left: list[list[NDArray[np.float64]]] = [[] for _ in builds]
    for number in range(noise_attempts(terms)):

        def engines(firm: int, believed: Terms, number: int = number) -> ClippedSums:
            if firm > 0 or number >= REAL_ATTEMPTS:
                return NoData(terms)
            return with_data[believed.privacy.clip_norm]

        opened = release(
            roster,
            builds,
            engines,
            terms=terms,
            weights=weights,
            labels=("noise", number),
        )
        for found, (seen, true) in zip(left, opened, strict=True):
            found.append(seen - true)
        progress()
    return [_judge_noise(found, variance) for found in left]


def noise_attempts(terms: Terms) -> int:
    """An even number, at least two."""
    return 2 * max(1, math.ceil(RESIDUALS / terms.dimension / 2))


def _judge_noise(left: Sequence[NDArray[np.float64]], variance: float) -> list[Check]:
    ratio, p_value = bounds.p_of_variance(left, variance)
    pairs = [later - earlier for earlier, later in zip(left[::2], left[1::2], strict=True)]
    fresh, p_fresh = bounds.p_of_variance(pairs, 2.0 * variance)
    count = sum(part.size for part in left)
    return [
        Check(
            test="noise",
            flagged=p_value < bounds.LEVEL,
            figure=math.sqrt(ratio),
            expected=1.0,
            p_value=p_value,
            words=f"released less true is {math.sqrt(ratio):.4f} times as wide as declared "
            f"({count} numbers, p = {p_value:.2g})",
        ),
        Check(
            test="fresh noise",
            flagged=p_fresh < bounds.LEVEL,
            figure=math.sqrt(fresh),
            expected=1.0,
            p_value=p_fresh,
            words=f"the noise of two attempts differs {math.sqrt(fresh):.4f} times as widely as "
            f"declared (p = {p_fresh:.2g})",
        ),
    ]


class _Watched:
    """Notes which units take part."""

    def __init__(self, units: int, dimension: int) -> None:
        self._units, self._dimension = units, dimension
        self.taken: list[NDArray[np.bool_]] = []

    def __len__(self) -> int:
        return self._units

    def clipped_sum(
        self, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        taken = np.zeros(self._units, dtype=np.bool_)
        taken[units[units >= 0]] = True
        self.taken.append(taken)
        return np.zeros(self._dimension)


def check_sampling(roster: Roster, build: Build) -> list[Check]:
    """How often a unit takes part, and how often twice running: both are binomial, exactly."""
    terms = roster.terms
    units, rate = terms.mechanism.records_cap, terms.training.sampling_rate
    engine = _Watched(units, terms.dimension)
    weights = np.zeros(terms.dimension, dtype=np.float32)
    for number in range(2 * max(4, min(200, math.ceil(TRIALS / 2 / units)))):
        attempt = number if build.fresh else 0
        build.contribute(
            terms,
            engine,
            weights=weights,
            firms=roster.firms,
            secret=roster.secret("sampling", attempt),
            context=roster.secret("sampling context", attempt),
            apply_masks=leave,
        )
    taken = np.array(engine.taken)
    twice = taken[::2] & taken[1::2]
    checks = []
    for test, table, promised in (
        ("sampling", taken, rate),
        ("fresh sample", twice, rate * rate),
    ):
        count, trials = int(table.sum()), table.size
        p_value = bounds.p_of_count(count, trials, promised)
        what = "takes part" if test == "sampling" else "takes part in two attempts running"
        checks.append(
            Check(
                test=test,
                flagged=p_value < bounds.LEVEL,
                figure=count / trials,
                expected=promised,
                p_value=p_value,
                words=f"a unit {what} at rate {count / trials:.4g}, declared {promised:.4g} "
                f"({count} of {trials}, p = {p_value:.2g})",
            )
        )
    return checks


def check_clipping(roster: Roster, build: Build, rng: np.random.Generator) -> Check:
    """The longest contribution of one unit, in clip norms: rows anywhere in their bounds under
    small, large and absurd weights, and canaries from just too long to overflowing."""
    limit = roster.terms.privacy.clip_norm
    terms = audit_terms(roster.terms, 2 * UNITS_TRIED)
    believed = build.engine_terms(terms)
    rows = min(UNITS_TRIED, _real_units(terms))
    real = canaries.made_up_records(terms, rows, rng)
    longest, tried = 0.0, 0
    for scale in (0.1, 1.0, 1e3):
        weights = canaries.seeded_weights(terms, rng, scale=scale)
        for loud in (1.001, canaries.LOUD, 1e160):
            engine = _engine_of_single_units(believed, real, rng, loud * limit)
            for unit in range(len(engine)):
                with np.errstate(over="ignore"):  # an endless update must count as none
                    total = engine.clipped_sum(weights, np.array([unit], dtype=np.intp))
                longest = max(longest, _norm(total))
                tried += 1
    if terms.privacy.unit == "firm":
        trainer = LocalTrainer(believed, real, pad=False)
        with np.errstate(over="ignore", invalid="ignore"):
            total = trainer.clipped_sum(weights, np.array([0]))
        longest = max(longest, _norm(total))
    return Check(
        test="clipping",
        flagged=not longest <= limit,
        figure=longest / limit,
        expected=1.0,
        p_value=None,
        words=f"the longest contribution of one unit is {longest / limit:.6g} clip norms "
        f"({tried} tried)",
    )


def _norm(vector: NDArray[np.float64]) -> float:
    """The length; as good as endless where it is no number."""
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.linalg.norm(vector))
    return length if math.isfinite(length) else ENDLESS


def _engine_of_single_units(
    terms: Terms, real: Records, rng: np.random.Generator, loud: float
) -> ClippedSums:
    if terms.privacy.unit == "firm":
        spot = int(rng.integers(terms.dimension))
        return canaries.CanaryFirm(terms, real, coordinate=spot, loud=loud)
    spots = rng.permutation(terms.dimension)[:UNITS_TRIED]
    return canaries.CanaryTrainer(terms, real, coordinates=spots, loud=loud, pad=False)
