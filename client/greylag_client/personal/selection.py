"""Which candidates make the firm's own version, and with which weights.

Weights of a convex blend are those with the least error on rows that the candidates had not seen;
the shared model is one of them. How much better the blend is than the shared model is then measured
by cross-fitting: the weights that a fold is judged with were found without it. With ``z`` that
difference over its standard error (from groups), the blend keeps the share ``Phi(z)``, the
probability that it is really better, and the shared model gets the rest. So a blend that did worse
by two standard errors hardly counts, and one that did as well counts half.

A hard rule (the blend if ``z > 1``, else the shared model) and one that begins at ``z = 1`` were
measured too, on a split of the public glass table that nothing is judged on: both were worse there
at nearly every large firm, since few dozen groups seldom show a gain of some per cent by one
standard error (docs/personalise.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from greylag_protocols.features import Matrix
from greylag_protocols.terms import DataTerms
from scipy.optimize import nnls
from scipy.stats import norm

from greylag_client.local_models.validation import relative_errors, row_losses
from greylag_client.personal.candidates import Candidate, Rows, clustered_mean

STEPS = 400  # of the multiplicative updates; they converge geometrically
LEAST_WEIGHT = 0.02  # smaller ones are left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Weights of the candidates, and what was seen on the way.

    Attributes:
        weights: of each candidate; positive, and 1 together.
        unseen: what the choice would have said of unseen rows, shape (repetitions, n, outputs).
        gain: by how much its loss is below the shared model's, and the standard error of that.
        kept: the share of the blend that was kept.
    """

    weights: tuple[float, ...]
    unseen: Matrix
    gain: tuple[float, float]
    kept: float


def choose(rows: Rows, candidates: Sequence[Candidate]) -> Choice:
    """The weights; the first candidate is the shared model."""
    stacked = np.stack([item.unseen for item in candidates])  # candidates, repetitions, n, outputs
    everything = np.arange(len(rows.values))
    shared = stacked[0]
    crossed = np.empty_like(shared)
    each = len(rows.folds) // rows.repetitions
    for number, (fit, check) in enumerate(rows.folds):
        weights = blend_weights(stacked[:, :, fit], rows.targets[fit], rows.data)
        crossed[number // each, check] = np.tensordot(
            weights, stacked[:, number // each, check], axes=1
        )
    gains = mean_losses(rows, shared) - mean_losses(rows, crossed)
    mean, error = clustered_mean(gains, rows.groups)
    # Without an error to speak of (fewer than three groups) there is nothing to go by.
    kept = float(norm.cdf(mean / error)) if 0 < error < np.inf else 0.0
    weights = kept * blend_weights(stacked[:, :, everything], rows.targets, rows.data)
    weights[weights < LEAST_WEIGHT] = 0.0
    weights[0] += 1.0 - weights.sum()
    return Choice(
        weights=tuple(weights.tolist()),
        unseen=kept * crossed + (1.0 - kept) * shared,
        gain=(mean, error),
        kept=kept,
    )


def mean_losses(rows: Rows, unseen: Matrix) -> Matrix:
    """Each row's loss, the mean over repetitions; shape (n,)."""
    return np.asarray(
        np.mean([row_losses(rows.data, guess, rows.targets) for guess in unseen], axis=0)
    )


def blend_weights(unseen: Matrix, targets: Matrix, data: DataTerms) -> Matrix:
    """Weights on the simplex with the least mean loss.

    Args:
        unseen: shape (candidates, repetitions, n, outputs).
    """
    count = len(unseen)
    weights = np.full(count, 1.0 / count)
    if data.task == "classification":
        labels = targets[:, 0].astype(np.intp)
        likelihood = unseen[:, :, np.arange(len(labels)), labels].reshape(count, -1)
        for _ in range(STEPS):  # EM for the weights of a mixture: log loss never rises
            shares = weights[:, np.newaxis] * likelihood
            weights = (shares / shares.sum(axis=0)).mean(axis=1)
        return weights
    errors = np.stack(
        [np.nan_to_num(relative_errors(data, item, targets)).ravel() for item in unseen]
    )
    return _least_squares(errors @ errors.T)


def _least_squares(products: Matrix) -> Matrix:
    """Weights w on the simplex with the least w' products w: as non-negative least squares."""
    count = len(products)
    scale = np.trace(products) / count
    if scale <= 0:
        return np.asarray(np.eye(count)[0])
    # min |A w|^2 with sum(w) = 1 as non-negative least squares, the sum as a heavy row
    # (Lawson and Hanson 1974, chapter 22); a tiny ridge settles equal candidates.
    values, vectors = np.linalg.eigh(products / scale + 1e-6 * np.eye(count))
    root = np.sqrt(np.maximum(values, 0.0))[:, np.newaxis] * vectors.T
    heavy = 1e4
    found, _ = nnls(np.vstack([root, np.full(count, heavy)]), np.append(np.zeros(count), heavy))
    return np.asarray(found / found.sum())
