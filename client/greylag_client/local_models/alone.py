"""What a firm reaches alone, without privacy: the comparison that a shared model must stand.

The better of two models, chosen by the firm's own grouped cross-validation on its training rows:
the plan's network, stopped where that validation is best, and gradient-boosted trees on raw
features. Held-out rows are never looked at.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from greylag_protocols.features import Matrix, spread_categories, target_bounds
from greylag_protocols.terms import DataTerms, ModelTerms

from greylag_client.local_models.forest import Forest
from greylag_client.local_models.layers import Layers, predict_layers
from greylag_client.local_models.networks import Recipe, fit_network
from greylag_client.local_models.trees import MIN_ROWS, fit_mean, fit_trees
from greylag_client.local_models.validation import group_folds, loss_of
from greylag_client.table import Table

FOLDS = 3


class Predict(Protocol):
    """Raw features, shape (n, features), to physical values (n, targets) or to class
    probabilities (n, classes)."""

    def __call__(self, values: Matrix, /) -> Matrix: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A fitted model; call it as ``Predict``."""

    kind: Literal["mlp", "trees", "mean"]
    predict: Predict

    def __call__(self, values: Matrix, /) -> Matrix:
        return self.predict(values)


def fit_alone(table: Table, data: DataTerms, model: ModelTerms, seed: int) -> Baseline:
    """The best that one firm finds on its training rows by itself.

    A firm with fewer than 10 training rows gets their mean (or class shares); one whose rows all
    share a group, so that nothing can be validated, gets trees.
    """
    values, targets = table.features[table.train], table.targets[table.train]
    spread = spread_categories(data, values)
    groups = np.array(table.groups, dtype=object)[table.train]
    if len(values) < MIN_ROWS:
        return of_forest("mean", fit_mean(targets, data), data)
    folds = group_folds(groups, FOLDS, seed)
    if not folds:
        return of_forest("trees", fit_trees(spread, targets, data, seed), data)
    network = fit_network(values, targets, folds, data, model, seed, Recipe())
    guesses = []
    for fit, check in folds:
        part = of_forest("trees", fit_trees(spread[fit], targets[fit], data, seed), data)
        guesses.append((part(values[check]), targets[check]))
    if network.loss <= loss_of(guesses, data):
        return of_layers(network.layers, data, model)
    return of_forest("trees", fit_trees(spread, targets, data, seed), data)


def of_layers(layers: Layers, data: DataTerms, model: ModelTerms) -> Baseline:
    """A network as a model to call."""
    return Baseline(
        kind="mlp", predict=lambda values: predict_layers(data, model.activation, layers, values)
    )


def of_forest(kind: Literal["trees", "mean"], forest: Forest, data: DataTerms) -> Baseline:
    """Trees as a model to call; numbers stay inside their public range."""
    if data.task == "classification":
        return Baseline(kind=kind, predict=lambda values: forest(spread_categories(data, values)))
    low, high = target_bounds(data)
    return Baseline(
        kind=kind,
        predict=lambda values: np.clip(forest(spread_categories(data, values)), low, high),
    )
