"""One forward and one backward pass down to the layers' outputs, for the gradients of all units.

Book-keeping (Bu et al. 2022, "Differentially private optimization on large model at small cost"):
no gradient of a weight is computed by torch; layers' inputs and their outputs' deltas are kept,
and ``layers.RULES`` make norms and weighted sums of them.
"""

from collections.abc import Sequence

import torch

from greylag_client.clipping.gradients import Measured
from greylag_client.clipping.layers import RULES, trained_names, unfit
from greylag_client.clipping.losses import RowLosses, mean_losses

# A layer's inputs and the gradients of its outputs, shapes (units, rows, ...).
Trace = tuple[torch.Tensor, torch.Tensor]


class UnfitError(Exception):
    """Why a model's gradients cannot be taken apart this way."""


class BookKeeper:
    """Takes a module's gradients apart by units.

    Raises:
        UnfitError: a trained weight belongs to a layer that no rule takes, or to two of them.
    """

    def __init__(self, module: torch.nn.Module, row_losses: RowLosses) -> None:
        self._module, self._row_losses = module, row_losses
        self._layers: list[torch.nn.Module] = []
        order: list[int] = []
        for layer in module.modules():
            own = [item for item in layer.parameters(recurse=False) if item.requires_grad]
            if not own:
                continue
            cause = unfit(layer)
            if cause is not None:
                raise UnfitError(cause)
            self._layers.append(layer)
            order += [id(getattr(layer, name)) for name in trained_names(layer)]
        wanted = [id(item) for item in module.parameters() if item.requires_grad]
        if len(set(order)) != len(order) or not order:
            raise UnfitError("two layers share a weight" if order else "nothing is trained")
        self._order = [order.index(item) for item in wanted]

    def trace(
        self, inputs: torch.Tensor, targets: torch.Tensor, present: torch.Tensor
    ) -> list[Trace]:
        """Every layer's trace, of the units' losses (see ``losses.mean_losses``).

        Args:
            inputs: shape (units, rows, ...), as are the targets.
            present: shape (units, rows); which rows are there.

        Raises:
            UnfitError: a layer was not used exactly once, on one row after the other.
        """
        units, rows = present.shape
        calls: dict[int, list[Trace]] = {}

        def keep(
            layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> None:
            calls.setdefault(id(layer), []).append((inputs[0].detach(), output))

        hooks = [layer.register_forward_hook(keep) for layer in self._layers]
        try:
            outputs = self._module(inputs.flatten(0, 1))
            losses = self._row_losses(outputs, targets.flatten(0, 1)).view(units, rows)
            total = mean_losses(losses, present).sum()
        finally:
            for hook in hooks:
                hook.remove()
        used = [calls.get(id(layer), []) for layer in self._layers]
        for layer, uses in zip(self._layers, used, strict=True):
            batches = {len(item) for use in uses for item in use}
            if len(uses) != 1 or batches != {units * rows}:
                raise UnfitError(f"{type(layer).__name__} is not used once, row by row")
        found = torch.autograd.grad(total, [uses[0][1] for uses in used], allow_unused=True)
        traces = []
        for [(inputs_of, output)], delta in zip(used, found, strict=True):
            deltas = torch.zeros_like(output) if delta is None else delta
            shaped = [item.reshape(units, rows, *item.shape[1:]) for item in (inputs_of, deltas)]
            traces.append((shaped[0], shaped[1]))
        return traces

    def measure(
        self, inputs: torch.Tensor, targets: torch.Tensor, present: torch.Tensor
    ) -> list[Measured]:
        """Gradients of the units (arguments as ``trace``'s)."""
        return self.measure_traces(self.trace(inputs, targets, present))

    def measure_traces(self, traces: Sequence[Trace]) -> list[Measured]:
        """Every layer's gradients."""
        return [
            RULES[type(layer)](layer, inputs, deltas)
            for layer, (inputs, deltas) in zip(self._layers, traces, strict=True)
        ]

    def in_order(self, sums: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The layers' sums as the module orders its trained parameters."""
        return [sums[at] for at in self._order]
