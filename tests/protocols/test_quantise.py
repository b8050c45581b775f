import math

import numpy as np
import pytest
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.quantise import CLIP_SLACK, FLOAT_ERROR, HALF_RING, MAX_BATCH_CAP, RingGrid

SETTINGS = {"max_colluding": 3, "clip_norm": 1.5, "noise_multiplier": 4.0, "batch_cap": 200}


def _grid(firms=8, dimension=500, **changes):
    return RingGrid.of(firms=firms, dimension=dimension, **{**SETTINGS, **changes})


def test_noise_and_step_by_hand():
    grid = _grid(firms=8, dimension=400)
    # honest 5; share (2^31 - 1) / 8; room for 200 * 1.5 and 13 deviations of the noise, where
    # one deviation is 4 / sqrt 5 of C (1 + rho) + 20 steps.
    assert grid.share == 268_435_455
    width = 4.0 / 2.23606797749979
    step = (300.0 + 13.0 * width * 1.5 * 1.000001) / (268_435_455 - 13.0 * width * 20.0)
    assert grid.step == pytest.approx(step, rel=1e-14)
    sensitivity = 1.5 + grid.step * 20.0 + 1.5e-6
    assert grid.noise_std == pytest.approx(4.0 * sensitivity / 2.23606797749979, rel=1e-14)
    # The firms outside the coalition alone supply sigma times the sensitivity.
    assert grid.noise_std * math.sqrt(5) / sensitivity == pytest.approx(4.0, rel=1e-14)


def test_too_few_honest_firms_and_too_fine_noise_are_refused():
    with pytest.raises(ConfigError, match="max_colluding 7"):
        _grid(firms=8, max_colluding=7)
    with pytest.raises(ConfigError, match="max_records_per_firm"):
        _grid(firms=1000, batch_cap=10**7, noise_multiplier=0.5)
    with pytest.raises(ConfigError, match="does not fit the ring"):
        _grid(firms=1000, max_colluding=998, dimension=20_000_000, noise_multiplier=2000.0)


@pytest.mark.parametrize("firms", [5, 8, 100])
def test_the_sum_of_encodings_is_the_integer_sum(firms):
    grid, rng = _grid(firms=firms), np.random.default_rng(1)
    parts = [grid.encode(rng.normal(size=500) * 3, rng.normal(size=500)) for _ in range(grid.firms)]
    total = np.zeros(500, np.uint32)
    for part in parts:
        total += part.view(np.uint32)
    expected = np.sum(np.stack(parts).astype(np.int64), axis=0)
    assert np.array_equal(grid.decode(total), expected)


def test_what_goes_in_comes_out():
    grid, rng = _grid(), np.random.default_rng(2)
    data = rng.normal(size=500)
    encoded = grid.encode(data, np.zeros(500))
    assert np.max(np.abs(encoded * grid.step - data)) <= grid.step / 2 * (1 + 1e-9)


def test_encode_clamps_to_the_share_and_never_wraps():
    for firms in (5, 7, 64, 1000):
        grid = _grid(firms=firms)
        assert firms * grid.share < HALF_RING
        high = grid.encode(np.full(500, 1e12), np.full(500, 50.0))
        low = grid.encode(np.full(500, -1e12), np.full(500, -50.0))
        assert high.dtype == np.int32
        assert np.all(high == grid.share)
        assert np.all(low == -grid.share)
        assert np.all(firms * high.astype(np.int64) == (high * np.int32(firms)))


def test_data_is_clamped_before_noise_is_added():
    # Otherwise a large sum would swallow the noise and the clamp would show the data.
    grid = _grid()
    noise = grid.encode(np.zeros(500), np.full(500, -3.0))
    both = grid.encode(np.full(500, 1e9), np.full(500, -3.0))
    assert np.all(both == grid.share + noise)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_counts_as_zero(bad):
    grid, normals = _grid(), np.random.default_rng(3).normal(size=500)
    data = np.ones(500)
    expected = grid.encode(np.where(np.arange(500) == 7, 0.0, data), normals)
    data[7] = bad
    assert np.array_equal(grid.encode(data, normals), expected)
    assert data[7] is not None  # and the caller's array is left alone
    assert not np.isfinite(data[7])


def test_encode_survives_the_largest_double():
    grid = _grid()
    assert np.all(grid.encode(np.full(500, 1.7e308), np.zeros(500)) == grid.share)


def test_decode_refuses_a_uniform_vector_and_takes_an_honest_one():
    grid, rng = _grid(dimension=1000), np.random.default_rng(5)
    with pytest.raises(VerificationError, match="did not cancel"):
        grid.decode(rng.integers(0, 2**32, 1000, dtype=np.uint32))
    full = np.zeros(1000)
    full[0] = SETTINGS["batch_cap"] * SETTINGS["clip_norm"]
    total = np.zeros(1000, np.uint32)
    for _ in range(grid.firms):
        total += grid.encode(full, rng.normal(size=1000)).view(np.uint32)
    grid.decode(total)


def test_norm_limit_by_hand():
    grid = _grid(firms=8, dimension=400)
    signal = 8 * 200 * 1.5
    noise = grid.noise_std * (math.sqrt(8 * 400) + 13 * math.sqrt(8))
    limit = (signal + noise) / grid.step + 20 * 8
    assert grid.norm_limit == pytest.approx(limit, rel=1e-12)
    just_inside = np.full(400, int(limit / 20) - 1, np.int32)
    grid.decode(just_inside.view(np.uint32))
    with pytest.raises(VerificationError, match="did not cancel"):
        grid.decode((just_inside + np.int32(3)).view(np.uint32))


def test_more_units_than_the_error_of_summing_is_paid_for_are_refused():
    _grid(batch_cap=MAX_BATCH_CAP, noise_multiplier=1e3)
    with pytest.raises(ConfigError, match="200001 units"):
        _grid(batch_cap=MAX_BATCH_CAP + 1, noise_multiplier=1e3)
    # What two sums can differ by, against what is paid for, in clip norms.
    assert 2 * MAX_BATCH_CAP**2 * 2.0**-53 < FLOAT_ERROR + CLIP_SLACK


def test_noise_that_does_not_fit_the_ring_is_refused():
    with pytest.raises(ConfigError, match="does not fit the ring"):
        _grid(firms=10_000, dimension=20_000_000, noise_multiplier=1e4)


def test_noise_finer_than_the_grid_is_refused():
    with pytest.raises(ConfigError, match="grid steps wide"):
        _grid(firms=9_000, batch_cap=200_000, noise_multiplier=0.3, max_colluding=1)
