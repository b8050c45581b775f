"""What a unit of privacy is to the training engine: one clipped gradient, whatever its rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from consortium_in_memory import make_records, make_terms
from greylag_client.engine import make_engine
from greylag_client.models import build_mlp, load_weights, record_losses
from greylag_client.units import NO_ROW, rows_of_units
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import Records
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

GROUP, FIRM = make_terms(unit="group"), make_terms(unit="firm")


def weights_for(terms: Terms, scale: float = 0.5) -> NDArray[np.float32]:
    return (scale * np.random.default_rng(1).normal(size=terms.dimension)).astype(np.float32)


def with_training(terms: Terms, **changes: Any) -> Terms:
    return replace(terms, training=replace(terms.training, **changes))


def with_clip_norm(terms: Terms, clip_norm: float) -> Terms:
    return replace(terms, privacy=replace(terms.privacy, clip_norm=clip_norm))


def groups_by_loop(terms: Terms, records: Records) -> list[list[int]]:
    """Rows by group, in the order of group numbers; the first ``max_records_per_group`` stay."""
    assert records.groups is not None
    rows: dict[int, list[int]] = {}
    for row, group in enumerate(records.groups.tolist()):
        rows.setdefault(group, []).append(row)
    return [rows[group][: terms.rows_per_unit] for group in sorted(rows)]


def clipped_by_loop(
    terms: Terms, records: Records, weights: NDArray[np.float32], chosen: list[list[int]]
) -> NDArray[np.float64]:
    """Each group's gradient from its own backward pass, clipped as one, added up."""
    total = np.zeros(terms.dimension)
    for rows in chosen:
        module = build_mlp(terms)
        load_weights(module, weights)
        losses = record_losses(
            terms,
            module(torch.from_numpy(records.inputs[rows])),
            torch.from_numpy(records.targets[rows]),
        )
        gradient = torch.cat(
            [part.reshape(-1) for part in torch.autograd.grad(losses.mean(), module.parameters())]
        ).numpy()
        total += gradient * min(
            1.0, terms.privacy.clip_norm * (1 - 1e-5) / np.linalg.norm(gradient)
        )
    return total


@pytest.mark.parametrize("clip_norm", [1e-3, 0.1, 100.0])
@pytest.mark.parametrize("pad", [True, False])
def test_a_groups_gradient_is_clipped_as_one(clip_norm: float, pad: bool) -> None:
    terms = with_clip_norm(GROUP, clip_norm)
    records, weights = make_records(terms, seed=0), weights_for(terms)
    engine = make_engine(terms, records, pad=pad)
    groups = groups_by_loop(terms, records)
    assert len(engine) == len(groups)
    assert max(map(len, groups)) == terms.rows_per_unit  # some group is cut
    chosen = np.array([0, 3, 7, 8])
    found = engine.clipped_sum(weights, chosen)
    expected = clipped_by_loop(terms, records, weights, [groups[at] for at in chosen])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_whole_family_moves_the_sum_by_one_clip_norm_where_rows_move_it_by_many() -> None:
    """A family of near-copies: as one group it counts once, as records it counts as often as it has
    rows. This is what ``unit = "group"`` is for."""
    family = 30
    record_terms = with_clip_norm(make_terms(), 1e-3)
    group_terms = with_clip_norm(GROUP, 1e-3)
    group_terms = replace(group_terms, data=replace(group_terms.data, max_records_per_group=family))
    records = make_records(group_terms, seed=2)
    copies = Records(
        inputs=np.repeat(records.inputs[:1], family, axis=0),
        targets=np.repeat(records.targets[:1], family, axis=0),
        groups=np.full(family, 99),
    )
    assert records.groups is not None
    assert copies.groups is not None
    both = Records(
        inputs=np.concatenate([records.inputs, copies.inputs]),
        targets=np.concatenate([records.targets, copies.targets]),
        groups=np.concatenate([records.groups, copies.groups]),
    )
    weights = weights_for(group_terms)

    def moved(terms: Terms) -> float:
        sums = []
        for held in (records, both):
            engine = make_engine(terms, held, pad=False)
            sums.append(engine.clipped_sum(weights, np.arange(len(engine))))
        return float(np.linalg.norm(sums[1] - sums[0])) / terms.privacy.clip_norm

    assert moved(group_terms) <= 1.0
    assert moved(record_terms) > 0.9 * family


def test_what_is_left_of_a_large_group_depends_on_that_group_alone() -> None:
    records = make_records(GROUP, seed=3)
    assert records.groups is not None
    order = np.argsort(records.groups, kind="stable")  # other rows stand in between, or none do

    def contents(held: Records) -> list[list[list[float]]]:
        units = rows_of_units(GROUP, held)
        return [held.inputs[rows[rows != NO_ROW]].tolist() for rows in units]

    assert contents(records) == contents(records.take(order))


def test_more_groups_than_the_terms_allow_are_refused_before_anything_is_charged() -> None:
    terms = replace(GROUP, data=replace(GROUP.data, max_groups_per_firm=5))
    with pytest.raises(ConfigError, match="max_groups_per_firm"):
        make_engine(terms, make_records(terms, seed=0))
    bare = replace(make_records(terms, seed=0), groups=None)
    with pytest.raises(ConfigError, match=r"data\.group"):
        make_engine(terms, bare)


@pytest.mark.parametrize("terms", [GROUP, FIRM], ids=["group", "firm"])
@pytest.mark.parametrize("rows", [0, 1, 40])
def test_padding_hides_how_much_there_is(
    terms: Terms, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time must not show the table: layers see the same shapes whatever is held or sampled."""
    seen: list[tuple[int, ...]] = []
    forward = torch.nn.Linear.forward

    def watched(layer: torch.nn.Linear, values: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(values.shape))
        return forward(layer, values)

    records = make_records(terms, seed=0)
    full = make_engine(terms, records)
    part = make_engine(terms, records.take(np.arange(rows)))
    monkeypatch.setattr(torch.nn.Linear, "forward", watched)
    full.clipped_sum(weights_for(terms), np.arange(len(full)))
    expected, seen[:] = list(seen), []
    part.clipped_sum(weights_for(terms), np.arange(min(1, len(part))))
    assert seen == expected


def plain_local_training(
    terms: Terms, records: Records, weights: NDArray[np.float32], steps: int
) -> NDArray[np.float64]:
    """Full-batch gradient descent, by torch's own optimiser."""
    module = build_mlp(terms)
    load_weights(module, weights)
    optimiser = torch.optim.SGD(module.parameters(), lr=terms.training.local_learning_rate)
    for _ in range(steps):
        optimiser.zero_grad()
        outputs = module(torch.from_numpy(records.inputs))
        record_losses(terms, outputs, torch.from_numpy(records.targets)).mean().backward()
        optimiser.step()
    return torch.cat([item.detach().reshape(-1) for item in module.parameters()]).numpy()


@pytest.mark.parametrize("pad", [True, False])
def test_a_firms_update_is_what_plain_training_does(pad: bool) -> None:
    terms = with_clip_norm(with_training(FIRM, local_epochs=3), 1e3)
    records, weights = make_records(terms, seed=4), weights_for(terms)
    found = make_engine(terms, records, pad=pad).clipped_sum(weights, np.arange(1))
    expected = weights - plain_local_training(terms, records, weights, steps=3)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_local_batches_are_steps_of_their_own() -> None:
    records, weights = make_records(FIRM, seed=4), weights_for(FIRM)
    one, four = (
        make_engine(with_training(FIRM, local_batches=count), records).clipped_sum(
            weights, np.arange(1)
        )
        for count in (1, 4)
    )
    assert np.linalg.norm(four) > 1.5 * np.linalg.norm(one)


def test_a_whole_firm_moves_the_sum_by_one_clip_norm() -> None:
    terms = with_clip_norm(with_training(FIRM, local_epochs=20, local_learning_rate=1.0), 0.01)
    engine = make_engine(terms, make_records(terms, seed=5))
    update = engine.clipped_sum(weights_for(terms), np.arange(len(engine)))
    assert 0.0099 < np.linalg.norm(update) <= 0.01
    assert not engine.clipped_sum(weights_for(terms), np.arange(0)).any()


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("rate", [1e300, 1e30])
def test_an_update_that_is_no_number_counts_as_none(rate: float) -> None:
    terms = with_training(FIRM, local_learning_rate=rate, local_epochs=9)
    engine = make_engine(terms, make_records(terms, seed=5))
    update = engine.clipped_sum(weights_for(terms, 10.0), np.arange(1))
    assert np.isfinite(update).all()
    assert np.linalg.norm(update) <= terms.privacy.clip_norm
