"""Clipped sums of gradients by unit (record or group), by torch and Opacus (ghost clipping).

Ghost clipping (Li et al. 2022; Opacus ``GradSampleModuleFastGradientClipping``): a first backward
pass gives every unit's gradient norm without its gradient, a second one the sum of gradients
scaled to norm ``C (1 - 1e-5)`` at most. All arithmetic is float64, so that the error of the sum
stays far below what ``quantise.FLOAT_ERROR`` allows for.

A unit's gradient depends on its own rows and the public weights only. A group is laid out as a
sequence of rows, whose gradients Opacus adds up before it takes the norm. Batches are padded to the
public ``batch_cap`` and groups to ``max_records_per_group``: time must not show what was sampled.
"""

import warnings
from typing import cast

import numpy as np
import torch
from greylag_protocols.features import Records
from greylag_protocols.quantise import CLIP_SLACK
from greylag_protocols.terms import Terms
from numpy.typing import NDArray
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
    GradSampleModuleFastGradientClipping,
)

from greylag_client.models import build_mlp, load_weights, record_losses
from greylag_client.units import NO_ROW, rows_of_units, with_empty_row

# Said by torch because inputs need no gradient; ghost clipping does not use that gradient.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)


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
        self._rows = rows_of_units(terms, records)
        self._inputs = with_empty_row(records.inputs)
        self._targets = with_empty_row(records.targets)
        self._module = build_mlp(terms)
        self._ghost = GradSampleModuleFastGradientClipping(
            self._module, loss_reduction="sum", use_ghost_clipping=True
        )

    def __len__(self) -> int:
        return len(self._rows)

    def clipped_sum(
        self, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """The sum over ``units`` of gradients clipped to ``C (1 - CLIP_SLACK)``.

        Args:
            weights: shape (d,), the published weights.
            units: indices of at most ``batch_cap`` sampled units; may be empty.

        Returns: shape (d,).
        """
        rows = self._padded(units)
        if len(rows) == 0:
            return np.zeros(self._terms.dimension)
        load_weights(self._module, weights)
        self._ghost.enable_hooks()
        losses = self._losses(rows)
        losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        norms = self._ghost.get_norm_sample()
        self._ghost.disable_hooks()
        self._ghost.zero_grad(set_to_none=True)
        usable = torch.isfinite(norms[: len(units)]).numpy()
        if not usable.all():
            # Nought times infinity is no number: a unit whose gradient overflows has to leave the
            # batch. Scaled by nought it would still spoil what the others contribute.
            return self.clipped_sum(weights, units[usable])
        limit = self._terms.privacy.clip_norm * (1 - CLIP_SLACK)
        factors = (limit / norms.clamp(min=1e-30)).clamp(max=1.0)
        factors[len(units) :] = 0.0
        (losses * factors).sum().backward()
        gradient = torch.cat(
            [cast(torch.Tensor, item.grad).reshape(-1) for item in self._module.parameters()]
        )
        self._ghost.zero_grad(set_to_none=True)
        return cast(NDArray[np.float64], gradient.numpy())

    def _padded(self, units: NDArray[np.intp]) -> NDArray[np.intp]:
        """Row numbers of the units, shape (batch_cap, rows per unit), padded with ``NO_ROW``."""
        rows = self._rows[units]
        missing = self._terms.batch_cap - len(rows)
        if self._pad and missing > 0:
            rows = np.pad(rows, ((0, missing), (0, 0)), constant_values=NO_ROW)
        return rows

    def _losses(self, rows: NDArray[np.intp]) -> torch.Tensor:
        """The loss of each unit, the mean over its rows, shape (units,)."""
        units, width = rows.shape
        present = torch.from_numpy(rows != NO_ROW)
        index = torch.from_numpy(rows)
        if width == 1:
            outputs = self._ghost(self._inputs[index[:, 0]])
        else:
            outputs = self._ghost(self._inputs[index]).flatten(0, 1)
        targets = self._targets[index].flatten(0, 1)
        losses = record_losses(self._terms, outputs, targets).view(units, width)
        return torch.where(present, losses, 0.0).sum(1) / present.sum(1).clamp(min=1)
