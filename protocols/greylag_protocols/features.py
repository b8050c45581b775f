"""From a row's values to what the model sees, and from its output back to physical units.

Everything here is public and fixed by the terms: no scaling, imputation or encoding is fitted to
data, so a record's gradient depends on that record and on public state alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greylag_protocols.terms import DataTerms, Feature

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Rows ready for the model.

    Attributes:
        inputs: shape (n, number of model inputs), bounded by the terms.
        targets: regression: shape (n, targets), scaled as the terms say, NaN where a value is
            missing; classification: shape (n, 1), the class number.
        groups: the number of each row's group, shape (n,), where rows have groups.
    """

    inputs: Matrix
    targets: Matrix
    groups: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Records":
        """The records at ``rows`` (indices or a mask)."""
        groups = None if self.groups is None else self.groups[rows]
        return Records(inputs=self.inputs[rows], targets=self.targets[rows], groups=groups)


def encode_features(terms: DataTerms, values: Matrix) -> Matrix:
    """Model inputs from raw values.

    Args:
        values: shape (n, features), in the order of ``terms.feature_names``; of a text the number
            of its category, counted from 0; NaN is missing. Values outside their public range are
            clamped to it: the bound must hold whatever comes.

    Returns: shape (n, ``terms.input_width``): the features, then a flag for each that may be
        missing, 1 where it is.
    """
    parts = [_encode(feature, block) for feature, block in _blocks(terms, values)]
    flags = np.isnan(values[:, np.flatnonzero(terms.may_miss)])
    return np.concatenate([*parts, flags.astype(np.float64)], axis=1)


def spread_categories(terms: DataTerms, values: Matrix) -> Matrix:
    """Raw values for models that split by thresholds, shape (n, ``terms.columns_width``): numbers
    and ordered categories as they are, a column of noughts and ones for each other category. NaN
    stays NaN."""
    if terms.columns_width == values.shape[1]:
        return values
    parts = [
        np.where(np.isnan(block).repeat(feature.width, axis=1), np.nan, _one_hot(feature, block))
        if feature.one_hot
        else block
        for feature, block in _blocks(terms, values)
    ]
    return np.concatenate(parts, axis=1)


def _blocks(terms: DataTerms, values: Matrix) -> Iterator[tuple[Feature, Matrix]]:
    """Each feature with its columns of raw values."""
    at = 0
    for feature in terms.features:
        yield feature, values[:, at : at + len(feature.names)]
        at += len(feature.names)


def _encode(feature: Feature, values: Matrix) -> Matrix:
    if feature.one_hot:
        return feature.multiplier * _one_hot(feature, values)
    low, high = feature.bounds
    missing = np.isnan(values)
    share = np.clip((np.where(missing, low, values) - low) / (high - low), 0.0, 1.0)
    scaled = np.sqrt(share) if feature.scale == "sqrt" else 2.0 * share - 1.0
    return np.where(missing, 0.0, feature.multiplier * scaled)


def _one_hot(feature: Feature, values: Matrix) -> Matrix:
    """1 in the column of each value's category, shape (n, columns x categories); of a gap all 0."""
    hot = values[:, :, np.newaxis] == np.arange(feature.width, dtype=np.float64)
    return np.asarray(hot.reshape(len(values), values.shape[1] * feature.width), dtype=np.float64)


def encode_targets(terms: DataTerms, values: Matrix) -> Matrix:
    """Model targets from raw numbers, shape (n, targets): each range becomes
    [-multiplier, multiplier]; NaN stays."""
    low, high = target_bounds(terms)
    clamped = np.clip(values, low, high)  # NaN passes through
    return target_multipliers(terms) * (2.0 * (clamped - low) / (high - low) - 1.0)


def decode_outputs(terms: DataTerms, outputs: Matrix) -> Matrix:
    """Physical values from a regression's outputs, kept inside the public range."""
    low, high = target_bounds(terms)
    share = (outputs / target_multipliers(terms) + 1.0) / 2.0
    return np.clip(low + share * (high - low), low, high)


def target_bounds(terms: DataTerms) -> tuple[Matrix, Matrix]:
    """Low and high ends of the regression targets, shape (targets,) each."""
    ranges = [target.range for target in terms.targets if target.range is not None]
    bounds = np.array(ranges, dtype=np.float64)
    return bounds[:, 0], bounds[:, 1]


def target_multipliers(terms: DataTerms) -> Matrix:
    """The regression targets' multipliers, shape (targets,)."""
    return np.array([target.multiplier for target in terms.targets], dtype=np.float64)
