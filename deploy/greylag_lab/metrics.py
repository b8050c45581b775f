"""How good a model is, over the held-out rows of all firms, with an interval.

Rows of firms with at least 20 training and 5 held-out rows are pooled. A regression is scored by
RMSE per target over the values that are present, in its own unit; with several targets the headline
is the mean over targets of RMSE / range. A classification is scored by accuracy and, for two
classes, average precision of the second class.

Intervals are 95 % percentile bootstraps (Efron 1979) that draw whole held-out groups, since rows of
one group are near-copies and would make the interval too narrow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from greylag_client.table import Table
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import Matrix, target_bounds
from greylag_protocols.terms import DataTerms
from numpy.typing import NDArray

MIN_TRAIN_ROWS = 20
MIN_HELD_OUT_ROWS = 5
RESAMPLES = 1000
COVERAGE = (2.5, 97.5)  # percentiles
CHUNK = 50  # resamples held in memory at a time

Weights = NDArray[np.float64]  # (resamples, rows): how often each row was drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One firm's held-out rows and what a model said of them.

    Attributes:
        train_rows: rows that the firm trained on.
        truth: shape (n, targets), raw values with NaN for gaps; or (n, 1), class numbers.
        predicted: shape (n, targets), physical units; or (n, classes), probabilities.
        groups: the group of each row, as the firm names it.
    """

    firm: str
    train_rows: int
    truth: Matrix
    predicted: Matrix
    groups: tuple[str, ...]

    @classmethod
    def of(cls, firm: str, table: Table, predict: Callable[[Matrix], Matrix]) -> "Outcome":
        """What ``predict`` (raw features to predictions) says of a firm's held-out rows."""
        held_out = table.features[table.holdout]
        return cls(
            firm=firm,
            train_rows=len(table.train),
            truth=table.targets[table.holdout],
            predicted=predict(held_out) if len(held_out) else np.empty((0, 1)),
            groups=tuple(table.groups[row] for row in table.holdout),
        )

    @property
    def counts(self) -> bool:
        """Whether the firm is large enough to be scored."""
        return self.train_rows >= MIN_TRAIN_ROWS and len(self.truth) >= MIN_HELD_OUT_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number and its 95 % interval."""

    name: str
    unit: str
    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, str | float]:
        """As a JSON object."""
        return {
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "low": self.low,
            "high": self.high,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One model's scores.

    Attributes:
        headline: the one number to compare models by.
        details: every metric, the headline first.
        per_firm: the headline metric over each firm's own rows; a firm with a target that none of
            its held-out rows has is left out.
        lower_is_better: for the headline: RMSE yes, accuracy no.
        rows: held-out rows scored.
    """

    headline: Estimate
    details: tuple[Estimate, ...]
    per_firm: Mapping[str, float]
    lower_is_better: bool
    rows: int

    def to_json(self) -> dict[str, object]:
        """As a JSON object: the headline's keys, and the rest beside them."""
        return {
            **self.headline.to_json(),
            "details": [estimate.to_json() for estimate in self.details],
            "per_firm": dict(self.per_firm),
            "lower_is_better": self.lower_is_better,
            "rows": self.rows,
        }

    def wins_over(self, other: "Scores") -> tuple[int, int]:
        """At how many firms this model beats ``other``, and how many both were scored at."""
        both = self.per_firm.keys() & other.per_firm.keys()
        sign = 1.0 if self.lower_is_better else -1.0
        won = sum(sign * self.per_firm[firm] < sign * other.per_firm[firm] for firm in both)
        return won, len(both)


def score(data: DataTerms, outcomes: Sequence[Outcome], seed: int = 0) -> Scores:
    """Score one model at all firms that are large enough.

    The same ``seed`` and firms draw the same groups, so that two models' intervals are comparable.

    Raises:
        ConfigError: no firm is large enough, or nothing that could be scored was measured.
    """
    counted = [outcome for outcome in outcomes if outcome.counts]
    if not counted:
        raise ConfigError(
            f"no firm has {MIN_TRAIN_ROWS} training and {MIN_HELD_OUT_ROWS} held-out rows: give "
            "firms more rows or raise data.holdout"
        )
    truth = np.concatenate([outcome.truth for outcome in counted])
    predicted = np.concatenate([outcome.predicted for outcome in counted])
    drawn = _draw_groups(counted, seed)
    point = _metrics(data, truth, predicted, np.ones((1, len(truth))))
    samples: dict[str, list[NDArray[np.float64]]] = {name: [] for name in point}
    for at in range(0, RESAMPLES, CHUNK):
        for name, values in _metrics(data, truth, predicted, drawn(at, at + CHUNK)).items():
            samples[name].append(values)
    units = _units(data)
    estimates = {
        name: _estimate(name, units[name], float(values[0]), np.concatenate(samples[name]))
        for name, values in point.items()
        if not np.isnan(values[0])  # NaN: measured in no held-out row
    }
    headline = next(iter(point))
    if headline not in estimates:
        raise ConfigError("a target was measured in no held-out row: raise data.holdout")
    per_firm = {}
    for outcome in counted:
        once = np.ones((1, len(outcome.truth)))
        per_firm[outcome.firm] = float(
            _metrics(data, outcome.truth, outcome.predicted, once)[headline][0]
        )
    return Scores(
        headline=estimates[headline],
        details=tuple(estimates.values()),
        per_firm={firm: value for firm, value in per_firm.items() if not np.isnan(value)},
        lower_is_better=data.task == "regression",
        rows=len(truth),
    )


def gain_over(
    data: DataTerms, outcomes: Sequence[Outcome], others: Sequence[Outcome], seed: int = 0
) -> Estimate:
    """By how much a model is better than another on the same rows: the difference of headlines,
    positive where it is better, and its interval over the same draws of groups."""
    ours, theirs = (
        _drawn(data, [item for item in side if item.counts], seed) for side in (outcomes, others)
    )
    sign = -1.0 if data.task == "regression" else 1.0
    (name, mine), (_, other) = next(iter(ours.items())), next(iter(theirs.items()))
    differences = sign * (mine - other)
    return _estimate(name, _units(data)[name], float(differences[0]), differences[1:])


def clearly_worse(
    data: DataTerms, outcomes: Sequence[Outcome], others: Sequence[Outcome]
) -> list[str]:
    """Firms at which a model is worse than another with the whole 95 % interval below zero. Of a
    firm with one held-out group, or without any value of a target, that cannot be told."""
    by_firm = {item.firm: item for item in others}
    return [
        item.firm
        for item in outcomes
        if item.counts
        and len(set(item.groups)) > 1
        and not np.isnan(item.truth).all(axis=0).any()
        and gain_over(data, [item], [by_firm[item.firm]]).high < 0
    ]


def _drawn(
    data: DataTerms, outcomes: Sequence[Outcome], seed: int
) -> dict[str, NDArray[np.float64]]:
    """Every metric on all rows, then on each resample; shape (1 + resamples,)."""
    truth = np.concatenate([item.truth for item in outcomes])
    predicted = np.concatenate([item.predicted for item in outcomes])
    draw = _draw_groups(outcomes, seed)
    parts = [np.ones((1, len(truth)))]
    parts += [draw(start, start + CHUNK) for start in range(0, RESAMPLES, CHUNK)]
    found = [_metrics(data, truth, predicted, weights) for weights in parts]
    return {name: np.concatenate([item[name] for item in found]) for name in found[0]}


def _estimate(name: str, unit: str, value: float, resampled: NDArray[np.float64]) -> Estimate:
    # A resample may draw no row in which the target was measured; the value's own sample has one.
    low, high = np.nanpercentile(resampled, COVERAGE)
    return Estimate(name=name, unit=unit, value=value, low=float(low), high=float(high))


def _units(data: DataTerms) -> dict[str, str]:
    units = {f"rmse {target.name}": target.unit for target in data.targets}
    return units | {"rmse / range": "", "accuracy": "", "average precision": ""}


def _draw_groups(outcomes: Sequence[Outcome], seed: int) -> Callable[[int, int], Weights]:
    """Resamples of whole groups, with replacement: a function from a slice of them to weights."""
    keys = [(outcome.firm, group) for outcome in outcomes for group in outcome.groups]
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    group_of = np.array([number[key] for key in keys])
    picks = np.random.default_rng(seed).multinomial(
        len(number), np.full(len(number), 1.0 / len(number)), size=RESAMPLES
    )
    return lambda start, stop: picks[start:stop, group_of].astype(np.float64)


def _metrics(
    data: DataTerms, truth: Matrix, predicted: Matrix, weights: Weights
) -> dict[str, NDArray[np.float64]]:
    """Every metric under every weighting, shape (resamples,) each; the headline comes first."""
    if data.task == "classification":
        labels = truth[:, 0].astype(np.intp)
        right = (predicted.argmax(axis=1) == labels).astype(np.float64)
        found = {"accuracy": _divide(weights @ right, weights.sum(axis=1))}
        if predicted.shape[1] == 2:
            found["average precision"] = average_precision(labels == 1, predicted[:, 1], weights)
        return found
    present = ~np.isnan(truth)
    squared = np.where(present, predicted - np.nan_to_num(truth), 0.0) ** 2
    rmse = np.sqrt(_divide(weights @ squared, weights @ present.astype(np.float64)))
    named = {f"rmse {name}": rmse[:, index] for index, name in enumerate(data.target_names)}
    if len(named) == 1:
        return named
    low, high = target_bounds(data)
    return {"rmse / range": (rmse / (high - low)).mean(axis=1), **named}


def average_precision(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], weights: Weights
) -> NDArray[np.float64]:
    """Sum over thresholds of precision times the recall gained, equal scores as one threshold.

    Args:
        positive, scores: shape (n,).
        weights: shape (resamples, n).

    Returns: shape (resamples,); NaN where no positive was drawn.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # ends of runs of equal scores
    found = np.cumsum(weights[:, order] * positive[order], axis=1)[:, last]
    flagged = np.cumsum(weights[:, order], axis=1)[:, last]
    precision = np.where(flagged > 0, found / np.maximum(flagged, 1e-300), 0.0)
    gained = np.diff(found, axis=1, prepend=0.0)
    return _divide((precision * gained).sum(axis=1), found[:, -1])


def _divide(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> Matrix:
    """Quotients, NaN where nothing was counted."""
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, np.nan)
