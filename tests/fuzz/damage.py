"""Ways to damage a message so that it still looks like one.

A parser that is only ever shown noise refuses it at its first check. Here a real message is taken
apart, one thing in it is made wrong, and it is put together again: lengths that add up around a
header that lies, JSON in canonical form with a count that is negative, huge or no number. Each way
has a name, takes its choices from ``rng`` alone, and works on any bytes.
"""

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal

from greylag_protocols.encoding import MAGIC, parse_frame
from greylag_protocols.errors import VerificationError

Form = Literal["bytes", "text", "json", "frame"]
Damage = Callable[[bytes, Random, Sequence[bytes]], bytes]

MAX_GROWTH = 1 << 12  # damage lengthens a message by no more than this
ODD_NUMBERS = (
    *(0, 1, -1, 2, 64, 65, 2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, -(2**53), 2**63, 10**30),
    *(0.5, 1.0, -0.0, 1e-300, 1e15, 1e300, float("nan"), float("inf"), -float("inf")),
)
ODD_VALUES = (
    *ODD_NUMBERS,
    *(True, False, None, "", "0", "-1", "1e9", "\x00", "\x7f", "é", "\ud800", "a\n", " "),
    *("0" * 64, "A" * 64, "g" * 64, "0" * 63, "x" * 500, "a" * 49, "firm-a", "v1", "relu"),
    *([], {}, [[]], [{}], {"": 0}, [0] * 300, ["a"] * 300, {str(at): at for at in range(300)}),
)
NUMBER = re.compile(rb"-?\d+(\.\d+)?(e-?\d+)?")
ODD_TOKENS = (
    *(b"", b"0", b"-1", b"1e999", b"-1e999", b"nan", b"inf", b"NA", b"1,5", b"0.5", b"true"),
    *(b'"', b'""', b"'", b"[", b"]", b"{", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b";"),
    *(b"9" * 30, b"9" * 5000, b"a.b", b"[" * 400, b"1979-05-27", b"[[x]]", b"[x]", b"\xed\xa0\x80"),
)


def random_bytes(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    return rng.randbytes(rng.randrange(max(2, min(len(data), 400))))


def truncate(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1) if rng.random() < 0.2 else 0
    return data[start : rng.randrange(start, len(data) + 1)]


def flip_bits(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    changed = bytearray(data or b"\x00")
    for _ in range(rng.choice((1, 1, 2, 5))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def repeat_part(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    start, end = _part(data, rng)
    times = rng.choice((1, 1, 2, 50))
    piece = data[start:end][: MAX_GROWTH // times]
    return data[:end] + piece * times + data[end:]


def drop_part(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    start, end = _part(data, rng)
    return data[:start] + data[end:]


def splice(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    """The beginning of one message and the end of another."""
    other = rng.choice(donors)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def odd_token(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    """Something that a text parser stumbles over, in place of a number or at any place."""
    numbers = list(NUMBER.finditer(data))
    if numbers and rng.random() < 0.7:
        start, end = rng.choice(numbers).span()
    else:
        start = end = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice(ODD_TOKENS) + data[end:]


def shuffle_lines(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    """Lines dropped, repeated and moved, also to other messages' places."""
    lines = data.split(b"\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(to, lines[at])
        case 2:
            lines[at], lines[to] = lines[to], lines[at]
        case _:
            lines.insert(to, rng.choice(rng.choice(donors).split(b"\n")))
    return b"\n".join(lines)


def odd_json(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    """One value of a JSON document replaced, dropped, added, repeated or renamed."""
    try:
        return _dump(_alter(json.loads(data), rng))
    except (ValueError, OverflowError, RecursionError):  # no JSON, or beyond what Python writes
        return odd_token(data, rng, donors)


def repeat_key(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    """A JSON document in which a key stands twice, or with other white space: not canonical."""
    braces = [at for at, byte in enumerate(data) if byte in b"{,"]
    if not braces:
        return odd_json(data, rng, donors)
    at = rng.choice(braces) + 1
    piece = rng.choice((b'"run":0,', b'"a":1,"a":1,', b" ", b'"_type":null,', b'"blobs":[],'))
    return data[:at] + piece + data[at:]


def odd_header(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    """A frame whose lengths add up, around a header in which one value is wrong."""
    header, blobs = _open(data)
    try:
        return _close(_alter(header, rng), blobs)
    except (ValueError, OverflowError, RecursionError):
        return odd_token(data, rng, donors)


def odd_blobs(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    """A frame whose lengths add up, with binary parts changed, dropped, added or exchanged."""
    header, blobs = _open(data)
    at = rng.randrange(len(blobs) + 1)
    match rng.randrange(5):
        case 0:
            blobs[at:] = [] if rng.random() < 0.3 else blobs[at + 1 :]
        case 1:
            blobs[at:at] = [b""] * rng.choice((1, 1, 100))
        case 2 if at < len(blobs):
            way = rng.choice((truncate, flip_bits, repeat_part, odd_json))
            blobs[at] = way(blobs[at], rng, donors)
        case 3:
            blobs.insert(at, rng.choice(_open(rng.choice(donors))[1] or [b"x"]))
        case _:
            rng.shuffle(blobs)
    return _close(header, blobs)


def odd_lengths(data: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    """A frame whose lengths do not add up, are no numbers, or lie about the header."""
    header, blobs = _open(data)
    lengths: list[Any] = [len(blob) for blob in blobs] or [0]
    lengths[rng.randrange(len(lengths))] = rng.choice(ODD_VALUES)
    encoded = _dump({**header, "blobs": lengths if rng.random() < 0.8 else rng.choice(ODD_VALUES)})
    size = rng.choice((len(encoded), len(encoded), 0, len(encoded) + 1, 2**32 - 1))
    return b"".join([MAGIC, size.to_bytes(4, "big"), encoded, *blobs])


BYTES: tuple[Damage, ...] = (
    random_bytes, truncate, flip_bits, repeat_part, drop_part, splice,
)  # fmt: skip
TEXT: tuple[Damage, ...] = (*BYTES, odd_token, odd_token, shuffle_lines, shuffle_lines)
WAYS: dict[Form, tuple[Damage, ...]] = {
    "bytes": BYTES,
    "text": TEXT,
    "json": (*BYTES, odd_json, odd_json, odd_json, odd_json, repeat_key, odd_token),
    "frame": (*BYTES, odd_header, odd_header, odd_header, odd_blobs, odd_blobs, odd_lengths),
}


def damage(data: bytes, form: Form, rng: Random, donors: Sequence[bytes]) -> bytes:
    """``data`` with one to three things wrong."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(WAYS[form])(data, rng, donors)
    return data


def _part(data: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 32, 200)))


def _open(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    try:
        header, blobs = parse_frame(data)
    except VerificationError:
        return {"kind": "round"}, [data]
    return header, [bytes(blob) for blob in blobs]


def _close(header: Any, blobs: Sequence[bytes]) -> bytes:
    if isinstance(header, dict):
        header = {**header, "blobs": [len(blob) for blob in blobs]}
    encoded = _dump(header)
    return b"".join([MAGIC, len(encoded).to_bytes(4, "big"), encoded, *blobs])


def _dump(document: Any) -> bytes:
    """Near to canonical JSON, but for what that cannot hold: NaN, huge integers, surrogates."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode("utf-8", "surrogatepass")


def _alter(document: Any, rng: Random) -> Any:
    """The document with one node changed; containers are copied, not touched."""
    if isinstance(document, dict) and document and rng.random() < 0.9:
        key = rng.choice(sorted(document))
        others = {name: value for name, value in document.items() if name != key}
        match rng.randrange(12):
            case 0:
                return others
            case 1:
                return {**others, key + rng.choice(("", "x", "\x00", "é")): document[key], "x": 0}
            case 2:
                return {**document, key: document[rng.choice(sorted(document))]}
            case _:
                return {**others, key: _alter(document[key], rng)}
    if isinstance(document, list) and document and rng.random() < 0.9:
        at = rng.randrange(len(document))
        match rng.randrange(8):
            case 0:
                return document[:at] + document[at + 1 :]
            case 1:
                return (
                    document[:at] + document[at : at + 1] * rng.choice((2, 3, 40)) + document[at:]
                )
            case 2:
                return document[::-1]
            case _:
                return [*document[:at], _alter(document[at], rng), *document[at + 1 :]]
    return _odd_value(document, rng)


def _odd_value(value: Any, rng: Random) -> Any:
    if isinstance(value, str) and value and rng.random() < 0.4:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(("", "é", "\x00", "0", "=", value)) + value[at + 1 :]
    if type(value) in (int, float) and rng.random() < 0.5:
        return rng.choice((value + 1, value - 1, -value, value * 2, float(value), str(value)))
    return rng.choice(ODD_VALUES)
