"""Noise and samples of a contribution, measured; what is wrong by a tenth has to be noticed.

Each check is a function of how firms behave. It takes the product's way and refuses wrong ones.
Significance: see ``statistics_of_noise``. Seeds are fixed, so nothing here depends on chance.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from consortium_in_memory import make_records, make_terms
from greylag_client.sampling import draw_normals, sample_units
from greylag_client.trainer import Trainer
from greylag_protocols.errors import VerificationError
from greylag_protocols.parameters import initial_weights
from greylag_protocols.quantise import FLOAT_ERROR, RingGrid
from numpy.typing import NDArray
from statistics_of_noise import (
    LIMIT,
    deviation_of_count,
    deviation_of_kurtosis,
    deviation_of_mean,
    deviation_of_uniformity,
    deviation_of_variance,
)

Normals = Callable[[int, int], NDArray[np.float64]]  # of a firm, and how many
FIRMS, COLLUDING, SIGMA, CLIP, DIMENSION = 6, 2, 2.5, 0.7, 20_000
GRID = RingGrid.of(
    firms=FIRMS,
    max_colluding=COLLUDING,
    clip_norm=CLIP,
    noise_multiplier=SIGMA,
    batch_cap=50,
    dimension=DIMENSION,
)


def secret_of(at: int) -> bytes:
    return at.to_bytes(32, "big")


def real_normals(firm: int, size: int) -> NDArray[np.float64]:
    return draw_normals(secret_of(firm), b"context", size)


def noise_of_the_sum(normals: Normals, firms: int = FIRMS) -> NDArray[np.float64]:
    """What decoding leaves of the noise of ``firms`` contributions, in units of the gradient."""
    rng = np.random.default_rng(1)
    total, data = np.zeros(DIMENSION, np.uint32), np.zeros(DIMENSION)
    for firm in range(firms):
        clipped_sum = rng.normal(size=DIMENSION) * (20.0 / math.sqrt(DIMENSION))
        data += np.rint(clipped_sum / GRID.step)
        total += GRID.encode(clipped_sum, normals(firm, DIMENSION)).view(np.uint32)
    return (GRID.decode(total) - data) * GRID.step


def noise_is_as_promised(normals: Normals) -> bool:
    """The decoded sum's noise is normal, around nought, and as wide as the terms say: the firms
    outside the coalition supply ``sigma (C + gamma sqrt(d) + rho)``."""
    sensitivity = CLIP + GRID.step * math.sqrt(DIMENSION) + FLOAT_ERROR * CLIP
    try:
        everyone, honest = noise_of_the_sum(normals), noise_of_the_sum(normals, FIRMS - COLLUDING)
    except VerificationError:  # so much that decoding refuses it
        return False
    promised = SIGMA * sensitivity
    share = promised**2 / (FIRMS - COLLUDING)
    one = noise_of_the_sum(normals, 1)
    if not np.any(one):
        return False
    figures = [
        deviation_of_variance(honest, promised**2),
        deviation_of_variance(everyone, share * FIRMS),
        deviation_of_mean(everyone, math.sqrt(share * FIRMS)),
        deviation_of_kurtosis(one),  # of one firm: in a sum everything looks normal
    ]
    return all(abs(figure) <= LIMIT for figure in figures)


def scaled(factor: float) -> Normals:
    return lambda firm, size: real_normals(firm, size) * factor


def uniform(firm: int, size: int) -> NDArray[np.float64]:
    return np.random.default_rng(firm).uniform(-math.sqrt(3), math.sqrt(3), size)


WRONG_NOISE: dict[str, Normals] = {
    "a tenth too much": scaled(1.1),
    "a tenth too little": scaled(0.9),
    "half": scaled(0.5),
    "divided among all": scaled(math.sqrt((FIRMS - COLLUDING) / FIRMS)),
    "divided by the number of firms, not its root": scaled(1 / math.sqrt(FIRMS)),
    "none": scaled(0.0),
    "the same at every firm": lambda firm, size: real_normals(0, size),
    "uniform, of the right width": uniform,
    "off centre": lambda firm, size: real_normals(firm, size) + 0.05,
}


def test_noise_of_the_decoded_sum_is_as_promised() -> None:
    assert noise_is_as_promised(real_normals)


@pytest.mark.parametrize("wrong", WRONG_NOISE.values(), ids=WRONG_NOISE.keys())
def test_wrong_noise_is_caught(wrong: Normals) -> None:
    assert not noise_is_as_promised(wrong)


# -- empty batches -------------------------------------------------------------------------------

SMALL = make_terms()
SMALL_GRID = SMALL.grid(3)
SMALL_WEIGHTS = initial_weights(b"seed", SMALL.parameters)
TRAINER = Trainer(SMALL, make_records(SMALL, seed=1, count=5))

Contribute = Callable[[NDArray[np.intp], NDArray[np.float64]], NDArray[np.int32]]


def empty_batches_look_like_noise(contribute: Contribute) -> bool:
    """Samples of nobody, at a rate of 0.3 from 5 records: noise as wide as always goes out."""
    sent = []
    for attempt in range(250):
        context = attempt.to_bytes(4, "big")
        rows = sample_units(
            secret_of(9), context, units=5, rate=SMALL.training.sampling_rate, cap=SMALL.batch_cap
        )
        if len(rows) == 0:
            sent.append(
                contribute(rows, draw_normals(secret_of(9), context, SMALL.dimension)).copy()
            )
    assert len(sent) > 20  # 0.7^5 of 250 are 42
    noise = np.concatenate(sent) * SMALL_GRID.step
    width = SMALL_GRID.noise_std
    return (
        abs(deviation_of_variance(noise, width**2)) <= LIMIT
        and abs(deviation_of_mean(noise, width)) <= LIMIT
    )


def contribute(rows: NDArray[np.intp], normals: NDArray[np.float64]) -> NDArray[np.int32]:
    return SMALL_GRID.encode(TRAINER.clipped_sum(SMALL_WEIGHTS, rows), normals)


def test_an_empty_batch_still_sends_noise() -> None:
    assert empty_batches_look_like_noise(contribute)

    def nothing(rows: NDArray[np.intp], normals: NDArray[np.float64]) -> NDArray[np.int32]:
        return contribute(rows, normals) if len(rows) else np.zeros(SMALL.dimension, np.int32)

    def in_proportion(rows: NDArray[np.intp], normals: NDArray[np.float64]) -> NDArray[np.int32]:
        return contribute(rows, normals * (0.5 + 0.5 * len(rows) / SMALL.batch_cap))

    assert not empty_batches_look_like_noise(nothing)
    assert not empty_batches_look_like_noise(in_proportion)


# -- samples -------------------------------------------------------------------------------------

Sample = Callable[[int], NDArray[np.intp]]  # of an attempt
UNITS, RATE, ATTEMPTS = 500, 0.2, 1500


def draw_sample(attempt: int, rate: float = RATE, cap: int = UNITS) -> NDArray[np.intp]:
    return sample_units(secret_of(3), attempt.to_bytes(4, "big"), units=UNITS, rate=rate, cap=cap)


def is_poisson_sampling(sample: Sample) -> bool:
    """Each unit is in at the stated rate, on its own: the sizes' mean and variance are binomial,
    units are alike, and neighbours are in together as often as chance would have it."""
    chosen = np.zeros((ATTEMPTS, UNITS), dtype=bool)
    for attempt in range(ATTEMPTS):
        chosen[attempt, sample(attempt)] = True
    mean, variance = UNITS * RATE, UNITS * RATE * (1 - RATE)
    sizes = chosen.sum(1).astype(np.float64)
    pairs = int((chosen[:, ::2] & chosen[:, 1::2]).sum())
    figures = [
        deviation_of_count(int(chosen.sum()), chosen.size, RATE),
        deviation_of_variance(sizes, variance, mean, 3 + (1 - 6 * RATE * (1 - RATE)) / variance),
        deviation_of_uniformity(chosen.sum(0)),
        deviation_of_count(pairs, chosen.size // 2, RATE**2),
    ]
    return all(abs(figure) <= LIMIT for figure in figures)


def fixed_size(attempt: int) -> NDArray[np.intp]:
    return np.random.default_rng(attempt).permutation(UNITS)[: round(UNITS * RATE)]


def blocks(attempt: int) -> NDArray[np.intp]:
    first = np.flatnonzero(np.random.default_rng(attempt).random(UNITS // 2) < RATE)
    return np.concatenate([2 * first, 2 * first + 1])


WRONG_SAMPLES: dict[str, Sample] = {
    "a rate a tenth too high": lambda attempt: draw_sample(attempt, 1.1 * RATE),
    "a rate a tenth too low": lambda attempt: draw_sample(attempt, 0.9 * RATE),
    "batches of fixed size": fixed_size,
    "epochs that are shuffled once": lambda attempt: (np.arange(100) + 100 * attempt) % UNITS,
    "blocks of two": blocks,
    "the first unit always": lambda attempt: np.union1d(draw_sample(attempt), [0]),
}


def test_samples_are_poisson_samples_at_the_stated_rate() -> None:
    assert is_poisson_sampling(draw_sample)


@pytest.mark.parametrize("wrong", WRONG_SAMPLES.values(), ids=WRONG_SAMPLES.keys())
def test_wrong_samples_are_caught(wrong: Sample) -> None:
    assert not is_poisson_sampling(wrong)


CAP = 90  # below the mean of 100: nearly every sample is cut


def is_a_fair_cut(sample: Sample) -> bool:
    """Never more than the cap, and whoever was chosen stays with the same chance, wherever it
    stands. (Accounting takes the cut sample for a uniform subset.)"""
    counts = np.zeros(UNITS, dtype=np.intp)
    for attempt in range(600):
        rows = sample(attempt)
        if len(rows) > CAP or len(np.unique(rows)) < len(rows):
            return False
        counts[rows] += 1
    return abs(deviation_of_uniformity(counts)) <= LIMIT


def test_a_cut_sample_is_a_uniform_subset() -> None:
    assert is_a_fair_cut(lambda attempt: draw_sample(attempt, cap=CAP))
    assert not is_a_fair_cut(draw_sample)  # not cut at all
    assert not is_a_fair_cut(lambda attempt: draw_sample(attempt)[:CAP])
    assert not is_a_fair_cut(lambda attempt: draw_sample(attempt)[-CAP:])
    for attempt in range(20):  # and a subset of what would have been chosen without a cut
        assert np.isin(draw_sample(attempt, cap=CAP), draw_sample(attempt)).all()
