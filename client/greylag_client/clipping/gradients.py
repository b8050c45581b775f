"""Norms and weighted sums of many units' gradients of one layer.

**What is measured is what is summed.** A gradient is either formed, and its own numbers are
squared and added; or it is an outer product, whose norm is a product of norms; or it is a sum of
outer products and its norm comes from inner products (the ghost norm: Li et al. 2022, "Large
language models can be strong differentially private learners"). Such a sum may cancel, and weights
can be crafted that blow up what rounding leaves of it. Therefore a ghost norm is an upper bound,
rounding included, and never below ``CANCELLING`` of the products' summed lengths: a gradient that
is that much shorter than what it is made of counts as longer than it is, never as shorter.

A unit's ``factor`` of nought removes it whole, with whatever is no number in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

CANCELLING = 1e-4
# A ghost norm's square is off by less than (positions^2 + fan in + fan out) 2^-53 of the square of
# the summed lengths (Higham 2002, section 3.1).
MAX_TERMS = 9_000
ROUNDING = 1e-12  # > MAX_TERMS 2^-53
# A weighted unit's products are together at most C / CANCELLING long. The sum of those of n units
# in p positions each is off by less than n p 2^-53 n C / CANCELLING: 1e-6 C for n^2 p of
MAX_SPREAD = 900_000


@dataclass(frozen=True, slots=True)
class Measured:
    """Some parameters' gradients of every unit.

    Attributes:
        squares: shape (units,), float64; squared norms over these parameters.
        add: factors, shape (units,), to the weighted sum over units of each parameter, float64.
            To be called once: it may use up what it adds.
    """

    squares: torch.Tensor
    add: Callable[[torch.Tensor], list[torch.Tensor]]


def measure_products(
    inputs: torch.Tensor, deltas: torch.Tensor, *, weight: bool, bias: bool
) -> Measured:
    """A linear map's weight and bias: per unit, sums over positions of ``delta input^T`` and
    ``delta``.

    Args:
        inputs: shape (units, blocks, positions, fan in); blocks are separate maps of one layer.
        deltas: shape (units, blocks, positions, fan out).

    Returns: sums of shapes (blocks, fan out, fan in) and (blocks, fan out), as asked for.
    """
    if inputs.shape[2] == 1:
        return _measure_outer(inputs[:, :, 0], deltas[:, :, 0], weight=weight, bias=bias)
    parts = []
    units, _, positions, fan_in = inputs.shape
    if weight and use_ghost_norm(units, positions, fan_in, deltas.shape[3]):
        parts.append(_measure_inner(inputs.double(), deltas.double()))
    elif weight:
        parts.append(measure_formed([deltas.mT @ inputs]))
    if bias:
        parts.append(measure_formed([deltas.sum(2)]))
    return together(parts)


def use_ghost_norm(units: int, positions: int, fan_in: int, fan_out: int) -> bool:
    """Whether inner products cost less than forming the gradients, and are exact enough."""
    exact = (
        positions * positions + fan_in + fan_out <= MAX_TERMS
        and units * units * positions <= MAX_SPREAD
    )
    return exact and 2 * positions * positions < fan_in * fan_out


def measure_formed(gradients: Sequence[torch.Tensor]) -> Measured:
    """Gradients that are there, each of shape (units, *parameter's)."""
    formed = [item.double() for item in gradients]
    squares = [_dot(item.flatten(1)) for item in formed]

    def add(factors: torch.Tensor) -> list[torch.Tensor]:
        gone = factors == 0
        return [
            torch.tensordot(
                factors, item.masked_fill_(gone.view(-1, *[1] * (item.dim() - 1)), 0.0), 1
            )
            for item in formed
        ]

    return Measured(sum(squares[1:], squares[0]), add)


def together(parts: Sequence[Measured]) -> Measured:
    """Several parameters as one."""
    if len(parts) == 1:
        return parts[0]
    squares = [part.squares for part in parts]
    return Measured(
        sum(squares[1:], squares[0]),
        lambda factors: [item for part in parts for item in part.add(factors)],
    )


def _measure_outer(
    inputs: torch.Tensor, deltas: torch.Tensor, *, weight: bool, bias: bool
) -> Measured:
    """One position a unit; shapes (units, blocks, fan in or out)."""
    inputs, deltas = inputs.double(), deltas.double()
    of_inputs = _dot(inputs) if weight else 0.0
    squares = (_dot(deltas) * (of_inputs + float(bias))).sum(1)

    def add(factors: torch.Tensor) -> list[torch.Tensor]:
        clipped = scaled(deltas, factors)
        sums = []
        if weight:
            kept = _without(inputs, factors)
            blocks = [clipped[:, at].T @ kept[:, at] for at in range(inputs.shape[1])]
            sums.append(blocks[0][None] if len(blocks) == 1 else torch.stack(blocks))
        if bias:
            sums.append(clipped.sum(0))
        return sums

    return Measured(squares, add)


def _measure_inner(inputs: torch.Tensor, deltas: torch.Tensor) -> Measured:
    of_inputs, of_deltas = inputs @ inputs.mT, deltas @ deltas.mT
    lengths = _diagonal(of_inputs).sqrt() * _diagonal(of_deltas).sqrt()
    return Measured(
        _floored((of_inputs * of_deltas).sum((2, 3)), lengths.sum(2)).sum(1),
        lambda factors: [
            torch.einsum("ubsq,ubsp->bqp", scaled(deltas, factors), _without(inputs, factors))
        ],
    )


def _floored(squares: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Squared ghost norms as upper bounds, given the summed lengths of their products."""
    limits = lengths**2
    return torch.maximum(squares + ROUNDING * limits, CANCELLING**2 * limits)


def _diagonal(matrices: torch.Tensor) -> torch.Tensor:
    return torch.diagonal(matrices, dim1=-2, dim2=-1)


def _dot(values: torch.Tensor) -> torch.Tensor:
    """Squared lengths along the last axis."""
    return values.square().sum(-1)


def scaled(values: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Each unit's values times its factor; values of shape (units, ...)."""
    # Also set to nought, not only scaled by it: nought times infinity is no number.
    wide = factors.view(-1, *[1] * (values.dim() - 1))
    return (values * wide).masked_fill_(wide == 0, 0.0)


def _without(values: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    return torch.where(factors.view(-1, *[1] * (values.dim() - 1)) == 0, 0.0, values)
