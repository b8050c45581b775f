"""The recipes that are allowed: spans of columns, one total, and how many components it may have.

Spans and one total can be checked and kept to in closed form, exactly: no solver is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import Matrix
from greylag_protocols.terms import DataTerms
from numpy.typing import NDArray

from greylag_client.suggest.known import Known
from greylag_client.suggest.wishes import Wishes

DEFAULT_MOST = 8  # components, where no table says how many are usual
USUAL = 0.9  # of one's own recipes have no more components than a proposal may have
LEAST_SHARE = 0.005  # of the total: less of a component is left out
STEP_SHARE = 0.001  # of the total: amounts are rounded to this
SHOWN = 6
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What a recipe has to keep to; every column in the order of the terms.

    Attributes:
        low, high: shape (features,). Of a column of the total, ``low`` 0 also allows leaving it
            out.
        summed: which columns the total is over.
        texts: which columns are categories, whose values are their numbers.
        total: None where there is none.
        most: how many columns of the total may be other than zero.
    """

    data: DataTerms
    low: Matrix
    high: Matrix
    summed: Flags
    texts: Flags
    total: float
    most: int

    @classmethod
    def of(cls, data: DataTerms, wishes: Wishes, known: Known | None) -> "Space":
        """Raises: ConfigError: no recipe keeps to all of it; the message names what conflicts."""
        names, kinds = data.feature_names, data.by_feature
        bounds = np.array([kinds[name].bounds for name in names])
        low, high = bounds[:, 0].copy(), bounds[:, 1].copy()
        summed = np.array([name in wishes.summed for name in names])
        texts = np.array([kinds[name].categories is not None for name in names])
        if (below := [name for name, flag, end in zip(names, summed, low, strict=True)
                      if flag and end < 0]):  # fmt: skip
            raise ConfigError(f"--sum-of: {below[0]} may be negative, so it is no share of a total")
        texts_other = np.array([kinds[name].other for name in names])
        high[texts & texts_other] -= 1.0  # "any other" is no category that one could make
        if known is not None:
            high = np.minimum(high, known.values.max(axis=0))
            low = np.where(summed, low, np.maximum(low, known.values.min(axis=0)))
            low = np.minimum(low, high)
        if wishes.prices:  # what has no price cannot be bought
            unpriced = summed & np.array([name not in wishes.prices for name in names])
            high[unpriced] = np.minimum(high[unpriced], low[unpriced])
        for name, span in wishes.fixes.items():
            low[names.index(name)], high[names.index(name)] = span
        most = int(summed.sum())
        if wishes.most is not None:
            most = min(most, wishes.most)
        elif wishes.total is not None:
            forced = int((summed & (low > 0)).sum())
            most = min(most, max(_usual(known, summed), forced))
        found = cls(
            data=data, low=low, high=high, summed=summed, texts=texts,
            total=wishes.total or 0.0, most=most,
        )  # fmt: skip
        if wishes.total is not None:
            found._check(wishes, known)
        return found

    def _check(self, wishes: Wishes, known: Known | None) -> None:
        """Exact for spans, one total and a number of components: the least that must be in, and
        the most that the largest components can make up."""
        low, high = self.low[self.summed], self.high[self.summed]
        names = np.array(self.data.feature_names)[self.summed]
        forced = low > 0
        where = f"--sum {self.total:g}"
        for name in names[forced]:
            if wishes.prices and name not in wishes.prices:
                raise ConfigError(f"{name} has to be in the recipe but has no price; add its price")
        if (least := float(low.sum())) > self.total * (1 + 1e-12):
            raise ConfigError(
                f"no recipe fits: what has to be in it comes to {least:g}, more than {where}: "
                f"{_list(names, low, np.argsort(-low))}; lower these"
            )
        if int(forced.sum()) > self.most:
            raise ConfigError(
                f"no recipe fits: {int(forced.sum())} components have to be in it, more than "
                f"--max-components {self.most}: {_list(names, low, np.argsort(-low))}"
            )
        order = np.lexsort((-high, ~forced))[: self.most]
        if (largest := float(high[order].sum())) < self.total * (1 - 1e-12):
            reasons = [f"--max-components {self.most}"] * (self.most < int((high > 0).sum()))
            reasons += [f"--fix {name}" for name in wishes.fixes if name in set(names)]
            reasons += [f"the largest amounts in {known.name}"] if known is not None else []
            reasons += ["components without a price"] if wishes.prices else []
            raise ConfigError(
                f"no recipe fits: its components come to {largest:g} at most, less than {where}: "
                f"{_list(names, high, order)}; loosen "
                f"{' or '.join(reasons) if reasons else 'the total'}"
            )

    def repair(self, values: Matrix) -> Matrix:
        """The nearest allowed recipes, or nearly: categories and other numbers are clipped; of the
        total's columns the largest stay, scaled together until they add up."""
        fixed = np.clip(np.where(self.texts, np.round(values), values), self.low, self.high)
        if not self.summed.any():
            return fixed
        low, high = self.low[self.summed], self.high[self.summed]
        amounts = np.where(low > 0, 1e-9, 0.0) + np.maximum(values[:, self.summed], 0.0)
        kept = self._support(amounts, low, high)
        once = self._scale(amounts, kept, low, high)
        least = np.minimum(LEAST_SHARE * self.total, high)
        slim = kept & ((once >= least) | (low > 0))
        slim = np.where(self._reaches(slim, high)[:, np.newaxis], slim, kept)
        fixed[:, self.summed] = self._scale(once, slim, low, high)
        return fixed

    def _reaches(self, kept: Flags, high: Matrix) -> Flags:
        return np.asarray((kept * high).sum(axis=1) >= self.total * (1 - 1e-12))

    def _support(self, amounts: Matrix, low: Matrix, high: Matrix) -> Flags:
        """Which components stay: those that must, then the largest, at most ``most``."""
        wish = np.where(low > 0, np.inf, amounts)
        order = np.argsort(-wish, axis=1, kind="stable")
        kept = np.zeros(amounts.shape, dtype=np.bool_)
        np.put_along_axis(kept, order[:, : self.most], True, axis=1)
        kept &= (amounts > 0) | (low > 0)
        for row in np.flatnonzero(~self._reaches(kept, high)):
            kept[row] = self._widen(kept[row], amounts[row], low, high)
        return kept

    def _widen(self, kept: Flags, amounts: Matrix, low: Matrix, high: Matrix) -> Flags:
        """Components with more room instead of the smallest, until the total can be reached;
        ``_check`` saw that it can."""
        kept = kept.copy()
        spare = [at for at in np.argsort(-high, kind="stable") if not kept[at] and high[at] > 0]
        for at in spare:
            if (kept * high).sum() >= self.total * (1 - 1e-12):
                break
            if kept.sum() >= self.most:
                loose = np.flatnonzero(kept & (low <= 0))
                out = loose[np.lexsort((amounts[loose], high[loose]))[0]]
                if high[out] >= high[at]:
                    break
                kept[out] = False
            kept[at] = True
        return kept

    def _scale(self, amounts: Matrix, kept: Flags, low: Matrix, high: Matrix) -> Matrix:
        """Amounts times one factor a row, inside their spans, so that they add up: the sum grows
        with the factor, so bisection finds it."""
        start = np.where(kept, np.maximum(amounts, 1e-6 * self.total), 0.0)
        floor, roof = np.where(kept, low, 0.0), np.where(kept, high, 0.0)
        least = np.full(len(amounts), -40.0)
        most = np.full(len(amounts), 40.0)
        for _ in range(60):
            middle = (least + most) / 2
            sums = np.clip(start * np.exp(middle)[:, np.newaxis], floor, roof).sum(axis=1)
            under = sums < self.total
            least, most = np.where(under, middle, least), np.where(under, most, middle)
        return np.asarray(np.clip(start * np.exp(most)[:, np.newaxis], floor, roof))

    def round(self, values: Matrix) -> Matrix:
        """Amounts that one can weigh in, still adding up exactly."""
        return np.array([self._round(row) for row in values]).reshape(values.shape)

    def _round(self, row: Matrix) -> Matrix:
        span = np.maximum(self.high - self.low, 1e-12)
        step = 10.0 ** np.floor(np.log10(span / 100.0))
        step = np.where(self.summed, STEP_SHARE * self.total, step)
        free = (self.high > self.low) & ~self.texts
        rounded = np.where(free, np.round(row / step) * step, row)
        rounded = np.clip(np.round(rounded, 9), self.low, self.high)
        if not self.summed.any():
            return rounded
        columns = np.flatnonzero(self.summed & (rounded > 0))
        for at in columns[np.argsort(-rounded[columns], kind="stable")]:
            rest = self.total - float(rounded[self.summed].sum())
            if abs(rest) < 1e-9:
                break
            moved = float(np.clip(rounded[at] + rest, self.low[at], self.high[at]))
            # At most to zero, or a component would vanish that has been counted on.
            rounded[at] = round(max(moved, min(rounded[at], float(step[at]))), 9)
        return rounded

    def keeps(self, row: Matrix) -> bool:
        """Whether a recipe keeps to everything, up to rounding errors of arithmetic."""
        inside = bool(((row >= self.low - 1e-9) & (row <= self.high + 1e-9)).all())
        if not self.summed.any():
            return inside
        amounts = row[self.summed]
        adds_up = abs(float(amounts.sum()) - self.total) <= 1e-6 * self.total
        return inside and adds_up and int((amounts > 0).sum()) <= self.most


def _usual(known: Known | None, summed: Flags) -> int:
    if known is None:
        return DEFAULT_MOST
    counts = (known.values[:, summed] > 0).sum(axis=1)
    return max(1, int(np.quantile(counts, USUAL)))


def _list(names: NDArray[np.str_], ends: Matrix, order: Sequence[int] | NDArray[np.intp]) -> str:
    shown = [f"{names[at]} {ends[at]:g}" for at in order if ends[at] > 0]
    return ", ".join(shown[:SHOWN]) + (", ..." if len(shown) > SHOWN else "")
