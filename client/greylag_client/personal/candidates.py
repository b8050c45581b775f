"""The candidates for a firm's own version, each with what it said of rows that it had not seen.

All are validated on the same folds of whole groups, so that they can be compared row by row and
averaged. Those that come from the shared model start there: with no step, no tree and no offset
they are the shared model itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from greylag_protocols.features import (
    Matrix,
    encode_targets,
    spread_categories,
    target_multipliers,
)
from greylag_protocols.terms import DataTerms, ModelTerms

from greylag_client.local_models.forest import Forest
from greylag_client.local_models.layers import Layers, predict_layers
from greylag_client.local_models.networks import Recipe, fit_network
from greylag_client.local_models.trees import MIN_ROWS as TREE_ROWS
from greylag_client.local_models.trees import fit_mean, fit_residual, fit_trees
from greylag_client.local_models.validation import Folds, Names, group_folds, loss_of
from greylag_client.personal.parts import SHARED, Part, keep_inside

FOLDS = 5
MANY_ROWS = 1500  # fewer repetitions above
MIN_ROWS, MIN_GROUPS = 20, 5  # below, only an offset and own trees are tried
STAGES = (10, 20, 40, 80, 120, 160, 200)  # numbers of residual trees that are tried
FINE_TUNING = Recipe(learning_rate=0.001, decay=0.1, batch=256, max_steps=500)

Tick = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model and its predictions for rows that it had not seen.

    Attributes:
        unseen: shape (repetitions, n, outputs).
    """

    part: Part
    unseen: Matrix

    @property
    def name(self) -> str:
        return self.part.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The firm's training rows, and the folds that all candidates share.

    Attributes:
        folds: several partitions of the rows, one after the other.
    """

    data: DataTerms
    model: ModelTerms
    values: Matrix
    targets: Matrix
    groups: Names
    seed: int
    folds: Folds = field(default_factory=list)
    repetitions: int = 0

    @classmethod
    def of(
        cls, data: DataTerms, model: ModelTerms, values: Matrix, targets: Matrix, groups: Names,
        seed: int,
    ) -> "Rows":  # fmt: skip
        """Rows with folds: three partitions, two where rows are many, none for a single group."""
        wanted = 2 if len(values) > MANY_ROWS else 3
        partitions = [group_folds(groups, FOLDS, seed + number) for number in range(wanted)]
        return cls(
            data=data, model=model, values=values, targets=targets, groups=groups, seed=seed,
            folds=[fold for folds in partitions for fold in folds],
            repetitions=wanted if partitions[0] else 0,
        )  # fmt: skip

    def unseen(self, guesses: tuple[Matrix, ...] | list[Matrix]) -> Matrix:
        """Guesses fold by fold as one array, shape (repetitions, n, outputs)."""
        spread = np.empty((self.repetitions, len(self.values), guesses[0].shape[1]))
        each = len(self.folds) // self.repetitions
        for number, ((_, check), guess) in enumerate(zip(self.folds, guesses, strict=True)):
            spread[number // each, check] = guess
        return spread

    @property
    def few(self) -> bool:
        """Whether there is too little to fit networks or corrections by."""
        return len(self.values) < MIN_ROWS or len(set(self.groups)) < MIN_GROUPS


def steps_of(rows: Rows) -> int:
    """How often ``fit_candidates`` ticks."""
    return len(rows.folds) if rows.few else 3 + 2 * len(rows.folds)


def fit_candidates(rows: Rows, shared: Layers, tick: Tick) -> list[Candidate]:
    """All candidates, the shared model first.

    Args:
        rows: with folds.
    """
    data, activation = rows.data, rows.model.activation
    base = predict_layers(data, activation, shared, rows.values)
    as_it_is = Candidate(
        part=Part(name=SHARED, layers=shared, forest=None),
        unseen=np.tile(base, (rows.repetitions, 1, 1)),
    )
    found = [as_it_is]
    if data.task == "regression":
        found.append(_offset(rows, shared))
    if rows.few:  # what would overfit is left out; a shared model that is of no use is not kept
        return [*found, _own_trees(rows, tick)]
    for name, recipe, start in (
        ("fine-tuned", FINE_TUNING, shared),
        ("own network", Recipe(), None),
    ):
        fit = fit_network(
            rows.values, rows.targets, rows.folds, data, rows.model, rows.seed, recipe, start
        )
        part = Part(name=name, layers=fit.layers, forest=None)
        found.append(Candidate(part=part, unseen=rows.unseen(fit.guesses)))
        tick()
    found.append(_residual(rows, shared, base, tick))
    found.append(_own_trees(rows, tick))
    tick()
    return found


def _offset(rows: Rows, shared: Layers) -> Candidate:
    def moved(fit: "np.typing.NDArray[np.intp]") -> Layers:
        weight, bias = shared[-1]
        shift = shrunken_offset(rows, shared, fit) * target_multipliers(rows.data)
        return (*shared[:-1], (weight, bias + shift))

    guesses = [
        predict_layers(rows.data, rows.model.activation, moved(fit), rows.values[check])
        for fit, check in rows.folds
    ]
    everything = np.arange(len(rows.values))
    part = Part(name="offset", layers=moved(everything), forest=None)
    return Candidate(part=part, unseen=rows.unseen(guesses))


def shrunken_offset(rows: Rows, shared: Layers, fit: "np.typing.NDArray[np.intp]") -> Matrix:
    """What to add to the shared model's outputs at [-1, 1], shape (targets,).

    The mean residual, times ``max(0, 1 - (standard error / mean)^2)``: positive-part shrinkage
    (James and Stein 1961; Efron and Morris 1973), the error estimated from groups, since rows of
    one group err alike.
    """
    data, multipliers = rows.data, target_multipliers(rows.data)
    said = predict_layers(data, rows.model.activation, shared, rows.values[fit])
    residual = (encode_targets(data, rows.targets[fit]) - encode_targets(data, said)) / multipliers
    offset = np.zeros(residual.shape[1])
    for target, column in enumerate(residual.T):
        present = ~np.isnan(column)
        mean, error = clustered_mean(column[present], rows.groups[fit][present])
        if error < abs(mean):
            offset[target] = mean * (1.0 - (error / mean) ** 2)
    return offset


def clustered_mean(values: Matrix, groups: Names) -> tuple[float, float]:
    """A mean over rows and its standard error when rows of one group go together; the error is
    infinite with fewer than three groups."""
    names, group = np.unique(groups.astype(str), return_inverse=True)
    if len(names) < 3:
        return (float(values.mean()) if len(values) else 0.0), np.inf
    mean = float(values.mean())
    sums = np.bincount(group, weights=values - mean)
    factor = len(names) / (len(names) - 1)
    return mean, float(np.sqrt(factor * (sums**2).sum()) / len(values))


def _residual(rows: Rows, shared: Layers, base: Matrix, tick: Tick) -> Candidate:
    """Trees on what the shared model leaves over; as many as validation likes."""
    data = rows.data
    if data.task == "classification":
        truth = np.eye(base.shape[1])[rows.targets[:, 0].astype(np.intp)]
    else:
        truth = rows.targets
    spread, left_over = spread_categories(data, rows.values), truth - base
    wide = np.concatenate([spread, base], axis=1)
    staged: list[list[Matrix]] = [[] for _ in STAGES]
    for fit, check in rows.folds:
        forest = fit_residual(wide[fit], left_over[fit], data, rows.seed)
        for kept, part in zip(staged, forest.staged(wide[check], STAGES), strict=True):
            kept.append(keep_inside(data, base[check] + part))
        tick()
    losses = [
        loss_of(
            [
                (guess, rows.targets[check])
                for guess, (_, check) in zip(kept, rows.folds, strict=True)
            ],
            data,
        )
        for kept in staged
    ]
    best = int(np.argmin(losses))
    forest = fit_residual(wide, left_over, data, rows.seed).first(STAGES[best])
    found = Part(name="trees on residual", layers=shared, forest=forest)
    return Candidate(part=found, unseen=rows.unseen(staged[best]))


def _own_trees(rows: Rows, tick: Tick) -> Candidate:
    guesses = []
    for fit, check in rows.folds:
        forest = _trees_or_mean(rows, rows.values[fit], rows.targets[fit])
        guesses.append(_alone(forest, rows, rows.values[check]))
        tick()
    forest = _trees_or_mean(rows, rows.values, rows.targets)
    part = Part(name="own trees", layers=None, forest=forest)
    return Candidate(part=part, unseen=rows.unseen(guesses))


def _trees_or_mean(rows: Rows, values: Matrix, targets: Matrix) -> Forest:
    if len(values) < TREE_ROWS:
        return fit_mean(targets, rows.data)
    return fit_trees(spread_categories(rows.data, values), targets, rows.data, rows.seed)


def _alone(forest: Forest, rows: Rows, values: Matrix) -> Matrix:
    part = Part(name="own trees", layers=None, forest=forest)
    return part.predict(rows.data, rows.model.activation, values)
