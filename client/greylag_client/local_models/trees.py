"""Gradient-boosted trees on raw features, and the firm's own mean.

Trees see a column of noughts and ones for each category without an order (``spread_categories``):
as one column of numbers the list's order would decide which categories a split can set apart.
"""

from typing import Any

import numpy as np
from greylag_protocols.features import Matrix, target_bounds
from greylag_protocols.terms import DataTerms

from greylag_client.local_models.forest import Forest
from greylag_client.local_models.validation import single_thread

MIN_ROWS = 10  # below this a firm's best guess is its own mean
TREES = 120
RESIDUAL_TREES = 200  # at most


def fit_mean(targets: Matrix, data: DataTerms) -> Forest:
    """Means of the targets, or shares of the classes."""
    classes = data.targets[0].classes
    if classes is not None:
        shares = np.ones(len(classes))  # one imaginary row of each, so that no class is impossible
        shares += np.bincount(targets[:, 0].astype(np.intp), minlength=len(classes))
        return Forest.constant(shares / shares.sum())
    low, high = target_bounds(data)
    present = ~np.isnan(targets)
    totals = np.where(present, targets, 0.0).sum(axis=0)
    counts = present.sum(axis=0)
    return Forest.constant(np.where(counts > 0, totals / np.maximum(counts, 1), (low + high) / 2.0))


def fit_trees(values: Matrix, targets: Matrix, data: DataTerms, seed: int) -> Forest:
    """Boosted trees, one ensemble a target; leaves shrink with the firm.

    Args:
        values: shape (n, columns), categories spread.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    leaf = int(np.clip(len(values) // 25, 2, 20))
    settings = {
        "max_iter": TREES, "learning_rate": 0.08, "max_leaf_nodes": 15, "min_samples_leaf": leaf,
        "l2_regularization": 0.1, "early_stopping": False, "random_state": seed % 2**32,
    }  # fmt: skip
    classes = data.targets[0].classes
    if classes is None:
        return _regress(values, targets, fit_mean(targets, data).start, settings)
    labels = targets[:, 0].astype(np.intp)
    seen = np.unique(labels)
    if len(seen) < 2:
        return fit_mean(targets, data)
    with single_thread():
        model = HistGradientBoostingClassifier(**settings).fit(values, labels)
    forest = Forest.of({0: model}, np.zeros(1 if len(seen) == 2 else len(seen)))
    return _spread(forest, seen, len(classes))


def fit_residual(values: Matrix, residual: Matrix, data: DataTerms, seed: int) -> Forest:
    """Boosted trees on what another model leaves over, much more shrunken.

    Args:
        values: shape (n, columns): raw features with categories spread, and what the other model
            says.
        residual: shape (n, targets), or (n, classes): one minus or minus the probability.
    """
    leaf = int(np.clip(len(values) // 25, 4, 20))
    settings = {
        "max_iter": RESIDUAL_TREES, "learning_rate": 0.05, "max_leaf_nodes": 8,
        "min_samples_leaf": leaf, "l2_regularization": 1.0, "early_stopping": False,
        "random_state": seed % 2**32,
    }  # fmt: skip
    return _regress(values, residual, np.zeros(residual.shape[1]), settings)


def _regress(values: Matrix, targets: Matrix, start: Matrix, settings: dict[str, Any]) -> Forest:
    from sklearn.ensemble import HistGradientBoostingRegressor

    models = {}
    with single_thread():
        for output, column in enumerate(targets.T):
            present = ~np.isnan(column)
            if present.sum() >= MIN_ROWS:
                model = HistGradientBoostingRegressor(**settings)
                models[output] = model.fit(values[present], column[present])
    return Forest.of(models, start)


def _spread(forest: Forest, seen: "np.typing.NDArray[np.intp]", classes: int) -> Forest:
    """Sums for all classes, of a forest that was fitted on those ``seen``; others: impossible."""
    from dataclasses import replace

    if len(seen) == 2 and classes == 2:
        return replace(forest, link="sigmoid")
    start = np.full(classes, -50.0)  # e^-50: a class that was never seen
    if len(seen) == 2:  # one sum of log odds: the first class stays at zero
        start[seen[0]], start[seen[1]] = 0.0, forest.start[0]
        output = np.full(len(forest.output), seen[1])
    else:
        start[seen] = forest.start
        output = seen[forest.output]
    return replace(forest, start=start, output=output.astype(np.int32), link="softmax")
