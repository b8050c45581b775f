"""The deterministic step: model(r + 1) from model(r), the integer sum of round r, and the terms.

Elementwise IEEE 754 double arithmetic through numpy: add, multiply, divide, square root, each
correctly rounded. No BLAS, no fused kernels, no libm. So the coordinator, every firm and every
auditor compute the same bits, and the released weights follow from the logged sums.
"""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from greylag_protocols.encoding import tagged_hash

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRule:
    """The public constants of the step (see ``TrainingTerms`` for their meaning)."""

    optimiser: Literal["momentum", "adam"]
    learning_rate: float
    schedule: Literal["constant", "linear"]
    rounds: int
    momentum: float
    second_moment: float
    stabiliser: float
    ema: float
    warmup_rounds: int = 0
    tail_rounds: int = 0
    noise_floor: float | None = None

    def rate(self, rounds_done: int) -> float:
        """The learning rate of the step after ``rounds_done`` steps."""
        rate = self.learning_rate
        if self.schedule == "linear":
            rate = rate * ((self.rounds - rounds_done) / self.rounds)
        if rounds_done < self.warmup_rounds:
            rate = rate * ((rounds_done + 1) / self.warmup_rounds)
        return rate

    def average(self, average: Vector, weights: Vector, rounds_done: int) -> Vector:
        """The average after ``weights``, the outcome of ``rounds_done`` steps.

        Exponential (Polyak and Juditsky 1992 for averages of iterates; recent ones count more), or
        the plain mean of the last ``tail_rounds``; before these it is the weights themselves, so
        that a run that ends early has a model too.
        """
        if not self.tail_rounds:
            return average * self.ema + weights * (1.0 - self.ema)
        count = rounds_done - (self.rounds - self.tail_rounds)
        return weights if count <= 1 else average + (weights - average) / float(count)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """All that the step carries from round to round; every vector has shape (d,).

    ``bias_first`` and ``bias_second`` are the running powers of Adam's decay rates (Kingma and Ba
    2015), kept as products so that no power function is needed. ``average`` is that of the weights
    (``StepRule.average``): what is released.
    """

    rounds_done: int
    weights: Vector
    first: Vector
    second: Vector
    average: Vector
    bias_first: float
    bias_second: float

    @classmethod
    def start(cls, weights: Vector) -> "ModelState":
        """The state before the first round."""
        zeros = np.zeros_like(weights)
        return cls(
            rounds_done=0,
            weights=weights,
            first=zeros,
            second=zeros,
            average=weights,
            bias_first=1.0,
            bias_second=1.0,
        )

    def published(self) -> NDArray[np.float32]:
        """The weights that firms train on in the next round: float32, little endian on the wire."""
        return self.weights.astype(np.float32)

    def released(self) -> NDArray[np.float32]:
        """The averaged weights, float32: the model that a release holds."""
        return self.average.astype(np.float32)

    def digest(self) -> bytes:
        """Hash of the whole state, 32 bytes."""
        parts = [getattr(self, field.name) for field in fields(self)]
        return tagged_hash(
            "greylag/model-state/v1",
            *(np.asarray(part, dtype="<f8").tobytes() for part in parts),
        )


def model_digest(weights: NDArray[np.float32]) -> bytes:
    """Hash of a published or released weight vector, 32 bytes."""
    return tagged_hash("greylag/model/v1", weights.astype("<f4").tobytes())


def take_step(
    state: ModelState,
    integer_sum: NDArray[np.int32],
    *,
    rule: StepRule,
    grid_step: float,
    denominator: float,
    noise_variance: float,
) -> ModelState:
    """One training step.

    With ``noise_floor``, Adam's second moment is that of the gradient without its noise, whose
    variance is public (Tang, Panaitescu, Lecuyer 2024, "DP-AdamBC"). The variance is taken off
    every square, not off their mean: so it may differ from round to round, as rosters do.

    Args:
        integer_sum: shape (d,), the decoded sum over the roster, in grid steps.
        grid_step: ``gamma`` of that roster.
        denominator: the public constant ``q * expected_records``.
        noise_variance: of each coordinate of ``integer_sum * grid_step / denominator``
            (``Terms.noise_variance`` of that roster).
    """
    gradient = integer_sum.astype(np.float64) * grid_step / denominator
    rate = rule.rate(state.rounds_done)
    first = state.first * rule.momentum
    if rule.optimiser == "momentum":
        first = first + gradient
        second, bias_first, bias_second = state.second, 1.0, 1.0
        weights = state.weights - first * rate
    else:
        first = first + gradient * (1.0 - rule.momentum)
        square = gradient * gradient
        if rule.noise_floor is not None:
            square = square - noise_variance
        second = state.second * rule.second_moment + square * (1.0 - rule.second_moment)
        bias_first = state.bias_first * rule.momentum
        bias_second = state.bias_second * rule.second_moment
        moment = second / (1.0 - bias_second)
        if rule.noise_floor is not None:
            moment = np.maximum(moment, noise_variance * rule.noise_floor)
        direction = first / (1.0 - bias_first)
        weights = state.weights - direction / (np.sqrt(moment) + rule.stabiliser) * rate
    rounds_done = state.rounds_done + 1
    average = rule.average(state.average, weights, rounds_done)
    return ModelState(
        rounds_done=rounds_done,
        weights=weights,
        first=first,
        second=second,
        average=average,
        bias_first=bias_first,
        bias_second=bias_second,
    )
