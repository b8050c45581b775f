"""A unit's loss."""

from collections.abc import Callable

import torch

RowLosses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # outputs, targets: loss by row


def mean_losses(losses: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Each unit's loss: the mean over its rows that are there, 0 if none is; both of shape (...,
    rows)."""
    return torch.where(present, losses, 0.0).sum(-1) / present.sum(-1).clamp(min=1)
