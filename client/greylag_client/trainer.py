"""Clipped sums of gradients by unit (record or group), from one backward pass by torch.

How gradients are taken apart, measured and added is ``greylag_client.clipping``'s affair; here is
what they are of: the firm's rows, in batches of public sizes. The sum is float64, so that its error
stays far below what ``quantise.FLOAT_ERROR`` allows for.

**What is measured is what is summed**, number by number. A second backward pass over scaled losses
(ghost clipping) would round differently, and weights can be made such that its gradients are 1e6
times longer than those of the first pass: with them a lead could draw one record out of the noise.

A unit's gradient depends on its own rows and the public weights only. Batches are padded to the
public ``batch_cap`` and groups to ``max_records_per_group``, and a gradient that overflows is
zeroed in its place: time must not show what was sampled. Units stand in random places of the batch
(``sampling.place_units``), since a row's rounding depends on its place.
"""

from functools import partial

import numpy as np
import torch
from greylag_protocols.errors import RefusedError
from greylag_protocols.features import Records
from greylag_protocols.quantise import CLIP_SLACK
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_client.clipping.bookkeeping import BookKeeper, Trace, UnfitError
from greylag_client.clipping.choice import Rows, choose_way
from greylag_client.clipping.gradients import Measured
from greylag_client.clipping.passes import units_per_pass
from greylag_client.models import build_model, load_weights, record_losses
from greylag_client.sampling import NO_UNIT
from greylag_client.units import NO_ROW, rows_of_units, with_empty_row

TRIAL_UNITS = 3


class TrainedModel:
    """The terms' model, and how its gradients are taken apart.

    Raises:
        RefusedError: class ``policy``: a plugin's model cannot be trained by units.
    """

    def __init__(self, terms: Terms) -> None:
        self.module = build_model(terms)
        losses, trial = partial(record_losses, terms), _made_up(terms)
        try:
            self.way = choose_way(terms.model.family, self.module, losses, trial)
        except UnfitError as error:
            raise RefusedError(f"{terms.model.family}: {error}", refusal_class="policy") from None
        width = terms.data.input_width
        one = torch.zeros(terms.rows_per_unit, width, dtype=torch.float64)
        self.units_per_pass = units_per_pass(self.way, self.module, one)

    def load(self, weights: NDArray[np.float32]) -> None:
        """Take on the published weights, shape (d,)."""
        load_weights(self.module, weights)


class SharedModel(TrainedModel):
    """One model for many firms **in one thread**: a round's weights are loaded once. Each firm's
    batch is still computed by itself, to the same bits."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._loaded: NDArray[np.float32] | None = None

    def load(self, weights: NDArray[np.float32]) -> None:
        """Take on the published weights, unless they are those of the last call."""
        if self._loaded is None or not np.array_equal(self._loaded, weights):
            super().load(weights)
            self._loaded = weights.copy()


class Trainer:
    """Computes one firm's clipped sums.

    Args:
        records: the firm's training records.
        model: of these terms, if firms share one (``SharedModel``).
        pad: fill batches up to the public size. Only the lab's simulation, where nobody times
            anything, leaves it out.

    Raises:
        ConfigError: more units than the terms allow a firm.
        RefusedError: class ``policy``: a plugin's model cannot be trained by units.
    """

    def __init__(
        self,
        terms: Terms,
        records: Records,
        *,
        pad: bool = True,
        model: TrainedModel | None = None,
    ) -> None:
        self._terms = terms
        self._pad = pad
        rows = rows_of_units(terms, records)
        # The last unit is empty: what ``NO_UNIT`` points at.
        self._rows = np.pad(rows, ((0, 1), (0, 0)), constant_values=NO_ROW)
        self._inputs = with_empty_row(records.inputs)
        self._targets = with_empty_row(records.targets)
        self._model = TrainedModel(terms) if model is None else model
        self._way = self._model.way

    def __len__(self) -> int:
        return len(self._rows) - 1

    def clipped_sum(
        self, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """The sum over ``units`` of gradients clipped to ``C (1 - CLIP_SLACK)``.

        Args:
            weights: shape (d,), the published weights.
            units: indices of sampled units by their place in the batch, negative where a place is
                empty; at most ``batch_cap`` places, further ones are empty.

        Returns: shape (d,).
        """
        places = self._padded(units)
        if len(places) == 0:
            return np.zeros(self._terms.dimension)
        self._model.load(weights)
        total = torch.zeros(self._terms.dimension, dtype=torch.float64)
        size = self._model.units_per_pass
        for start in range(0, len(places), size):
            total += self._sum_of_pass(places[start : start + size])
        return total.numpy()

    def _sum_of_pass(self, places: NDArray[np.intp]) -> torch.Tensor:
        measured = self._measure(self._rows[places])
        squares = torch.stack([item.squares for item in measured]).sum(0)
        factors = self._factors(squares, torch.from_numpy(places >= 0))
        sums = [item for part in measured for item in part.add(factors)]
        return torch.cat([item.flatten() for item in self._way.in_order(sums)])

    def _factors(self, squares: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
        """What each unit's gradient is scaled by: 0 in empty places and where it overflows."""
        limit = self._terms.privacy.clip_norm * (1 - CLIP_SLACK)
        factors = (limit / squares.sqrt().clamp(min=1e-30)).clamp(max=1.0)
        return torch.where(taken & torch.isfinite(squares), factors, 0.0)

    def _padded(self, units: NDArray[np.intp]) -> NDArray[np.intp]:
        """The units by place, shape (batch_cap,); without padding, those that are there."""
        if not self._pad:
            return units[units >= 0]
        missing = max(0, self._terms.batch_cap - len(units))
        return np.pad(units, (0, missing), constant_values=NO_UNIT)

    def _measure(self, rows: NDArray[np.intp]) -> list[Measured]:
        if isinstance(self._way, BookKeeper):
            return self._way.measure_traces(self._trace(rows))
        return self._way.measure(*self._take(rows))

    def _trace(self, rows: NDArray[np.intp]) -> list[Trace]:
        """Every layer's inputs and output gradients for the units' losses, each the mean over the
        unit's rows."""
        if not isinstance(self._way, BookKeeper):
            raise TypeError("a model outside the book-keeping has no traces")
        return self._way.trace(*self._take(rows))

    def _take(self, rows: NDArray[np.intp]) -> Rows:
        index = torch.from_numpy(rows)
        return self._inputs[index], self._targets[index], index != NO_ROW


def _made_up(terms: Terms) -> Rows:
    """Units to try a model on before any record is."""
    draws, rows = np.random.default_rng(0), min(2, terms.rows_per_unit)
    inputs = draws.uniform(-1, 1, (TRIAL_UNITS, rows, terms.data.input_width))
    if terms.data.task == "classification":
        targets = draws.integers(0, terms.data.outputs, (TRIAL_UNITS, rows, 1)).astype(np.float64)
    else:
        targets = draws.uniform(-1, 1, (TRIAL_UNITS, rows, terms.data.outputs))
    present = torch.ones(TRIAL_UNITS, rows, dtype=torch.bool)
    return torch.from_numpy(inputs), torch.from_numpy(targets), present
