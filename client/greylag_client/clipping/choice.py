"""Which way takes a module's gradients apart: tried on made-up rows when the model is built.

The book-keeping first; where it does not know a layer, or gives something else than gradients by
definition, ``torch.func``; then a plain loop. So a model that none of them takes is refused before
anything was spent, and none is clipped by a rule that does not hold for it.

Why not Opacus' hooks for the rest: they know fewer layers than ``torch.func`` (no attention of
torch's own, no recurrence but their own), and a firm would install one more library.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from greylag_client.clipping.bookkeeping import BookKeeper, UnfitError
from greylag_client.clipping.fallback import Loop, Vectorised
from greylag_client.clipping.gradients import Measured
from greylag_client.clipping.losses import RowLosses

logger = logging.getLogger(__name__)

# Inputs, targets and which rows are there: shapes (units, rows, ...) and (units, rows).
Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}  # of a trial's gradient
_said: set[str] = set()


class Way(Protocol):
    """Takes gradients of units apart."""

    def measure(
        self, inputs: torch.Tensor, targets: torch.Tensor, present: torch.Tensor
    ) -> list[Measured]:
        """The units' gradients, of all trained parameters."""

    def in_order(self, sums: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """All sums together, as the module orders its trained parameters."""


def choose_way(name: str, module: torch.nn.Module, row_losses: RowLosses, trial: Rows) -> Way:
    """The fastest way that is right.

    Args:
        name: the model's, for the log.
        module: its trained weights are overwritten.
        trial: made-up units, of several rows each where units may have several.

    Raises:
        UnfitError: a unit's gradient is not a function of its rows and the weights.
    """
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for item in module.parameters():
            if item.requires_grad:
                item.copy_(torch.rand(item.shape, generator=draws) - 0.5)
    expected = _by_definition(module, row_losses, trial)
    builds: dict[str, Callable[[torch.nn.Module, RowLosses], Way]] = {
        "book-keeping": BookKeeper,
        "torch.func": Vectorised,
    }
    said = ""
    for kind, build in builds.items():
        try:
            way = build(module, row_losses)
            _check(way, trial, expected)
        except Exception as error:  # noqa: BLE001 - whatever a model's code raises: another way
            said += f"; not by {kind}: {error or type(error).__name__}"[:200]
        else:
            _say_once(f"{name}: gradients are taken apart by {kind}{said}")
            return way
    _say_once(f"{name}: gradients are taken apart by a plain loop, which is slow{said}")
    return Loop(module, row_losses)


def _by_definition(
    module: torch.nn.Module, row_losses: RowLosses, trial: Rows
) -> Sequence[torch.Tensor]:
    loop, before = Loop(module, row_losses), [item.clone() for item in module.buffers()]
    first, second = loop.gradients(*trial), loop.gradients(*trial)
    pairs = [*zip(first, second, strict=True), *zip(before, module.buffers(), strict=True)]
    if not all(torch.equal(a, b) for a, b in pairs):
        raise UnfitError(
            "its gradients are not a function of a unit and the weights: it draws random numbers "
            "(dropout?) or keeps what it saw (batch norm?)"
        )
    return first


def _check(way: Way, trial: Rows, expected: Sequence[torch.Tensor]) -> None:
    """Norms and sums are those of gradients by definition."""
    tolerance = TOLERANCES.get(expected[0].dtype, 1e-1)
    gradients = torch.cat([item.flatten(1).double() for item in expected], 1)
    factors = 1.0 / torch.arange(1, 1 + len(gradients), dtype=torch.float64)
    for chosen in (factors, factors.flip(0)):
        measured = way.measure(*trial)
        norms = torch.stack([item.squares for item in measured]).sum(0).sqrt()
        sums = way.in_order([item for part in measured for item in part.add(chosen)])
        total = torch.cat([item.flatten() for item in sums])
        length = gradients.norm(dim=1).max()
        errors = [(norms - gradients.norm(dim=1)).abs().max(), (total - chosen @ gradients).norm()]
        if not all(error <= tolerance * length for error in errors):
            raise UnfitError("its norms or sums are not those of a plain loop")


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        logger.info("%s", message)
