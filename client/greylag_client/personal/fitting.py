"""From a release and a firm's table to a version of its own, and how it was chosen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from greylag_protocols.features import Matrix
from greylag_protocols.terms import DataTerms, Terms

from greylag_client.local_models.layers import Layers
from greylag_client.local_models.validation import Names, relative_errors
from greylag_client.personal.artefact import Intervals
from greylag_client.personal.candidates import (
    Candidate,
    Rows,
    clustered_mean,
    fit_candidates,
    steps_of,
)
from greylag_client.personal.intervals import make_intervals
from greylag_client.personal.parts import SHARED, Blend, Part
from greylag_client.personal.selection import choose, mean_losses
from greylag_client.table import Table

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A candidate's error on rows that it had not seen, with a 95 % interval, and its weight.

    Attributes:
        error: root mean square of errors in parts of the range (of several targets: over all of
            them), or log loss.
    """

    name: str
    error: float
    low: float
    high: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The version and the way to it.

    Attributes:
        candidates: empty where nothing could be validated; the last is the choice itself.
        gain: by how much the blend's loss lies below the shared model's before it was drawn back
            to it, in standard errors.
        kept: the share of the blend that this left.
    """

    blend: Blend
    intervals: Intervals | None
    candidates: tuple[Judged, ...]
    gain: float
    kept: float
    why: str
    rows: int
    groups: int


def fit_personal(
    terms: Terms, shared: Layers, table: Table, *, seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Fitted:  # fmt: skip
    """The firm's own version from its training rows; held-out rows are never looked at."""
    groups: Names = np.array(table.groups, dtype=object)[table.train]
    rows = Rows.of(
        terms.data, terms.model, table.features[table.train], table.targets[table.train], groups,
        seed,
    )  # fmt: skip
    count = len(set(groups))
    if not rows.repetitions:
        return Fitted(
            blend=only_shared(shared), intervals=None, candidates=(), gain=0.0, kept=0.0,
            why=f"the shared model as it is: {len(groups)} training rows of {count} groups leave "
            "nothing to validate by",
            rows=len(groups), groups=count,
        )  # fmt: skip
    total, done = steps_of(rows) + 1, 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    progress(0, total)
    candidates = fit_candidates(rows, shared, tick)
    choice = choose(rows, candidates)
    kept = [
        (item.part, weight)
        for item, weight in zip(candidates, choice.weights, strict=True)
        if weight > 0
    ]
    weights = [weight for _, weight in kept]
    blend = Blend(
        parts=tuple(part for part, _ in kept),
        weights=tuple(weight / sum(weights) for weight in weights),
    )
    judged = [
        _judge(rows, item.name, item.unseen, weight)
        for item, weight in zip(candidates, choice.weights, strict=True)
    ]
    judged.append(_judge(rows, "the choice", choice.unseen, 1.0))
    progress(total, total)
    mean, error = choice.gain
    return Fitted(
        blend=blend,
        intervals=make_intervals(terms.data, choice.unseen, rows.targets, groups),
        candidates=tuple(judged),
        gain=mean / error if error > 0 and np.isfinite(error) else 0.0,
        kept=choice.kept,
        why=_why(candidates, choice.weights, rows),
        rows=len(groups),
        groups=count,
    )


def only_shared(shared: Layers) -> Blend:
    """The shared model as it is."""
    return Blend(parts=(Part(name=SHARED, layers=shared, forest=None),), weights=(1.0,))


def _judge(rows: Rows, name: str, unseen: Matrix, weight: float) -> Judged:
    losses = mean_losses(rows, unseen)
    mean, error = clustered_mean(losses, rows.groups)
    squared = rows.data.task == "regression"

    def scaled(value: float) -> float:
        value = min(max(0.0, value), 1e6)  # few groups: the interval has no end
        return value**0.5 if squared else value

    return Judged(
        name=name, error=scaled(mean), low=scaled(mean - 1.96 * error),
        high=scaled(mean + 1.96 * error), weight=weight,
    )  # fmt: skip


def _why(candidates: Sequence[Candidate], weights: Sequence[float], rows: Rows) -> str:
    few = " (few rows or groups: only an offset and own trees were tried)" if rows.few else ""
    if weights[0] >= 1.0 - 1e-9:
        return (
            "the shared model as it is: on rows that they had not seen, nothing else was better"
            + few
        )
    named = ", ".join(
        f"{item.name} {weight:.0%}"
        for item, weight in zip(candidates, weights, strict=True)
        if weight > 0
    )
    return f"{named}: the least error on rows that they had not seen, drawn back to the shared " + (
        f"model as far as that may be chance{few}"
    )


def headline_error(data: DataTerms, predicted: Matrix, truth: Matrix) -> float:
    """Regression: mean over targets of RMSE, in the target's unit if there is but one, else in
    parts of its range; classification: the share of wrong answers."""
    if data.task == "classification":
        return float((predicted.argmax(axis=1) != truth[:, 0]).mean())
    errors = predicted - truth if truth.shape[1] == 1 else relative_errors(data, predicted, truth)
    measured = ~np.isnan(errors).all(axis=0)
    return float(np.sqrt(np.nanmean(errors[:, measured] ** 2, axis=0)).mean())
