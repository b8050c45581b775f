"""The deterministic step against torch's Adam: the same mathematics, within rounding."""

import numpy as np
import torch
from greylag_protocols.optimiser import ModelState, StepRule, take_step

DIMENSION, GRID_STEP, DENOMINATOR = 40, 1.25e-6, 3600.0
RULE = StepRule(
    optimiser="adam",
    learning_rate=0.003,
    schedule="constant",
    rounds=50,
    momentum=0.9,
    second_moment=0.999,
    stabiliser=1e-8,
    ema=0.98,
)


def test_adam_agrees_with_torch() -> None:
    rng = np.random.default_rng(9)
    start = rng.normal(size=DIMENSION)
    state = ModelState.start(start)
    weights = torch.from_numpy(start.copy()).requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=0.003, betas=(0.9, 0.999), eps=1e-8)
    for _ in range(5):
        integers = rng.integers(-(2**30), 2**30, DIMENSION, dtype=np.int32)
        state = take_step(state, integers, rule=RULE, grid_step=GRID_STEP, denominator=DENOMINATOR)
        weights.grad = torch.from_numpy(integers.astype(np.float64) * GRID_STEP / DENOMINATOR)
        optimiser.step()
    np.testing.assert_allclose(state.weights, weights.detach().numpy(), rtol=0, atol=1e-12)
