"""Networks of the plan's shape, fitted at the firm: from nothing, or from the shared model on."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import (
    Matrix,
    encode_features,
    encode_targets,
    target_multipliers,
)
from greylag_protocols.terms import DataTerms, ModelTerms
from numpy.typing import NDArray

from greylag_client.local_models.layers import Layers, decode
from greylag_client.local_models.validation import Folds, loss_of, single_thread

CHECK_EVERY = 25  # steps between looks at the validation rows
PATIENCE = 12  # looks without a better one before training stops


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        decay: how fast weights are drawn to zero, or to where they started from.
        trained: all layers, or the last one.
    """

    learning_rate: float = 0.005
    decay: float = 1e-3
    batch: int = 64
    max_steps: int = 1500
    trained: Literal["all", "last"] = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFit:
    """What came of it.

    Attributes:
        layers: the network that was fitted on all rows, stopped where validation was best.
        loss: of validation, at that step.
        guesses: what each fold's network said of the rows that it had not seen.
    """

    layers: Layers
    loss: float
    guesses: tuple[Matrix, ...]


class _Networks(torch.nn.Module):
    """Several networks of the plan's shape trained side by side on one stream of batches.

    One is fitted on all rows; one per fold leaves that fold out and says when to stop.
    """

    def __init__(self, first: Sequence[tuple[torch.Tensor, torch.Tensor]], members: int,
                 activation: str, trained: str) -> None:  # fmt: skip
        super().__init__()
        self._activation = torch.tanh if activation == "tanh" else torch.relu
        last = len(first) - 1
        self.weights, self.biases = torch.nn.ParameterList(), torch.nn.ParameterList()
        for layer, (weight, bias) in enumerate(first):
            learns = trained == "all" or layer == last
            for values, kept in ((weight, self.weights), (bias, self.biases)):
                spread = values.repeat(members, 1, 1)
                kept.append(torch.nn.Parameter(spread, requires_grad=learns))

    def forward(self, inputs: torch.Tensor, member: int | None = None) -> torch.Tensor:
        """(n, inputs) to (members, n, outputs), or to (n, outputs) of one of them."""
        hidden = inputs if member is not None else inputs.expand(len(self.weights[0]), -1, -1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if member is None:
                hidden = torch.baddbmm(bias, hidden, weight)
            else:
                hidden = torch.addmm(bias[member], hidden, weight[member])
            if layer < last:
                hidden = self._activation(hidden)
        return hidden


def fit_network(
    values: Matrix,
    targets: Matrix,
    folds: Folds,
    data: DataTerms,
    model: ModelTerms,
    seed: int,
    recipe: Recipe,
    start: Layers | None = None,
) -> NetworkFit:
    """The plan's network on all rows, stopped where the folds' loss is best.

    Targets enter at [-1, 1] whatever their multipliers: those tune clipping, and nothing is
    clipped here.

    Args:
        folds: may hold several partitions of the rows, one after the other.
        start: where training begins, and what decay draws to; else random weights and zero.
    """
    if model.plugin is not None:
        raise ConfigError(f"no network can be fitted here for {model.family!r}; leave it out")
    inputs = torch.from_numpy(encode_features(data, values)).float()
    multipliers = target_multipliers(data) if data.task == "regression" else np.ones(1)
    scaled = encode_targets(data, targets) / multipliers if data.task == "regression" else targets
    goals = torch.from_numpy(scaled).float()
    fitted = torch.ones(len(folds) + 1, len(values))
    for member, (_, check) in enumerate(folds):
        fitted[member, torch.from_numpy(check)] = 0.0
    first = _random(data, model, inputs.shape[1], seed) if start is None else _from(start)
    if start is not None:  # as outputs at [-1, 1] too
        shrink = torch.from_numpy(multipliers).float()
        weight, bias = first[-1]
        first[-1] = (weight / shrink, bias / shrink)
    rng = np.random.default_rng(seed)

    def guess(member: int, rows: NDArray[np.intp]) -> Matrix:
        return decode(data, networks(inputs[rows], member).double().numpy() * multipliers)

    with single_thread():
        networks = _Networks(first, len(folds) + 1, model.activation, recipe.trained)
        learning = [item for item in networks.parameters() if item.requires_grad]
        origins = [item.detach().clone() for item in learning] if start is not None else []
        decay = recipe.decay if start is None else 0.0
        adam = torch.optim.AdamW(
            learning, lr=recipe.learning_rate, weight_decay=decay, foreach=False
        )
        best, best_step, kept = np.inf, 0, _final_member(networks, multipliers)
        guesses: list[Matrix] = []
        for step, rows in enumerate(_batches(len(values), recipe.batch, rng)):
            if step % CHECK_EVERY == 0:
                with torch.no_grad():
                    now = [guess(member, check) for member, (_, check) in enumerate(folds)]
                pairs = [
                    (item, targets[check]) for item, (_, check) in zip(now, folds, strict=True)
                ]
                loss = loss_of(pairs, data)
                if loss < best:
                    best, best_step, guesses = loss, step, now
                    kept = _final_member(networks, multipliers)
                if step - best_step >= PATIENCE * CHECK_EVERY or step >= recipe.max_steps:
                    break
            adam.zero_grad()
            loss_sum = _training_loss(networks(inputs[rows]), goals[rows], fitted[:, rows], data)
            loss_sum.backward()  # type: ignore[no-untyped-call]
            adam.step()
            with torch.no_grad():
                for item, origin in zip(learning, origins, strict=False):
                    item.lerp_(origin, recipe.learning_rate * recipe.decay)
    return NetworkFit(layers=kept, loss=best, guesses=tuple(guesses))


Tensors = list[tuple[torch.Tensor, torch.Tensor]]


def _random(data: DataTerms, model: ModelTerms, inputs: int, seed: int) -> Tensors:
    """First weights, (inputs, outputs) a layer: uniform with variance 1 / fan-in (LeCun 1998)."""
    generator = torch.Generator().manual_seed(seed)
    first: Tensors = []
    for fan_in, fan_out in itertools.pairwise([inputs, *model.hidden, data.outputs]):
        bound = (3.0 / fan_in) ** 0.5
        weight = (torch.rand(fan_in, fan_out, generator=generator) * 2.0 - 1.0) * bound
        first.append((weight, torch.zeros(1, fan_out)))
    return first


def _from(layers: Layers) -> Tensors:
    return [
        (torch.from_numpy(weight.T.copy()).float(), torch.from_numpy(bias[np.newaxis]).float())
        for weight, bias in layers
    ]


def _training_loss(
    outputs: torch.Tensor, goals: torch.Tensor, fitted: torch.Tensor, data: DataTerms
) -> torch.Tensor:
    """Sum over members of the mean loss over the rows that the member may see."""
    if data.task == "classification":
        rows = goals[:, 0].long().expand(len(outputs), -1)
        loss = torch.nn.functional.cross_entropy(outputs.transpose(1, 2), rows, reduction="none")
        weight = fitted
    else:
        present = ~torch.isnan(goals)
        loss = (outputs - torch.nan_to_num(goals)) ** 2
        weight = fitted.unsqueeze(2) * present
        loss, weight = loss.flatten(1), weight.flatten(1)
    return ((loss * weight).sum(1) / weight.sum(1).clamp(min=1.0)).sum()


def _final_member(networks: _Networks, multipliers: Matrix) -> Layers:
    """The network that is fitted on all rows, with outputs as the terms scale them."""
    layers = [
        (weight[-1].detach().double().numpy().T.copy(), bias[-1, 0].detach().double().numpy())
        for weight, bias in zip(networks.weights, networks.biases, strict=True)
    ]
    weight, bias = layers[-1]
    layers[-1] = (weight * multipliers[:, np.newaxis], bias * multipliers)
    return tuple(layers)


def _batches(rows: int, batch: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Shuffled batches, pass after pass, without end."""
    while True:
        order = rng.permutation(rows)
        for at in range(0, rows, batch):
            yield torch.from_numpy(order[at : at + batch])
