import dataclasses
import json
import math
import struct

import numpy as np
import pytest
from greylag_protocols.errors import ConfigError
from greylag_protocols.optimiser import ModelState, StepRule, model_digest, take_step
from greylag_protocols.parameters import dimension, initial_weights, mlp_parameters, split
from greylag_protocols.plan import parse_plan, parse_terms

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
CORRECTED = dataclasses.replace(RULE, noise_floor=0.5)
WARM = dataclasses.replace(RULE, warmup_rounds=3)
TAIL = dataclasses.replace(RULE, rounds=5, tail_rounds=3)
GRID_STEP, DENOMINATOR = 1.25e-6, 3600.0
NOISE = 1e-2  # among the squares of the gradients below: some stay above it, others do not


def _sums(count):
    rng = np.random.Generator(np.random.PCG64(9))
    return [
        rng.integers(-(2**30), 2**30, dimension(PARAMETERS), dtype=np.int32) for _ in range(count)
    ]


def _run(rule, count=5):
    state = ModelState.start(initial_weights(b"seed", PARAMETERS))
    for integers in _sums(count):
        state = take_step(
            state,
            integers,
            rule=rule,
            grid_step=GRID_STEP,
            denominator=DENOMINATOR,
            noise_variance=NOISE,
        )
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
            if done < rule.warmup_rounds:
                rate = rate * ((done + 1) / rule.warmup_rounds)
            g = float(int(sums[done][at])) * GRID_STEP / DENOMINATOR
            if rule.optimiser == "momentum":
                m = m * rule.momentum + g
                w = w - m * rate
            else:
                m = m * rule.momentum + g * (1.0 - rule.momentum)
                square = g * g - (NOISE if rule.noise_floor else 0.0)
                v = v * rule.second_moment + square * (1.0 - rule.second_moment)
                b1, b2 = b1 * rule.momentum, b2 * rule.second_moment
                moment = max(v / (1.0 - b2), NOISE * (rule.noise_floor or 0.0))
                w = w - m / (1.0 - b1) / (math.sqrt(moment) + rule.stabiliser) * rate
            late = done + 1 - (rule.rounds - rule.tail_rounds)
            if not rule.tail_rounds:
                average = average * rule.ema + w * (1.0 - rule.ema)
            else:
                average = w if late <= 1 else average + (w - average) / late
        weights.append(w)
        averages.append(average)
    return weights, averages


@pytest.mark.parametrize("rule", [RULE, MOMENTUM, CORRECTED, WARM, TAIL])
def test_the_step_equals_a_plain_loop_bit_by_bit(rule):
    weights, averages = _plain(rule)
    state = _run(rule)
    size = len(weights)
    assert state.weights.tobytes() == struct.pack(f"={size}d", *weights)
    assert state.average.tobytes() == struct.pack(f"={size}d", *averages)


def test_a_positive_gradient_lowers_the_weight():
    state = ModelState.start(np.zeros(2))
    for rule in (RULE, MOMENTUM, CORRECTED):
        after = take_step(
            state,
            np.array([1000, -1000], np.int32),
            rule=rule,
            grid_step=1.0,
            denominator=10.0,
            noise_variance=1.0,
        )
        assert after.weights[0] < 0 < after.weights[1]
        assert state.weights.tolist() == [0, 0]  # the step is pure


def test_schedule():
    assert RULE.rate(0) == 0.003
    assert RULE.rate(25) == 0.0015
    assert RULE.rate(49) == pytest.approx(0.003 / 50)
    assert MOMENTUM.rate(49) == 0.003
    assert [WARM.rate(done) / RULE.rate(done) for done in range(5)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 1, 1]
    )


def test_the_tail_is_the_mean_of_the_last_weights():
    states = [_run(TAIL, count) for count in range(1, 6)]
    assert all(np.array_equal(state.average, state.weights) for state in states[:3])
    last = np.mean([state.weights for state in states[2:]], axis=0)
    np.testing.assert_allclose(states[4].average, last, rtol=1e-12)
    assert not np.array_equal(states[4].average, states[4].weights)


def _noisy(rule, variance_of_round, rounds=2000):
    """The state after sums that are a signal of 2 in half of the weights, and noise."""
    rng = np.random.Generator(np.random.PCG64(4))
    state = ModelState.start(np.zeros(200))
    signal = np.repeat([0.0, 2.0], 100)
    for done in range(rounds):
        variance = variance_of_round(done)
        noisy = signal + math.sqrt(variance) * rng.standard_normal(200)
        state = take_step(
            state,
            np.rint(noisy * 1e6).astype(np.int32),
            rule=rule,
            grid_step=1e-6,
            denominator=1.0,
            noise_variance=variance,
        )
    return state


def test_the_corrected_moment_is_that_of_the_signal_even_where_the_roster_changes():
    rule = dataclasses.replace(CORRECTED, rounds=2000)

    def variance_of_round(done):
        return 1.0 if done < 1000 else 3.0

    corrected = _noisy(rule, variance_of_round)
    blind = _noisy(dataclasses.replace(rule, noise_floor=None), variance_of_round)
    for state, none, two in ((corrected, 0.0, 4.0), (blind, 2.46, 6.46)):
        moments = state.second / (1.0 - state.bias_second)
        # 2.46: the moving average gives the later rounds' variance of 3 a weight of 0.73.
        assert moments[:100].mean() == pytest.approx(none, abs=0.08)
        assert moments[100:].mean() == pytest.approx(two, abs=0.15)


def test_a_moment_below_the_floor_counts_as_the_floor():
    still = np.zeros(2, np.int32)
    start = dataclasses.replace(ModelState.start(np.zeros(2)), first=np.ones(2))
    for floor, variance in ((0.5, 8.0), (0.125, 8.0)):
        rule = dataclasses.replace(RULE, schedule="constant", noise_floor=floor, stabiliser=1e-300)
        after = take_step(
            start, still, rule=rule, grid_step=1.0, denominator=1.0, noise_variance=variance
        )
        assert after.weights == pytest.approx(-0.003 * 0.9 / 0.1 / math.sqrt(floor * variance))


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


@pytest.mark.parametrize("firms", [8, 60])
def test_the_noise_variance_is_that_of_what_a_roster_really_sends(glass_terms, firms):
    grid, width = glass_terms.grid(firms), 50_000
    rng = np.random.Generator(np.random.PCG64(firms))
    total = np.zeros(width)
    for _ in range(firms):
        total += grid.encode(np.zeros(width), rng.standard_normal(width))
    noise = total * grid.step / glass_terms.denominator
    ratio = float(noise @ noise) / width / glass_terms.noise_variance(firms)
    assert abs(ratio - 1) < 5 * math.sqrt(2 / width)
    # More than what privacy counts, |R| - t firms' worth, would give:
    counted = (glass_terms.privacy.noise_multiplier / glass_terms.denominator) ** 2
    assert glass_terms.noise_variance(firms) / counted == pytest.approx(
        firms / (firms - 6), rel=0.01
    )


def test_what_a_plan_does_not_use_is_not_in_its_terms(glass_terms):
    later = {"warmup_rounds": 10, "tail_rounds": 100, "noise_floor": 0.5}
    assert not later.keys() & json.loads(glass_terms.encode())["training"].keys()
    for key, value in later.items():
        training = dataclasses.replace(glass_terms.training, **{key: value})
        used = dataclasses.replace(glass_terms, training=training)
        assert json.loads(used.encode())["training"][key] == value
        assert parse_terms(used.encode()) == used
        assert getattr(used.step_rule, key) == value


@pytest.mark.parametrize(
    ("line", "fits", "message"),
    [
        ("warmup_rounds = 501", "warmup_rounds = 500", "warmup_rounds is above"),
        ("tail_rounds = 501", "tail_rounds = 500", "tail_rounds is above"),
        ('optimiser = "momentum"\nnoise_floor = 0.5', "noise_floor = 0.5", "noise_floor belongs"),
        ("noise_floor = 0", "noise_floor = 1", "noise_floor"),
    ],
)
def test_steps_that_make_no_sense_are_refused(plan_text, line, fits, message):
    plain = plan_text.replace('optimiser = "adam"\n', "")
    with pytest.raises(ConfigError, match=message):
        parse_plan(plain.replace("ema = 0.98", line))
    parse_plan(plain.replace("ema = 0.98", fits))
