"""A released model as one ONNX graph, for whoever serves it with an ordinary runtime.

``features`` go in as a firm's table holds them (physical units, a category's number, NaN for a
gap), ``prediction`` comes out in physical units or as probabilities. The public scaling of
``greylag_protocols.features`` is part of the graph, so that nobody has to repeat it. It is done in
float64: a narrow range far from zero would lose its digits in float32. The layers are float32, as
they were released.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import target_bounds, target_multipliers
from greylag_protocols.terms import DataTerms, Feature, Terms, terms_digest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8  # what runtimes of the last years all read
INPUT, OUTPUT = "features", "prediction"
FAMILY = "mlp"  # the only one whose computation the terms describe in full


def onnx_graph(terms: Terms, tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The model with these weights as an ONNX file; the same arguments give the same bytes.

    Input ``features``: float32 (batch, features), in the order of ``terms.data.feature_names``.
    Output ``prediction``: float32 (batch, targets), or (batch, classes) of probabilities.

    Args:
        tensors: by name, shaped as ``terms.parameters`` says.

    Raises:
        ConfigError: the model is of a family that only a firm's own package computes.
    """
    if terms.model.family != FAMILY:
        raise ConfigError(
            f"a model of the family {terms.model.family!r} has no ONNX form: its computation is in "
            f"a package of the firms; only {FAMILY!r} is described by the terms alone"
        )
    builder = _Builder()
    hidden = builder.encode(terms.data)
    hidden = builder.layers(hidden, terms, tensors)
    builder.decode(hidden, terms.data)
    columns, outputs = len(terms.data.feature_names), terms.data.outputs
    graph = helper.make_graph(
        builder.nodes,
        terms.run_id,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", columns])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", outputs])],
        builder.constants,
        doc_string=terms.run.purpose,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="greylag",
    )
    digest = terms_digest(terms.encode()).hex()
    helper.set_model_props(model, {"run": terms.run_id, "terms": digest})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


class _Builder:
    """Nodes and constants in the order in which they are asked for; names are numbered."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._columns: list[int] = []  # of the encoded row, in the order in which they are made

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _cast(self, value: str, kind: int) -> str:
        return self._node("Cast", value, to=kind)

    def encode(self, data: DataTerms) -> str:
        """``features.encode_features``, but for the order of its columns, which ``layers`` undoes:
        all numbers first, then categories, then flags, so that a few wide nodes do it all."""
        values = self._cast(INPUT, TensorProto.DOUBLE)
        places = _places(data)
        numbers = [item for item in places if not item[1].one_hot]
        parts = []
        if numbers:
            parts.append(self._numbers(values, numbers, len(places)))
        parts += [self._one_hot(values, item) for item in places if item[1].one_hot]
        misses = np.flatnonzero(data.may_miss)
        if len(misses):
            flags = self._node("IsNaN", self._gather(values, misses, len(places)))
            parts.append(self._cast(flags, TensorProto.FLOAT))
            self._columns += range(data.columns_width, data.input_width)
        return parts[0] if len(parts) == 1 else self._node("Concat", *parts, axis=1)

    def _gather(self, values: str, columns: NDArray[np.intp], of: int) -> str:
        if np.array_equal(columns, np.arange(of)):
            return values
        return self._node("Gather", values, self._constant(columns.astype(np.int64)), axis=1)

    def _numbers(self, values: str, numbers: list[tuple[int, Feature, int]], of: int) -> str:
        raw = self._gather(values, np.array([item[0] for item in numbers]), of)
        low, high = np.array([feature.bounds for _, feature, _ in numbers]).T
        root = np.array([feature.scale == "sqrt" for _, feature, _ in numbers])
        moved = self._node("Sub", raw, self._constant(low))
        share = self._node("Div", moved, self._constant(high - low))
        ends = self._constant(np.array(0.0)), self._constant(np.array(1.0))
        share = self._node("Clip", share, *ends)
        scaled = self._node("Sqrt", share) if root.any() else share
        if not root.all():
            doubled = self._node("Mul", share, self._constant(np.array(2.0)))
            line = self._node("Sub", doubled, self._constant(np.array(1.0)))
            mixed = root.any()
            scaled = self._node("Where", self._constant(root), scaled, line) if mixed else line
        multipliers = np.array([feature.multiplier for _, feature, _ in numbers])
        scaled = self._node("Mul", scaled, self._constant(multipliers))
        gaps = self._node("IsNaN", raw)
        filled = self._node("Where", gaps, self._constant(np.array(0.0)), scaled)
        self._columns += [at for _, _, at in numbers]
        return self._cast(filled, TensorProto.FLOAT)

    def _one_hot(self, values: str, item: tuple[int, Feature, int]) -> str:
        column, feature, at = item
        raw = self._node("Gather", values, self._constant(np.array([column])), axis=1)
        hot = self._node("Equal", raw, self._constant(np.arange(feature.width, dtype=np.float64)))
        self._columns += range(at, at + feature.width)
        ones = self._cast(hot, TensorProto.FLOAT)
        return self._node("Mul", ones, self._constant(np.array(feature.multiplier, np.float32)))

    def layers(self, hidden: str, terms: Terms, tensors: Mapping[str, NDArray[np.float32]]) -> str:
        """The multilayer perceptron; its first weights take the columns as they are made here."""
        names = [item.name for item in terms.parameters]
        kind = {"tanh": "Tanh", "relu": "Relu"}[terms.model.activation]
        for at in range(0, len(names), 2):
            weight, bias = tensors[names[at]], tensors[names[at + 1]]
            if at == 0:
                weight = weight[:, self._columns]
            constants = self._constant(weight), self._constant(bias)
            hidden = self._node("Gemm", hidden, *constants, transB=1)
            if at + 2 < len(names):
                hidden = self._node(kind, hidden)
        return hidden

    def decode(self, outputs: str, data: DataTerms) -> None:
        """``features.decode_outputs``, or the classes' probabilities."""
        if data.task == "classification":
            self.nodes.append(helper.make_node("Softmax", [outputs], [OUTPUT], axis=1))
            return
        low, high = target_bounds(data)
        wide = self._cast(outputs, TensorProto.DOUBLE)
        part = self._node("Div", wide, self._constant(target_multipliers(data)))
        whole = self._node("Add", part, self._constant(np.array(1.0)))
        share = self._node("Div", whole, self._constant(np.array(2.0)))
        moved = self._node("Mul", share, self._constant(high - low))
        physical = self._node("Add", moved, self._constant(low))
        # Clip takes one bound for all columns; every target has its own.
        physical = self._node("Max", physical, self._constant(low))
        physical = self._node("Min", physical, self._constant(high))
        self.nodes.append(helper.make_node("Cast", [physical], [OUTPUT], to=TensorProto.FLOAT))


def _places(data: DataTerms) -> list[tuple[int, Feature, int]]:
    """Of each feature column: its place in the table, what it is, its place in the encoded row."""
    found, at = [], 0
    for column, feature in enumerate(data.by_feature.values()):
        found.append((column, feature, at))
        at += feature.width
    return found
