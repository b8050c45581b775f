import dataclasses
import math
import struct

import numpy as np
import pytest
from greylag_protocols.optimiser import ModelState, StepRule, model_digest, take_step
from greylag_protocols.parameters import dimension, initial_weights, mlp_parameters, split

PARAMETERS = mlp_parameters(inputs=3, hidden=[5, 4], outputs=2)
RULE = StepRule(
    optimiser="adam",
    learning_rate=0.003,
    schedule="linear",
    rounds=50,
    momentum=0.9,
    second_moment=0.999,
    stabiliser=1e-8,
    ema=0.98,
)
MOMENTUM = dataclasses.replace(RULE, optimiser="momentum", schedule="constant")
GRID_STEP, DENOMINATOR = 1.25e-6, 3600.0


def _sums(count):
    rng = np.random.Generator(np.random.PCG64(9))
    return [
        rng.integers(-(2**30), 2**30, dimension(PARAMETERS), dtype=np.int32) for _ in range(count)
    ]


def _run(rule, count=5):
    state = ModelState.start(initial_weights(b"seed", PARAMETERS))
    for integers in _sums(count):
        state = take_step(state, integers, rule=rule, grid_step=GRID_STEP, denominator=DENOMINATOR)
    return state


# Every party must get these very bits; a change here breaks the replay of every earlier run.
def test_initial_bits():
    weights = initial_weights(b"seed", PARAMETERS).astype(np.float32)
    assert (
        model_digest(weights).hex()
        == "79b387da1cb91ed54a913a663c0325c4fb019ee4530e59f187cc7f8736fa98a9"
    )


@pytest.mark.parametrize(
    ("rule", "digest"),
    [
        (RULE, "936437ff13d1aad8a2e2e22da2c6b3bdb0474610b9c39be37d3c56fe5794e148"),
        (MOMENTUM, "feca89ad0120817e7eeaebdd2b1eb3933caf65958d98a9476e3ffdfa1c9f37f2"),
    ],
)
def test_step_bits(rule, digest):
    assert _run(rule).digest().hex() == digest


def _plain(rule, count=5):
    """The same steps for each weight alone, in Python floats."""
    start = initial_weights(b"seed", PARAMETERS)
    sums = _sums(count)
    weights, averages = [], []
    for at, w in enumerate(start.tolist()):
        average, m, v, b1, b2 = w, 0.0, 0.0, 1.0, 1.0
        for done in range(count):
            rate = rule.learning_rate
            if rule.schedule == "linear":
                rate = rate * ((rule.rounds - done) / rule.rounds)
            g = float(int(sums[done][at])) * GRID_STEP / DENOMINATOR
            if rule.optimiser == "momentum":
                m = m * rule.momentum + g
                w = w - m * rate
            else:
                m = m * rule.momentum + g * (1.0 - rule.momentum)
                v = v * rule.second_moment + (g * g) * (1.0 - rule.second_moment)
                b1, b2 = b1 * rule.momentum, b2 * rule.second_moment
                w = w - m / (1.0 - b1) / (math.sqrt(v / (1.0 - b2)) + rule.stabiliser) * rate
            average = average * rule.ema + w * (1.0 - rule.ema)
        weights.append(w)
        averages.append(average)
    return weights, averages


@pytest.mark.parametrize("rule", [RULE, MOMENTUM])
def test_the_step_equals_a_plain_loop_bit_by_bit(rule):
    weights, averages = _plain(rule)
    state = _run(rule)
    size = len(weights)
    assert state.weights.tobytes() == struct.pack(f"={size}d", *weights)
    assert state.average.tobytes() == struct.pack(f"={size}d", *averages)


def test_a_positive_gradient_lowers_the_weight():
    state = ModelState.start(np.zeros(2))
    for rule in (RULE, MOMENTUM):
        after = take_step(
            state,
            np.array([1000, -1000], np.int32),
            rule=rule,
            grid_step=1.0,
            denominator=10.0,
        )
        assert after.weights[0] < 0 < after.weights[1]
        assert state.weights.tolist() == [0, 0]  # the step is pure


def test_schedule():
    assert RULE.rate(0) == 0.003
    assert RULE.rate(25) == 0.0015
    assert RULE.rate(49) == pytest.approx(0.003 / 50)
    assert MOMENTUM.rate(49) == 0.003


def test_average_starts_at_the_weights_and_follows_them():
    state = _run(RULE, 1)
    start = initial_weights(b"seed", PARAMETERS)
    assert np.array_equal(state.average, start * 0.98 + state.weights * (1 - 0.98))
    followed = _run(dataclasses.replace(RULE, ema=0.0))
    assert np.array_equal(followed.average, followed.weights)
    assert np.array_equal(followed.released(), followed.published())


def test_the_state_digest_covers_every_field():
    state = _run(RULE, 1)
    seen = {state.digest()}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        seen.add(dataclasses.replace(state, **{field.name: value + 1}).digest())
    assert len(seen) == 1 + len(dataclasses.fields(state))


def test_initial_weights_stay_in_their_bounds():
    parameters = mlp_parameters(inputs=30, hidden=[400], outputs=3)
    weights = initial_weights(b"x", parameters)
    tensors = split(weights, parameters)
    bound = math.sqrt(3 / 30)
    assert np.all(np.abs(tensors["0.weight"]) < bound)
    assert tensors["0.weight"].var() == pytest.approx(1 / 30, rel=0.03)
    for name in ("0.bias", "2.weight", "2.bias"):
        assert not tensors[name].any()
    assert not np.array_equal(weights, initial_weights(b"y", parameters))


def test_a_linear_model_starts_at_the_middle_too():
    assert not initial_weights(b"x", mlp_parameters(inputs=4, hidden=[], outputs=2)).any()
