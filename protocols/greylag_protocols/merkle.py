"""RFC 9162 Merkle trees (section 2.1): roots, inclusion and consistency proofs, a frontier.

Used for batches of one-time keys and for the log. Hashes are SHA-256 with the RFC's own prefixes
(0x00 for leaves, 0x01 for nodes), so that any CT verifier agrees.
"""

import hashlib
from collections.abc import Callable, Sequence
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


NodeAt = Callable[[int, int], bytes]
"""``(level, index)``: the hash over the complete subtree of leaves ``index << level`` up to
``(index + 1) << level``; how it is stored or computed is the caller's affair."""


def nodes_of(leaf_hashes: Sequence[bytes]) -> NodeAt:
    """The complete subtrees over leaf hashes held in memory."""
    return lambda level, index: root_of(leaf_hashes[index << level : (index + 1) << level])


def root_of_range(node: NodeAt, low: int, high: int) -> bytes:
    """MTH over the leaves from ``low`` up to ``high``, a range that the RFC's splits lead to."""
    size = high - low
    if size == 0:
        return EMPTY_ROOT
    if size & (size - 1) == 0:
        return node(size.bit_length() - 1, low // size)
    at = low + _split(size)
    return hash_node(root_of_range(node, low, at), root_of_range(node, at, high))


def prove_inclusion(node: NodeAt, index: int, size: int) -> list[bytes]:
    """PATH of RFC 9162: the sibling hashes from leaf ``index`` of ``size`` up to the root."""
    low, high, path = 0, size, []
    while high - low > 1:
        at = low + _split(high - low)
        if index < at:
            path.append(root_of_range(node, at, high))
            high = at
        else:
            path.append(root_of_range(node, low, at))
            low = at
    return path[::-1]


def prove_consistency(node: NodeAt, old: int, new: int) -> list[bytes]:
    """PROOF of RFC 9162: that the tree of the first ``old`` leaves is a part of that of ``new``.

    Empty for ``old`` = 0 and for ``old`` = ``new``: there is nothing to prove.
    """
    if not 0 <= old <= new:
        raise ValueError(f"no tree of {new} leaves holds one of {old}")
    if old == 0:
        return []
    low, high, path, is_left_edge = 0, new, [], True
    while high != old:
        at = low + _split(high - low)
        if old <= at:
            path.append(root_of_range(node, at, high))
            high = at
        else:
            path.append(root_of_range(node, low, at))
            low, is_left_edge = at, False
    if not is_left_edge:
        path.append(root_of_range(node, low, high))
    return path[::-1]


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


def verify_consistency(
    *, old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """RFC 9162 section 2.1.4.2: the ``old`` tree is the beginning of the ``new`` one.

    Raises:
        VerificationError: it is not, or the proof does not show it.
    """
    if not 0 <= old <= new:
        raise VerificationError(f"the log shrank from {old} entries to {new}")
    if old == 0 or old == new:
        if proof or old_root != (new_root if old else EMPTY_ROOT):
            raise VerificationError("two logs of one size that differ")
        return
    steps = list(proof)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    if not steps:
        raise VerificationError("a consistency proof is missing")
    before = after = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            raise VerificationError("consistency proof too long")
        if node & 1 or node == last:
            before, after = hash_node(sibling, before), hash_node(sibling, after)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            after = hash_node(after, sibling)
        node >>= 1
        last >>= 1
    if last != 0 or before != old_root or after != new_root:
        raise VerificationError("the log does not hold what it held before")


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
