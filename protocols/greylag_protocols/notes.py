"""Checkpoints that somebody signed: C2SP signed notes, and cosignatures by firms.

A log's checkpoint (https://c2sp.org/tlog-checkpoint) is signed by the lead as a note
(https://c2sp.org/signed-note), and by firms with a time as witnesses do
(https://c2sp.org/tlog-cosignature, ``cosignature/v1``), so that tools for either read ours. The
lead signs under the log's origin, a firm under ``origin/firm``, both with the identity keys that
they sign statements with: what is signed starts otherwise, so one is never taken for the other.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from greylag_protocols.checkpoint import Checkpoint, parse_checkpoint
from greylag_protocols.errors import VerificationError
from greylag_protocols.signing import Signer, verify_raw

ED25519, COSIGNATURE = 0x01, 0x04  # signature types of signed-note
KEY_ID_BYTES, TIME_BYTES, SIGNATURE_BYTES = 4, 8, 64
COSIGNATURE_BYTES = TIME_BYTES + SIGNATURE_BYTES
MAX_NOTE_BYTES = 4 << 20  # ten thousand cosigners fit
MAX_TIME_S = 1 << 53

_LINE = re.compile(r"\u2014 ([^\s+]{1,200}) ([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """A signature under a note, **unverified**: whose it claims to be, and its bytes."""

    name: str
    key_id: bytes
    blob: bytes

    def line(self) -> str:
        """Its line under the note."""
        return f"\u2014 {self.name} {base64.b64encode(self.key_id + self.blob).decode()}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedNote:
    """A checkpoint and the signatures under it, in the note's order."""

    checkpoint: Checkpoint
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        """The note's bytes."""
        lines = "".join(item.line() for item in self.signatures)
        return f"{self.checkpoint.text()}\n{lines}".encode()


def cosigner_name(origin: str, firm: str) -> str:
    """The name that a firm cosigns under."""
    return f"{origin}/{firm}"


def key_id(name: str, kind: int, public_key: bytes) -> bytes:
    """The four bytes by which a note's reader finds the key."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[
        :KEY_ID_BYTES
    ]


def parse_note(data: bytes) -> SignedNote:
    """A signed checkpoint; its signatures are not looked at yet.

    Raises:
        VerificationError: not one.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise VerificationError(f"a checkpoint of more than {MAX_NOTE_BYTES} bytes")
    try:
        text, separator, rest = data.decode().rpartition("\n\n")
    except UnicodeDecodeError:
        raise VerificationError("a checkpoint that is no text") from None
    if not separator or not rest.endswith("\n"):
        raise VerificationError("a checkpoint without signatures")
    signatures = tuple(_parse_line(line) for line in rest[:-1].split("\n"))
    return SignedNote(checkpoint=parse_checkpoint(text + "\n"), signatures=signatures)


def _parse_line(line: str) -> NoteSignature:
    found = _LINE.fullmatch(line)
    try:
        content = base64.b64decode(found[2], validate=True) if found else b""
    except binascii.Error:
        content = b""
    if found is None or len(content) <= KEY_ID_BYTES:
        raise VerificationError("a checkpoint's signature line is malformed")
    signature = NoteSignature(
        name=found[1], key_id=content[:KEY_ID_BYTES], blob=content[KEY_ID_BYTES:]
    )
    if signature.line() != line + "\n":
        raise VerificationError("a checkpoint's signature line is not in its one accepted form")
    return signature


def sign_checkpoint(signer: Signer, checkpoint: Checkpoint) -> SignedNote:
    """The lead's word for a checkpoint of its log."""
    name = checkpoint.origin
    signature = NoteSignature(
        name=name,
        key_id=key_id(name, ED25519, signer.public_key),
        blob=signer.sign_note(checkpoint.text().encode()),
    )
    return SignedNote(checkpoint=checkpoint, signatures=(signature,))


def verify_log_signature(note: SignedNote, public_key: bytes) -> None:
    """The lead with ``public_key`` signed this checkpoint.

    Raises:
        VerificationError: it did not.
    """
    name = note.checkpoint.origin
    wanted = key_id(name, ED25519, public_key)
    for item in note.signatures:
        if (item.name, item.key_id) == (name, wanted):
            verify_raw(item.blob, note.checkpoint.text().encode(), public_key)
            return
    raise VerificationError("the checkpoint is not signed by the lead's key")


def cosign(signer: Signer, checkpoint: Checkpoint, *, time_s: int) -> bytes:
    """A firm's word that, at ``time_s`` (Unix seconds), it saw this checkpoint and that the log
    held all that it held before: 8 bytes of time and 64 of signature."""
    return time_s.to_bytes(TIME_BYTES, "big") + signer.sign_note(_cosigned(checkpoint, time_s))


def verify_cosignature(checkpoint: Checkpoint, blob: bytes, public_key: bytes) -> int:
    """When (Unix seconds) the firm with ``public_key`` cosigned, by its own clock.

    Raises:
        VerificationError: it did not.
    """
    if len(blob) != COSIGNATURE_BYTES:
        raise VerificationError("a cosignature of another size")
    time_s = int.from_bytes(blob[:TIME_BYTES], "big")
    if time_s > MAX_TIME_S:
        raise VerificationError("a cosignature of a time that is none")
    verify_raw(blob[TIME_BYTES:], _cosigned(checkpoint, time_s), public_key)
    return time_s


def with_cosignatures(
    note: SignedNote, cosignatures: Iterable[tuple[str, bytes, bytes]]
) -> SignedNote:
    """The note with firms' cosignatures besides: name, public key and 72 bytes each."""
    added = (
        NoteSignature(name=name, key_id=key_id(name, COSIGNATURE, key), blob=blob)
        for name, key, blob in cosignatures
    )
    return SignedNote(checkpoint=note.checkpoint, signatures=(*note.signatures, *added))


def _cosigned(checkpoint: Checkpoint, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{checkpoint.text()}".encode()
