"""RFC 9162 Merkle trees (section 2.1): roots, inclusion proofs, an append-only frontier.

Used for batches of one-time keys and for the log. Hashes are SHA-256 with the RFC's own prefixes
(0x00 for leaves, 0x01 for nodes), so that any CT verifier agrees.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from greylag_protocols.errors import VerificationError

EMPTY_ROOT = hashlib.sha256(b"").digest()


def hash_leaf(data: bytes) -> bytes:
    """Leaf hash of ``data``, 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Interior hash of two 32-byte children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two smaller than ``size`` (size >= 2)."""
    return 1 << (size - 1).bit_length() - 1


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162 over leaf hashes."""
    if not leaf_hashes:
        return EMPTY_ROOT
    if len(leaf_hashes) == 1:
        return leaf_hashes[0]
    at = _split(len(leaf_hashes))
    return hash_node(root_of(leaf_hashes[:at]), root_of(leaf_hashes[at:]))


def prove_inclusion(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """PATH of RFC 9162: the sibling hashes from leaf ``index`` up to the root."""
    if len(leaf_hashes) <= 1:
        return []
    at = _split(len(leaf_hashes))
    if index < at:
        return [*prove_inclusion(leaf_hashes[:at], index), root_of(leaf_hashes[at:])]
    return [*prove_inclusion(leaf_hashes[at:], index - at), root_of(leaf_hashes[:at])]


def prove_all(leaf_hashes: Sequence[bytes]) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """The root over leaf hashes, and every leaf's inclusion proof, with each node hashed once."""
    if len(leaf_hashes) <= 1:
        return root_of(leaf_hashes), [()] * len(leaf_hashes)
    at = _split(len(leaf_hashes))
    left, left_proofs = prove_all(leaf_hashes[:at])
    right, right_proofs = prove_all(leaf_hashes[at:])
    proofs = [(*proof, right) for proof in left_proofs] + [(*proof, left) for proof in right_proofs]
    return hash_node(left, right), proofs


def verify_inclusion(
    leaf_hash: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """RFC 9162 section 2.1.3.2.

    Raises:
        VerificationError: the leaf is not the ``index``-th of ``size`` under ``root``.
    """
    if not 0 <= index < size:
        raise VerificationError("leaf index outside the tree")
    node, last, current = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            raise VerificationError("inclusion proof too long")
        if node & 1 or node == last:
            current = hash_node(sibling, current)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            current = hash_node(current, sibling)
        node >>= 1
        last >>= 1
    if last != 0 or current != root:
        raise VerificationError("inclusion proof does not lead to the root")


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a growing tree: enough to append and to know the root.

    ``peaks`` are the roots of the perfect subtrees of ``size``, largest first.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def append(self, leaf_hash: bytes) -> "Frontier":
        """The frontier after one more leaf."""
        peaks, current, size = list(self.peaks), leaf_hash, self.size
        while size & 1:
            current = hash_node(peaks.pop(), current)
            size >>= 1
        return Frontier(self.size + 1, (*peaks, current))

    @property
    def root(self) -> bytes:
        """The tree's root hash."""
        if not self.peaks:
            return EMPTY_ROOT
        *rest, current = self.peaks
        for peak in reversed(rest):
            current = hash_node(peak, current)
        return current
