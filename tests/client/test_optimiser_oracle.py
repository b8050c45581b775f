"""The protocol core against torch: Adam's mathematics within rounding, and the order of tensors."""

import numpy as np
import torch
from greylag_protocols.optimiser import ModelState, StepRule, take_step
from greylag_protocols.parameters import dimension, mlp_parameters, split

DIMENSION, GRID_STEP, DENOMINATOR = 40, 1.25e-6, 3600.0
PARAMETERS = mlp_parameters(inputs=3, hidden=[5, 4], outputs=2)
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
        state = take_step(
            state,
            integers,
            rule=RULE,
            grid_step=GRID_STEP,
            denominator=DENOMINATOR,
            noise_variance=0.0,
        )
        weights.grad = torch.from_numpy(integers.astype(np.float64) * GRID_STEP / DENOMINATOR)
        optimiser.step()
    np.testing.assert_allclose(state.weights, weights.detach().numpy(), rtol=0, atol=1e-12)


def test_parameters_follow_torch() -> None:
    module = torch.nn.Sequential(
        torch.nn.Linear(3, 5),
        torch.nn.Tanh(),
        torch.nn.Linear(5, 4),
        torch.nn.Tanh(),
        torch.nn.Linear(4, 2),
    )
    theirs = [(name, tuple(tensor.shape)) for name, tensor in module.named_parameters()]
    assert [(item.name, item.shape) for item in PARAMETERS] == theirs
    flat = torch.nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    tensors = split(flat, PARAMETERS)
    assert len(flat) == dimension(PARAMETERS)
    for name, tensor in module.named_parameters():
        assert np.array_equal(tensors[name], tensor.detach().numpy())
        assert np.shares_memory(tensors[name], flat)
