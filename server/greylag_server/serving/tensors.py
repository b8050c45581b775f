"""From the tensors of a request to rows of the model's columns; whatever comes is from outside."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from greylag_protocols.encoding import parse_json
from greylag_protocols.errors import VerificationError
from numpy.typing import NDArray

from greylag_server.serving.inference import FLAG, INPUT, OUTPUT
from greylag_server.serving.models import MAX_ROWS, Rows
from greylag_server.serving.refusals import DeclinedError

MAX_ID = 128  # characters
MAX_JSON_BYTES = 8 << 20
MAX_TENSORS = 4096
_TYPES: dict[str, type[np.float32] | type[np.float64]] = {"FP32": np.float32, "FP64": np.float64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One input: its values stand in ``values`` one after the other."""

    name: str
    shape: tuple[int, ...]
    values: NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request for predictions; ``id`` is empty where the firm gave none."""

    id: str
    tensors: tuple[Tensor, ...]
    outputs: tuple[str, ...]


def invalid(message: str) -> DeclinedError:
    """The request is at fault."""
    return DeclinedError("invalid", message)


def parse_ask(request: Any) -> Ask:
    """A gRPC ``ModelInferRequest``.

    Raises:
        DeclinedError: out of form.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise invalid(f"{len(request.inputs)} inputs, but raw contents of {len(raw)}")
    if len(request.inputs) > MAX_TENSORS:
        raise invalid(f"more than {MAX_TENSORS} inputs")
    tensors = []
    for at, item in enumerate(request.inputs):
        kind = _type(item.name, item.datatype)
        if raw:
            if len(raw[at]) % np.dtype(kind).itemsize:
                raise invalid(f"input {item.name!r:.80}: its bytes are no whole number of values")
            values: NDArray[Any] = np.frombuffer(raw[at], dtype=kind)
        else:
            held = item.contents
            values = np.array(
                held.fp32_contents if kind is np.float32 else held.fp64_contents, dtype=kind
            )
        tensors.append(_tensor(item.name, tuple(item.shape), values))
    outputs = tuple(item.name for item in request.outputs)
    return _ask(request.id, tensors, outputs)


def parse_json_ask(body: bytes) -> Ask:
    """The JSON of a REST request; ``null`` is a gap.

    Raises:
        DeclinedError: out of form.
    """
    try:
        value = parse_json(body, max_bytes=MAX_JSON_BYTES)
        inputs, outputs = value["inputs"], value.get("outputs", [])
        if not isinstance(inputs, list) or len(inputs) > MAX_TENSORS:
            raise invalid(f"'inputs' is a list of at most {MAX_TENSORS} tensors")
        tensors = [
            _tensor(
                _text(item["name"]),
                tuple(_count(size) for size in item["shape"]),
                _numbers(item["name"], item["data"], _type(item["name"], item["datatype"])),
            )
            for item in inputs
        ]
        return _ask(
            _text(value.get("id", "")), tensors, tuple(_text(item["name"]) for item in outputs)
        )
    except VerificationError as error:
        raise invalid(f"{error}; send larger tables by gRPC") from None
    except (KeyError, TypeError, AttributeError):
        raise invalid(
            "not an inference request: 'inputs' is a list of objects with name, shape, datatype "
            "and data"
        ) from None


def _ask(name: str, tensors: Sequence[Tensor], outputs: tuple[str, ...]) -> Ask:
    if len(name) > MAX_ID:
        raise invalid(f"an id of more than {MAX_ID} characters")
    for item in outputs:
        if item not in (OUTPUT, FLAG):
            raise invalid(f"there is no output {item!r:.80}; there are {OUTPUT!r} and {FLAG!r}")
    return Ask(id=name, tensors=tuple(tensors), outputs=outputs)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _type(name: str, datatype: str) -> type[np.float32] | type[np.float64]:
    if datatype not in _TYPES:
        raise invalid(f"input {name!r:.80} is of {datatype!r:.20}; send FP32 or FP64")
    return _TYPES[datatype]


def _numbers(name: str, data: object, kind: type[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    flat: list[float] = []
    todo = [data]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo.extend(reversed(item))
        elif item is None or type(item) in (int, float):
            flat.append(math.nan if item is None else float(item))  # type: ignore[arg-type]
        else:
            raise invalid(f"input {name!r:.80} holds what is no number; a gap is null")
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        return np.array(flat, dtype=kind)


def _tensor(name: str, shape: tuple[int, ...], values: NDArray[np.floating[Any]]) -> Tensor:
    if not 1 <= len(shape) <= 2 or min(shape) < 1:
        raise invalid(f"input {name!r:.80}: its shape is [rows, columns], without a nought")
    if shape[0] > MAX_ROWS:
        raise invalid(f"{shape[0]} rows in one request; send at most {MAX_ROWS} at a time")
    if math.prod(shape) != len(values):
        raise invalid(
            f"input {name!r:.80}: {len(values)} values do not fill the shape {list(shape)}"
        )
    return Tensor(name=name, shape=shape, values=values)


def assemble(ask: Ask, names: Sequence[str]) -> Rows:
    """Rows for the model, shape (n, features): from one tensor ``features``, whose columns are in
    the order of the terms, or from one tensor a column, by name.

    Raises:
        DeclinedError: unknown or absent columns, another number of them, or of rows.
    """
    if not ask.tensors:
        raise invalid(f"no input; send {INPUT!r} of shape [rows, {len(names)}], or each column")
    if len(ask.tensors) == 1 and ask.tensors[0].name == INPUT:
        (tensor,) = ask.tensors
        if len(tensor.shape) != 2 or tensor.shape[1] != len(names):
            raise invalid(
                f"{INPUT!r} is of shape {list(tensor.shape)}, the model takes [rows, {len(names)}]"
                ": its metadata name the columns, in their order"
            )
        return _single(tensor.values).reshape(tensor.shape)
    by_name = {item.name: item for item in ask.tensors}
    if len(by_name) != len(ask.tensors):
        raise invalid("an input stands twice; send each column once")
    known = frozenset(names)
    for name in by_name:
        if name not in known:
            near = difflib.get_close_matches(name[:80], [INPUT, *names], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise invalid(f"the model has no column {name!r:.80}{hint}")
    if absent := [name for name in names if name not in by_name]:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        shown = ", ".join(map(repr, absent[:3]))
        raise invalid(f"columns {shown}{more} are absent; send them, with NaN where a value is not")
    sizes = {item.shape[0] for item in ask.tensors}
    if len(sizes) != 1 or any(math.prod(item.shape) != item.shape[0] for item in ask.tensors):
        raise invalid("the columns are of different lengths; send [rows] or [rows, 1] of each")
    return np.stack([_single(by_name[name].values) for name in names], axis=1)


def _single(values: NDArray[np.floating[Any]]) -> Rows:
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        return np.ascontiguousarray(values, dtype=np.float32)
