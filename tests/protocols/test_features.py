import math

import numpy as np
import pytest
from greylag_protocols.features import (
    Records,
    decode_outputs,
    encode_features,
    encode_targets,
    target_bounds,
)
from greylag_protocols.terms import DataTerms, Feature, Target


def _terms(missing="refuse") -> DataTerms:
    return DataTerms(
        standard="x@1",
        task="regression",
        targets=(Target(name="y", range=(300.0, 1300.0)), Target(name="z", range=(-1.0, 3.0))),
        features=(
            Feature(names=("a", "b"), range=(0.0, 100.0), scale="sqrt", multiplier=8.0),
            Feature(names=("c",), range=(-5.0, 5.0)),
        ),
        missing=missing,
        expected_records=10,
        max_records_per_firm=10,
    )


def test_features_by_hand():
    values = np.array([[0.0, 25.0, -5.0], [100.0, 1.0, 2.5]])
    expected = [[0.0, 4.0, -1.0], [8.0, 0.8, 0.5]]
    assert encode_features(_terms(), values) == pytest.approx(np.array(expected))


def test_inputs_are_bounded_whatever_comes():
    values = np.array([[1e300, -1e300, math.inf], [-math.inf, 101.0, -6.0]])
    inputs = encode_features(_terms(), values)
    assert inputs.tolist() == [[8.0, 0.0, 1.0], [0.0, 8.0, -1.0]]


def test_missing_values_are_zero_and_flagged():
    values = np.array([[math.nan, 25.0, math.nan]])
    assert encode_features(_terms(), values).tolist() == [[0.0, 4.0, 0.0]]
    flagged = encode_features(_terms("zero-and-flag"), values)
    assert flagged.tolist() == [[0.0, 4.0, 0.0, 1.0, 0.0, 1.0]]


def test_targets_go_to_the_unit_interval_and_back():
    values = np.array([[300.0, -1.0], [800.0, math.nan], [2000.0, 3.0]])
    encoded = encode_targets(_terms(), values)
    assert encoded[0].tolist() == [-1.0, -1.0]
    assert encoded[1, 0] == 0.0
    assert math.isnan(encoded[1, 1])
    assert encoded[2].tolist() == [1.0, 1.0]
    back = decode_outputs(_terms(), encoded)
    assert back[:, 0].tolist() == [300.0, 800.0, 1300.0]
    assert decode_outputs(_terms(), np.array([[-9.0, 9.0]])).tolist() == [[300.0, 3.0]]
    assert [bound.tolist() for bound in target_bounds(_terms())] == [[300.0, -1.0], [1300.0, 3.0]]


def test_a_row_is_encoded_alone():
    # No statistics of the batch: each row's input is the same whatever stands beside it.
    values = np.random.default_rng(0).uniform(-10, 110, (20, 3))
    together = encode_features(_terms(), values)
    alone = np.concatenate([encode_features(_terms(), row[None]) for row in values])
    assert np.array_equal(together, alone)


def test_taking_records():
    records = Records(inputs=np.eye(3), targets=np.arange(3.0)[:, None])
    assert len(records) == 3
    assert records.take(np.array([2, 0])).targets.ravel().tolist() == [2.0, 0.0]
    assert len(records.take(np.array([True, False, False]))) == 1
