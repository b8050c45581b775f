"""What a model's weight vector means: names, shapes, first values. No model code lives here.

The order is torch's own (``weight`` then ``bias``, layer by layer), so that one flat vector is the
model for everybody: the firm's torch module, the coordinator's optimiser, the auditor's replay.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One tensor of the model; ``bound`` is the half-width of its uniform first values."""

    name: str
    shape: tuple[int, ...]
    bound: float

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def mlp_parameters(*, inputs: int, hidden: Sequence[int], outputs: int) -> tuple[Parameter, ...]:
    """The tensors of a multilayer perceptron, named as torch's ``Sequential`` names them.

    Weights start uniform with variance 1 / fan-in (LeCun 1998), biases and the last layer at zero:
    a fresh model predicts the middle of every target's range.
    """
    widths = [inputs, *hidden, outputs]
    tensors = []
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        last = index == len(widths) - 2
        bound = 0.0 if last else math.sqrt(3 / fan_in)
        layer = 2 * index  # activations stand between the linear layers
        tensors.append(Parameter(name=f"{layer}.weight", shape=(fan_out, fan_in), bound=bound))
        tensors.append(Parameter(name=f"{layer}.bias", shape=(fan_out,), bound=0.0))
    return tuple(tensors)


def declared_parameters(tensors: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[Parameter, ...]:
    """Tensors of given names and shapes, with the first values of a multilayer perceptron: what has
    two axes is a layer's weight, the last one is at zero; what has one is a bias."""
    last = max((at for at, (_, shape) in enumerate(tensors) if len(shape) == 2), default=-1)
    return tuple(
        Parameter(
            name=name,
            shape=shape,
            bound=math.sqrt(3 / shape[1]) if len(shape) == 2 and at != last else 0.0,
        )
        for at, (name, shape) in enumerate(tensors)
    )


def dimension(parameters: Sequence[Parameter]) -> int:
    """``d``: the number of weights."""
    return sum(parameter.size for parameter in parameters)


def initial_weights(seed: bytes, parameters: Sequence[Parameter]) -> NDArray[np.float64]:
    """First weights, shape (d,), from a public seed: SHAKE-256 words scaled to each bound.

    Only exact or correctly rounded operations: every party gets the same bits.
    """
    stream = hashlib.shake_256(b"greylag/initial-weights/v1|" + seed)
    words = np.frombuffer(stream.digest(4 * dimension(parameters)), dtype="<u4")
    uniform = (words.astype(np.float64) + 0.5) / 2.0**31 - 1.0
    bounds = np.concatenate([np.full(item.size, item.bound) for item in parameters])
    weights: NDArray[np.float64] = uniform * bounds
    return weights


def split(
    vector: NDArray[np.float32], parameters: Sequence[Parameter]
) -> dict[str, NDArray[np.float32]]:
    """The named tensors of a flat weight vector (views)."""
    named, at = {}, 0
    for item in parameters:
        named[item.name] = vector[at : at + item.size].reshape(item.shape)
        at += item.size
    return named
