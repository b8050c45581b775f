"""The terms' model as a torch module, its loss, and its weights from a flat vector."""

from collections.abc import Callable

import numpy as np
import torch
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

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
    present, or cross-entropy.

    Args:
        outputs: shape (n, outputs).
        targets: shape (n, targets).
    """
    if terms.data.task == "classification":
        return torch.nn.functional.cross_entropy(
            outputs, targets[:, 0].to(torch.int64), reduction="none"
        )
    present = ~torch.isnan(targets)
    errors = torch.where(present, outputs - torch.nan_to_num(targets), 0.0)
    return 0.5 * (errors**2).sum(1) / present.sum(1).clamp(min=1)


def load_weights(module: torch.nn.Module, weights: NDArray[np.float32]) -> None:
    """Copy a flat weight vector, shape (d,), into ``module``."""
    at = 0
    with torch.no_grad():
        flat = torch.from_numpy(weights.astype(np.float64))
        for tensor in module.parameters():
            tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
            at += tensor.numel()
