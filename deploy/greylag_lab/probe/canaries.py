"""Dirac canaries: units whose gradient points along one weight and is ten clip norms long.

They enter where the backward pass ends, so that all that follows is the build's own: norms,
clipping, padding, sums. For ``unit = "firm"`` a canary is a firm that trains to such an update.
"""

from collections.abc import Sequence

import numpy as np
import torch
from greylag_client.clipping.bookkeeping import Trace
from greylag_client.local_training import LocalTrainer
from greylag_client.trainer import Trainer
from greylag_protocols.features import Records, encode_features, encode_targets
from greylag_protocols.terms import DataTerms, Terms
from numpy.typing import NDArray

LOUD = 10.0  # clip norms
# A weight's gradient is output delta times input, and the bias sees the delta alone: with an input
# of this size the bias's part is as much smaller.
REACH = 1e6


class CanaryTrainer(Trainer):
    """A trainer of records or groups, some of whose units are canaries, after the real ones.

    Args:
        loud: the canaries' norm before clipping.
        coordinates: the weight of each canary.
    """

    def __init__(
        self,
        terms: Terms,
        records: Records,
        *,
        coordinates: NDArray[np.intp],
        loud: float,
        pad: bool = True,
    ) -> None:
        super().__init__(terms, _with_silent_rows(records, len(coordinates)), pad=pad)
        self._first, self._loud = len(records), loud
        shapes = [item.shape for item in terms.parameters]
        self._places = [_place_of(int(number), shapes) for number in coordinates]

    def _trace(self, rows: NDArray[np.intp]) -> list[Trace]:
        traces = [(inputs.clone(), deltas.clone()) for inputs, deltas in super()._trace(rows)]
        for unit in np.flatnonzero(rows[:, 0] >= self._first):
            for inputs, deltas in traces:
                inputs[unit], deltas[unit] = 0.0, 0.0
            layer, out, into = self._places[rows[unit, 0] - self._first]
            inputs, deltas = traces[layer]
            deltas[unit, 0, out] = self._loud
            if into is not None:
                inputs[unit, 0, into], deltas[unit, 0, out] = REACH, self._loud / REACH
        return traces


class CanaryFirm(LocalTrainer):
    """A firm that trains to an update along one weight, or, emptied, to none."""

    def __init__(
        self, terms: Terms, records: Records, *, coordinate: int | None, loud: float
    ) -> None:
        super().__init__(terms, records)
        self._coordinate, self._loud = coordinate, loud

    def _train(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        trained = weights.astype(np.float64)
        if self._coordinate is not None:
            trained[self._coordinate] -= self._loud
        return trained


def _place_of(coordinate: int, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int, int | None]:
    """The layer, output and input (None: the bias) that a weight belongs to."""
    at = coordinate
    for number, shape in enumerate(shapes):
        size = int(np.prod(shape))
        if at < size:
            into = at % shape[1] if len(shape) == 2 else None
            return number // 2, at // shape[1] if len(shape) == 2 else at, into
        at -= size
    raise IndexError(coordinate)


def _with_silent_rows(records: Records, count: int) -> Records:
    """Further rows of zeros, each a unit of its own: canaries take their places."""
    groups = records.groups
    if groups is not None:
        groups = np.concatenate([groups, int(groups.max(initial=-1)) + 1 + np.arange(count)])
    return Records(
        inputs=np.pad(records.inputs, ((0, count), (0, 0))),
        targets=np.pad(records.targets, ((0, count), (0, 0))),
        groups=groups,
    )


def made_up_records(terms: Terms, units: int, rng: np.random.Generator) -> Records:
    """Rows anywhere within the public bounds: full units, as far as the terms allow."""
    rows = units * terms.rows_per_unit if terms.privacy.unit == "group" else units
    inputs = encode_features(terms.data, _values(terms.data, rows, rng))
    if terms.data.task == "classification":
        targets = rng.integers(0, terms.data.outputs, (rows, 1)).astype(np.float64)
    else:
        low, high = zip(*(item.range or (0.0, 1.0) for item in terms.data.targets), strict=True)
        targets = encode_targets(terms.data, rng.uniform(low, high, (rows, len(low))))
    groups = np.arange(rows) // terms.rows_per_unit if terms.privacy.unit == "group" else None
    return Records(inputs=inputs, targets=targets, groups=groups)


def _values(data: DataTerms, rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
    parts = []
    for feature in data.features:
        low, high = feature.bounds
        shape = (rows, len(feature.names))
        if feature.categories is None:
            parts.append(rng.uniform(low, high, shape))
        else:
            parts.append(rng.integers(int(low), int(high) + 1, shape).astype(np.float64))
    return np.concatenate(parts, axis=1)


def seeded_weights(
    terms: Terms, rng: np.random.Generator, *, scale: float = 0.1
) -> NDArray[np.float32]:
    """Random weights; with a large ``scale`` as a lead could publish them to blow gradients up."""
    return (rng.normal(0.0, 1.0, terms.dimension) * scale).astype(np.float32)


def single_thread() -> None:
    """As the agent trains (sums in another order differ in their last bits)."""
    torch.set_num_threads(1)
