"""Gradients by unit of the layers that the book-keeping knows, from inputs and output deltas.

Every rule takes a layer, its inputs and the deltas of its outputs, both of shape (units, rows,
...), and answers for those of ``weight`` and ``bias`` that are trained, in this order. A unit's
gradient is the sum over its rows. Sums are exact whatever the rows' number.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch.nn import functional

from greylag_client.clipping.gradients import (
    Measured,
    measure_formed,
    measure_products,
    scaled,
)

Rule = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], Measured]


def trained(layer: torch.nn.Module) -> tuple[bool, bool]:
    """Whether the layer's weight and its bias are trained."""
    names = trained_names(layer)
    return "weight" in names, "bias" in names


def trained_names(layer: torch.nn.Module) -> list[str]:
    """Which of the two are, in the order of the rules' sums."""
    found = {name for name, item in layer.named_parameters(recurse=False) if item.requires_grad}
    return [name for name in ("weight", "bias") if name in found]


def _linear(layer: torch.nn.Module, inputs: torch.Tensor, deltas: torch.Tensor) -> Measured:
    weight, bias = trained(layer)
    units = len(inputs)
    measured = measure_products(
        inputs.reshape(units, 1, -1, inputs.shape[-1]),
        deltas.reshape(units, 1, -1, deltas.shape[-1]),
        weight=weight,
        bias=bias,
    )
    return _shaped(layer, measured)


def _convolution(layer: torch.nn.Module, inputs: torch.Tensor, deltas: torch.Tensor) -> Measured:
    """A convolution is a linear map of patches, one map for each of its groups of channels."""
    conv = cast(torch.nn.Conv2d, layer)
    units, rows = inputs.shape[:2]
    weight, bias = trained(conv)
    blocks = conv.groups
    images, maps = inputs.flatten(0, 1), deltas.flatten(0, 1)
    padding = cast(tuple[int, ...], conv.padding)  # not a word (see ``unfit``)
    sizes = [conv.kernel_size, conv.dilation, padding, conv.stride]
    if isinstance(layer, torch.nn.Conv1d):  # one row of pixels
        images = images.unsqueeze(2)
        neutral = (1, 1, 0, 1)
        sizes = [(one, *size) for one, size in zip(neutral, sizes, strict=True)]
    patches = functional.unfold(images, *sizes)
    measured = measure_products(
        _by_position(patches, units, rows, blocks),
        _by_position(maps.flatten(2), units, rows, blocks),
        weight=weight,
        bias=bias,
    )
    return _shaped(layer, measured)


def _by_position(values: torch.Tensor, units: int, rows: int, blocks: int) -> torch.Tensor:
    """(units x rows, channels, positions) to (units, blocks, rows x positions, channels)."""
    positions = values.shape[-1]
    parted = values.reshape(units, rows, blocks, -1, positions)
    return parted.permute(0, 2, 1, 4, 3).flatten(2, 3)


def _embedding(layer: torch.nn.Module, inputs: torch.Tensor, deltas: torch.Tensor) -> Measured:
    """Formed, but for the words that a unit has: one slot each, where the word stands first."""
    table = cast(torch.nn.Embedding, layer)
    words = inputs.reshape(len(inputs), -1)
    units, positions = words.shape
    rows = deltas.reshape(units, positions, -1).double()
    if table.padding_idx is not None:
        rows = rows.masked_fill((words == table.padding_idx)[..., None], 0.0)
    first = (words[:, :, None] == words[:, None, :]).byte().argmax(2)
    slots = torch.zeros(units * positions, rows.shape[-1], dtype=torch.float64)
    slots.index_add_(
        0, (first + positions * torch.arange(units)[:, None]).flatten(), rows.flatten(0, 1)
    )
    formed = slots.view(units, positions, -1)

    def add(factors: torch.Tensor) -> list[torch.Tensor]:
        total = torch.zeros(table.weight.shape, dtype=torch.float64)
        return [total.index_add_(0, words.flatten(), scaled(formed, factors).flatten(0, 1))]

    return Measured((formed**2).sum((1, 2)), add)


def _layer_norm(layer: torch.nn.Module, inputs: torch.Tensor, deltas: torch.Tensor) -> Measured:
    norm = cast(torch.nn.LayerNorm, layer)
    shape, units = norm.normalized_shape, len(inputs)
    normal = functional.layer_norm(inputs, list(shape), eps=norm.eps)
    return _affine(
        layer,
        (deltas * normal).reshape(units, -1, *shape).sum(1),
        deltas.reshape(units, -1, *shape).sum(1),
    )


def _group_norm(layer: torch.nn.Module, inputs: torch.Tensor, deltas: torch.Tensor) -> Measured:
    norm = cast(torch.nn.GroupNorm, layer)
    units, rows, channels = inputs.shape[:3]
    normal = functional.group_norm(inputs.flatten(0, 1), norm.num_groups, eps=norm.eps)
    products = deltas * normal.view_as(deltas)
    by_channel = (units, rows, channels, -1)
    return _affine(
        layer, products.reshape(by_channel).sum((1, 3)), deltas.reshape(by_channel).sum((1, 3))
    )


def _affine(layer: torch.nn.Module, of_weight: torch.Tensor, of_bias: torch.Tensor) -> Measured:
    weight, bias = trained(layer)
    kept = [(of_weight, weight), (of_bias, bias)]
    return measure_formed([item for item, is_trained in kept if is_trained])


def _shaped(layer: torch.nn.Module, measured: Measured) -> Measured:
    """With sums in the shapes of the layer's parameters."""
    shapes = [getattr(layer, name).shape for name in trained_names(layer)]
    return Measured(
        measured.squares,
        lambda factors: [
            item.reshape(shape) for item, shape in zip(measured.add(factors), shapes, strict=True)
        ],
    )


RULES: dict[type[torch.nn.Module], Rule] = {
    torch.nn.Linear: _linear,
    torch.nn.Conv1d: _convolution,
    torch.nn.Conv2d: _convolution,
    torch.nn.Embedding: _embedding,
    torch.nn.LayerNorm: _layer_norm,
    torch.nn.GroupNorm: _group_norm,
}


def unfit(layer: torch.nn.Module) -> str | None:
    """Why no rule takes this layer, if so. Types are compared exactly: a subclass may compute
    anything."""
    kind = type(layer).__name__
    if type(layer) not in RULES:
        return f"{kind} has weights of its own"
    altered = "forward" in vars(layer) or any(
        hooks for name, hooks in vars(layer).items() if name.endswith("_hooks")
    )
    if altered:
        return f"{kind} carries hooks or another forward"
    odd = {name for name, _ in layer.named_parameters(recurse=False)} - {"weight", "bias"}
    if odd:
        return f"{kind} has parameters {', '.join(sorted(odd))}"
    if isinstance(layer, torch.nn.Conv1d | torch.nn.Conv2d) and (
        layer.padding_mode != "zeros" or isinstance(layer.padding, str)
    ):
        return f"{kind} is padded by {layer.padding_mode} or {layer.padding}"
    if isinstance(layer, torch.nn.Embedding) and (
        layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse
    ):
        return f"{kind} rescales its rows or is sparse"
    return None
