"""The lead chooses weights that blow an ulp up to a whole gradient.

A library rounds a row of a batch by its place in the matrix: at the edge another kernel is at work.
Two triples of weights cancel exactly but for that ulp, and each further layer multiplies what is
left by 2^13; one way or the other, the gradient is then clipped to C.

- **Without random places**: sampled units stand in a row. One unit less moves all behind it by one
  place, and so the sum by many C: one record is seen far out of the noise.
- **With them**: whoever stands where is as likely with the unit as without it. With the others in
  the same places, the sum moves by that unit's own gradient.
"""

from dataclasses import replace

import numpy as np
import pytest
from consortium_in_memory import make_terms
from greylag_client.attempt_rules import MAX_WEIGHT
from greylag_client.sampling import NO_UNIT, place_units
from greylag_client.trainer import Trainer
from greylag_protocols.features import Records
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

BIG = 2.0**13
RECORDS = 60
EVERYBODY = np.arange(RECORDS)
Units = NDArray[np.intp]


def crafted_weights(terms: Terms, seed: int) -> NDArray[np.float32]:
    """Unit 2 of the first layer is the sum of units 0 and 1, but for rounding."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(item.shape) for item in terms.parameters]
    first = parts[0]
    first[:] = rng.uniform(-1, 1, first.shape).astype(np.float32)
    first[:2] = rng.integers(1, 2**10, (2, first.shape[1])) / 2**10
    first[2] = first[0] + first[1]
    parts[1][:3] = [8, 8, 16]  # keeps relu open, and cancels
    parts[2][:2, :3] = [[BIG, BIG, -BIG], [-BIG, -BIG, BIG]]
    for layer in range(2, 6):
        parts[2 * layer][:2, :2] = np.diag([BIG, BIG])
    parts[12][0, :2] = [1.0, -1.0]
    weights = np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)
    assert np.abs(weights).max() <= MAX_WEIGHT
    return weights


def attack() -> tuple[Terms, Trainer, list[NDArray[np.float32]]]:
    terms = make_terms()
    model = replace(terms.model, hidden=(8,) * 6, activation="relu")
    five = replace(terms.data.features[0], names=tuple("abcde"))
    terms = replace(
        terms,
        model=model,
        data=replace(terms.data, features=(five,)),
        training=replace(terms.training, sampling_rate=1.0),
    )
    rng = np.random.default_rng(3)
    records = Records(
        inputs=rng.uniform(-1, 1, (RECORDS, 5)), targets=rng.uniform(-1, 1, (RECORDS, 2))
    )
    weights = [crafted_weights(terms, seed) for seed in range(6)]
    return terms, Trainer(terms, records), weights


def moved(trainer: Trainer, weights: NDArray[np.float32], batch: Units, less: Units) -> float:
    """How far apart the sums of two batches are, in clip norms (C is 1)."""
    sums = [trainer.clipped_sum(weights, units) for units in (batch, less)]
    return float(np.linalg.norm(sums[0] - sums[1]))


def test_one_record_moves_the_sum_by_its_own_gradient() -> None:
    terms, trainer, crafted = attack()
    assert terms.privacy.clip_norm == 1.0
    batch = place_units(b"secret", bytes(32), EVERYBODY, places=terms.batch_cap)
    for weights in crafted:
        for gone in range(0, RECORDS, 7):
            less = np.where(batch == gone, NO_UNIT, batch)
            assert moved(trainer, weights, batch, less) <= 1.0


def test_without_places_it_moves_the_sum_by_many() -> None:
    _, trainer, crafted = attack()
    longest = max(
        moved(trainer, weights, EVERYBODY, np.delete(EVERYBODY, gone))
        for weights in crafted
        for gone in range(0, RECORDS, 7)
    )
    if longest <= 1.0:
        pytest.skip("this machine's linear algebra rounds a row alike in every place")
    assert longest > 2.0


def test_places_are_uniform_distinct_and_tell_nothing_of_who_is_absent() -> None:
    draws, places = 4000, 5
    counts = np.zeros((2, places))
    for draw in range(draws):
        context = draw.to_bytes(32, "big")
        batch = place_units(b"secret", context, np.array([7, 9]), places=places)
        assert sorted(batch.tolist()) == [NO_UNIT] * 3 + [7, 9]
        counts[0, int(np.flatnonzero(batch == 7)[0])] += 1
        alone = place_units(b"secret", context, np.array([7]), places=places)
        counts[1, int(np.flatnonzero(alone == 7)[0])] += 1
    spread = 5 * np.sqrt(draws / places * (1 - 1 / places))
    assert np.all(np.abs(counts - draws / places) < spread)
