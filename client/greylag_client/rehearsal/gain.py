"""What taking part would probably change, as a range.

Let ``N`` be the rows that all firms declare, ``n`` the firm's own. The error of a model that learns
from rows of one kind falls about as a power of their number, so

    log(together / alone) = -b log(N / n) + w log(played / alone)

``played`` is the error of the plan's rounds played here with the noise of everybody's sum
(``rounds``): it brings in what the plan's network, clipping and noise cost or save against the
firm's own best model. ``b`` is what each e-fold of further rows is worth. It is measured here on
parts of the firm's rows, too roughly to be trusted alone, hence taken together with a prior, as
measurements of one quantity are: weighted by precision. The prior's spread stands for how different
other firms' data may be; it makes the range wide where a firm is small, and rightly so.

Prior and weight were set on splits of the public glass table (docs/try.md shows how often the true
gain then fell into the range). They are not fitted to the firm.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from greylag_protocols.features import target_bounds
from greylag_protocols.terms import Terms
from scipy.stats import norm

from greylag_client.rehearsal.curves import Measured, Point

COVERAGE = 0.8  # how often the range is meant to hold the truth
EXPONENT, EXPONENT_SPREAD = 0.06, 0.16  # the prior of b
EXPONENT_ERROR = 0.5  # least error of a measured b: parts of one firm's rows are no sample of firms
PLAYED_WEIGHT = 0.25  # w: most of a difference between two models on few held-out groups is chance
SURE = (1 + COVERAGE) / 2  # nothing is said for or against while the range holds both

Advice = Literal["would probably help", "hard to say", "would probably not help you"]
CHINESE: dict[Advice, str] = {
    "would probably help": "可能有帮助",
    "hard to say": "难以判断",
    "would probably not help you": "可能没有帮助",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """The range and the numbers behind it. Errors are on the plan's held-out rows, in ``unit``.

    Attributes:
        own_rows, pooled_rows: ``n`` and ``N``.
        curve: (rows, error) of the firm's own best model without privacy, by growing rows.
        alone: its error with all rows.
        together: expected error of the shared model, with the ends of the range: low, middle, high.
        exponent_here, exponent: ``b`` as measured here and as used, the latter with its spread.
        clean, noisy: errors of the played rounds without and with the noise of everybody's sum.
        chance: that the shared model is better than alone, under the assumptions.
    """

    measure: str
    unit: str
    own_rows: int
    pooled_rows: int
    held_out_rows: int
    held_out_groups: int
    curve: tuple[tuple[int, float], ...]
    alone: float
    together: tuple[float, float, float]
    exponent_here: float
    exponent: tuple[float, float]
    clean: float
    noisy: float
    chance: float

    @property
    def gain(self) -> tuple[float, float, float]:
        """By how much the error would fall: low, middle, high; negative where it would rise."""
        low, middle, high = self.together
        return self.alone - high, self.alone - middle, self.alone - low

    @property
    def advice(self) -> Advice:
        if self.chance >= SURE:
            return "would probably help"
        return "hard to say" if self.chance > 1 - SURE else "would probably not help you"


def judge(measured: Measured, terms: Terms, *, pooled_rows: int) -> Gain:
    """The range of the gain from what was measured."""
    last = measured.alone[-1]
    alone, noisy = measured.error(last.losses), measured.mean_error(measured.noisy)
    here, error = _exponent(measured)
    # Two measurements of one number: the prior and the curve.
    share = EXPONENT_SPREAD**2 / (EXPONENT_SPREAD**2 + error**2 + EXPONENT_ERROR**2)
    exponent = EXPONENT + share * (here - EXPONENT)
    spread = EXPONENT_SPREAD * math.sqrt(1 - share)
    folds = math.log(max(2.0, pooled_rows / last.rows))  # however few others there are, they differ
    shift = -exponent * folds + PLAYED_WEIGHT * math.log(max(noisy, 1e-9) / max(alone, 1e-9))
    deviation = spread * folds
    reach = float(norm.ppf((1 + COVERAGE) / 2)) * deviation
    measure, unit, scale = _scale(terms)
    together = [scale * alone * math.exp(shift + step) for step in (-reach, 0.0, reach)]
    return Gain(
        measure=measure,
        unit=unit,
        own_rows=last.rows,
        pooled_rows=pooled_rows,
        held_out_rows=len(last.losses),
        held_out_groups=len(np.unique(measured.groups)),
        curve=tuple((item.rows, scale * measured.error(item.losses)) for item in measured.alone),
        alone=scale * alone,
        together=(together[0], together[1], together[2]),
        exponent_here=here,
        exponent=(exponent, spread),
        clean=scale * measured.mean_error(measured.clean),
        noisy=scale * noisy,
        chance=float(norm.cdf(-shift / deviation)),
    )


def pooled_rows_of(terms: Terms, *, own_rows: int, firms: int) -> int:
    """The training rows of all firms, from public declarations; at least twice the firm's own."""
    most = terms.data.max_records_per_firm * firms
    return max(2 * own_rows, min(terms.data.expected_records, most))


def _exponent(measured: Measured) -> tuple[float, float]:
    """``b`` by least squares on logarithms, and its standard error."""
    points: tuple[Point, ...] = measured.alone
    x = np.log([item.rows for item in points])
    if len(points) < 3 or np.ptp(x) < 0.1:
        return EXPONENT, math.inf
    y = np.log([max(measured.error(item.losses), 1e-9) for item in points])
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * y).sum()) / spread
    rest = y - y.mean() - slope * (x - x.mean())
    return -slope, math.sqrt(float(rest @ rest) / (len(x) - 2) / spread)


def _scale(terms: Terms) -> tuple[str, str, float]:
    """What the error is called, its unit, and what turns parts of a range into it."""
    data = terms.data
    if data.task == "classification":
        return "log loss", "", 1.0
    if len(data.targets) > 1:
        return "root mean square error, in % of the targets' ranges", "%", 100.0
    low, high = target_bounds(data)
    return "root mean square error", data.targets[0].unit, float(high[0] - low[0])
