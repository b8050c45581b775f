"""What is written down, by whom, and how the entries hang together.

Entries are DSSE envelopes of in-toto statements, in one append-only RFC 9162 tree:

    terms/v1, membership/v1      the lead: what a run is, who belongs
    start/v1                     the lead: whose acceptances seed the first weights
    round/v1, void/v1            the lead: an attempt and how it ended, every firm's (seq, head)
    restart/v1                   the lead: a half-done run is taken up by a new process
    release/v1, release/v2       the lead: the model that came out (``releases``)
    withdraw/v1, current/v1      the lead: versions not to be used any more, and the one to use
    usage/v1                     the lead: a firm's statement of a period (``usage``)
    acceptance/v1                a firm: it agrees to terms, before its first receipt
    receipt/v1                   a firm: it charged its budget and answered in this context
    closed/v1                    a firm: it will never again answer in this run
    refusal/v1                   a firm: it declined; only the class is told
    revocation/v1                a firm's recovery key: its identity key is no longer its own
    leave/v1                     a firm: it has left; its identity speaks no more
    endorsement/v1               a firm, or an independent body: its people agree to a member list

A firm's acceptances, receipts and closed entries form one chain over its ledger: each carries
``seq`` (1, 2, 3, ...) and ``prev``, the head of the entry before. So a checked head covers all
before it, and a missing entry shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from greylag_protocols.accounting import EventType
from greylag_protocols.encoding import tagged_hash
from greylag_protocols.errors import VerificationError
from greylag_protocols.signing import Signer, Statement, parse_statement, verify_statement

TERMS_KIND = "terms/v1"
START_KIND = "start/v1"
ROUND_KIND = "round/v1"
VOID_KIND = "void/v1"
RESTART_KIND = "restart/v1"
RELEASE_KIND = "release/v1"
ACCEPTANCE_KIND = "acceptance/v1"
RECEIPT_KIND = "receipt/v1"
CLOSED_KIND = "closed/v1"
REFUSAL_KIND = "refusal/v1"
CHAINED_KINDS = frozenset({ACCEPTANCE_KIND, RECEIPT_KIND, CLOSED_KIND})

GENESIS = bytes(32)


def entry_head(envelope: bytes) -> bytes:
    """The hash that the next entry of a firm's chain carries as ``prev``, 32 bytes."""
    return tagged_hash("greylag/entry/v1", envelope)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainTip:
    """Where a firm's chain stands: ``seq`` entries, the last with hash ``head``."""

    seq: int = 0
    head: bytes = GENESIS

    def link(self, firm: str) -> dict[str, Any]:
        """The keys that tie the next entry to this tip."""
        return {"firm": firm, "seq": self.seq + 1, "prev": self.head.hex()}

    def follow(self, envelope: bytes, *, firm: str, identity_key: bytes) -> "ChainTip":
        """The tip after ``envelope``, if the firm signed it as the next entry of its chain.

        Raises:
            VerificationError: a gap, a fork, another firm's entry or a bad signature.
        """
        statement = verify_chained(envelope, identity_key)
        predicate = statement.predicate
        if predicate.get("firm") != firm:
            raise VerificationError(f"{firm}: an entry that names {predicate.get('firm')!r}")
        seq = predicate.get("seq")
        if (
            type(seq) is not int  # true and 1.0 equal 1 in Python, not in the chain
            or seq != self.seq + 1
            or predicate.get("prev") != self.head.hex()
        ):
            raise VerificationError(
                f"{firm}: entry {seq!r:.20} does not follow entry {self.seq} of its "
                "chain: the firm's ledger was restored or copied, or an entry was dropped"
            )
        return ChainTip(seq=self.seq + 1, head=entry_head(envelope))


def verify_chained(envelope: bytes, identity_key: bytes) -> Statement:
    """A chained statement signed by a firm's identity key."""
    kind = parse_statement(envelope).kind
    if kind not in CHAINED_KINDS:
        raise VerificationError(f"{kind} is not an entry of a firm's chain")
    return verify_statement(envelope, identity_key, kind)


def sign_acceptance(
    signer: Signer, tip: ChainTip, *, firm: str, run: str, terms: bytes, epoch: int
) -> bytes:
    """A firm agrees to ``terms`` (their digest) under a membership epoch."""
    predicate = {**tip.link(firm), "run": run, "epoch": epoch}
    return signer.sign(ACCEPTANCE_KIND, run, terms, predicate)


def sign_receipt(
    signer: Signer,
    tip: ChainTip,
    *,
    firm: str,
    run: str,
    round_number: int,
    attempt: int,
    context: bytes,
    roster_size: int,
    event_type: EventType,
    charged: int,
) -> bytes:
    """A firm has charged one release; ``charged`` counts its releases in this run so far."""
    predicate = {
        **tip.link(firm),
        "run": run,
        "round": round_number,
        "attempt": attempt,
        "roster_size": roster_size,
        "event": event_type,
        "charged": charged,
    }
    return signer.sign(RECEIPT_KIND, run, context, predicate)


def sign_closed(
    signer: Signer, tip: ChainTip, *, firm: str, run: str, terms: bytes, charged: int
) -> bytes:
    """A firm has closed a run: the reservation ends and the run id is refused from now on."""
    predicate = {**tip.link(firm), "run": run, "charged": charged}
    return signer.sign(CLOSED_KIND, run, terms, predicate)


def sign_refusal(signer: Signer, *, firm: str, run: str, refusal_class: str) -> bytes:
    """A firm declined. Only the class leaves it."""
    subject = tagged_hash("greylag/run/v1", run.encode())
    return signer.sign(REFUSAL_KIND, run, subject, {"firm": firm, "class": refusal_class})


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """What the coordinator states of an attempt; ``tips`` follow the roster's order."""

    run: str
    round_number: int
    attempt: int
    context: bytes
    roster: Sequence[str]
    tips: Sequence[ChainTip]

    def predicate(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "round": self.round_number,
            "attempt": self.attempt,
            "roster": [
                {"firm": firm, "seq": tip.seq, "head": tip.head.hex()}
                for firm, tip in zip(self.roster, self.tips, strict=True)
            ],
        }


def sign_start(
    signer: Signer, *, run: str, terms: bytes, acceptances: Sequence[bytes], state: bytes
) -> bytes:
    """Training begins: the acceptances (entries) behind the initial seed, and the first state.

    A firm that accepts later takes part, but has no say in the seed.
    """
    heads = sorted(entry_head(item).hex() for item in acceptances)
    predicate = {"run": run, "acceptances": heads, "state": state.hex()}
    return signer.sign(START_KIND, run, terms, predicate)


def sign_round(
    signer: Signer,
    record: AttemptRecord,
    *,
    model_in: bytes,
    state_out: bytes,
    sum_digest: bytes,
    grid_step: str,
    event_type: EventType,
) -> bytes:
    """A round was completed: digests of what went in, the integer sum and what came out.

    ``grid_step`` is the exact hexadecimal form of the float, so that a replay needs no rounding.
    """
    predicate = {
        **record.predicate(),
        "model_in": model_in.hex(),
        "state_out": state_out.hex(),
        "sum": sum_digest.hex(),
        "grid_step": grid_step,
        "event": event_type,
    }
    return signer.sign(ROUND_KIND, record.run, record.context, predicate)


def sign_void(signer: Signer, record: AttemptRecord, *, missing: Sequence[str]) -> bytes:
    """An attempt came to nothing because ``missing`` firms did not answer in its context."""
    predicate = {**record.predicate(), "missing": list(missing)}
    return signer.sign(VOID_KIND, record.run, record.context, predicate)


def sum_digest(integers: bytes) -> bytes:
    """Hash of an integer sum's little-endian int32 bytes, 32 bytes."""
    return tagged_hash("greylag/sum/v1", integers)
