"""What the lead shows of its log, so that a firm can watch it grow and nothing else.

A firm keeps the right edge of the tree that it saw last (a ``Frontier``). The lead shows the hashes
of all entries since then; appended to the edge, they must lead to the root that the lead signed. So
nothing that the firm saw can be dropped, altered or put in another order, and the firm's own
entries must be among the new ones. Then the firm cosigns. Cosignatures of some other firms on the
state before come along: who is shown a log of its own finds that the others' words are missing.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.encoding import tagged_hash
from greylag_protocols.errors import VerificationError
from greylag_protocols.merkle import Frontier
from greylag_protocols.notes import COSIGNATURE_BYTES, SIGNATURE_BYTES
from greylag_protocols.signing import Signer, verify_raw

HASH_BYTES = 32
COSIGNERS_SHOWN = 16  # whom a minority of half the roster could not all name: 1 in 10,000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogView:
    """The log's state after ``first`` entries that the firm knows and ``leaves`` (hashes, 32 bytes
    each) after them; ``signature`` is the lead's over the checkpoint, 64 bytes."""

    first: int
    leaves: tuple[bytes, ...]
    root: bytes
    signature: bytes

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.first + len(self.leaves)

    def checkpoint(self, origin: str) -> Checkpoint:
        """The state that is shown, of the log named ``origin``."""
        return Checkpoint(origin=origin, size=self.size, root=self.root)

    def blob(self) -> bytes:
        """Its form in a message."""
        edge = self.first.to_bytes(8, "big")
        return b"".join([edge, self.root, self.signature, *self.leaves])

    def extend(self, known: Frontier, *, origin: str, lead_key: bytes) -> Frontier:
        """The tree's edge after the entries shown, if it grew out of ``known``.

        Raises:
            VerificationError: it did not, or the lead did not sign it.
        """
        if self.size < known.size:
            raise VerificationError(
                f"the lead's log shrank from {known.size} entries to {self.size}: the lead was "
                "restored from an old copy, or hides something. Take part in nothing and ask it"
            )
        if self.first > known.size:
            raise VerificationError(
                f"of the log's {self.size} entries only those after {self.first} were shown; this "
                f"firm knows {known.size}"
            )
        grown = known
        for leaf in self.leaves[known.size - self.first :]:
            grown = grown.append(leaf)
        if grown.root != self.root:
            raise VerificationError(
                "the lead's log does not hold what it held before, or another firm is shown "
                "another one. Take part in nothing, and compare logs with the other firms"
            )
        verify_raw(self.signature, self.checkpoint(origin).text().encode(), lead_key)
        return grown

    def new_leaves(self, known: Frontier) -> frozenset[bytes]:
        """The hashes after those that ``known`` covers."""
        return frozenset(self.leaves[max(0, known.size - self.first) :])


def show_log(signer: Signer, checkpoint: Checkpoint, leaves: Sequence[bytes]) -> LogView:
    """What the lead shows: the last ``leaves`` of a log that is at ``checkpoint``."""
    return LogView(
        first=checkpoint.size - len(leaves),
        leaves=tuple(leaves),
        root=checkpoint.root,
        signature=signer.sign_note(checkpoint.text().encode()),
    )


def parse_view(blob: bytes) -> LogView:
    """A view as it stands in a message.

    Raises:
        VerificationError: not one.
    """
    at = 8 + HASH_BYTES + SIGNATURE_BYTES
    first = int.from_bytes(blob[:8], "big")
    if len(blob) < at or (len(blob) - at) % HASH_BYTES or first >> 53:
        raise VerificationError("not a view of a log")
    return LogView(
        first=first,
        root=blob[8 : 8 + HASH_BYTES],
        signature=blob[8 + HASH_BYTES : at],
        leaves=tuple(
            blob[place : place + HASH_BYTES] for place in range(at, len(blob), HASH_BYTES)
        ),
    )


def choose_cosigners(
    both: Sequence[str], *, context: bytes, count: int = COSIGNERS_SHOWN
) -> tuple[str, ...]:
    """Whose cosignatures on the last state are to be shown: those of ``count`` firms of ``both``,
    the firms that this attempt and the last have in common.

    Args:
        context: bytes that nobody picks alone: a hash over all one-time keys of the attempt.
    """
    return _choose_cosigners(tuple(both), context, count)


@functools.lru_cache(maxsize=4)  # firms that share a process ask for the same
def _choose_cosigners(both: tuple[str, ...], context: bytes, count: int) -> tuple[str, ...]:
    ranked = sorted(both, key=lambda firm: tagged_hash("greylag/shown/v1", context, firm.encode()))
    return tuple(sorted(ranked[:count]))


def cosignatures_of(blob: bytes) -> tuple[bytes, ...]:
    """Cosignatures one after the other, 72 bytes each.

    Raises:
        VerificationError: the length fits no number of them.
    """
    if len(blob) % COSIGNATURE_BYTES:
        raise VerificationError("cosignatures of another length")
    starts = range(0, len(blob), COSIGNATURE_BYTES)
    return tuple(blob[at : at + COSIGNATURE_BYTES] for at in starts)
