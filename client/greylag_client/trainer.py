"""Clipped sums of gradients by unit (record or group), from one backward pass by torch.

Book-keeping (Bu et al. 2022, "Differentially private optimization on large model at small cost"):
one backward pass down to the layers' outputs; with the layers' inputs, these give every unit's
gradient norm, and, scaled, the sum of gradients of norm ``C (1 - 1e-5)`` at most. All arithmetic is
float64, so that the error of the sum stays far below what ``quantise.FLOAT_ERROR`` allows for.

**What is measured is what is summed**, number by number. A second backward pass over scaled losses
(ghost clipping) would round differently, and weights can be made such that its gradients are 1e6
times longer than those of the first pass: with them a lead could draw one record out of the noise.

A unit's gradient depends on its own rows and the public weights only. Batches are padded to the
public ``batch_cap`` and groups to ``max_records_per_group``, and a gradient that overflows is
zeroed in its place: time must not show what was sampled. Units stand in random places of the batch
(``sampling.place_units``), since a row's rounding depends on its place.
"""

import numpy as np
import torch
from greylag_protocols.features import Records
from greylag_protocols.quantise import CLIP_SLACK
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_client.models import build_model, load_weights, record_losses
from greylag_client.sampling import NO_UNIT
from greylag_client.units import NO_ROW, rows_of_units, with_empty_row

# A layer's inputs and the gradients of its outputs, shapes (units, rows, fan in or out).
Trace = tuple[torch.Tensor, torch.Tensor]


class Trainer:
    """Computes one firm's clipped sums.

    Args:
        records: the firm's training records.
        pad: fill batches up to the public size. Only the lab's simulation, where nobody times
            anything, leaves it out.

    Raises:
        ConfigError: more units than the terms allow a firm.
    """

    def __init__(self, terms: Terms, records: Records, *, pad: bool = True) -> None:
        self._terms = terms
        self._pad = pad
        rows = rows_of_units(terms, records)
        # The last unit is empty: what ``NO_UNIT`` points at.
        self._rows = np.pad(rows, ((0, 1), (0, 0)), constant_values=NO_ROW)
        self._inputs = with_empty_row(records.inputs)
        self._targets = with_empty_row(records.targets)
        self._module = build_model(terms)

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
        load_weights(self._module, weights)
        rows = self._rows[places]
        taken, traces = torch.from_numpy(places >= 0), self._trace(rows)
        if rows.shape[1] == 1:
            parts = self._sum_of_products(traces, taken)
        else:
            parts = self._sum_of_groups(traces, taken)
        return np.concatenate([part.reshape(-1).numpy() for part in parts])

    def _sum_of_products(self, traces: list[Trace], taken: torch.Tensor) -> list[torch.Tensor]:
        """One row a unit: a layer's gradient is an outer product, its norm a product of norms."""
        squares = sum(
            (deltas**2).sum((1, 2)) * ((inputs**2).sum((1, 2)) + 1.0) for inputs, deltas in traces
        )
        factors = self._factors(torch.as_tensor(squares), taken)
        parts = []
        for inputs, deltas in traces:
            # Also zeroed, not only scaled by nought: nought times infinity is no number.
            scaled = torch.nan_to_num(deltas[:, 0] * factors[:, None], 0.0, 0.0, 0.0)
            parts += [scaled.T @ torch.nan_to_num(inputs[:, 0], 0.0, 0.0, 0.0), scaled.sum(0)]
        return parts

    def _sum_of_groups(self, traces: list[Trace], taken: torch.Tensor) -> list[torch.Tensor]:
        """Several rows a unit: its gradient is formed, measured and added. A norm from inner
        products would lose a sum that nearly cancels."""
        sums: list[torch.Tensor] = []
        for unit in range(len(traces[0][0])):
            gradients = []
            for inputs, deltas in traces:
                gradients += [deltas[unit].T @ inputs[unit], deltas[unit].sum(0)]
            square = torch.stack([(item**2).sum() for item in gradients]).sum()
            factor = self._factors(square[None], taken[unit : unit + 1])
            scaled = [torch.nan_to_num(item * factor, 0.0, 0.0, 0.0) for item in gradients]
            sums = [a + b for a, b in zip(sums, scaled, strict=True)] if sums else scaled
        return sums

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

    def _trace(self, rows: NDArray[np.intp]) -> list[Trace]:
        """Every linear layer's inputs and output gradients for the units' losses, each the mean
        over the unit's rows."""
        units, width = rows.shape
        present = torch.from_numpy(rows != NO_ROW)
        index = torch.from_numpy(rows).flatten()
        values, inputs, outputs = self._inputs[index], [], []
        for layer in self._module:
            if isinstance(layer, torch.nn.Linear):
                inputs.append(values.detach().view(units, width, -1))
                values = layer(values)
                outputs.append(values)
            else:
                values = layer(values)
        losses = record_losses(self._terms, values, self._targets[index]).view(units, width)
        means = torch.where(present, losses, 0.0).sum(1) / present.sum(1).clamp(min=1)
        deltas = torch.autograd.grad(means.sum(), outputs)
        return [
            (item, delta.view(units, width, -1)) for item, delta in zip(inputs, deltas, strict=True)
        ]
