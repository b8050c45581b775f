"""Bytes that all parties agree on: canonical JSON, tagged hashes, frames.

* Whatever is hashed carries a domain tag and a version: ``tagged_hash("greylag/context/v1", ...)``.
* Whatever is signed or hashed as JSON is RFC 8785 (JCS), and is parsed strictly: no duplicate keys,
  no NaN, no lone surrogate, bounded size. Bytes from outside are kept as received and never
  re-serialised.
* A frame is ``magic (4) | header length (4, big endian) | header (JCS) | blobs``; the header names
  each blob's length, so that a parser knows every size before it touches a byte of it.
"""

import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar, cast

import pydantic
import rfc8785
from pydantic_core import SchemaValidator

from greylag_protocols.errors import ConfigError, VerificationError

MAGIC = b"GLG1"
MAX_HEADER_BYTES = 8 << 20
MAX_FRAME_BYTES = 1 << 30
MAX_JSON_DEPTH = 32
MAX_BLOBS = 1 << 17
MAX_KEYS = 1024  # of one JSON object
MAX_VALUES = 1 << 18  # of one document: blobs' lengths, or a membership of 10,000 firms
MAX_EXPLAINED = 8  # a hostile header may be wrong in a million places
MAX_EXPLAINED_CHARS = 1 << 14  # longer texts are left at a list's first fault, and not quoted
EXACT_INT = 2**53 - 1  # JSON numbers are doubles; beyond this they skip integers

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

T = TypeVar("T")


def canonical_json(value: object) -> bytes:
    """RFC 8785 bytes of a JSON value or of a dataclass made of JSON values.

    Raises:
        ConfigError: something that JSON cannot hold exactly: NaN, an integer beyond 2^53 - 1, a
            lone surrogate, bytes.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    try:
        return rfc8785.dumps(_plain(value))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"cannot be written as canonical JSON: {error}") from None


def _plain(value: Any) -> Any:
    """Tuples become lists; anything that JSON lacks is left for the encoder to reject."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"an object of {len(pairs)} keys; at most {MAX_KEYS} are allowed")
    seen = dict(pairs)
    if len(seen) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return seen


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is beyond the range of a double")
    return number


def _integer(text: str) -> int | float:
    # JCS writes the double 1e16 with all its digits; what comes back is that double again.
    if len(text) > 17 or abs(int(text)) > EXACT_INT:
        return _finite(text)
    return int(text)


def parse_json(data: bytes, *, max_bytes: int = MAX_HEADER_BYTES) -> Any:
    """Parse JSON from outside.

    Raises:
        VerificationError: too long, too deep, not UTF-8 JSON, a duplicate key, too many keys, NaN,
            a number beyond doubles, a lone surrogate.
    """
    if len(data) > max_bytes:
        raise VerificationError(f"JSON of {len(data)} bytes; at most {max_bytes} are allowed")
    try:
        text = str(data, "utf-8")  # json.loads itself would take UTF-16, UTF-32 and surrogates
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # fails on a surrogate without its pair
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"not acceptable JSON: {error}") from None
    # Each level and each value takes a bracket or a character: most messages are clearly small.
    if text.count("[") + text.count("{") >= MAX_JSON_DEPTH or len(text) > MAX_VALUES:
        _check_extent(value)
    return value


def _check_extent(value: Any) -> None:
    level, count, frontier = 0, 1, [value]
    while frontier:
        level += 1
        if level > MAX_JSON_DEPTH:
            raise VerificationError(f"JSON nested deeper than {MAX_JSON_DEPTH}")
        frontier = [
            child
            for item in frontier
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        count += len(frontier)
        if count > MAX_VALUES:
            raise VerificationError(f"JSON of more than {MAX_VALUES} values")


def parse_toml(data: str | bytes, *, what: str) -> dict[str, Any]:
    """Parse TOML that a person wrote.

    Raises:
        ConfigError: not UTF-8, not TOML, a number of thousands of digits, or nested without end.
    """
    try:
        return tomllib.loads(data if isinstance(data, str) else data.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what}: not TOML: {error}") from None


_ADAPTERS: dict[type, pydantic.TypeAdapter[Any]] = {}
_HASTY: dict[type, SchemaValidator] = {}


def _adapter(cls: type) -> pydantic.TypeAdapter[Any]:
    """Building a validator is slow; each class needs it once."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = pydantic.TypeAdapter(cls)
    return _ADAPTERS[cls]


def _hasty_validator(cls: type) -> SchemaValidator:
    """A validator that leaves a list at its first wrong item.

    To note a wrong item takes a thousand times the memory of the item itself: a header of 8 MB cost
    its reader 10 GB and a minute.
    """
    if cls not in _HASTY:
        _HASTY[cls] = SchemaValidator(_hasten(_adapter(cls).core_schema))
    return _HASTY[cls]


def _hasten(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_hasten(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _hasten(item) for key, item in schema.items()}
    return changed | {"fail_fast": True} if schema.get("type") == "tuple" else changed


def parse_as(cls: type[T], value: object, *, what: str) -> T:
    """Validate a parsed JSON or TOML value strictly as dataclass ``cls``.

    Unknown keys are errors, with the nearest known key as a suggestion.

    Raises:
        ConfigError: names every wrong key and what was expected.
    """
    long = False
    try:
        if (path := _nonfinite(value)) is not None:
            raise ConfigError(f"{what}: {path}: NaN and infinity are not allowed; give a number")
        text = json.dumps(value, allow_nan=False)
        long = len(text) > MAX_EXPLAINED_CHARS
        validator = _hasty_validator(cls) if long else _adapter(cls)
        value = validator.validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        errors = error.errors(include_url=False, include_input=not long)
        lines = [_explain(cls, item) for item in errors[:MAX_EXPLAINED]]
        if len(errors) > MAX_EXPLAINED:
            lines.append(f"and {len(errors) - MAX_EXPLAINED} more")
        raise ConfigError(f"{what}: " + "; ".join(lines)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{what}: {error}") from None
    return cast(T, value)


def _nonfinite(value: Any, path: str = "") -> str | None:
    """Where a parsed value holds NaN or infinity, since the validator would not always say."""
    if isinstance(value, float) and not math.isfinite(value):
        return path or "(top)"
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            found = _nonfinite(item, f"{path}.{key}" if path else str(key))
            if found is not None:
                return found
    return None


def _explain(cls: type, item: Any) -> str:
    path = ".".join(str(part)[:80] for part in item["loc"]) or "(top)"
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        name = str(item["loc"][-1])[:80]
        near = difflib.get_close_matches(name, sorted(_field_names(cls)), n=1)
        return f"unknown key {path!r}" + (f", did you mean {near[0]!r}?" if near else "")
    if item["type"] in ("missing", "missing_argument"):
        return f"key {path!r} is missing"
    found = f" (found {item['input']!r:.60})" if "input" in item else ""
    return f"{path}: {item['msg']}{found}"


def _field_names(cls: type) -> set[str]:
    """Every key of ``cls`` and of the dataclasses below it."""
    schema = _adapter(cls).json_schema()
    names = set(schema.get("properties", {}))
    for definition in schema.get("$defs", {}).values():
        names.update(definition.get("properties", {}))
    return names


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    """SHA-256 over a domain tag and length-prefixed parts: injective in (tag, parts).

    Returns: 32 bytes.
    """
    digest = hashlib.sha256()
    for part in (tag.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def pack_frame(header: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """One message: a JSON header and binary parts (see the module's head)."""
    encoded = canonical_json({**header, "blobs": [len(blob) for blob in blobs]})
    return b"".join([MAGIC, len(encoded).to_bytes(4, "big"), encoded, *blobs])


def parse_frame(data: bytes) -> tuple[dict[str, Any], list[memoryview]]:
    """The header and the blobs (views, not copies) of a frame from outside.

    Raises:
        VerificationError: wrong magic, lengths that do not add up, unacceptable JSON.
    """
    if len(data) > MAX_FRAME_BYTES or data[:4] != MAGIC or len(data) < 8:
        raise VerificationError("not a greylag frame")
    size = int.from_bytes(data[4:8], "big")
    if size > MAX_HEADER_BYTES or 8 + size > len(data):
        raise VerificationError("frame header longer than the frame")
    header = parse_json(bytes(data[8 : 8 + size]))
    lengths = header.pop("blobs", None) if isinstance(header, dict) else None
    if not isinstance(lengths, list) or not all(type(n) is int and n >= 0 for n in lengths):
        raise VerificationError("frame header lacks the lengths of its blobs")
    if len(lengths) > MAX_BLOBS:
        raise VerificationError(f"a frame of {len(lengths)} blobs; at most {MAX_BLOBS} are allowed")
    if 8 + size + sum(lengths) != len(data):
        raise VerificationError("frame length does not match its header")
    view, at, blobs = memoryview(data), 8 + size, []
    for length in lengths:
        blobs.append(view[at : at + length])
        at += length
    return header, blobs
