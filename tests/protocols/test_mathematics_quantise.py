"""Shares of the noise, sensitivity after rounding, and room on the ring.

Every check here is also made of something wrong, which has to fail it: that shows its power.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from greylag_protocols.quantise import (
    CLIP_SLACK,
    FLOAT_ERROR,
    MIN_NOISE_STEPS,
    NOISE_ROOM,
    RingGrid,
)
from numpy.typing import NDArray
from statistics_of_noise import LIMIT, deviation_of_count, normal_tail

Vector = NDArray[np.float64]
SIGMA, CLIP = 4.0, 1.5


def grid_of(firms: int, max_colluding: int, *, dimension: int, batch_cap: int = 200) -> RingGrid:
    return RingGrid.of(
        firms=firms,
        max_colluding=max_colluding,
        clip_norm=CLIP,
        noise_multiplier=SIGMA,
        batch_cap=batch_cap,
        dimension=dimension,
    )


# So coarse that rounding costs as much as the record itself: gamma sqrt(d) is 3.9 C.
COARSE = {"firms": 1000, "dimension": 10_000, "batch_cap": 90_000}


# -- shares --------------------------------------------------------------------------------------


def sensitivity(grid: RingGrid, dimension: int) -> float:
    return CLIP + grid.step * math.sqrt(dimension) + FLOAT_ERROR * CLIP


def honest_noise_reaches_sigma(grid: RingGrid, max_colluding: int, dimension: int) -> bool:
    """Firms outside the coalition alone supply sigma times the sensitivity."""
    honest_std = grid.noise_std * math.sqrt(grid.firms - max_colluding)
    return honest_std >= SIGMA * sensitivity(grid, dimension) * (1 - 1e-12)


@pytest.mark.parametrize(("firms", "t"), [(8, 0), (8, 1), (8, 6), (200, 50), (1000, 1), (3, 1)])
@pytest.mark.parametrize("dimension", [1, 400, 10_000])
def test_the_honest_firms_alone_supply_sigma(firms: int, t: int, dimension: int) -> None:
    grid = grid_of(firms, t, dimension=dimension)
    assert honest_noise_reaches_sigma(grid, t, dimension)
    # And no more than that: the price is paid once.
    assert not honest_noise_reaches_sigma(
        replace(grid, noise_std=grid.noise_std * (1 - 1e-6)), t, dimension
    )
    among_all = SIGMA * sensitivity(grid, dimension) / math.sqrt(firms)
    divided_by_all = replace(grid, noise_std=among_all)
    assert honest_noise_reaches_sigma(divided_by_all, t, dimension) == (t == 0)


def test_shares_that_forget_rounding_or_float_error_are_caught() -> None:
    dimension = COARSE["dimension"]
    grid = grid_of(COARSE["firms"], 6, dimension=dimension, batch_cap=COARSE["batch_cap"])
    assert honest_noise_reaches_sigma(grid, 6, dimension)
    honest, rounding = math.sqrt(COARSE["firms"] - 6), grid.step * math.sqrt(dimension)
    assert rounding > 2 * CLIP
    for forgetful in (CLIP + rounding, CLIP + rounding / 2 + FLOAT_ERROR, CLIP * (1 + FLOAT_ERROR)):
        wrong = replace(grid, noise_std=SIGMA * forgetful / honest)
        assert not honest_noise_reaches_sigma(wrong, 6, dimension)


# -- sensitivity ---------------------------------------------------------------------------------


def adversarial_pairs(grid: RingGrid, dimension: int, rng: np.random.Generator) -> list[Vector]:
    """Sums that lie a hair below half-way points, and records that push each one across."""
    pairs = []
    for hair in (1e-3, 1e-6):
        whole = rng.integers(-1000, 1000, dimension)
        below = (whole + 0.5 - hair) * grid.step
        flat = np.full(dimension, CLIP / math.sqrt(dimension))
        # The record's length in whole steps and a little: each coordinate is rounded up twice.
        steps = np.floor(flat / grid.step) + 2 * hair
        aligned = np.minimum(steps * grid.step, flat)
        record = rng.normal(size=dimension)
        record *= CLIP / np.linalg.norm(record)
        pairs += [np.stack([below, item]) for item in (flat, -flat, aligned, record)]
    return pairs


def largest_move(grid: RingGrid, dimension: int) -> float:
    """By how much one record moves an encoding at worst, L2, with the same noise on both sides."""
    rng, worst = np.random.default_rng(7), 0.0
    for rest, record in adversarial_pairs(grid, dimension, rng):
        normals = rng.normal(size=dimension)
        moved = grid.encode(rest + record, normals) - grid.encode(rest, normals)
        worst = max(worst, float(np.linalg.norm(moved.astype(np.float64))) * grid.step)
    return worst


@pytest.mark.parametrize("firms", [8, 1000])
@pytest.mark.parametrize("dimension", [1, 16, 10_000])
def test_no_record_moves_the_rounded_sum_beyond_the_sensitivity(firms: int, dimension: int) -> None:
    grid = grid_of(firms, 6, dimension=dimension)
    assert largest_move(grid, dimension) <= sensitivity(grid, dimension)


def test_on_a_coarse_grid_the_worst_case_is_met_and_smaller_claims_are_caught() -> None:
    dimension = COARSE["dimension"]
    grid = grid_of(COARSE["firms"], 6, dimension=dimension, batch_cap=COARSE["batch_cap"])
    assert grid.noise_std / grid.step > MIN_NOISE_STEPS
    move, rounding = largest_move(grid, dimension), grid.step * math.sqrt(dimension)
    assert move <= sensitivity(grid, dimension)
    assert not move <= CLIP * (1 + FLOAT_ERROR)  # as if rounding cost nothing
    assert not move <= CLIP + rounding / 2  # as if only one of the two sums were rounded


def removal_stays_within_the_clip_norm(add_up: Callable[[Vector], Vector], rows: Vector) -> bool:
    """Taking any of the first rows out moves the float sum by at most ``C (1 + rho)``."""
    total = add_up(rows)
    moves = [
        float(np.linalg.norm(total.astype(np.float64) - add_up(np.delete(rows, at, axis=0))))
        for at in range(4)
    ]
    return max(moves) <= CLIP * (1 + FLOAT_ERROR)


def test_float64_sums_keep_the_sensitivity_and_float32_sums_do_not() -> None:
    rng = np.random.default_rng(8)
    rows = np.abs(rng.normal(size=(20_000, 8)))  # all one way: the sum is as long as can be
    rows *= CLIP * (1 - CLIP_SLACK) / np.linalg.norm(rows, axis=1, keepdims=True)

    def add_up(kind: type[np.floating]) -> Callable[[Vector], Vector]:
        return lambda items: np.cumsum(items, axis=0, dtype=kind)[-1]

    assert removal_stays_within_the_clip_norm(add_up(np.float64), rows)
    assert not removal_stays_within_the_clip_norm(add_up(np.float32), rows)


def clipped_norms_stay_below(clip_to: float) -> bool:
    """Whether vectors clipped in float32 to ``clip_to`` are really no longer than C."""
    rows = np.random.default_rng(9).normal(size=(2000, 300)).astype(np.float32)
    factors = np.float32(clip_to) / np.linalg.norm(rows, axis=1, keepdims=True)
    clipped = rows * factors.astype(np.float32)
    return bool(np.all(np.linalg.norm(clipped.astype(np.float64), axis=1) <= CLIP))


def test_clipping_in_float32_overshoots_without_the_slack() -> None:
    assert clipped_norms_stay_below(CLIP * (1 - CLIP_SLACK))
    assert not clipped_norms_stay_below(CLIP)


# -- room on the ring ----------------------------------------------------------------------------


def room_in_deviations(grid: RingGrid, batch_cap: int) -> float:
    """How many standard deviations of one firm's noise fit beside a full batch that points one
    way; one coordinate overflows with probability ``normal_tail`` of it, at most."""
    return (grid.share * grid.step - batch_cap * CLIP) / grid.noise_std


def count_overflows(grid: RingGrid, full: float, draws: int) -> int:
    normals = np.random.default_rng(10).normal(size=draws)
    return int((grid.encode(np.full(draws, full), normals) == grid.share).sum())


def overflows_as_stated(grid: RingGrid, batch_cap: int, stated: float) -> bool:
    """Whether a full batch overflows as often as ``stated`` (deviations of room) says."""
    draws = 400_000
    found = count_overflows(grid, batch_cap * CLIP, draws)
    return abs(deviation_of_count(found, draws, normal_tail(stated))) <= LIMIT


@pytest.mark.parametrize("deviations", [1.0, 2.0, 3.0])
def test_overflow_comes_as_often_as_the_formula_says(deviations: float) -> None:
    """On a grid made narrow on purpose, where it can be counted."""
    real = grid_of(8, 3, dimension=400)
    # encode fits what passes half a step below the share: that belongs to the formula.
    reach = 200 * CLIP + deviations * real.noise_std
    step = real.noise_std / 1000
    narrow = replace(real, step=step, share=round(reach / step))
    assert overflows_as_stated(narrow, 200, deviations)
    assert not overflows_as_stated(narrow, 200, deviations * 1.1)
    assert not overflows_as_stated(narrow, 200, deviations * 0.9)


@pytest.mark.parametrize(("firms", "t"), [(8, 1), (8, 6), (200, 50), (1000, 6), (1000, 998)])
@pytest.mark.parametrize("dimension", [1, 50, 10_000, 10_000_000])
def test_the_real_grid_has_the_stated_room_and_never_overflows(
    firms: int, t: int, dimension: int
) -> None:
    cap = 5000
    grid = grid_of(firms, t, dimension=dimension, batch_cap=cap)
    assert room_in_deviations(grid, cap) == pytest.approx(NOISE_ROOM, rel=1e-6)
    assert 10_000_000 * 1000 * normal_tail(NOISE_ROOM) < 2e-9  # a run of 1000 rounds
    assert count_overflows(grid, cap * CLIP, 50_000) == 0


def test_room_for_noise_as_it_was_before_rounding_is_caught() -> None:
    """Rounding widens the noise; on a coarse grid nine of the narrow deviations are not two."""
    grid = grid_of(1000, 6, dimension=10_000_000, batch_cap=5000)
    narrow = SIGMA * CLIP / math.sqrt(1000 - 6)
    step = (5000 * CLIP + NOISE_ROOM * narrow) / grid.share
    noise_std = narrow * (1 + step * math.sqrt(10_000_000) / CLIP)
    before = replace(grid, step=step, noise_std=noise_std)
    assert room_in_deviations(before, 5000) < 2
    assert count_overflows(before, 5000 * CLIP, 50_000) > 0
