"""That an entry is in the log, in one text file: ``.tlog-proof`` (https://c2sp.org/tlog-proof).

The file holds the entry's index, its inclusion proof and the signed checkpoint that the proof leads
to, with firms' cosignatures. Whoever has the entry, the lead's key and the firms' keys needs
nothing else: no bundle, no network. The entry itself is not in it.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.errors import VerificationError
from greylag_protocols.merkle import hash_leaf, verify_inclusion
from greylag_protocols.notes import (
    COSIGNATURE,
    MAX_NOTE_BYTES,
    SignedNote,
    cosigner_name,
    key_id,
    parse_note,
    verify_cosignature,
    verify_log_signature,
)

FIRST_LINE = "c2sp.org/tlog-proof@v1\n"
MAX_EXTRA_BYTES = 1 << 16
MAX_HASHES = 64  # no tree is higher
MAX_HEAD_BYTES = 4 * MAX_EXTRA_BYTES // 3 + 4096  # in base64, and the hashes
MAX_PROOF_BYTES = MAX_NOTE_BYTES + MAX_HEAD_BYTES + 2

_DIGIT = "[A-Za-z0-9+/]"
_HASH = f"{_DIGIT}{{43}}="
_BASE64 = f"(?:{_DIGIT}{{4}})*{_DIGIT}{{2}}(?:==|{_DIGIT}=|{_DIGIT}{{2}})"
_HEAD = re.compile(
    rf"{re.escape(FIRST_LINE)}(?:extra ({_BASE64})\n)?"
    rf"index (0|[1-9][0-9]{{0,15}})\n((?:{_HASH}\n){{0,{MAX_HASHES}}})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlogProof:
    """A proof as it was read, **unverified**.

    Attributes:
        index: of the entry in the log, from 0.
        hashes: from the leaf's sibling up to the root's child.
        note: the checkpoint with its signatures.
        extra: bytes that nothing vouches for; empty if there are none.
    """

    index: int
    hashes: tuple[bytes, ...]
    note: SignedNote
    extra: bytes = b""

    def encode(self) -> bytes:
        """The file's bytes."""
        return format_proof(self.index, self.hashes, self.note.encode().decode(), self.extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofOutcome:
    """What a proof shows once it is verified.

    Attributes:
        index: of the entry in the log.
        checkpoint: the state of the log that holds it.
        cosigned: which of the known firms cosigned that state, each with its time (Unix seconds, by
            its own clock), sorted by name. How many are enough is the caller's affair.
    """

    index: int
    checkpoint: Checkpoint
    cosigned: tuple[tuple[str, int], ...]

    @property
    def firms(self) -> tuple[str, ...]:
        """The names of those that cosigned."""
        return tuple(firm for firm, _ in self.cosigned)


def format_proof(
    entry_index: int, proof_hashes: Sequence[bytes], note_text: str, extra: bytes | None = None
) -> bytes:
    """The file for an entry.

    Args:
        proof_hashes: as ``merkle.prove_inclusion`` gives them.
        note_text: the signed checkpoint, as ``SignedNote.encode`` gives it, decoded.
        extra: bytes for the application, which no signature covers.
    """
    lines = [f"extra {base64.b64encode(extra).decode()}\n"] if extra else []
    lines.append(f"index {entry_index}\n")
    lines += [f"{base64.b64encode(item).decode()}\n" for item in proof_hashes]
    return f"{FIRST_LINE}{''.join(lines)}\n{note_text}".encode()


def parse_proof(data: bytes) -> TlogProof:
    """A proof from outside.

    Raises:
        VerificationError: not one, or not in its one accepted form.
    """
    if len(data) > MAX_PROOF_BYTES:
        raise VerificationError(f"a proof of more than {MAX_PROOF_BYTES} bytes")
    head, separator, note = data.partition(b"\n\n")
    if len(head) > MAX_HEAD_BYTES:
        raise VerificationError(f"a proof with more than {MAX_EXTRA_BYTES} extra bytes")
    try:
        found = _HEAD.fullmatch(head.decode() + "\n")
    except UnicodeDecodeError:
        found = None
    if found is None or not separator:
        raise VerificationError("not a .tlog-proof: its lines before the checkpoint are malformed")
    proof = TlogProof(
        index=int(found[2]),
        hashes=tuple(base64.b64decode(line) for line in found[3].split()),
        note=parse_note(note),
        extra=base64.b64decode(found[1]) if found[1] else b"",
    )
    if proof.encode() != data:
        raise VerificationError("a .tlog-proof that is not in its one accepted form")
    return proof


def verify_proof(
    proof: TlogProof,
    entry: bytes,
    *,
    origin: str,
    log_key: bytes,
    cosigner_keys: Mapping[str, bytes],
) -> ProofOutcome:
    """The log of ``origin`` holds ``entry``, by the word of whoever holds ``log_key``.

    Args:
        entry: the envelope, byte by byte.
        origin: the consortium's id.
        log_key: the lead's key, which came from elsewhere.
        cosigner_keys: firms' identity keys by name, which came from elsewhere. Cosignatures under
            other names or keys are passed over.

    Raises:
        VerificationError: it is another log's, the lead did not sign, a known firm's cosignature is
            forged, or the entry is not there.
    """
    checkpoint = proof.note.checkpoint
    if checkpoint.origin != origin:
        raise VerificationError(f"a proof of the log {checkpoint.origin!r}, not of {origin!r}")
    verify_log_signature(proof.note, log_key)
    verify_inclusion(
        hash_leaf(entry),
        index=proof.index,
        size=checkpoint.size,
        proof=proof.hashes,
        root=checkpoint.root,
    )
    known = {
        (cosigner_name(origin, firm), key_id(cosigner_name(origin, firm), COSIGNATURE, key)): firm
        for firm, key in cosigner_keys.items()
    }
    times: dict[str, int] = {}
    for signature in proof.note.signatures:
        firm = known.get((signature.name, signature.key_id))
        if firm is not None:
            times[firm] = verify_cosignature(checkpoint, signature.blob, cosigner_keys[firm])
    return ProofOutcome(
        index=proof.index, checkpoint=checkpoint, cosigned=tuple(sorted(times.items()))
    )
