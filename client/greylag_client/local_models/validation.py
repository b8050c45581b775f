"""A firm's own cross-validation: folds of whole groups, and what an error costs."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from greylag_protocols.features import Matrix, target_bounds
from greylag_protocols.terms import DataTerms
from numpy.typing import NDArray

Rows = NDArray[np.intp]
Folds = list[tuple[Rows, Rows]]  # (fitted on, validated on)
Names = NDArray[np.object_]


def group_folds(groups: Names, count: int, seed: int) -> Folds:
    """Up to ``count`` folds of whole groups with about equally many rows; none if only one group.

    Large groups are dealt first, each to the emptiest fold.
    """
    names, inverse, sizes = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    count = min(count, len(names))
    if count < 2:
        return []
    shuffled = np.random.default_rng(seed).permutation(len(names))
    filled = np.zeros(count)
    fold_of = np.empty(len(names), dtype=np.intp)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of[group] = np.argmin(filled)
        filled[fold_of[group]] += sizes[group]
    row_fold = fold_of[inverse]
    return [
        (np.flatnonzero(row_fold != fold), np.flatnonzero(row_fold == fold))
        for fold in range(count)
    ]


def loss_of(guesses: Sequence[tuple[Matrix, Matrix]], data: DataTerms) -> float:
    """Mean over targets of RMSE / range, or log loss, over (predicted, true) pairs of all folds."""
    predicted = np.concatenate([guess for guess, _ in guesses])
    truth = np.concatenate([target for _, target in guesses])
    if data.task == "classification":
        return float(log_losses(predicted, truth).mean())
    squared = relative_errors(data, predicted, truth) ** 2
    present = ~np.isnan(squared)
    counts = np.maximum(present.sum(axis=0), 1)
    return float(np.sqrt(np.where(present, squared, 0.0).sum(axis=0) / counts).mean())


def log_losses(predicted: Matrix, truth: Matrix) -> Matrix:
    """Minus the logarithm of the true class's probability, shape (n,)."""
    likelihood = predicted[np.arange(len(truth)), truth[:, 0].astype(np.intp)]
    return -np.log(np.clip(likelihood, 1e-6, 1.0))


def relative_errors(data: DataTerms, predicted: Matrix, truth: Matrix) -> Matrix:
    """Predicted minus true in parts of the public range, shape (n, targets); NaN for gaps."""
    low, high = target_bounds(data)
    return np.asarray((predicted - truth) / (high - low))


def row_losses(data: DataTerms, predicted: Matrix, truth: Matrix) -> Matrix:
    """The loss of each row, shape (n,): mean square over its targets, in parts of their ranges; or
    minus the logarithm of the probability of the true class."""
    if data.task == "classification":
        return log_losses(predicted, truth)
    # A row without any target was refused.
    return np.asarray(np.nanmean(relative_errors(data, predicted, truth) ** 2, axis=1))


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Small matrices: more threads only wait for each other, and sums would depend on them."""
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="openmp"):  # scikit-learn's trees
            yield
    finally:
        torch.set_num_threads(threads)
