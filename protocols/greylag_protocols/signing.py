"""Signatures: Ed25519 in DSSE envelopes around in-toto statements.

A firm's or the lead's word is a Statement (https://in-toto.io/Statement/v1) with one of greylag's
predicate types. Its exact bytes are signed (DSSE v1 pre-authentication encoding), stored and shown;
a payload is never re-serialised to be checked. The ``keyid`` in an envelope is only a hint (DSSE
does not authenticate it): the caller names the key it expects. DSSE does not sign the envelope
around the payload either, yet chains and the log hash it: so it has one accepted form (JCS, nothing
added), and whoever passes an entry on cannot change its hash while its signature still holds.
"""

import functools
import json
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError as SignatureError
from securesystemslib.signer import CryptoSigner, SSlibKey

from greylag_protocols.encoding import canonical_json, parse_json, tagged_hash
from greylag_protocols.errors import ConfigError, VerificationError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_PREFIX = "urn:greylag:"
MAX_ENVELOPE_BYTES = 65_535  # the most that a tile entry holds (C2SP tlog-tiles)


class Signer(Protocol):
    """Signs statements under one identity; the key itself stays inside."""

    @property
    def public_key(self) -> bytes:
        """Raw Ed25519 public key, 32 bytes."""

    def sign(self, kind: str, subject: str, digest: bytes, predicate: dict[str, Any]) -> bytes:
        """A DSSE envelope around the statement that ``predicate`` holds of ``subject``."""

    def sign_note(self, text: bytes) -> bytes:
        """A bare Ed25519 signature, 64 bytes, over a checkpoint's lines (``notes``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A verified statement: its kind (``receipt/v1``), subject name, digest and predicate."""

    kind: str
    subject: str
    digest: bytes
    predicate: dict[str, Any]


KNOWN_KEYS = 1024  # a consortium of firms, of whose keys each signs again and again
PARSED = 64  # an entry is looked at several times on its way; it is parsed once


class Ed25519Signer:
    """The signer of every real composition.

    Args:
        private_key: 32 raw bytes; entropy is the caller's.
    """

    def __init__(self, private_key: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        self._public = self._key.public_key().public_bytes_raw()
        self._signer = CryptoSigner(self._key, _sslib_key(self._public))

    @property
    def public_key(self) -> bytes:
        return self._public

    def sign(self, kind: str, subject: str, digest: bytes, predicate: dict[str, Any]) -> bytes:
        payload = canonical_json(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": subject, "digest": {"sha256": digest.hex()}}],
                "predicateType": PREDICATE_PREFIX + kind,
                "predicate": predicate,
            }
        )
        envelope = Envelope(payload, PAYLOAD_TYPE, {})
        envelope.sign(self._signer)
        encoded = canonical_json(envelope.to_dict())
        if len(encoded) > MAX_ENVELOPE_BYTES:
            raise ConfigError(
                f"a {kind} statement of {len(encoded)} bytes; a log entry holds at most "
                f"{MAX_ENVELOPE_BYTES}: refer to large content by its digest, or use fewer firms"
            )
        return encoded

    def sign_note(self, text: bytes) -> bytes:
        if text.startswith(b"DSSEv1 "):
            raise ConfigError("a note that could be taken for a statement is never signed")
        return self._key.sign(text)


# Firms that share a process are shown the same words on a log. Only what holds is remembered.
@functools.lru_cache(maxsize=256)
def verify_raw(signature: bytes, message: bytes, public_key: bytes) -> None:
    """A bare Ed25519 signature.

    Raises:
        VerificationError: it is not ``public_key``'s over ``message``.
    """
    try:
        _public_key(public_key).verify(signature, message)
    except InvalidSignature:
        raise VerificationError(f"not signed by {fingerprint(public_key)[:16]}") from None


def fingerprint(public_key: bytes) -> str:
    """What people compare: SHA-256 of an identity key, hex."""
    return tagged_hash("greylag/identity/v1", public_key).hex()


@functools.lru_cache(maxsize=KNOWN_KEYS)
def _public_key(public_key: bytes) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(public_key)
    except ValueError:
        raise VerificationError("not an Ed25519 public key") from None


@functools.lru_cache(maxsize=KNOWN_KEYS)
def _sslib_key(public_key: bytes) -> SSlibKey:
    return SSlibKey.from_crypto(_public_key(public_key), keyid=fingerprint(public_key))


def verify_statement(envelope: bytes, public_key: bytes, kind: str) -> Statement:
    """The statement in a DSSE envelope, if ``public_key`` signed it and it is of ``kind``.

    Raises:
        VerificationError: anything at all is out of order.
    """
    statement = parse_statement(envelope)
    parsed = _parse_envelope(envelope)
    try:
        parsed.verify([_sslib_key(public_key)], 1)
    except SignatureError:
        raise VerificationError(
            f"the {statement.kind} statement is not signed by {fingerprint(public_key)[:16]}"
        ) from None
    if statement.kind != kind:
        raise VerificationError(f"expected a {kind} statement, found {statement.kind}")
    return statement


@functools.lru_cache(maxsize=PARSED)
def parse_statement(envelope: bytes) -> Statement:
    """The statement in an envelope, **unverified**: to find out whose key to check it with."""
    value = parse_json(_parse_envelope(envelope).payload, max_bytes=MAX_ENVELOPE_BYTES)
    try:
        (subject,) = value["subject"]
        kind, predicate = value["predicateType"], value["predicate"]
        name, digest = subject["name"], bytes.fromhex(subject["digest"]["sha256"])
        wellformed = (
            set(value) == {"_type", "subject", "predicateType", "predicate"}
            and value["_type"] == STATEMENT_TYPE
            and isinstance(predicate, dict)
            and isinstance(name, str)
            and isinstance(kind, str)
            and kind.startswith(PREDICATE_PREFIX)
            and subject == {"name": name, "digest": {"sha256": digest.hex()}}
            and len(digest) == 32
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        wellformed = False
    if not wellformed:
        raise VerificationError("not an in-toto statement of greylag's")
    return Statement(
        kind=kind.removeprefix(PREDICATE_PREFIX), subject=name, digest=digest, predicate=predicate
    )


def _encode_texts(envelope: dict[str, Any]) -> bytes:
    """The JCS form of an envelope, at a tenth of the cost: between texts alone, whose names are
    ASCII, the encoder of the standard library makes no difference.

    Raises:
        ValueError: something else than a text, or a lone surrogate.
    """
    signatures = [text for item in envelope["signatures"] for text in item.values()]
    if not all(isinstance(text, str) for text in (envelope["payloadType"], *signatures)):
        raise ValueError("not a text")
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


@functools.lru_cache(maxsize=PARSED)
def _parse_envelope(envelope: bytes) -> Envelope:
    value = parse_json(envelope, max_bytes=MAX_ENVELOPE_BYTES)
    try:
        parsed = Envelope.from_dict(value)
        extra = [name for item in parsed.signatures.values() for name in item.unrecognized_fields]
        canonical = not extra and _encode_texts(parsed.to_dict()) == envelope
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError):
        raise VerificationError("not a DSSE envelope") from None
    if not canonical:
        raise VerificationError("a DSSE envelope that is not in its one accepted form (JCS)")
    if parsed.payload_type != PAYLOAD_TYPE or len(parsed.signatures) != 1:
        raise VerificationError("a DSSE envelope of another kind")
    return parsed
