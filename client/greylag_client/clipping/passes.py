"""How many units one pass takes, so that memory stays bounded whatever the batch.

Public sizes alone decide: a sample must not show in how many passes there are.
"""

import torch

from greylag_client.clipping.bookkeeping import BookKeeper
from greylag_client.clipping.choice import Way

PASS_FLOATS = 2**25  # that one pass may hold: 256 MiB


def units_per_pass(way: Way, module: torch.nn.Module, inputs: torch.Tensor) -> int:
    """Units in one pass.

    Args:
        inputs: one unit's, shape (rows, ...); their values do not matter.
    """
    held = inputs.numel()

    def count(layer: torch.nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal held
        given = inputs[0] if inputs else None
        if isinstance(output, torch.Tensor) and isinstance(given, torch.Tensor):
            held += 4 * output.numel() + _floats_to_measure(layer, given)

    leaves = [layer for layer in module.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(count) for layer in leaves]
    try:
        with torch.no_grad():
            module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(way, BookKeeper):
        held += 3 * sum(item.numel() for item in module.parameters() if item.requires_grad)
    return max(1, PASS_FLOATS // held)


def _floats_to_measure(layer: torch.nn.Module, inputs: torch.Tensor) -> int:
    """What a layer's gradient takes beside its outputs: patches, and the gradient itself where it
    is formed."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.requires_grad:
        return 0
    if isinstance(layer, torch.nn.Linear):
        return 0 if inputs.numel() == layer.in_features else 2 * weight.numel()
    if isinstance(layer, torch.nn.Conv1d | torch.nn.Conv2d):
        return 2 * inputs.numel() * weight[0, 0].numel() + 2 * weight.numel()
    return 4 * inputs.numel()
