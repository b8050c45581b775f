import math

import numpy as np
import pytest
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.quantise import HALF_RING, RingGrid

SETTINGS = {"max_colluding": 3, "clip_norm": 1.5, "noise_multiplier": 4.0, "batch_cap": 200}


def _grid(firms=8, dimension=500, **changes):
    return RingGrid.of(firms=firms, dimension=dimension, **{**SETTINGS, **changes})


def test_noise_and_step_by_hand():
    grid = _grid(firms=8, dimension=400)
    # honest 5; rough std 4 * 1.5 / sqrt 5; room 200 * 1.5 + 9 * that; share (2^31 - 1) / 8.
    assert grid.share == 268_435_455
    room = 300.0 + 9.0 * 2.6832815729997477
    assert grid.step == pytest.approx(room / 268_435_455, rel=1e-14)
    sensitivity = 1.5 + grid.step * 20.0 + 1.5e-6
    assert grid.noise_std == pytest.approx(4.0 * sensitivity / 2.23606797749979, rel=1e-14)
    # The firms outside the coalition alone supply sigma times the sensitivity.
    assert grid.noise_std * math.sqrt(5) / sensitivity == pytest.approx(4.0, rel=1e-14)


@pytest.mark.parametrize(("firms", "max_colluding"), [(8, 1), (8, 6), (200, 50), (3, 1)])
def test_honest_noise_always_reaches_sigma(firms, max_colluding):
    grid = _grid(firms=firms, max_colluding=max_colluding, dimension=10_000)
    honest_std = grid.noise_std * math.sqrt(firms - max_colluding)
    worst_shift = 1.5 + grid.step * 100.0 + 1.5e-6
    assert honest_std >= 4.0 * worst_shift * (1 - 1e-12)


def test_too_few_honest_firms_and_too_fine_noise_are_refused():
    with pytest.raises(ConfigError, match="max_colluding 7"):
        _grid(firms=8, max_colluding=7)
    with pytest.raises(ConfigError, match="max_records_per_firm"):
        _grid(firms=1000, batch_cap=10**7, noise_multiplier=0.5)


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


def test_a_full_batch_and_eight_deviations_fit():
    grid = _grid(dimension=10)
    data = np.full(10, SETTINGS["batch_cap"] * SETTINGS["clip_norm"])
    assert np.all(grid.encode(data, np.full(10, 7.9)) < grid.share)


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


def test_noise_has_the_promised_deviation():
    grid = _grid(dimension=40_000)
    noise = grid.encode(np.zeros(40_000), np.random.default_rng(4).normal(size=40_000))
    ratio = noise.std() * grid.step / grid.noise_std
    assert abs(ratio - 1) < 0.02  # 0.35 % is one standard deviation


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


@pytest.mark.parametrize("dimension", [1, 16, 5000])
def test_one_record_moves_the_encoding_by_no_more_than_the_sensitivity(dimension):
    grid, rng = _grid(dimension=dimension), np.random.default_rng(dimension)
    limit = grid.noise_std * math.sqrt(5) / 4.0  # what the noise was scaled to
    for spread in (0.0, 1.0, 40.0):
        for _ in range(20):
            rest = rng.normal(size=dimension) * spread
            record = rng.normal(size=dimension)
            record *= 1.5 / np.linalg.norm(record)
            normals = rng.normal(size=dimension)
            moved = grid.encode(rest + record, normals) - grid.encode(rest, normals)
            moved_norm = np.linalg.norm(moved.astype(np.float64)) * grid.step
            assert moved_norm <= 1.5 + grid.step * math.sqrt(dimension)
            assert moved_norm <= limit


def test_coarse_grids_pay_for_their_rounding():
    # Half-way values: every coordinate's rounding goes the wrong way, the worst case of the bound.
    grid = RingGrid(firms=8, share=1000, step=1.0, noise_std=1.0, norm_limit=math.inf)
    rest = np.full(100, 0.4999)
    record = np.full(100, 0.0002)
    moved = grid.encode(rest + record, np.zeros(100)) - grid.encode(rest, np.zeros(100))
    assert np.linalg.norm(moved) <= np.linalg.norm(record) + math.sqrt(100)
    assert np.linalg.norm(moved) > 100 * np.linalg.norm(record)


def test_norm_limit_by_hand():
    grid = _grid(firms=8, dimension=400)
    signal = 8 * 200 * 1.5
    noise = grid.noise_std * (math.sqrt(8 * 400) + 9 * math.sqrt(8))
    limit = (signal + noise) / grid.step + 20 * 8
    assert grid.norm_limit == pytest.approx(limit, rel=1e-12)
    just_inside = np.full(400, int(limit / 20) - 1, np.int32)
    grid.decode(just_inside.view(np.uint32))
    with pytest.raises(VerificationError, match="did not cancel"):
        grid.decode((just_inside + np.int32(3)).view(np.uint32))
