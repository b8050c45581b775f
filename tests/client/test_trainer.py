"""The clipped sum against a plain loop (one record at a time, autograd) and against Opacus."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from consortium_in_memory import make_records, make_terms
from greylag_client.models import build_mlp, load_weights, record_losses
from greylag_client.trainer import SharedModel, Trainer
from greylag_protocols.features import Records
from greylag_protocols.parameters import initial_weights
from greylag_protocols.quantise import CLIP_SLACK
from greylag_protocols.terms import Target, Terms
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule

REGRESSION = make_terms()
CLASSIFICATION = replace(
    REGRESSION,
    data=replace(
        REGRESSION.data,
        task="classification",
        targets=(Target(name="kind", classes=("red", "green", "blue")),),
    ),
)
DEEP = replace(REGRESSION, model=replace(REGRESSION.model, hidden=(7, 5), activation="relu"))
CASES = [REGRESSION, CLASSIFICATION, DEEP]
NAMES = ["regression", "classification", "deep"]


def records_for(terms: Terms, count: int = 40) -> Records:
    records = make_records(terms, seed=3, count=count)
    if terms.data.task == "classification":
        kinds = np.random.default_rng(4).integers(0, 3, (count, 1)).astype(np.float64)
        return Records(inputs=records.inputs, targets=kinds)
    return records


def weights_for(terms: Terms, scale: float = 1.0) -> NDArray[np.float32]:
    """Weights without the zeros of a fresh model, so that every layer has a gradient."""
    noise = np.random.default_rng(5).normal(size=terms.dimension) * scale
    return (initial_weights(b"seed", terms.parameters) + noise).astype(np.float32)


def plain_gradient(
    terms: Terms, records: Records, weights: NDArray[np.float32], row: int
) -> NDArray[np.float64]:
    """One record's gradient, by definition."""
    model, at = build_mlp(terms), 0
    with torch.no_grad():
        for tensor in model.parameters():
            part = weights[at : at + tensor.numel()].astype(np.float64)
            tensor.copy_(torch.from_numpy(part).view_as(tensor))
            at += tensor.numel()
    output = model(torch.from_numpy(records.inputs[row]))
    target = records.targets[row]
    if terms.data.task == "classification":
        loss = -torch.log_softmax(output, 0)[int(target[0])]
    else:
        terms_of_loss = [
            (output[at] - float(target[at])) ** 2
            for at in range(len(target))
            if not np.isnan(target[at])
        ]
        if not terms_of_loss:
            return np.zeros(terms.dimension)
        loss = sum(terms_of_loss) / len(terms_of_loss) / 2
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([item.reshape(-1) for item in gradients]).numpy()


def clip(terms: Terms, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    limit = terms.privacy.clip_norm * (1 - CLIP_SLACK)
    norm = np.linalg.norm(gradient)
    return gradient * min(1.0, limit / norm) if norm > 0 else gradient


@pytest.mark.parametrize("scale", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("terms", CASES, ids=NAMES)
def test_it_equals_a_plain_loop_over_records(terms: Terms, scale: float) -> None:
    records, weights = records_for(terms), weights_for(terms, scale)
    rows = np.array([0, 2, 3, 5, 8, 13, 21, 34, 39])
    gradients = [plain_gradient(terms, records, weights, row) for row in rows]
    expected = sum(clip(terms, gradient) for gradient in gradients)
    found = Trainer(terms, records).clipped_sum(weights, rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert np.linalg.norm(expected) > 0.1


@pytest.mark.parametrize("terms", CASES, ids=NAMES)
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_it_equals_opacus(terms: Terms) -> None:
    """Per-sample gradients by Opacus' hooks, clipped and added."""
    records, weights, rows = records_for(terms), weights_for(terms), np.arange(25)
    module = build_mlp(terms)
    load_weights(module, weights)
    sampled = GradSampleModule(module, loss_reduction="sum")
    outputs = sampled(torch.from_numpy(records.inputs[rows]))
    record_losses(terms, outputs, torch.from_numpy(records.targets[rows])).sum().backward()
    gradients = torch.cat([item.grad_sample.flatten(1) for item in module.parameters()], 1).numpy()
    expected = sum(clip(terms, gradient) for gradient in gradients)
    found = Trainer(terms, records).clipped_sum(weights, rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_both_clipped_and_unclipped_records_were_among_them() -> None:
    """Otherwise the comparison above would say little."""
    norms = [
        np.linalg.norm(plain_gradient(REGRESSION, records_for(REGRESSION), weights, row))
        for weights in (weights_for(REGRESSION, 0.05), weights_for(REGRESSION, 20.0))
        for row in range(40)
    ]
    assert min(norms) < 0.9
    assert max(norms) > 1.1


@pytest.mark.parametrize("terms", CASES, ids=NAMES)
def test_no_record_moves_the_sum_by_more_than_the_clip_norm(terms: Terms) -> None:
    records, weights = records_for(terms), weights_for(terms, 20.0)
    trainer, limit = Trainer(terms, records), terms.privacy.clip_norm
    before = np.zeros(terms.dimension)
    for count in range(1, 20):
        after = trainer.clipped_sum(weights, np.arange(count))
        assert np.linalg.norm(after - before) <= limit
        alone = trainer.clipped_sum(weights, np.array([count - 1]))
        assert np.linalg.norm(alone) <= limit
        np.testing.assert_allclose(after - before, alone, rtol=0, atol=1e-9)
        before = after


def test_padding_changes_nothing() -> None:
    records, weights = records_for(REGRESSION), weights_for(REGRESSION)
    padded, bare = Trainer(REGRESSION, records), Trainer(REGRESSION, records, pad=False)
    assert REGRESSION.batch_cap > 40
    for rows in (np.array([7]), np.arange(10), np.arange(40)):
        np.testing.assert_allclose(
            padded.clipped_sum(weights, rows), bare.clipped_sum(weights, rows), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("pad", [True, False])
def test_an_empty_sample_is_zeros(pad: bool) -> None:
    trainer = Trainer(REGRESSION, records_for(REGRESSION), pad=pad)
    found = trainer.clipped_sum(weights_for(REGRESSION), np.array([], dtype=np.intp))
    np.testing.assert_array_equal(found, np.zeros(REGRESSION.dimension))


def test_a_firm_without_records_gives_zeros() -> None:
    records = Records(inputs=np.zeros((0, 3)), targets=np.zeros((0, 2)))
    trainer = Trainer(REGRESSION, records)
    assert len(trainer) == 0
    found = trainer.clipped_sum(weights_for(REGRESSION), np.array([], dtype=np.intp))
    np.testing.assert_array_equal(found, np.zeros(REGRESSION.dimension))


def test_a_missing_target_is_left_out_of_the_loss() -> None:
    """With one of two targets missing, the other counts alone and in full."""
    records, weights = make_records(REGRESSION, seed=3, count=2), weights_for(REGRESSION, 0.05)
    targets = np.array([[0.5, np.nan], [np.nan, np.nan]])
    records = Records(inputs=records.inputs, targets=targets)
    trainer = Trainer(REGRESSION, records)
    found = trainer.clipped_sum(weights, np.array([0]))
    expected = clip(REGRESSION, plain_gradient(REGRESSION, records, weights, 0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert found[-1] == 0  # the bias of the missing target's output
    assert found[-2] != 0
    nothing = trainer.clipped_sum(weights, np.array([1]))
    np.testing.assert_array_equal(nothing, np.zeros(REGRESSION.dimension))


@pytest.mark.parametrize("pad", [True, False])
def test_a_record_whose_gradient_overflows_does_not_touch_the_others(pad: bool) -> None:
    """Otherwise that one record would empty the whole sum, which is far more than C."""
    terms, records, weights = DEEP, records_for(DEEP), weights_for(DEEP)
    expected = Trainer(terms, records, pad=pad).clipped_sum(weights, np.arange(10))
    assert np.linalg.norm(expected) > 0.1
    inputs = np.concatenate([np.full((1, 3), 1e308), records.inputs[:10], np.full((1, 3), np.inf)])
    targets = np.concatenate([np.zeros((1, 2)), records.targets[:10], np.zeros((1, 2))])
    trainer = Trainer(terms, Records(inputs=inputs, targets=targets), pad=pad)
    found = trainer.clipped_sum(weights, np.arange(12))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    alone = trainer.clipped_sum(weights, np.array([0, 11]))
    np.testing.assert_array_equal(alone, np.zeros(terms.dimension))


def test_one_call_leaves_nothing_behind_for_the_next() -> None:
    trainer = Trainer(REGRESSION, records_for(REGRESSION))
    weights = weights_for(REGRESSION)
    first = trainer.clipped_sum(weights, np.arange(20))
    trainer.clipped_sum(weights_for(REGRESSION, 5.0), np.arange(5, 40))
    np.testing.assert_array_equal(trainer.clipped_sum(weights, np.arange(20)), first)


@pytest.mark.parametrize("unit", ["record", "group"])
def test_firms_that_share_a_model_send_the_same_bytes_as_alone(unit: str) -> None:
    """Their order and other firms' batches, weights and records that are no numbers included."""
    terms = make_terms(unit=unit)
    model = SharedModel(terms)
    firms = [make_records(terms, seed=seed, count=20 + seed) for seed in range(5)]
    firms[3].inputs[2] = np.nan
    together = [Trainer(terms, records, pad=False, model=model) for records in firms]
    for scale in (0.5, 20.0, 0.5):
        weights = weights_for(terms, scale)
        for number in (4, 0, 3, 1, 2):
            units = np.arange(min(12, len(together[number])))
            found = together[number].clipped_sum(weights, units)
            alone = Trainer(terms, firms[number], pad=False).clipped_sum(weights, units)
            assert found.tobytes() == alone.tobytes()


@pytest.mark.parametrize("unit", ["record", "group"])
def test_passes_of_any_size_give_the_same_sum(unit: str) -> None:
    terms = make_terms(unit=unit)
    records = make_records(terms, seed=3, count=40)
    model = SharedModel(terms)
    trainer, weights = Trainer(terms, records, model=model), weights_for(terms)
    units = np.arange(len(trainer))[::-1][:12]
    expected = trainer.clipped_sum(weights, units)
    for size in (1, 3, 7):
        model.units_per_pass = size
        found = trainer.clipped_sum(weights, units)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
