"""Gradients by unit of every layer that the book-keeping knows: against a plain loop and Opacus."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from greylag_client.clipping import gradients
from greylag_client.clipping.bookkeeping import BookKeeper
from greylag_client.clipping.choice import Way
from greylag_client.clipping.fallback import Loop, Vectorised
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleModule
from torch import nn

TOLERANCE = 1e-6  # of C
CLIP = 1.0
Data = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Attention(nn.Module):
    """Two heads, built of linear layers, with a residual connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        normal = self.norm(values)
        heads = [
            layer(normal).unflatten(-1, (2, -1)).transpose(-3, -2)
            for layer in (self.query, self.key, self.value)
        ]
        mixed = torch.softmax(heads[0] @ heads[1].mT, -1) @ heads[2]
        return values + self.out(mixed.transpose(-3, -2).flatten(-2))


class Lora(nn.Module):
    """A frozen linear layer with a trained correction of low rank."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.base(values) + self.up(self.down(values))


def wide_pixels() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), groups=2),
        nn.GroupNorm(3, 6),
        nn.Tanh(),
        nn.Conv2d(6, 4, 1, bias=False),
        nn.Flatten(),
        nn.LazyLinear(2),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)), (5,)),
    "sequence": (lambda: nn.Sequential(nn.Linear(9, 40), nn.Tanh(), nn.Linear(40, 30)), (4, 9)),
    "long sequence": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (40, 3)),
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 8, 3, padding=2, dilation=2), nn.Tanh(), nn.Conv1d(8, 2, 5, stride=3)
        ),
        (3, 17),
    ),
    "conv2d": (wide_pixels, (4, 7, 8)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 3)), (5,)),
    "padded embedding": (
        lambda: nn.Sequential(nn.Embedding(11, 6, padding_idx=0), nn.Linear(6, 3)),
        (5,),
    ),
    "layer norm": (lambda: nn.Sequential(nn.LayerNorm((3, 6)), nn.Linear(6, 2)), (3, 6)),
    "attention": (lambda: nn.Sequential(nn.Linear(4, 8), Attention(8), nn.Linear(8, 1)), (6, 4)),
    "lora": (lambda: nn.Sequential(Lora(24, 2), nn.Tanh(), Lora(24, 2)), (3, 24)),
}


def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((outputs - targets[:, :1].view(-1, *[1] * (outputs.dim() - 1))) ** 2).flatten(1).sum(1)


def made(
    name: str, *, units: int, rows: int, seed: int, scale: float = 1.0
) -> tuple[nn.Module, Data]:
    torch.manual_seed(seed)
    build, shape = MODELS[name]
    module = build().double()
    size = (units, rows, *shape)
    inputs = torch.randint(0, 11, size) if "embedding" in name else torch.randn(size).double()
    module(inputs.flatten(0, 1))  # gives lazy layers their shapes
    with torch.no_grad():
        for item in module.parameters():
            item.add_(torch.randn_like(item), alpha=0.1).mul_(scale)
    present = torch.rand(units, rows) < 0.8
    return module, (inputs, torch.randn(units, rows, 1).double(), present)


def trained(module: nn.Module) -> list[nn.Parameter]:
    return [item for item in module.parameters() if item.requires_grad]


def clipped(way: Way, data: Data) -> torch.Tensor:
    measured = way.measure(*data)
    squares = torch.stack([item.squares for item in measured]).sum(0)
    factors = (CLIP / squares.sqrt().clamp(min=1e-30)).clamp(max=1.0)
    factors = torch.where(torch.isfinite(squares), factors, 0.0)
    sums = way.in_order([item for part in measured for item in part.add(factors)])
    return torch.cat([item.flatten() for item in sums])


def by_definition(module: nn.Module, data: Data) -> torch.Tensor:
    """One unit after the other, one backward pass for each of its rows."""
    total = torch.zeros(sum(item.numel() for item in trained(module))).double()
    for inputs, targets, present in zip(*data, strict=True):
        gradient = torch.zeros_like(total)
        for row in torch.nonzero(present).flatten().tolist():
            loss = losses(module(inputs[row : row + 1]), targets[row : row + 1]).sum()
            parts = torch.autograd.grad(loss, trained(module), materialize_grads=True)
            gradient += torch.cat([item.flatten() for item in parts]) / present.sum()
        total += gradient * min(1.0, CLIP / max(float(gradient.norm()), 1e-30))
    return total


@pytest.mark.parametrize("scale", [0.3, 2.0])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_equals_a_plain_loop(name: str, rows: int, scale: float) -> None:
    module, data = made(name, units=5, rows=rows, seed=rows, scale=scale)
    expected = by_definition(module, data)
    assert expected.norm() > 0.1
    for way in (BookKeeper(module, losses), Vectorised(module, losses), Loop(module, losses)):
        assert (clipped(way, data) - expected).norm() <= TOLERANCE * CLIP


# Opacus 1.6 gives a padded word a gradient, which torch does not.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "padded embedding"])
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_every_layer_equals_opacus(name: str) -> None:
    module, (inputs, targets, _) = made(name, units=6, rows=1, seed=2)
    data = (inputs, targets, torch.ones(6, 1, dtype=torch.bool))
    found = clipped(BookKeeper(module, losses), data)
    sampled = GradSampleModule(module, loss_reduction="sum")
    losses(sampled(inputs[:, 0]), targets[:, 0]).sum().backward()
    rows = torch.cat([item.grad_sample.flatten(1) for item in trained(module)], 1)
    factors = (CLIP / rows.norm(dim=1)).clamp(max=1.0)
    assert (found - factors @ rows).norm() <= TOLERANCE * CLIP


@settings(max_examples=25, deadline=None)
@given(
    units=st.integers(1, 5),
    rows=st.integers(1, 4),
    positions=st.integers(1, 6),
    channels=st.sampled_from([(2, 2, 1), (4, 2, 2), (3, 6, 3), (1, 12, 1)]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    seed=st.integers(0, 1000),
)
def test_shapes_do_not_matter(
    units: int,
    rows: int,
    positions: int,
    channels: tuple[int, int, int],
    kernel: int,
    stride: int,
    padding: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    into, out, groups = channels
    conv = nn.Conv1d(into, out, kernel, stride=stride, padding=padding, groups=groups)
    module = nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)).double()
    inputs = torch.randn(units, rows, into, positions + kernel).double()
    module(inputs.flatten(0, 1))
    data = (inputs, torch.randn(units, rows, 1).double(), torch.rand(units, rows) < 0.7)
    expected = by_definition(module, data)
    assert (clipped(BookKeeper(module, losses), data) - expected).norm() <= TOLERANCE * CLIP


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e200])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", [name for name in MODELS if "embedding" not in name])
def test_a_bad_unit_goes_whole_and_touches_no_other(name: str, rows: int, bad: float) -> None:
    module, (inputs, targets, _) = made(name, units=4, rows=rows, seed=5)
    present = torch.ones(4, rows, dtype=torch.bool)
    good = [0, 2, 3]
    expected = by_definition(module, (inputs[good], targets[good], present[good]))
    inputs[1, -1] = bad
    targets[1, -1] = bad
    for way in (BookKeeper(module, losses), Vectorised(module, losses)):
        found = clipped(way, (inputs, targets, present))
        assert (found - expected).norm() <= TOLERANCE * CLIP


def test_a_ghost_norm_is_never_shorter_than_the_gradient() -> None:
    """Products that cancel: whatever the norm's rounding, what is added stays within C."""
    for seed in range(200):
        draws = np.random.default_rng(seed)
        inputs = torch.from_numpy(draws.normal(size=(1, 1, 4, 30)))
        deltas = torch.from_numpy(draws.normal(size=(1, 1, 4, 30)) * 10.0 ** draws.integers(0, 18))
        inputs[0, 0, 1:] = inputs[0, 0, :1] * (
            1 + torch.from_numpy(draws.normal(size=(3, 1))) * 10.0 ** -int(draws.integers(1, 17))
        )
        deltas[0, 0, 3] = -deltas[0, 0, :3].sum(0)
        assert gradients.use_ghost_norm(1, 4, 30, 30)
        measured = gradients.measure_products(inputs, deltas, weight=True, bias=False)
        norm = measured.squares.sqrt()
        [total] = measured.add((CLIP / norm).clamp(max=1.0))
        assert float(total.norm()) <= CLIP


def test_both_kinds_of_norm_were_among_them() -> None:
    assert gradients.use_ghost_norm(5, 4, 9, 40)  # sequence
    assert not gradients.use_ghost_norm(5, 40, 3, 4)  # long sequence
    assert not gradients.use_ghost_norm(5000, 4, 9, 40)  # many units: rounding would add up
