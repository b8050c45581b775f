"""From a row's values to what the model sees, and from its output back to physical units.

Everything here is public and fixed by the terms: no scaling, imputation or encoding is fitted to
data, so a record's gradient depends on that record and on public state alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greylag_protocols.terms import DataTerms

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
        values: shape (n, features), in the order of ``terms.feature_names``; NaN is missing. Values
            outside their public range are clamped to it: the bound must hold whatever comes.
    """
    low, high, multiplier, root = (
        np.array(column)
        for column in zip(
            *(
                (feature.range[0], feature.range[1], feature.multiplier, feature.scale == "sqrt")
                for feature in terms.features
                for _ in feature.names
            ),
            strict=True,
        )
    )
    missing = np.isnan(values)
    share = np.clip((np.where(missing, low, values) - low) / (high - low), 0.0, 1.0)
    inputs = multiplier * np.where(root, np.sqrt(share), 2.0 * share - 1.0)
    inputs = np.where(missing, 0.0, inputs)
    if terms.missing == "zero-and-flag":
        inputs = np.concatenate([inputs, missing.astype(np.float64)], axis=1)
    return inputs


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
