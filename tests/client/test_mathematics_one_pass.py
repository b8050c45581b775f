"""The lead chooses the weights. What is measured of a unit must be what is summed, for all of them.

Ghost clipping measures norms in one backward pass and sums scaled gradients in another, or takes
norms from inner products of rows. Both are right in real numbers. In floats a lead can choose
weights such that sums cancel in the one and not in the other, and each further layer multiplies
what is left: one unit's "clipped" gradient is then millions of C long, far out of all noise.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from consortium_in_memory import make_records, make_terms
from greylag_client import trainer
from greylag_client.attempt_rules import MAX_WEIGHT
from greylag_client.models import build_mlp, load_weights, record_losses
from greylag_client.trainer import Trainer
from greylag_protocols.features import Records
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

Vector = NDArray[np.float64]
ClippedSum = Callable[[Terms, Records, NDArray[np.float32], int], Vector]
RECORD, GROUP = make_terms(), make_terms(unit="group")
CLIP = RECORD.privacy.clip_norm


def product(terms: Terms, records: Records, weights: NDArray[np.float32], unit: int) -> Vector:
    return Trainer(terms, records).clipped_sum(weights, np.array([unit]))


def two_passes(terms: Terms, records: Records, weights: NDArray[np.float32], unit: int) -> Vector:
    """Wrong: the norm from one backward pass, the sum from a second one over the scaled loss."""
    module = build_mlp(terms)
    load_weights(module, weights)
    outputs = module(torch.from_numpy(records.inputs[[unit]]))
    loss = record_losses(terms, outputs, torch.from_numpy(records.targets[[unit]])).sum()

    def gradient(of: torch.Tensor) -> Vector:
        parts = torch.autograd.grad(of, list(module.parameters()), retain_graph=True)
        return torch.cat([part.reshape(-1) for part in parts]).numpy()

    norm = float(np.linalg.norm(gradient(loss)))
    return gradient(loss * min(1.0, CLIP / max(norm, 1e-30)))


def inner_products(
    terms: Terms, records: Records, weights: NDArray[np.float32], unit: int
) -> Vector:
    """Wrong: the norm of a sum of rows from their inner products (all rows are one group)."""
    module = build_mlp(terms)
    load_weights(module, weights)
    rows = []
    for inputs, targets in zip(records.inputs, records.targets, strict=True):
        output = module(torch.from_numpy(inputs[None]))
        loss = record_losses(terms, output, torch.from_numpy(targets[None])).sum() / len(records)
        parts = torch.autograd.grad(loss, list(module.parameters()))
        rows.append(torch.cat([part.reshape(-1) for part in parts]).numpy())
    stacked = np.stack(rows)
    norm = np.sqrt(max(0.0, float((stacked @ stacked.T).sum())))
    return stacked.sum(0) * min(1.0, CLIP / max(norm, 1e-30))


def cancelling_weights(terms: Terms, output_bias: float) -> NDArray[np.float32]:
    """All activations are nought. Back-propagated errors meet 97 * 89 + 89 * 97 - 2 * 97 * 89:
    nought for round numbers, about 1e-16 of it for others; then 1e4 a layer."""
    parts = [np.zeros(item.shape) for item in terms.parameters]
    matrices = [part for part in parts if part.ndim == 2]
    for matrix in matrices[1:-2]:
        matrix[:] = MAX_WEIGHT - 1
    matrices[-2][:3] = np.array([[89.0], [97.0], [-97.0 * 89.0]])
    matrices[-1][0, :3] = [97.0, 89.0, 2.0]
    parts[-1][0] = output_bias
    return np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)


def amplifying_weights(terms: Terms) -> NDArray[np.float32]:
    """All activations are nought; errors grow by 1e4 a layer."""
    parts = [np.zeros(item.shape) for item in terms.parameters]
    for matrix in [part for part in parts if part.ndim == 2][1:]:
        matrix[:] = MAX_WEIGHT - 1
    return np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)


def longest_record(clipped_sum: ClippedSum, depth: int) -> float:
    terms = replace(RECORD, model=replace(RECORD.model, hidden=(8,) * depth))
    plain = make_records(terms, seed=1, count=20)
    records = Records(inputs=plain.inputs, targets=np.nan_to_num(plain.targets))
    sums = [
        clipped_sum(terms, records, cancelling_weights(terms, bias), unit)
        for bias in (0.5, 10.125, 77.0)
        for unit in range(20)
    ]
    return max(float(np.linalg.norm(item)) for item in sums) / CLIP


def test_no_weights_make_a_records_contribution_longer_than_the_clip_norm() -> None:
    assert longest_record(product, 6) <= 1.0
    assert longest_record(product, 10) <= 1.0
    assert longest_record(two_passes, 6) > 1e3


def longest_group(clipped_sum: ClippedSum) -> float:
    """Two near-copies whose targets pull in opposite directions."""
    terms = replace(GROUP, model=replace(GROUP.model, hidden=(8,) * 4))
    weights, rng, longest = amplifying_weights(terms), np.random.default_rng(0), 0.0
    for apart in (1e-12, 1e-10, 1e-8, 1e-6):
        for _ in range(5):
            inputs = np.repeat(rng.uniform(-1, 1, (1, 3)), 2, axis=0)
            inputs[1] += rng.normal(size=3) * apart
            records = Records(
                inputs=inputs,
                targets=np.array([[0.5, np.nan], [-0.5, np.nan]]),
                groups=np.array(["patent", "patent"]),
            )
            moved = np.linalg.norm(clipped_sum(terms, records, weights, 0))
            longest = max(longest, float(moved))
    return longest / CLIP


def test_no_weights_make_a_groups_contribution_longer_than_the_clip_norm() -> None:
    assert longest_group(product) <= 1.0
    assert longest_group(inner_products) > 1e3


def test_a_gradient_that_overflows_takes_no_more_passes_than_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the lead reads off the time whether such a record was sampled."""
    terms = replace(RECORD, model=replace(RECORD.model, hidden=(8,) * 16, activation="relu"))
    weights = np.full(terms.dimension, MAX_WEIGHT - 1, np.float32)
    inputs = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.5]])  # overflows; every unit is dead
    engine = Trainer(terms, Records(inputs=inputs, targets=np.zeros((2, 2))))
    passes = []
    monkeypatch.setattr(trainer, "load_weights", lambda *args: passes.append(load_weights(*args)))
    counts = []
    for row in (0, 1):
        passes.clear()
        engine.clipped_sum(weights, np.array([row]))
        counts.append(len(passes))
    assert counts == [1, 1]
    assert not engine.clipped_sum(weights, np.array([0])).any()
    assert engine.clipped_sum(weights, np.array([1])).any()
