"""A unit's gradient is the same, bit by bit, whatever stands in the other rows of the table.

From cells to gradient: categories, places for other values, orders, gaps in features and targets.
What is fitted to the table instead (categories found there, means for gaps, a loss divided by how
many targets all rows have) fails the same check.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from consortium_in_memory import make_terms
from greylag_client.engine import make_engine
from greylag_client.models import build_mlp, load_weights, record_losses
from greylag_client.table import parse_table
from greylag_client.trainer import Trainer
from greylag_protocols.features import Matrix, Records
from greylag_protocols.parameters import initial_weights
from greylag_protocols.plan import check_terms
from greylag_protocols.terms import Feature, Target, Terms
from numpy.typing import NDArray

OWN = {  # rows of one unit: gaps, a value beyond the list, and targets that are partly there
    "heat": ["412.5", "-99", "37"],
    "alloy": ["AlSi", "from elsewhere", "?"],
    "surface": ["rough", "", "polished"],
    "mould": ["none", "sand", "none"],
    "strength": ["410", "", "95.5"],
    "strain": ["", "0.21", "-99.0"],
    "wear": ["12", "?", ""],
    "part": ["own", "own", "own"],
}
VALUES = {
    "heat": ["0", "1000", "500.25", "-99", ""],
    "alloy": ["AlSi", "AlCu", "Zn", "another", "?"],
    "surface": ["rough", "plain", "polished", ""],
    "mould": ["none", "sand"],
    "strength": ["0", "1000", "731.9", ""],
    "strain": ["0", "1", "0.33", "-99"],
    "wear": ["0", "100", "55"],
}
Fill = Callable[[int], dict[str, list[str]]]


def terms_of(unit: str) -> Terms:
    plain = make_terms(unit=unit)
    data = replace(
        plain.data,
        targets=(
            Target(name="strength", range=(0, 1000)),
            Target(name="strain", range=(0, 1), multiplier=4.0),
            Target(name="wear", range=(0, 100)),
        ),
        features=(
            Feature(names=("heat",), range=(0, 1000), scale="sqrt", multiplier=8.0),
            Feature(names=("alloy",), categories=("AlSi", "AlCu", "Zn"), other=True),
            Feature(
                names=("surface",), categories=("rough", "plain", "polished"), ordered=True,
                multiplier=2.0,
            ),
            Feature(names=("mould",), categories=("none", "sand"), missing="refuse"),
        ),
        missing="zero-and-flag",
        missing_values=("-99", "?"),
        group="part" if unit == "group" else None,
        holdout=0.0,
    )  # fmt: skip
    terms = replace(plain, data=data)
    check_terms(terms)
    return terms


def others(seed: int, count: int) -> dict[str, list[str]]:
    rng = np.random.default_rng(seed)
    rows = {name: list(rng.choice(choice, count)) for name, choice in VALUES.items()}
    return rows | {"part": [f"p{row % 4}" for row in range(count)]}


def neighbours() -> list[dict[str, list[str]]]:
    """Other rows of the table, as different as they may be."""
    everything_there = {name: [values[0]] * 9 for name, values in VALUES.items()}
    rows = [others(seed, 9) for seed in range(5)]
    return [*rows, everything_there | {"part": ["x"] * 9}]


def records_of(terms: Terms, beside: dict[str, list[str]]) -> Records:
    """A table whose first rows are the unit's own."""
    cells = pl.DataFrame({name: [*OWN[name], *beside[name]] for name in OWN})
    blank = pl.when(pl.all() == "").then(None).otherwise(pl.all()).name.keep()
    table = parse_table(cells.with_columns(blank), terms.data, what="table")
    return table.records(table.train)


Gradient = Callable[[Terms, Records, NDArray[np.float32]], Matrix]


def product(terms: Terms, records: Records, weights: NDArray[np.float32]) -> Matrix:
    """The unit's contribution: by itself, and its part of the whole batch's backward pass."""
    engine = make_engine(terms, records)
    number = 0
    if terms.privacy.unit == "group" and records.groups is not None:
        number = int(np.unique(records.groups).searchsorted(records.groups[0]))
    alone = engine.clipped_sum(weights, np.array([number]))
    if not isinstance(engine, Trainer) or terms.privacy.unit != "record":
        return alone
    engine._model.load(weights)
    traces = engine._trace(engine._rows[: len(records)])
    together = [part[:3].reshape(-1).numpy() for trace in traces for part in trace]
    return np.concatenate([alone, *together])


def same_bits(terms: Terms, gradient: Gradient, prepare: Callable[[Records], Records]) -> bool:
    weights = initial_weights(b"seed", terms.parameters).astype(np.float32)
    weights += np.random.default_rng(1).normal(size=terms.dimension).astype(np.float32) / 8
    found = [
        gradient(terms, prepare(records_of(terms, beside)), weights).tobytes()
        for beside in neighbours()
    ]
    assert np.frombuffer(found[0]).any()
    return len(set(found)) == 1


def as_it_is(records: Records) -> Records:
    return records


@pytest.mark.parametrize("unit", ["record", "group"])
def test_a_units_gradient_has_the_same_bits_whatever_the_other_rows_are(unit: str) -> None:
    assert same_bits(terms_of(unit), product, as_it_is)


def with_means_for_gaps(records: Records) -> Records:
    """Smuggled in: a gap becomes the table's mean."""
    inputs = records.inputs.copy()
    inputs[inputs[:, -3] == 1, 0] = inputs[inputs[:, -3] == 0, 0].mean()
    return replace(records, inputs=inputs)


def with_categories_of_the_table(records: Records) -> Records:
    """Smuggled in: inputs that no row uses are left at a scale of the table's own."""
    shares = records.inputs[:, 1:5].mean(axis=0)
    inputs = records.inputs.copy()
    inputs[:, 1:5] /= np.sqrt(np.maximum(shares, 0.1))
    return replace(records, inputs=inputs)


def renormalised(terms: Terms, records: Records, weights: NDArray[np.float32]) -> Matrix:
    """Smuggled in: each target's errors are divided by how many rows have it."""
    module = build_mlp(terms)
    load_weights(module, weights)
    targets = torch.from_numpy(records.targets)
    outputs = module(torch.from_numpy(records.inputs))
    present = ~torch.isnan(targets)
    errors = torch.where(present, outputs - torch.nan_to_num(targets), 0.0) ** 2
    loss = (errors[:3] / present.sum(0)).sum()
    parts = torch.autograd.grad(loss, list(module.parameters()))
    return np.concatenate([part.reshape(-1).numpy() for part in parts])


def plainly(terms: Terms, records: Records, weights: NDArray[np.float32]) -> Matrix:
    """As ``renormalised``, with the product's loss: passes, so what fails is the division."""
    module = build_mlp(terms)
    load_weights(module, weights)
    outputs = module(torch.from_numpy(records.inputs[:3]))
    loss = record_losses(terms, outputs, torch.from_numpy(records.targets[:3])).sum()
    parts = torch.autograd.grad(loss, list(module.parameters()))
    return np.concatenate([part.reshape(-1).numpy() for part in parts])


def test_what_is_fitted_to_the_table_is_caught() -> None:
    terms = terms_of("record")
    assert not same_bits(terms, product, with_means_for_gaps)
    assert not same_bits(terms, product, with_categories_of_the_table)
    assert not same_bits(terms, renormalised, as_it_is)
    assert same_bits(terms, plainly, as_it_is)


def test_a_target_that_is_missing_has_no_part_in_the_loss() -> None:
    """Neither in its size nor in its gradient, whatever the model says of it."""
    terms = terms_of("record")
    outputs = torch.tensor([[0.3, 5.0, -0.2], [0.3, -7.0, -0.2]], dtype=torch.float64)
    outputs.requires_grad_()
    targets = torch.tensor([[0.1, float("nan"), 0.4]] * 2, dtype=torch.float64)
    losses = record_losses(terms, outputs, targets)
    assert losses.tolist() == pytest.approx([0.5 * (0.2**2 + 0.6**2) / 2] * 2)
    (gradient,) = torch.autograd.grad(losses.sum(), outputs)
    assert gradient[:, 1].tolist() == [0.0, 0.0]
    assert gradient[0].tolist() == pytest.approx([0.1, 0.0, -0.3])
