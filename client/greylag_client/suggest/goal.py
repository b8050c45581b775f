"""How good a recipe is: the model's prediction, its interval, and how near known recipes are."""

import math
from dataclasses import dataclass

import numpy as np
from greylag_protocols.features import Matrix, target_bounds
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import norm

from greylag_client.personal.intervals import make_intervals
from greylag_client.prediction import Predictor
from greylag_client.suggest.known import Known, Metric
from greylag_client.suggest.wishes import Wishes

COVERAGE = 0.8
QUANTILE = float(norm.ppf((1 + COVERAGE) / 2))
SEARCH_SHARE = 0.03  # of a target's range: what a search without intervals takes an error to be
FAR_UNKNOWN = 0.25  # where one's own recipes are too few to say what is far


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far predictions may be off in four cases of five.

    Attributes:
        half: shape (targets,), half the width of the interval.
        origin: where it comes from: ``version`` or ``table``.
        rows, groups: what it was measured on; 0 where the version does not say.
    """

    half: Matrix
    origin: str
    rows: int
    groups: int


def reach_of(predictor: Predictor, known: Known | None) -> Reach | None:
    """The version's own intervals; else those of the table's rows that the plan holds out.

    A version keeps one width, for its own coverage. Errors of models have longer tails than the
    normal distribution, so its ratio of quantiles leaves the narrower interval rather too wide.
    """
    facts = predictor.personal.facts if predictor.personal is not None else None
    if facts is not None and facts.intervals is not None:
        ratio = QUANTILE / float(norm.ppf((1 + min(facts.intervals.coverage, 0.999)) / 2))
        half = np.array(facts.intervals.reach) * ratio
        return Reach(half=half, origin="version", rows=facts.rows, groups=facts.groups)
    table = known.table if known is not None else None
    if table is None or not len(table.holdout) or facts is not None:
        return None
    values, truth = table.features[table.holdout], table.targets[table.holdout]
    groups = np.array(table.groups, dtype=object)[table.holdout]
    found = make_intervals(
        table.data, predictor.predict(values)[np.newaxis], truth, groups, COVERAGE
    )
    low, high = target_bounds(table.data)
    if found is None or (np.array(found.reach) >= high - low).any():
        return None  # too few groups to tell
    half = np.array(found.reach)
    return Reach(half=half, origin="table", rows=len(truth), groups=len(set(groups)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is known of recipes, one entry or row each.

    Attributes:
        predicted: shape (n, targets).
        spread: shape (n, targets): how much the version's models differ, as a standard deviation.
        chance: of hitting all bands, if errors are like those that the interval comes from; NaN
            without intervals.
        distance, nearest: to the nearest known recipe, and its number; NaN and -1 without a table.
        cost: of one unit of the recipe; NaN without prices.
        loss: what the search makes small.
    """

    predicted: Matrix
    spread: Matrix
    chance: Matrix
    distance: Matrix
    nearest: NDArray[np.intp]
    cost: Matrix
    loss: Matrix


class Goal:
    """Judges recipes for one call."""

    def __init__(self, predictor: Predictor, wishes: Wishes, known: Known | None) -> None:
        data = predictor.terms.data
        self.predictor, self.known = predictor, known
        self.metric = Metric.of(data, wishes)
        self.reach = reach_of(predictor, known)
        self.yardstick = known.yardstick(self.metric) if known is not None else None
        self.low, self.high = target_bounds(data)
        names = data.target_names
        self.wanted = np.array([names.index(band.name) for band in wishes.bands])
        self.band_low = np.array([band.low for band in wishes.bands])
        self.band_high = np.array([band.high for band in wishes.bands])
        if self.reach is None:
            self.deviation = SEARCH_SHARE * (self.high - self.low)
        else:
            self.deviation = np.maximum(self.reach.half / QUANTILE, 1e-9)
        # How far the model misses what was measured at known recipes; 0 where nothing was.
        self.residuals = np.zeros((0, len(self.low)))
        if known is not None:
            self.residuals = np.nan_to_num(np.abs(known.measured - predictor.predict(known.values)))
        self.prices = np.array([wishes.prices.get(name, 0.0) for name in data.feature_names])
        self.total = wishes.total or 1.0
        self.priced = bool(wishes.prices)
        self.usual_cost = 1.0  # ``search`` sets it: what an average recipe of its start costs

    @property
    def far(self) -> float:
        """From which distance on a recipe is unlike all that is known."""
        return self.yardstick[1] if self.yardstick is not None else FAR_UNKNOWN

    def judge(self, values: Matrix) -> Judged:
        """All about recipes, shape (n, features)."""
        predicted, spread = self._predict(values)
        hit = self._hit(predicted)
        distance = np.full(len(values), np.nan)
        nearest = np.full(len(values), -1, dtype=np.intp)
        if self.known is not None:
            apart = self.metric.between(values, self.known.values)
            nearest = apart.argmin(axis=1)
            distance = apart[np.arange(len(values)), nearest]
        cost = values @ self.prices / self.total if self.priced else np.full(len(values), np.nan)
        # In the currency of log-chances: doubt among models and distance from what is known count
        # like errors of their size; a recipe's usual cost like a factor e.
        doubt = ((spread / self.deviation)[:, self.wanted] ** 2).sum(axis=1) / 2
        remote: Matrix = np.zeros(len(values))
        if self.known is not None:
            remote = (distance / self.far) ** 2 / 2
            # Near to a recipe that the model gets wrong it is likely wrong again.
            missed = (self.residuals[nearest] / self.deviation)[:, self.wanted] ** 2
            remote = remote + missed.sum(axis=1) / 2 * np.maximum(0.0, 1.0 - distance / self.far)
        dear = cost / max(self.usual_cost, 1e-12) if self.priced else 0.0
        loss = -np.log(np.maximum(hit, 1e-300)).sum(axis=1) + doubt + remote + dear
        chance = hit.prod(axis=1) if self.reach is not None else np.full(len(values), np.nan)
        return Judged(
            predicted=predicted, spread=spread, chance=chance, distance=distance, nearest=nearest,
            cost=cost, loss=np.asarray(loss),
        )  # fmt: skip

    def _predict(self, values: Matrix) -> tuple[Matrix, Matrix]:
        personal, terms = self.predictor.personal, self.predictor.terms
        if personal is None:
            predicted = self.predictor.predict(values)
            return predicted, np.zeros_like(predicted)
        weights = np.array(personal.blend.weights)[:, np.newaxis, np.newaxis]
        said = np.stack([
            part.predict(terms.data, terms.model.activation, values)
            for part in personal.blend.parts
        ])  # fmt: skip
        predicted = (weights * said).sum(axis=0)
        return predicted, np.sqrt((weights * (said - predicted) ** 2).sum(axis=0))

    def _hit(self, predicted: Matrix) -> Matrix:
        """The chance of each band, shape (n, bands), errors taken as normal. Where the band ends
        at the end of the public range it is open: a truth beyond is counted as that end."""
        middle, deviation = predicted[:, self.wanted], self.deviation[self.wanted]
        low = np.where(self.band_low <= self.low[self.wanted], -np.inf, self.band_low)
        high = np.where(self.band_high >= self.high[self.wanted], np.inf, self.band_high)
        first, last = (low - middle) / deviation, (high - middle) / deviation
        # On the far side of the band both are near 1 and their difference is lost: mirror there.
        mirrored = first > 0
        upper = np.where(mirrored, ndtr(-first), ndtr(last))
        lower = np.where(mirrored, ndtr(-last), ndtr(first))
        return np.asarray(upper - lower)

    def bounds(self, predicted: Matrix) -> tuple[Matrix, Matrix] | None:
        """Ends of the intervals of predictions, shape (n, targets) each."""
        if self.reach is None:
            return None
        half = self.reach.half
        return np.maximum(self.low, predicted - half), np.minimum(self.high, predicted + half)

    def inside(self, predicted: Matrix) -> NDArray[np.bool_]:
        """Whether predictions lie in their bands, shape (n, bands)."""
        middle = predicted[:, self.wanted]
        return np.asarray((middle >= self.band_low) & (middle <= self.band_high))


def whole(number: float) -> float | None:
    """For JSON, which knows no NaN."""
    return None if math.isnan(number) else float(number)
