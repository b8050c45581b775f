"""Gradients of units through models that the book-keeping does not know: slower, and any.

``torch.func`` runs the module for each unit by itself, many at a time; where it cannot (control
flow that depends on values, layers with state), a plain loop does.
"""

from collections.abc import Sequence

import torch
from torch.func import functional_call, grad, vmap

from greylag_client.clipping.gradients import Measured, measure_formed
from greylag_client.clipping.losses import RowLosses, mean_losses


def _trained(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: item for name, item in module.named_parameters() if item.requires_grad}


class Vectorised:
    """All units at once by ``torch.func``."""

    def __init__(self, module: torch.nn.Module, row_losses: RowLosses) -> None:
        self._module = module

        def loss(
            weights: dict[str, torch.Tensor],
            inputs: torch.Tensor,
            targets: torch.Tensor,
            present: torch.Tensor,
        ) -> torch.Tensor:
            outputs = functional_call(module, weights, (inputs,))
            return mean_losses(row_losses(outputs, targets), present)

        self._gradients = vmap(grad(loss), in_dims=(None, 0, 0, 0))

    def measure(
        self, inputs: torch.Tensor, targets: torch.Tensor, present: torch.Tensor
    ) -> list[Measured]:
        """Gradients of the units; shapes (units, rows, ...), ``present`` (units, rows)."""
        weights = {name: item.detach() for name, item in _trained(self._module).items()}
        found = self._gradients(weights, inputs, targets, present)
        return [measure_formed([found[name]]) for name in weights]

    def in_order(self, sums: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """They are in order already."""
        return list(sums)


class Loop:
    """One unit after the other."""

    def __init__(self, module: torch.nn.Module, row_losses: RowLosses) -> None:
        self._module = module
        self._row_losses = row_losses

    def measure(
        self, inputs: torch.Tensor, targets: torch.Tensor, present: torch.Tensor
    ) -> list[Measured]:
        """As ``Vectorised.measure``."""
        return [measure_formed([item]) for item in self.gradients(inputs, targets, present)]

    def in_order(self, sums: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """They are in order already."""
        return list(sums)

    def gradients(
        self, inputs: torch.Tensor, targets: torch.Tensor, present: torch.Tensor
    ) -> Sequence[torch.Tensor]:
        """By definition, each of shape (units, *parameter's)."""
        weights = list(_trained(self._module).values())
        found = []
        for unit in zip(inputs, targets, present, strict=True):
            losses = self._row_losses(self._module(unit[0]), unit[1])
            parts = torch.autograd.grad(
                mean_losses(losses, unit[2]), weights, allow_unused=True, materialize_grads=True
            )
            found.append(parts)
        return [torch.stack(parts) for parts in zip(*found, strict=True)]
