"""One record moves a clipped sum by at most C: whatever it holds, whatever the lead sends.

The wrong ways are built here beside the product's, and fail the same check.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from consortium_in_memory import make_records, make_terms
from greylag_client.models import build_mlp, load_weights, record_losses
from greylag_client.trainer import Trainer
from greylag_protocols.features import Records
from greylag_protocols.parameters import initial_weights
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

GLASSES = Path(__file__).parents[3] / "shared" / "data" / "glass_tg_by_firm.csv.gz"
TERMS = make_terms()
# Unbounded activations: a huge input makes a huge gradient.
DEEP = replace(TERMS, model=replace(TERMS.model, hidden=(7, 5), activation="relu"))
CLIP = TERMS.privacy.clip_norm

Vector = NDArray[np.float64]
ClippedSum = Callable[[Terms, Records, NDArray[np.float32]], Vector]


def weights_for(terms: Terms, seed: int = 5) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(size=terms.dimension)
    return (initial_weights(b"seed", terms.parameters) + noise).astype(np.float32)


def product(terms: Terms, records: Records, weights: NDArray[np.float32]) -> Vector:
    return Trainer(terms, records).clipped_sum(weights, np.arange(len(records)))


def gradients_of(terms: Terms, records: Records, weights: NDArray[np.float32]) -> Vector:
    """Each record's gradient by its own backward pass, shape (n, d)."""
    module = build_mlp(terms)
    load_weights(module, weights)
    outputs = module(torch.from_numpy(records.inputs))
    losses = record_losses(terms, outputs, torch.from_numpy(records.targets))
    rows = []
    for loss in losses:
        parts = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
        rows.append(torch.cat([part.reshape(-1) for part in parts]).numpy())
    return np.stack(rows)


def clip_the_batch(terms: Terms, records: Records, weights: NDArray[np.float32]) -> Vector:
    """Wrong: the batch's gradient is scaled as one to n C."""
    total = gradients_of(terms, records, weights).sum(0)
    return total * min(1.0, len(records) * CLIP / np.linalg.norm(total))


def clip_and_let_through(terms: Terms, records: Records, weights: NDArray[np.float32]) -> Vector:
    """Wrong: each is scaled, but what is no number stays one."""
    rows = gradients_of(terms, records, weights)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows * np.minimum(1.0, CLIP / norms)).sum(0)


def clip_and_empty(terms: Terms, records: Records, weights: NDArray[np.float32]) -> Vector:
    """Wrong: one bad record empties the whole sum."""
    return np.nan_to_num(clip_and_let_through(terms, records, weights)) * bool(
        np.isfinite(clip_and_let_through(terms, records, weights)).all()
    )


def clip_norms_of_batch_mean(
    terms: Terms, records: Records, weights: NDArray[np.float32]
) -> Vector:
    """Wrong: the norm is that of the mean loss's gradient, n times too short."""
    rows = gradients_of(terms, records, weights)
    norms = np.linalg.norm(rows, axis=1, keepdims=True) / len(records)
    return (rows * np.minimum(1.0, CLIP / norms)).sum(0)


def holds_against(poison: float, clipped_sum: ClippedSum) -> bool:
    """A poisoned record beside twelve good ones moves the sum by at most C, and leaves a number."""
    weights, good = weights_for(DEEP), make_records(DEEP, seed=3, count=12)
    bad = Records(
        inputs=np.concatenate([good.inputs, [[poison, 1.0, -poison]]]),
        targets=np.concatenate([good.targets, [[0.5, -0.5]]]),
    )
    with np.errstate(all="ignore"):
        before, after = clipped_sum(DEEP, good, weights), clipped_sum(DEEP, bad, weights)
    moved = float(np.linalg.norm(after - before))
    return bool(np.isfinite(after).all()) and moved <= CLIP and bool(np.any(before))


POISONS = [1e30, -1e30, 1e150, 1e308, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("poison", [0.5, *POISONS])
def test_no_poison_moves_the_sum_by_more_than_one_record_may(poison: float) -> None:
    assert holds_against(poison, product)


@pytest.mark.parametrize("poison", POISONS)
def test_clipping_the_batch_as_one_is_caught(poison: float) -> None:
    assert not holds_against(poison, clip_the_batch)
    assert not holds_against(poison, clip_norms_of_batch_mean)


@pytest.mark.parametrize("poison", [1e308, np.inf, np.nan])
def test_what_is_no_number_is_caught(poison: float) -> None:
    assert not holds_against(poison, clip_and_let_through)
    assert not holds_against(poison, clip_and_empty)


def test_the_plain_way_passes_where_numbers_are_numbers() -> None:
    """So the check is not one that only the product can pass."""
    assert holds_against(0.5, clip_and_let_through)
    assert holds_against(1e30, clip_and_let_through)


# -- scaling that is fitted to the data ----------------------------------------------------------

OXIDES = ["SiO2", "B2O3", "Na2O"]
GLASS_TERMS = replace(
    TERMS,
    data=replace(TERMS.data, targets=TERMS.data.targets[:1], max_records_per_firm=400),
    privacy=replace(TERMS.privacy, clip_norm=0.1),
)


@pytest.fixture(scope="module")
def recipes() -> Records:
    """Real recipes of one firm, scaled by public bounds."""
    if not GLASSES.exists():
        pytest.skip("the public glass data set is not on this machine")
    table = pl.read_csv(GLASSES).filter(pl.col("firm") == "Schott").head(300)
    inputs = 2.0 * table.select(OXIDES).to_numpy().astype(np.float64) / 100.0 - 1.0
    targets = 2.0 * (table.select("tg_k").to_numpy().astype(np.float64) - 300.0) / 1000.0 - 1.0
    return Records(inputs=inputs, targets=targets)


def as_it_is(records: Records) -> Records:
    return records


def standardised(records: Records) -> Records:
    """Smuggled in: each column by its own mean and deviation."""

    def scale(values: Vector) -> Vector:
        return (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)

    return Records(inputs=scale(records.inputs), targets=scale(records.targets))


def with_a_private_head(records: Records) -> Records:
    """Smuggled in: a linear layer of the firm's own, fitted to its records before each round; the
    shared model learns what that layer leaves over."""
    design = np.concatenate([records.inputs, np.ones((len(records), 1))], axis=1)
    head, *_ = np.linalg.lstsq(design, records.targets, rcond=None)
    return Records(inputs=records.inputs, targets=records.targets - design @ head)


def worst_move(
    prepare: Callable[[Records], Records], records: Records, weights: NDArray[np.float32]
) -> float:
    """By how many C removing one record moves the sum at most, over its most unusual records.

    The bound has to hold for every record that could be there: so one at the public limits too.
    """
    odd = Records(inputs=np.ones((1, 3)), targets=np.ones((1, 1)))
    everyone = Records(
        inputs=np.concatenate([records.inputs, odd.inputs]),
        targets=np.concatenate([records.targets, odd.targets]),
    )
    total = product(GLASS_TERMS, prepare(everyone), weights)
    far = np.abs(everyone.inputs - everyone.inputs.mean(0)).sum(1)
    moves = []
    for row in np.argsort(far)[-6:]:
        rest = everyone.take(np.delete(np.arange(len(everyone)), row))
        moves.append(np.linalg.norm(total - product(GLASS_TERMS, prepare(rest), weights)))
    return float(max(moves)) / GLASS_TERMS.privacy.clip_norm


def test_what_is_fitted_to_the_data_moves_the_sum_by_several_clip_norms(recipes: Records) -> None:
    weights = initial_weights(b"seed", GLASS_TERMS.parameters)
    assert worst_move(as_it_is, recipes, weights) <= 1.0
    assert worst_move(standardised, recipes, weights) > 5.0  # 13 C here
    assert worst_move(with_a_private_head, recipes, weights) > 3.0  # 6 C here
