"""What a firm reaches alone, without privacy: the comparison that a shared model must stand.

The better of two models, chosen by the firm's own grouped cross-validation on its training rows:
the plan's network, stopped where that validation is best, and gradient-boosted trees on raw
features. Held-out rows are never looked at.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from greylag_protocols.features import (
    Matrix,
    decode_outputs,
    encode_features,
    encode_targets,
    target_bounds,
    target_multipliers,
)
from greylag_protocols.terms import DataTerms, ModelTerms
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from greylag_client.table import Table

FOLDS = 3
MIN_ROWS = 10  # below this a firm's best guess is its own mean
LEARNING_RATE = 0.005
WEIGHT_DECAY = 1e-3
BATCH = 64
CHECK_EVERY = 25  # steps between looks at the validation rows
PATIENCE = 12  # looks without a better one before training stops
MAX_STEPS = 1500
TREES = 120

Rows = NDArray[np.intp]
Folds = list[tuple[Rows, Rows]]  # (fitted on, validated on)


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
    groups = np.array(table.groups, dtype=object)[table.train]
    if len(values) < MIN_ROWS:
        return Baseline(kind="mean", predict=fit_mean(targets, data))
    folds = group_folds(groups, FOLDS, seed)
    if not folds:
        return Baseline(kind="trees", predict=_fit_trees(values, targets, data, seed))
    network, network_loss = fit_network(
        values, targets, folds, data, model, seed, batch=BATCH, max_steps=MAX_STEPS
    )
    guesses = [
        (_fit_trees(values[fit], targets[fit], data, seed)(values[check]), targets[check])
        for fit, check in folds
    ]
    if network_loss <= loss_of(guesses, data):
        return Baseline(kind="mlp", predict=network)
    return Baseline(kind="trees", predict=_fit_trees(values, targets, data, seed))


def group_folds(groups: NDArray[np.object_], count: int, seed: int) -> Folds:
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
        likelihood = predicted[np.arange(len(truth)), truth[:, 0].astype(np.intp)]
        return float(-np.log(np.clip(likelihood, 1e-6, 1.0)).mean())
    low, high = target_bounds(data)
    squared = ((predicted - truth) / (high - low)) ** 2
    present = ~np.isnan(squared)
    counts = np.maximum(present.sum(axis=0), 1)
    return float(np.sqrt(np.where(present, squared, 0.0).sum(axis=0) / counts).mean())


def fit_mean(targets: Matrix, data: DataTerms) -> Predict:
    classes = data.targets[0].classes
    if classes is not None:
        shares = np.ones(len(classes))  # one imaginary row of each, so that no class is impossible
        shares += np.bincount(targets[:, 0].astype(np.intp), minlength=len(classes))
        constant = shares / shares.sum()
    else:
        low, high = target_bounds(data)
        present = ~np.isnan(targets)
        totals = np.where(present, targets, 0.0).sum(axis=0)
        counts = present.sum(axis=0)
        constant = np.where(counts > 0, totals / np.maximum(counts, 1), (low + high) / 2.0)
    return lambda values: np.tile(constant, (len(values), 1))


def _fit_trees(values: Matrix, targets: Matrix, data: DataTerms, seed: int) -> Predict:
    """Boosted trees, one ensemble a target; leaves shrink with the firm."""
    leaf = int(np.clip(len(values) // 25, 2, 20))
    settings = {
        "max_iter": TREES, "learning_rate": 0.08, "max_leaf_nodes": 15, "min_samples_leaf": leaf,
        "l2_regularization": 0.1, "early_stopping": False, "random_state": seed % 2**32,
    }  # fmt: skip
    classes = data.targets[0].classes
    if classes is not None:
        labels = targets[:, 0].astype(np.intp)
        seen = np.unique(labels)
        if len(seen) < 2:
            return fit_mean(targets, data)
        with single_thread():
            classifier = HistGradientBoostingClassifier(**settings).fit(values, labels)

        def probabilities(raw: Matrix) -> Matrix:
            spread = np.zeros((len(raw), len(classes)))
            with single_thread():
                spread[:, seen] = classifier.predict_proba(raw)
            return spread

        return probabilities
    low, high = target_bounds(data)
    fallback = fit_mean(targets, data)
    regressors = []
    with single_thread():
        for column in targets.T:
            present = ~np.isnan(column)
            regressors.append(
                HistGradientBoostingRegressor(**settings).fit(values[present], column[present])
                if present.sum() >= MIN_ROWS
                else None
            )

    def physical(raw: Matrix) -> Matrix:
        guesses = fallback(raw)
        with single_thread():
            for index, regressor in enumerate(regressors):
                if regressor is not None:
                    guesses[:, index] = regressor.predict(raw)
        return np.clip(guesses, low, high)

    return physical


class _Networks(torch.nn.Module):
    """Several networks of the plan's shape trained side by side on one stream of batches.

    One is fitted on all rows; one per fold leaves that fold out and says when to stop.
    """

    def __init__(self, widths: Sequence[int], members: int, activation: str, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self._activation = torch.tanh if activation == "tanh" else torch.relu
        self.weights = torch.nn.ParameterList()
        self.biases = torch.nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise(widths):
            bound = (3.0 / fan_in) ** 0.5
            first = (torch.rand(fan_in, fan_out, generator=generator) * 2.0 - 1.0) * bound
            self.weights.append(torch.nn.Parameter(first.repeat(members, 1, 1)))
            self.biases.append(torch.nn.Parameter(torch.zeros(members, 1, fan_out)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, inputs) to (members, n, outputs)."""
        hidden = inputs.expand(len(self.weights[0]), -1, -1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer < last:
                hidden = self._activation(hidden)
        return hidden


def fit_network(
    values: Matrix,
    targets: Matrix,
    folds: Folds,
    data: DataTerms,
    model: ModelTerms,
    seed: int,
    *,
    batch: int,
    max_steps: int,
) -> tuple[Predict, float]:
    """The plan's network on all rows, stopped where the folds' loss is best, and that loss.

    Targets enter at [-1, 1] whatever their multipliers: those tune clipping, and nothing is
    clipped here.
    """
    inputs = torch.from_numpy(encode_features(data, values)).float()
    classes = data.targets[0].classes
    outputs = len(classes) if classes is not None else len(data.targets)
    if data.task == "regression":
        targets_scaled = encode_targets(data, targets) / target_multipliers(data)
    else:
        targets_scaled = targets
    goals = torch.from_numpy(targets_scaled).float()
    fitted = torch.ones(len(folds) + 1, len(values))
    for member, (_, check) in enumerate(folds):
        fitted[member, torch.from_numpy(check)] = 0.0
    widths = [inputs.shape[1], *model.hidden, outputs]
    rng = np.random.default_rng(seed)
    with single_thread():
        networks = _Networks(widths, len(folds) + 1, model.activation, seed)
        adam = torch.optim.AdamW(
            networks.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, foreach=False
        )
        best, best_step, kept = np.inf, 0, _final_member(networks)
        for step, rows in enumerate(_batches(len(values), batch, rng)):
            if step % CHECK_EVERY == 0:
                with torch.no_grad():
                    guesses = [
                        (_decode(networks(inputs[check])[member], data), targets[check])
                        for member, (_, check) in enumerate(folds)
                    ]
                loss = loss_of(guesses, data)
                if loss < best:
                    best, best_step, kept = loss, step, _final_member(networks)
                if step - best_step >= PATIENCE * CHECK_EVERY or step >= max_steps:
                    break
            adam.zero_grad()
            loss_sum = _training_loss(networks(inputs[rows]), goals[rows], fitted[:, rows], data)
            loss_sum.backward()  # type: ignore[no-untyped-call]
            adam.step()

    def predict(raw: Matrix) -> Matrix:
        hidden = encode_features(data, raw)
        for layer, (weight, bias) in enumerate(kept):
            hidden = hidden @ weight + bias
            if layer < len(kept) - 1:
                hidden = np.tanh(hidden) if model.activation == "tanh" else np.maximum(hidden, 0.0)
        return _decode(torch.from_numpy(hidden), data)

    return predict, best


def _training_loss(
    outputs: torch.Tensor, goals: torch.Tensor, fitted: torch.Tensor, data: DataTerms
) -> torch.Tensor:
    """Sum over members of the mean loss over the rows that the member may see."""
    if data.task == "classification":
        rows = goals[:, 0].long().expand(len(outputs), -1)
        loss = torch.nn.functional.cross_entropy(outputs.transpose(1, 2), rows, reduction="none")
        weight = fitted
    else:
        present = ~torch.isnan(goals)
        loss = (outputs - torch.nan_to_num(goals)) ** 2
        weight = fitted.unsqueeze(2) * present
        loss, weight = loss.flatten(1), weight.flatten(1)
    return ((loss * weight).sum(1) / weight.sum(1).clamp(min=1.0)).sum()


def _decode(outputs: torch.Tensor, data: DataTerms) -> Matrix:
    raw: Matrix = outputs.double().numpy()
    if data.task == "classification":
        spread = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(spread / spread.sum(axis=1, keepdims=True))
    return decode_outputs(data, raw * target_multipliers(data))


def _final_member(networks: _Networks) -> list[tuple[Matrix, Matrix]]:
    """Weights and biases of the network that is fitted on all rows, layer by layer."""
    return [
        (weight[-1].detach().double().numpy(), bias[-1].detach().double().numpy())
        for weight, bias in zip(networks.weights, networks.biases, strict=True)
    ]


def _batches(rows: int, batch: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Shuffled batches, pass after pass, without end."""
    while True:
        order = rng.permutation(rows)
        for at in range(0, rows, batch):
            yield torch.from_numpy(order[at : at + batch])


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Small matrices: more threads only wait for each other, and sums would depend on them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="openmp"):  # scikit-learn's trees
            yield
    finally:
        torch.set_num_threads(threads)
