"""Frames from outside, read as if an enemy had sent them.

Every size, count and type is checked before anything is taken; nothing is trusted that a signature
will not cover later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from greylag_protocols.encoding import EXACT_INT, parse_as, parse_frame
from greylag_protocols.errors import ConfigError, RefusalClass, VerificationError
from greylag_protocols.keys import KEY_BYTES, MAX_BATCH
from greylag_protocols.log_view import cosignatures_of, parse_view
from greylag_protocols.membership import Hex32, Name, SignedMembership
from greylag_protocols.messages import (
    Accepted,
    Ask,
    Asking,
    Close,
    Closed,
    Contribution,
    CoordinatorMessage,
    Cosigned,
    FirmMessage,
    Offer,
    Refusal,
    Round,
    Seen,
    Show,
    SignedBatch,
)
from greylag_protocols.notes import COSIGNATURE_BYTES
from greylag_protocols.terms import STRICT

HASH_BYTES = 32
MAX_ROSTER = 10_000
MAX_HISTORY = 10_000  # entries of a firm's own chain in one offer; the rest follows in the next
T = TypeVar("T")
Index = Annotated[int, Field(ge=0, le=EXACT_INT)]
Names = Annotated[tuple[str, ...], Field(max_length=MAX_ROSTER)]
Counts = Annotated[tuple[Index, ...], Field(max_length=MAX_ROSTER)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfferHeader:
    __pydantic_config__ = STRICT
    run: str
    next_attempt: Index
    seen: Index
    peers: Index
    entries: Annotated[int, Field(ge=1, le=MAX_HISTORY)] = 0  # absent if there are none
    past: Annotated[int, Field(ge=1, le=MAX_HISTORY)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _AskHeader:
    __pydantic_config__ = STRICT
    run: str
    firms: Annotated[tuple[Name, ...], Field(max_length=MAX_ROSTER)]
    nonces: Annotated[tuple[Hex32, ...], Field(max_length=MAX_ROSTER)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _AskingHeader:
    __pydantic_config__ = STRICT
    run: str
    nonce: Hex32
    log_size: Index
    seq: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunHeader:
    __pydantic_config__ = STRICT
    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _RoundHeader:
    __pydantic_config__ = STRICT
    run: str
    round: Index
    attempt: Index
    cosigned: Index
    roster: Names
    seen: Counts
    proof_sizes: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class _CloseHeader:
    __pydantic_config__ = STRICT
    run: str
    seen: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class _CosignedHeader:
    __pydantic_config__ = STRICT
    run: str
    log_size: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class _AcceptedHeader:
    __pydantic_config__ = STRICT
    run: str
    log_size: Index
    entries: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class _EntriesHeader:
    __pydantic_config__ = STRICT
    run: str
    entries: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class _ContributionHeader:
    __pydantic_config__ = STRICT
    run: str
    attempt: Index
    entries: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class _RefusalHeader:
    __pydantic_config__ = STRICT
    run: str
    refusal_class: RefusalClass


def parse_coordinator_message(data: bytes) -> CoordinatorMessage:
    """A message from the coordinator.

    Raises:
        VerificationError: not one, or malformed in any way.
    """
    kind, header, blobs = _open(data)
    if kind == "offer":
        offer = _header(_OfferHeader, header)
        terms, document, statement, view = _exactly(blobs[:4], 4)
        peers, rest = _entries(blobs[4:], offer.peers)
        entries, rest = _entries(rest, offer.entries)
        past, statements = _entries(rest, offer.past)
        if len(peers) + len(statements) > 3 * MAX_ROSTER:
            raise VerificationError("an offer with more statements than there can be firms")
        return Offer(
            run=offer.run,
            next_attempt=offer.next_attempt,
            seen=offer.seen,
            terms=bytes(terms),
            membership=SignedMembership(document=bytes(document), statement=bytes(statement)),
            log=parse_view(bytes(view)),
            peers=peers,
            entries=entries,
            past=past,
            statements=tuple(bytes(blob) for blob in statements),
        )
    if kind == "ask":
        ask = _header(_AskHeader, header)
        _exactly(blobs, 0)
        if len(ask.firms) != len(ask.nonces):
            raise VerificationError("a question's nonces do not match its firms")
        return Ask(run=ask.run, firms=ask.firms, nonces=ask.nonces)
    if kind == "close":
        close = _header(_CloseHeader, header)
        _exactly(blobs, 0)
        return Close(run=close.run, seen=close.seen)
    if kind == "show":
        show = _header(_RunHeader, header)
        (view,) = _exactly(blobs, 1)
        return Show(run=show.run, log=parse_view(bytes(view)))
    if kind == "round":
        return _parse_round(_header(_RoundHeader, header), blobs)
    raise VerificationError(f"unknown message kind {kind!r}")


def _parse_round(header: _RoundHeader, blobs: list[memoryview]) -> Round:
    if len(blobs) < 5 or len(blobs) > 5 + MAX_ROSTER:
        raise VerificationError("a round needs weights, keys, proofs, a log and cosignatures")
    members = len(header.roster)
    if len(header.seen) != members or len(header.proof_sizes) != members:
        raise VerificationError("a round's lists do not match its roster")
    steps = _chunks(blobs[2], HASH_BYTES)
    if sum(header.proof_sizes) != len(steps):
        raise VerificationError("a round's proofs do not match their sizes")
    proofs, at = [], 0
    for size in header.proof_sizes:
        proofs.append(tuple(steps[at : at + size]))
        at += size
    keys = _chunks(blobs[1], KEY_BYTES)
    if len(keys) != members:
        raise VerificationError("a round's keys do not match its roster")
    return Round(
        run=header.run,
        round_number=header.round,
        attempt=header.attempt,
        log=parse_view(bytes(blobs[3])),
        cosigned=header.cosigned,
        cosignatures=cosignatures_of(bytes(blobs[4])),
        roster=header.roster,
        seen=header.seen,
        keys=tuple(keys),
        proofs=tuple(proofs),
        batches=tuple(bytes(blob) for blob in blobs[5:]),
        weights=_words(blobs[0]).view("<f4"),
    )


def parse_firm_message(data: bytes) -> FirmMessage:
    """A message from a firm.

    Raises:
        VerificationError: not one, or malformed in any way.
    """
    kind, header, blobs = _open(data)
    if kind == "refusal":
        if "refusal_class" in header:
            raise VerificationError("a refusal with an unknown key")
        header["refusal_class"] = header.pop("class", None)
        refusal = _header(_RefusalHeader, header)
        (statement,) = _exactly(blobs, 1)
        return Refusal(
            run=refusal.run,
            refusal_class=refusal.refusal_class,
            statement=bytes(statement),
        )
    if kind == "asking":
        asking = _header(_AskingHeader, header)
        _exactly(blobs, 0)
        return Asking(run=asking.run, nonce=asking.nonce, log_size=asking.log_size, seq=asking.seq)
    if kind == "seen":
        seen = _header(_RunHeader, header)
        if len(blobs) > MAX_ROSTER:
            raise VerificationError("more statements than there can be firms")
        return Seen(run=seen.run, statements=tuple(bytes(blob) for blob in blobs))
    if kind == "contribution":
        return _parse_contribution(_header(_ContributionHeader, header), blobs)
    if kind == "accepted":
        return _parse_accepted(_header(_AcceptedHeader, header), blobs)
    if kind == "closed":
        closed = _header(_EntriesHeader, header)
        entries, rest = _entries(blobs, closed.entries)
        _exactly(rest, 0)
        return Closed(run=closed.run, entries=entries)
    if kind == "cosigned":
        cosigned = _header(_CosignedHeader, header)
        return Cosigned(
            run=cosigned.run,
            log_size=cosigned.log_size,
            cosignature=_cosignature(*_exactly(blobs, 1)),
        )
    raise VerificationError(f"unknown message kind {kind!r}")


def _parse_accepted(header: _AcceptedHeader, blobs: list[memoryview]) -> Accepted:
    if not blobs:
        raise VerificationError("an acceptance needs a cosignature")
    entries, rest = _entries(blobs[1:], header.entries)
    return Accepted(
        run=header.run,
        log_size=header.log_size,
        cosignature=_cosignature(blobs[0]),
        entries=entries,
        batch=_batch(rest),
    )


def _parse_contribution(header: _ContributionHeader, blobs: list[memoryview]) -> Contribution:
    if len(blobs) < 2:
        raise VerificationError("a contribution needs a vector and a cosignature")
    entries, rest = _entries(blobs[2:], header.entries)
    return Contribution(
        run=header.run,
        attempt=header.attempt,
        vector=_words(blobs[0]),
        cosignature=_cosignature(blobs[1]),
        entries=entries,
        batch=_batch(rest) if rest else None,
    )


def _open(data: bytes) -> tuple[str, dict[str, Any], list[memoryview]]:
    header, blobs = parse_frame(data)
    return str(header.pop("kind", ""))[:40], header, blobs


def _header(cls: type[T], header: dict[str, Any]) -> T:
    try:
        return parse_as(cls, header, what="message")
    except ConfigError as error:
        raise VerificationError(str(error)) from None


def _entries(blobs: list[memoryview], count: int) -> tuple[tuple[bytes, ...], list[memoryview]]:
    if count > len(blobs):
        raise VerificationError("fewer entries than announced")
    return tuple(bytes(blob) for blob in blobs[:count]), blobs[count:]


def _exactly(blobs: Sequence[memoryview], count: int) -> Sequence[memoryview]:
    if len(blobs) != count:
        raise VerificationError(f"expected {count} binary parts, found {len(blobs)}")
    return blobs


def _cosignature(blob: memoryview) -> bytes:
    """A cosignature, or nothing: whether it holds is the reader's affair."""
    if len(blob) not in (0, COSIGNATURE_BYTES):
        raise VerificationError("a cosignature of another length")
    return bytes(blob)


def _chunks(blob: memoryview, size: int) -> list[bytes]:
    if len(blob) % size:
        raise VerificationError(f"a list of {size}-byte items has an odd length")
    return [bytes(blob[at : at + size]) for at in range(0, len(blob), size)]


def _words(blob: memoryview) -> NDArray[np.uint32]:
    if len(blob) % 4:
        raise VerificationError("a vector's length is not a multiple of 4 bytes")
    # A copy: what is received stays apart from the buffer that it arrived in, and is aligned.
    return np.frombuffer(bytes(blob), dtype="<u4")


def _batch(blobs: Sequence[memoryview]) -> SignedBatch:
    statement, joined = _exactly(blobs, 2)
    keys = _chunks(joined, KEY_BYTES)
    if not 1 <= len(keys) <= MAX_BATCH:
        raise VerificationError(f"a key batch holds 1 to {MAX_BATCH} keys")
    return SignedBatch(statement=bytes(statement), keys=tuple(keys))
