"""Clipped sums of per-record gradients, by torch and Opacus (ghost clipping).

Ghost clipping (Li et al. 2022; Opacus ``GradSampleModuleFastGradientClipping``): a first backward
pass gives every record's gradient norm without its gradient, a second one the sum of gradients
scaled to norm ``C (1 - 1e-5)`` at most. All arithmetic is float64, so that the error of the sum
stays far below what ``quantise.FLOAT_ERROR`` allows for.

A record's gradient depends on that record and the public weights only. Batches are padded to the
public ``batch_cap``: time must not show how many records were sampled.
"""

import warnings
from collections.abc import Callable
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

ACTIVATIONS: dict[str, Callable[[], torch.nn.Module]] = {
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
}


def build_mlp(terms: Terms) -> torch.nn.Sequential:
    """The terms' multilayer perceptron in float64; tensors as ``terms.parameters`` orders them."""
    layers: list[torch.nn.Module] = []
    shapes = [item.shape for item in terms.parameters if len(item.shape) == 2]
    for fan_out, fan_in in shapes:
        layers.append(torch.nn.Linear(fan_in, fan_out, dtype=torch.float64))
        layers.append(ACTIVATIONS[terms.model.activation]())
    return torch.nn.Sequential(*layers[:-1])


def record_losses(terms: Terms, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each record, shape (n,): half the mean squared error over the targets that are
    present, or cross-entropy."""
    if terms.data.task == "classification":
        return torch.nn.functional.cross_entropy(
            outputs, targets[:, 0].to(torch.int64), reduction="none"
        )
    present = ~torch.isnan(targets)
    errors = torch.where(present, outputs - torch.nan_to_num(targets), 0.0)
    return 0.5 * (errors**2).sum(1) / present.sum(1).clamp(min=1)


# Said by torch because inputs need no gradient; ghost clipping does not use that gradient.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)


class Trainer:
    """Computes one firm's clipped sums.

    Args:
        records: the firm's training records.
        pad: fill batches up to the public size. Only the lab's simulation, where nobody times
            anything, leaves it out.
    """

    def __init__(self, terms: Terms, records: Records, *, pad: bool = True) -> None:
        self._terms = terms
        self._pad = pad
        self._inputs = torch.from_numpy(np.ascontiguousarray(records.inputs))
        self._targets = torch.from_numpy(np.ascontiguousarray(records.targets))
        self._module = build_mlp(terms)
        self._ghost = GradSampleModuleFastGradientClipping(
            self._module, loss_reduction="sum", use_ghost_clipping=True
        )

    def __len__(self) -> int:
        return len(self._inputs)

    def clipped_sum(
        self, weights: NDArray[np.float32], rows: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """The sum over ``rows`` of gradients clipped to ``C (1 - CLIP_SLACK)``.

        Args:
            weights: shape (d,), the published weights.
            rows: indices of at most ``batch_cap`` sampled records; may be empty.

        Returns: shape (d,).
        """
        inputs, targets, real = self._batch(rows)
        if len(inputs) == 0:
            return np.zeros(self._terms.dimension)
        self._load(weights)
        self._ghost.enable_hooks()
        losses = record_losses(self._terms, self._ghost(inputs), targets)
        losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        norms = self._ghost.get_norm_sample()
        self._ghost.disable_hooks()
        self._ghost.zero_grad(set_to_none=True)
        usable = torch.isfinite(norms[: len(rows)]).numpy()
        if not usable.all():
            # Nought times infinity is no number: a record whose gradient overflows has to leave the
            # batch. Scaled by nought it would still spoil what the others contribute.
            return self.clipped_sum(weights, rows[usable])
        limit = self._terms.privacy.clip_norm * (1 - CLIP_SLACK)
        factors = (limit / norms.clamp(min=1e-30)).clamp(max=1.0)
        factors = torch.where(real, factors, 0.0)
        (losses * factors).sum().backward()  # type: ignore[no-untyped-call]
        gradient = torch.cat(
            [cast(torch.Tensor, item.grad).reshape(-1) for item in self._module.parameters()]
        )
        self._ghost.zero_grad(set_to_none=True)
        return cast(NDArray[np.float64], gradient.numpy())

    def _batch(self, rows: NDArray[np.intp]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs, targets and a mask of real rows, padded with zero rows to the public size."""
        index = torch.from_numpy(rows)
        inputs, targets = self._inputs[index], self._targets[index]
        real = torch.ones(len(rows), dtype=torch.bool)
        missing = self._terms.batch_cap - len(rows)
        if not self._pad or missing <= 0:
            return inputs, targets, real
        return (
            torch.nn.functional.pad(inputs, (0, 0, 0, missing)),
            torch.nn.functional.pad(targets, (0, 0, 0, missing)),
            torch.nn.functional.pad(real, (0, missing)),
        )

    def _load(self, weights: NDArray[np.float32]) -> None:
        at = 0
        with torch.no_grad():
            flat = torch.from_numpy(weights.astype(np.float64))
            for tensor in self._module.parameters():
                tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
                at += tensor.numel()
