"""One-time keys: batches of X25519 keys under one signed Merkle root.

A firm signs the root once per batch; each leaf is a key that is valid for one attempt number only.
An attempt then costs a hash path per firm instead of a signature. The signature also carries the
firm's ledger position, so that peers notice a machine that was set back.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from greylag_protocols.encoding import parse_as
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.log import ChainTip
from greylag_protocols.membership import Hex32
from greylag_protocols.merkle import hash_leaf, prove_all, root_of, verify_inclusion
from greylag_protocols.signing import Signer, parse_statement, verify_statement
from greylag_protocols.terms import STRICT

BATCH_KIND = "key-batch/v1"
MAX_BATCH = 64
KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBatch:
    """The signed facts about a batch: ``size`` keys for attempts ``first`` onwards."""

    __pydantic_config__ = STRICT
    firm: str
    consortium: str
    epoch: Annotated[int, Field(ge=1)]
    run: str
    terms: Hex32
    first: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=1, le=MAX_BATCH)]
    seq: Annotated[int, Field(ge=0)]
    head: Hex32

    @property
    def attempts(self) -> range:
        """The attempt numbers that this batch has keys for."""
        return range(self.first, self.first + self.size)

    @property
    def tip(self) -> ChainTip:
        """Where the firm's ledger stood when it signed."""
        return ChainTip(seq=self.seq, head=bytes.fromhex(self.head))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedBatch:
    """A batch whose signature was checked, with its root."""

    facts: KeyBatch
    root: bytes

    def check_key(self, key: bytes, proof: Sequence[bytes], *, attempt: int) -> None:
        """The key is this batch's for ``attempt``.

        Raises:
            VerificationError: it is not.
        """
        if attempt not in self.facts.attempts:
            raise VerificationError(f"{self.facts.firm}: this batch has no key for this attempt")
        _verify_key(key, attempt, self.facts.first, self.facts.size, tuple(proof), self.root)


# Firms that share a process are shown the same keys. Only what holds is remembered.
@functools.lru_cache(maxsize=1024)
def _verify_key(
    key: bytes, attempt: int, first: int, size: int, proof: tuple[bytes, ...], root: bytes
) -> None:
    leaf = key_leaf(key, attempt)
    verify_inclusion(leaf, index=attempt - first, size=size, proof=proof, root=root)


def key_leaf(key: bytes, attempt: int) -> bytes:
    """Leaf hash of a one-time key for one attempt, 32 bytes."""
    return hash_leaf(b"greylag/one-time-key/v1|" + attempt.to_bytes(8, "big") + key)


def batch_leaves(keys: Sequence[bytes], first: int) -> list[bytes]:
    """The leaf hashes of a batch."""
    return [key_leaf(key, first + index) for index, key in enumerate(keys)]


def prove_batch(keys: Sequence[bytes], first: int) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """A batch's root, and the inclusion proof of each of its keys."""
    return prove_all(batch_leaves(keys, first))


def claimed_firm(envelope: bytes) -> str:
    """Whose batch an envelope says it is, **unverified**: to find the key to check it with."""
    return str(parse_statement(envelope).predicate.get("firm"))


def sign_batch(
    signer: Signer,
    keys: Sequence[bytes],
    *,
    firm: str,
    consortium: str,
    epoch: int,
    run: str,
    terms: bytes,
    first: int,
    tip: ChainTip,
) -> bytes:
    """A firm vouches for its next one-time keys."""
    root = root_of(batch_leaves(keys, first))
    predicate = {
        "firm": firm,
        "consortium": consortium,
        "epoch": epoch,
        "run": run,
        "terms": terms.hex(),
        "first": first,
        "size": len(keys),
        "seq": tip.seq,
        "head": tip.head.hex(),
    }
    return signer.sign(BATCH_KIND, run, root, predicate)


def verify_batch(envelope: bytes, identity_key: bytes) -> VerifiedBatch:
    """The batch in an envelope, if the firm signed it.

    Raises:
        VerificationError: bad signature or shape.
    """
    statement = verify_statement(envelope, identity_key, BATCH_KIND)
    try:
        facts = parse_as(KeyBatch, statement.predicate, what="key batch")
    except ConfigError as error:
        raise VerificationError(str(error)) from None
    return VerifiedBatch(facts=facts, root=statement.digest)
