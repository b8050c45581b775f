"""The plan's rounds, played at one firm with its own rows in everybody's place.

The engine, the ring's grid and the step are those of a real run. Only who contributes differs: the
firm's own clipped sum is scaled up to the units that one release expects from all firms together,
and to it comes the noise that all firms of the roster would add. So the result shows what the
plan's optimiser and noise make of data like the firm's own, and no more: other firms' rows, which
may teach something new or something else, are not in it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from greylag_protocols.features import (
    Matrix,
    Records,
    decode_outputs,
    encode_features,
)
from greylag_protocols.optimiser import ModelState, take_step
from greylag_protocols.parameters import initial_weights
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_client.engine import make_engine
from greylag_client.models import build_model, load_weights

Tick = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """How many take part, as far as the terms and the list of members say.

    Attributes:
        firms: the roster's size.
        most_units: no more of the firm's own units than that enter one round here; the sum is
            scaled for it. This saves time and costs a little sampling noise.
    """

    firms: int
    most_units: int

    def units(self, terms: Terms) -> float:
        """Units of privacy over all firms: as declared, or for whole firms their number."""
        if terms.privacy.unit == "firm":
            return float(self.firms)
        return terms.denominator / terms.training.sampling_rate


def play_rounds(
    terms: Terms,
    records: Records,
    crowd: Crowd,
    *,
    noisy: bool,
    seed: int,
    tick: Tick = lambda: None,
) -> NDArray[np.float32]:
    """The weights, shape (d,), that would be released if all firms' rows were like ``records``.

    Args:
        noisy: with the noise of the whole roster's sum; without, to see what it costs.
        tick: called after each round.

    Raises:
        ConfigError: the records or the number of firms do not fit the terms.
    """
    engine = make_engine(terms, records, pad=False)
    grid = terms.grid(crowd.firms)
    rng = np.random.default_rng(seed)
    start = initial_weights(f"rehearsal {seed}".encode(), terms.parameters)
    state = ModelState.start(start)
    expected = terms.training.sampling_rate * crowd.units(terms)
    own = len(engine)
    taken = min(own, crowd.most_units, max(1, round(expected)))
    deviation = grid.noise_std * crowd.firms**0.5
    variance = terms.noise_variance(crowd.firms) if noisy else 0.0
    for _ in range(terms.training.rounds):
        units = rng.permutation(own)[:taken] if taken < own else np.arange(own)
        total = engine.clipped_sum(state.published(), units) * (expected / taken)
        if noisy:
            total += deviation * rng.standard_normal(terms.dimension)
        integers = np.clip(np.rint(total / grid.step), -(2**31), 2**31 - 1).astype(np.int32)
        state = take_step(
            state,
            integers,
            rule=terms.step_rule,
            grid_step=grid.step,
            denominator=terms.denominator,
            noise_variance=variance,
        )
        tick()
    return state.released()


def predict(terms: Terms, weights: NDArray[np.float32], values: Matrix) -> Matrix:
    """What a model with these weights says of raw features: physical values, shape (n, targets),
    or class probabilities, shape (n, classes)."""
    module = build_model(terms)
    load_weights(module, weights)
    with torch.no_grad():
        outputs = module(torch.from_numpy(encode_features(terms.data, values)))
    if terms.data.task == "regression":
        return decode_outputs(terms.data, outputs.numpy())
    return np.asarray(torch.softmax(outputs, dim=1).numpy())
