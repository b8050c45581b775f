"""The slow reference, first half: bytes. JSON, hashes, trees, curves, statements, masks.

It shares no code with the package and needs the standard library alone. Curves, cipher and trees
are written in integers, straight from their standards; speed and even timing do not matter here.
"""

import base64
import hashlib
import hmac
import struct
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

P = 2**255 - 19
ED_ORDER = 2**252 + 27742317777372353535851937790883648493
ED_D = -121665 * pow(121666, -1, P) % P
MAGIC = b"GLG1"

# -- canonical JSON (RFC 8785), tagged hashes, frames ----------------------------------------------


def jcs(value: Any) -> bytes:
    return _json(value).encode()


def _json(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_string(key)}:{_json(value[key])}" for key in keys) + "}"
    return "[" + ",".join(_json(item) for item in value) + "]"


def _string(text: str) -> str:
    short = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
    parts = [
        short.get(ord(char), f"\\u{ord(char):04x}" if ord(char) < 32 else char) for char in text
    ]
    return '"' + "".join(parts) + '"'


def _number(value: float) -> str:
    """ECMAScript's Number::toString, from the shortest digits that give the double back."""
    if value == 0:
        return "0"
    _, digits, exponent = Decimal(repr(abs(value))).as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    point = len(digits) + int(exponent)  # value = 0.text * 10^point
    sign = "-" if value < 0 else ""
    if len(text) <= point <= 21:
        return sign + text + "0" * (point - len(text))
    if 0 < point <= 21:
        return sign + text[:point] + "." + text[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + text
    mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
    return f"{sign}{mantissa}e{point - 1:+d}"


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    return hashlib.sha256(
        b"".join(len(part).to_bytes(8, "big") + part for part in (tag.encode(), *parts))
    ).digest()


def frame(header: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    encoded = jcs({**header, "blobs": [len(blob) for blob in blobs]})
    return MAGIC + len(encoded).to_bytes(4, "big") + encoded + b"".join(blobs)


# -- Merkle trees (RFC 9162, 2.1), from the leaves' bytes ------------------------------------------


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) < 2:
        return hashlib.sha256(b"\0" + leaves[0] if leaves else b"").digest()
    left = 1
    while 2 * left < len(leaves):
        left *= 2
    halves = merkle_root(leaves[:left]) + merkle_root(leaves[left:])
    return hashlib.sha256(b"\1" + halves).digest()


def merkle_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    if len(leaves) == 1:
        return []
    left = 1
    while 2 * left < len(leaves):
        left *= 2
    if index < left:
        return [*merkle_path(leaves[:left], index), merkle_root(leaves[left:])]
    return [*merkle_path(leaves[left:], index - left), merkle_root(leaves[:left])]


def key_leaf(key: bytes, attempt: int) -> bytes:
    return b"greylag/one-time-key/v1|" + attempt.to_bytes(8, "big") + key


# -- X25519 (RFC 7748) and Ed25519 (RFC 8032) ------------------------------------------------------


def x25519(scalar: bytes, point: bytes) -> bytes:
    k = (int.from_bytes(scalar, "little") & ~7 & (2**255 - 1)) | 2**254
    u = int.from_bytes(point, "little") % 2**255 % P
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in range(254, -1, -1):
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def x25519_public(scalar: bytes) -> bytes:
    return x25519(scalar, (9).to_bytes(32, "little"))


Point = tuple[int, int, int]  # projective (X, Y, Z) on the twisted Edwards curve


def _add(p: Point, q: Point) -> Point:
    a, c, d = p[2] * q[2] % P, p[0] * q[0] % P, p[1] * q[1] % P
    b, e = a * a % P, ED_D * c * d % P
    f, g = b - e, b + e
    cross = (p[0] + p[1]) * (q[0] + q[1]) - c - d
    return a * f * cross % P, a * g * (d + c) % P, f * g % P


def _times(k: int, p: Point) -> Point:
    total = (0, 1, 1)
    for bit in bin(k)[2:]:
        total = _add(total, total)
        total = _add(total, p) if bit == "1" else total
    return total


def _compress(p: Point) -> bytes:
    inverse = pow(p[2], P - 2, P)
    x, y = p[0] * inverse % P, p[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _base() -> Point:
    y = 4 * pow(5, -1, P) % P
    square = (y * y - 1) * pow(ED_D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    return (x if x % 2 == 0 else P - x), y, 1


def _scalar(seed: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(seed).digest()
    return int.from_bytes(digest[:32], "little") & ~7 & (2**254 - 1) | 2**254, digest[32:]


def ed25519_public(seed: bytes) -> bytes:
    return _compress(_times(_scalar(seed)[0], _base()))


def ed25519_sign(seed: bytes, message: bytes) -> bytes:
    def hashed(*parts: bytes) -> int:
        return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ED_ORDER

    scalar, prefix = _scalar(seed)
    nonce = hashed(prefix, message)
    commitment = _compress(_times(nonce, _base()))
    challenge = hashed(commitment, ed25519_public(seed), message)
    return commitment + ((nonce + challenge * scalar) % ED_ORDER).to_bytes(32, "little")


# -- statements: in-toto in DSSE -------------------------------------------------------------------


def fingerprint(public_key: bytes) -> str:
    return tagged_hash("greylag/identity/v1", public_key).hex()


def payload_of(kind: str, subject: str, digest: bytes, predicate: dict[str, Any]) -> bytes:
    return jcs(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": subject, "digest": {"sha256": digest.hex()}}],
            "predicateType": "urn:greylag:" + kind,
            "predicate": predicate,
        }
    )


def envelope(seed: bytes, payload: bytes, **changes: Any) -> dict[str, Any]:
    kind = "application/vnd.in-toto+json"
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    signature = base64.b64encode(ed25519_sign(seed, signed)).decode()
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"keyid": fingerprint(ed25519_public(seed)), "sig": signature}],
        **changes,
    }


def sign(seed: bytes, kind: str, subject: str, digest: bytes, predicate: dict[str, Any]) -> bytes:
    return jcs(envelope(seed, payload_of(kind, subject, digest, predicate)))


# -- masks: HKDF (RFC 5869), AES-256 (FIPS 197) in counter mode ------------------------------------


def hkdf(secret: bytes, info: bytes) -> bytes:
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\1", "sha256")


def pair_key(private: bytes, peer: bytes, context: bytes) -> bytes:
    pair = b"".join(sorted([x25519_public(private), peer]))
    return hkdf(x25519(private, peer), b"greylag/mask/v1|" + context + pair)


def _gf_mul(a: int, b: int) -> int:
    product = 0
    for bit in range(8):
        product ^= (a << bit) * (b >> bit & 1)
    for bit in range(14, 7, -1):
        product ^= (0x11B << bit - 8) * (product >> bit & 1)
    return product


def _sbox() -> list[int]:
    box = []
    for value in range(256):
        inverse = next((x for x in range(256) if _gf_mul(value, x) == 1), 0)
        wide = inverse ^ inverse << 1 ^ inverse << 2 ^ inverse << 3 ^ inverse << 4
        box.append((wide & 255 ^ wide >> 8) ^ 0x63)  # bits beyond 8 come round again
    return box


SBOX = _sbox()
TIMES = {factor: [_gf_mul(factor, value) for value in range(256)] for factor in (1, 2, 3)}


def aes256(key: bytes, block: bytes) -> bytes:
    words = [list(key[at : at + 4]) for at in range(0, 32, 4)]
    constant = 1
    for at in range(8, 60):
        word = words[-1]
        if at % 8 == 0:
            word = [SBOX[byte] for byte in word[1:] + word[:1]]
            word[0] ^= constant
            constant = _gf_mul(constant, 2)
        elif at % 8 == 4:
            word = [SBOX[byte] for byte in word]
        words.append([a ^ b for a, b in zip(words[-8], word, strict=True)])
    rounds = [[byte for word in words[at : at + 4] for byte in word] for at in range(0, 60, 4)]
    state = [a ^ b for a, b in zip(block, rounds[0], strict=True)]
    for number, round_key in enumerate(rounds[1:], 1):
        state = [SBOX[state[(at + 4 * (at % 4)) % 16]] for at in range(16)]  # and the rows shift
        if number < 14:
            state = [
                TIMES[2][state[at]]
                ^ TIMES[3][state[at - at % 4 + (at + 1) % 4]]
                ^ state[at - at % 4 + (at + 2) % 4]
                ^ state[at - at % 4 + (at + 3) % 4]
                for at in range(16)
            ]
        state = [a ^ b for a, b in zip(state, round_key, strict=True)]
    return bytes(state)


def keystream(key: bytes, words: int) -> list[int]:
    blocks = [aes256(key, counter.to_bytes(16, "big")) for counter in range(-(-words // 4))]
    return list(struct.unpack(f"<{4 * len(blocks)}I", b"".join(blocks)))[:words]


def mask(vector: Sequence[int], add: Sequence[bytes], subtract: Sequence[bytes]) -> list[int]:
    result = list(vector)
    for sign_, keys in ((1, add), (-1, subtract)):
        for key in keys:
            stream = keystream(key, len(result))
            result = [(a + sign_ * b) % 2**32 for a, b in zip(result, stream, strict=True)]
    return result
