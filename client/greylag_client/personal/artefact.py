"""A firm's own version on disk: a release's directory with additions, and no code in it.

personal.json          what it is, whom it is for, how it was chosen, its intervals
personal.safetensors   the parts' arrays, named NUMBER.network.TENSOR and NUMBER.trees.ARRAY
terms.json, model.safetensors   those of the shared release, unchanged
SHA256SUMS             checksums of all of these

Whatever serves releases without knowing of personal.json serves the shared model: the private one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import safetensors.numpy
from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import GreylagError, VerificationError
from greylag_protocols.terms import STRICT, Terms
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError

from greylag_client.local_models.forest import TYPES, Forest
from greylag_client.local_models.layers import Layers
from greylag_client.personal.parts import Blend, Part

FACTS_FILE, PARTS_FILE = "personal.json", "personal.safetensors"
MAX_FACTS_BYTES = 1 << 20
MAX_PARTS_BYTES = 256 << 20
AUDIENCE: Literal["this firm"] = "this firm"
NOTE = (
    "a version of this firm's own: fitted to its own rows without noise, so it is not private. "
    "Use it inside the firm only"
)

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFacts:
    """What the arrays of one part are."""

    __pydantic_config__ = STRICT
    name: Annotated[str, Field(min_length=1, max_length=60)]
    weight: Share
    network: bool
    trees: Literal["identity", "sigmoid", "softmax"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """How far a prediction may be off.

    Attributes:
        coverage: the share of new groups' rows that is meant to lie inside.
        reach: regression: half the width, of each target, in its unit; classification: one number,
            the least probability with which a class counts as possible.
    """

    __pydantic_config__ = STRICT
    coverage: Share
    reach: Annotated[tuple[Positive, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """personal.json."""

    __pydantic_config__ = STRICT
    version: Literal["personal/v1"]
    private: Literal[False]
    audience: Literal["this firm"]
    shared_model: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256 of model.safetensors
    rows: Annotated[int, Field(ge=0)]
    groups: Annotated[int, Field(ge=0)]
    parts: Annotated[tuple[PartFacts, ...], Field(min_length=1, max_length=16)]
    intervals: Intervals | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Personal:
    """A firm's own version, apart from the release that it stands on."""

    facts: Facts
    blend: Blend


def encode_personal(personal: Personal) -> dict[str, bytes]:
    """The two files' bytes, by name."""
    tensors: dict[str, NDArray[Any]] = {}
    for number, part in enumerate(personal.blend.parts):
        for layer, (weight, bias) in enumerate(part.layers or ()):
            tensors[f"{number}.network.{layer}.weight"] = np.ascontiguousarray(weight)
            tensors[f"{number}.network.{layer}.bias"] = np.ascontiguousarray(bias)
        if part.forest is not None:
            for name, array in part.forest.tensors().items():
                tensors[f"{number}.trees.{name}"] = np.ascontiguousarray(array)
    facts = json.dumps(asdict(personal.facts), indent=2, ensure_ascii=False) + "\n"
    return {FACTS_FILE: facts.encode(), PARTS_FILE: safetensors.numpy.save(tensors)}


def parse_personal(facts: bytes, parts: bytes, terms: Terms, shared_model: bytes) -> Personal:
    """A version from bytes that came from outside.

    Args:
        shared_model: the bytes of the release's weights that lie beside it.

    Raises:
        VerificationError: malformed, or made for another release.
    """
    try:
        found = parse_as(Facts, parse_json(facts, max_bytes=MAX_FACTS_BYTES), what=FACTS_FILE)
    except GreylagError as error:
        raise VerificationError(f"{FACTS_FILE}: {error}; personalise the release again") from None
    if found.shared_model != hashlib.sha256(shared_model).hexdigest():
        raise VerificationError(
            f"{FACTS_FILE}: made from other weights than lie beside it; personalise the release "
            "again"
        )
    if abs(sum(part.weight for part in found.parts) - 1.0) > 1e-6:
        raise VerificationError(f"{FACTS_FILE}: the parts' weights do not sum to 1")
    expected = 1 if terms.data.task == "classification" else terms.data.outputs
    if found.intervals is not None and len(found.intervals.reach) != expected:
        raise VerificationError(f"{FACTS_FILE}: intervals for other targets than the terms have")
    try:
        tensors = safetensors.numpy.load(parts)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"{PARTS_FILE}: not readable as safetensors ({error!r})") from None
    read = [_parse_part(number, item, tensors, terms) for number, item in enumerate(found.parts)]
    if tensors:
        raise VerificationError(f"{PARTS_FILE}: holds arrays that {FACTS_FILE} does not name")
    blend = Blend(parts=tuple(read), weights=tuple(part.weight for part in found.parts))
    return Personal(facts=found, blend=blend)


def _parse_part(
    number: int, facts: PartFacts, tensors: dict[str, NDArray[Any]], terms: Terms
) -> Part:
    """One part; its arrays are taken out of ``tensors``."""
    layers, forest = None, None
    if not facts.network and facts.trees is None:
        raise VerificationError(f"{FACTS_FILE}: part {number} is neither a network nor trees")
    if facts.network:
        layers = _parse_layers(number, tensors, terms)
    outputs = terms.data.outputs
    if facts.trees is not None:
        prefix = f"{number}.trees."
        arrays = {name: tensors.pop(prefix + name) for name in TYPES if prefix + name in tensors}
        columns = terms.data.columns_width + (outputs if facts.network else 0)
        if facts.network and facts.trees != "identity":
            raise VerificationError(f"{FACTS_FILE}: part {number}: trees that correct have no link")
        if facts.trees == "sigmoid" and outputs != 2:
            raise VerificationError(f"{FACTS_FILE}: part {number}: a sigmoid is for two classes")
        forest = Forest.parse(arrays, link=facts.trees, columns=columns, outputs=outputs)
    return Part(name=facts.name, layers=layers, forest=forest)


def _parse_layers(number: int, tensors: dict[str, NDArray[Any]], terms: Terms) -> Layers:
    flat: list[NDArray[np.float64]] = []
    for index, item in enumerate(terms.parameters):
        name = f"{number}.network.{index // 2}.{('weight', 'bias')[index % 2]}"
        array = tensors.pop(name, None)
        if array is None or array.dtype != np.float64 or array.shape != item.shape:
            raise VerificationError(f"{PARTS_FILE}: {name} is not as the terms describe it")
        if not np.isfinite(array).all():
            raise VerificationError(f"{PARTS_FILE}: {name} holds what is no finite number")
        flat.append(array)
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def facts_of(blend: Blend, shared_model: bytes, *, rows: int, groups: int,
             intervals: Intervals | None) -> Facts:  # fmt: skip
    """The facts of a version that was just fitted."""
    return Facts(
        version="personal/v1",
        private=False,
        audience=AUDIENCE,
        shared_model=hashlib.sha256(shared_model).hexdigest(),
        rows=rows,
        groups=groups,
        parts=tuple(
            PartFacts(
                name=part.name,
                weight=weight,
                network=part.layers is not None,
                trees=None if part.forest is None else part.forest.link,
            )
            for part, weight in zip(blend.parts, blend.weights, strict=True)
        ),
        intervals=intervals,
    )


def checksums(files: Mapping[str, bytes]) -> bytes:
    """SHA256SUMS of files, as ``sha256sum`` writes it."""
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    return "".join(lines).encode()
