"""The ONNX form of a release against what firms compute, and its refusals."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from greylag_client.local_models.layers import predict_layers
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import target_bounds
from greylag_protocols.parameters import split
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.terms import Terms, terms_digest
from greylag_server.model_graph import onnx_graph

PLAN = """
[run]
name = "alloys"
purpose = "strength of new alloys"
[data]
standard = "alloys@1.0"
task = "regression"
targets = [ { name = "strength", unit = "MPa", range = [100, 900] },
            { name = "melting", unit = "K", range = [300, 2000], multiplier = 3 } ]
features = [ FEATURES ]
expected_records = 1000
max_records_per_firm = 400
[model]
hidden = [16, 12]
activation = "tanh"
[privacy]
noise_multiplier = 2.0
delta = 1e-5
max_colluding = 1
min_firms = 3
[training]
rounds = 2
sampling_rate = 0.5
"""
ROOTS = '{ names = ["copper", "nickel"], range = [0, 100], scale = "sqrt", multiplier = 4 }'
LINES = '{ names = ["heat"], unit = "K", range = [200, 1500] }'
FURNACE = '{ names = ["furnace"], categories = ["arc", "gas", "coke"], multiplier = 2 }'
# Text that may miss stands between numbers: the graph has another order of columns inside.
WORDS = (
    '{ names = ["quench", "coat"], categories = ["oil", "air"], other = true, multiplier = 2, '
    'missing = "zero-and-flag" }'
)
GRADES = (
    '{ names = ["grade"], categories = ["low", "middle", "high"], ordered = true, '
    'missing = "zero-and-flag" }'
)
MIXED = ", ".join([LINES, WORDS, ROOTS, GRADES])
FEATURES = {
    "roots": ROOTS,
    "lines": LINES,
    "categories": FURNACE,
    "mixed": MIXED,
    "far-and-narrow": '{ names = ["time", "place"], range = [1.7e6, 1.7000004e6] }',
}


def make_terms(features: str, *, classes: bool = False) -> Terms:
    text = PLAN.replace("FEATURES", features)
    if classes:
        at, end = text.index("targets"), text.index("features")
        text = (
            text[:at] + 'targets = [ { name = "fault", classes = ["a", "b", "c"] } ]\n' + text[end:]
        )
        text = text.replace('"regression"', '"classification"')
    return settle_terms(parse_plan(text), consortium="metals", run_id="alloys-1")


def make_weights(terms: Terms) -> dict[str, np.ndarray]:
    weights = np.random.default_rng(3).normal(0, 0.2, terms.dimension).astype(np.float32)
    return split(weights, terms.parameters)


def make_values(terms: Terms, count: int = 400) -> np.ndarray:
    """Rows inside and outside of the public ranges; gaps where they may be; categories' numbers."""
    rng = np.random.default_rng(4)
    columns = []
    for feature, may_miss in zip(terms.data.by_feature.values(), terms.data.may_miss, strict=True):
        low, high = feature.bounds
        if feature.categories is None:
            reach = high - low
            column = rng.uniform(low - 0.2 * reach, high + 0.2 * reach, count)
        else:
            column = rng.integers(0, int(high) + 1, count).astype(float)
        if may_miss:
            column[rng.random(count) < 0.3] = np.nan
        columns.append(column)
    return np.array(columns).T.astype(np.float32)


def run(graph: bytes, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_inputs()] == ["features"]
    (predicted,) = session.run(["prediction"], {"features": values})
    return np.asarray(predicted)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_physical_values_are_those_that_firms_compute(features: str, activation: str) -> None:
    terms = make_terms(features)
    terms = replace(terms, model=replace(terms.model, activation=activation))
    tensors, values = make_weights(terms), make_values(terms)
    predicted = run(onnx_graph(terms, tensors), values)
    named = list(tensors.values())
    layers = tuple(
        (weight.astype(np.float64), bias.astype(np.float64))
        for weight, bias in zip(named[::2], named[1::2], strict=True)
    )
    expected = predict_layers(terms.data, activation, layers, values.astype(np.float64))
    assert len(np.unique(expected[:, 0])) >= 3  # not one value for all
    low, high = target_bounds(terms.data)
    assert predicted.dtype == np.float32
    assert np.abs((predicted - expected) / (high - low)).max() < 1e-5
    assert (predicted >= low).all()
    assert (predicted <= high).all()


def test_classes_are_probabilities() -> None:
    terms = make_terms(MIXED, classes=True)
    tensors, values = make_weights(terms), make_values(terms)
    predicted = run(onnx_graph(terms, tensors), values)
    named = [tensor.astype(np.float64) for tensor in tensors.values()]
    layers = tuple(zip(named[::2], named[1::2], strict=True))
    expected = predict_layers(terms.data, "tanh", layers, values.astype(np.float64))
    assert predicted.shape == (len(values), 3)
    np.testing.assert_allclose(predicted, expected, atol=1e-5)
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0, atol=1e-5)


def test_batches_of_any_size_and_none() -> None:
    terms = make_terms(MIXED)
    graph = onnx_graph(terms, make_weights(terms))
    values = make_values(terms, 7)
    one_by_one = np.concatenate([run(graph, values[[at]]) for at in range(7)])
    np.testing.assert_allclose(run(graph, values), one_by_one, rtol=1e-5)
    assert run(graph, values[:0]).shape == (0, 2)


def test_the_same_bytes_each_time_with_run_and_terms_inside() -> None:
    terms = make_terms(MIXED)
    graph = onnx_graph(terms, make_weights(terms))
    assert graph == onnx_graph(terms, make_weights(terms))
    model = onnx.load_from_string(graph)
    assert {item.key: item.value for item in model.metadata_props} == {
        "run": "alloys-1",
        "terms": terms_digest(terms.encode()).hex(),
    }


def test_a_plugins_model_has_no_such_form() -> None:
    terms = make_terms(LINES)
    terms = replace(terms, model=replace(terms.model, family="plugin:forest"))
    with pytest.raises(ConfigError, match="no ONNX form"):
        onnx_graph(terms, make_weights(terms))
