"""A lead's hand on a consortium in memory: it builds its messages itself, honest ones and lies.

The firm under attack is ``firm-a``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from consortium_in_memory import NAME, NOW_S, Consortium, Firm
from greylag_client.participant import Participant
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.keys import prove_batch
from greylag_protocols.log_view import LogView, choose_cosigners, show_log
from greylag_protocols.merkle import hash_leaf, root_of
from greylag_protocols.messages import (
    Accepted,
    Ask,
    Asking,
    Close,
    Contribution,
    Offer,
    Refusal,
    Round,
    Seen,
    SignedBatch,
)
from greylag_protocols.notes import cosign
from greylag_protocols.parsing import parse_firm_message
from greylag_protocols.round import roster_keys_digest
from greylag_protocols.signing import parse_statement

ALL = ("firm-a", "firm-b", "firm-c", "firm-d")


class Lead:
    """The lead's hand on a consortium: offers, rounds, and what it knows of every firm's keys."""

    def __init__(self, consortium: Consortium) -> None:
        self.consortium = consortium
        self.run = consortium.terms.run_id
        self.batches: dict[str, tuple[SignedBatch, int]] = {}
        self.log_size = 10
        self.logged: dict[int, bytes] = {}  # entries in the log; others are stand-ins
        self.weights = np.zeros(consortium.terms.dimension, dtype=np.float32)

    @property
    def victim(self) -> Firm:
        return self.consortium.firms["firm-a"]

    def offer(self, **changes: Any) -> Offer:
        offer = Offer(
            run=self.run,
            next_attempt=1,
            seen=0,
            terms=self.consortium.encoded,
            membership=self.consortium.signed,
            log=self.view(self.log_size),
        )
        return replace(offer, **changes)

    def view(self, size: int, *, last: str = "") -> LogView:
        """A log of so many entries, shown from the first on; the last can be another one."""
        leaves = [
            hash_leaf(self.logged.get(number, str(number).encode())) for number in range(size)
        ]
        if last:
            leaves[-1] = hash_leaf(last.encode())
        checkpoint = Checkpoint(origin=NAME, size=size, root=root_of(leaves))
        return show_log(self.consortium.lead, checkpoint, leaves)

    def write(self, *entries: bytes) -> None:
        """Entries go into the log."""
        for entry in entries:
            self.logged[self.log_size] = entry
            self.log_size += 1

    def handing_over(self, *entries: bytes, seen: int, **changes: Any) -> Offer:
        """An offer with entries of the victim's chain, of which the log is said to hold so many."""
        facts = {"seen": seen, "entries": entries, "past": (self.consortium.encoded,)}
        return self.offer(**facts | changes)

    def with_words(self, message: Round, participant: Participant | None = None) -> Round:
        """The message with the cosignatures that a firm wants to see: of firms that saw the log as
        it did at the last attempt that it answered."""
        participant = participant or self.victim.participant
        session = participant._sessions.get(self.run)
        account = participant._ledger.account(self.run)
        if session is None or session.last_log is None or account is None:
            return replace(message, cosigned=0, cosignatures=())
        last, firms = session.last_log, self.consortium.firms
        both = [name for name in message.roster if name in account.roster]
        chosen = choose_cosigners(both, context=roster_keys_digest(message.keys))
        words = tuple(cosign(firms[name].signer, last, time_s=int(NOW_S)) for name in chosen)
        return replace(message, cosigned=last.size, cosignatures=words)

    def enter(self, *names: str, next_attempt: int = 1) -> "Lead":
        """Offer the run to firms and take their keys."""
        for name in names or self.consortium.firms:
            self.take_batch(name, self.accepted(name, next_attempt=next_attempt).batch)
        return self

    def accepted(self, name: str, **changes: Any) -> Accepted:
        """Offer the run to a firm, carry its question to the others, and offer again."""
        participant = self.consortium.firms[name].participant
        reply = participant.handle(self.offer(**changes))
        if isinstance(reply, Asking):
            peers = self.answers(name, reply.nonce)
            reply = participant.handle(self.offer(peers=peers, **changes))
        assert isinstance(reply, Accepted)
        return reply

    def enter_with(self, offer: Offer) -> Accepted:
        """The victim takes this offer, once the other firms have had their say, and gives keys."""
        asking = self.victim.participant.handle(offer)
        assert isinstance(asking, Asking)
        peers = self.answers("firm-a", asking.nonce)
        reply = self.victim.participant.handle(replace(offer, peers=peers))
        assert isinstance(reply, Accepted), self.victim.ledger.refusals.newest(1)
        self.take_batch("firm-a", reply.batch)
        return reply

    def asked(self, name: str, **changes: Any) -> str | None:
        """The nonce that a firm asks with when it is offered the run; None if it does not ask."""
        reply = self.consortium.firms[name].participant.handle(self.offer(**changes))
        return reply.nonce if isinstance(reply, Asking) else None

    def answers(self, about: str, nonce: str) -> tuple[bytes, ...]:
        """What every other firm says it saw of a firm that has just started."""
        statements: list[bytes] = []
        ask = Ask(run=self.run, firms=(about,), nonces=(nonce,))
        for name, firm in self.consortium.firms.items():
            if name != about:
                reply = firm.participant.handle(ask)
                assert isinstance(reply, Seen)
                statements += reply.statements
        return tuple(statements)

    def take_batch(self, name: str, batch: SignedBatch) -> None:
        self.batches[name] = batch, parse_statement(batch.statement).predicate["first"]

    def round(
        self, attempt: int, round_number: int | None = None, roster: Sequence[str] = ALL
    ) -> Round:
        """An honest round message, as the coordinator would make it."""
        keys = {name: batch.keys[attempt - first] for name, (batch, first) in self.batches.items()}
        proofs = {
            name: prove_batch(batch.keys, first)[1][attempt - first]
            for name, (batch, first) in self.batches.items()
        }
        self.log_size = max(self.log_size, 10 + attempt)
        message = Round(
            run=self.run,
            round_number=attempt if round_number is None else round_number,
            attempt=attempt,
            log=self.view(self.log_size),
            cosigned=0,
            cosignatures=(),
            roster=tuple(roster),
            seen=tuple(0 for _ in roster),
            keys=tuple(keys[name] for name in roster),
            proofs=tuple(proofs[name] for name in roster),
            batches=tuple(self.batches[name][0].statement for name in roster),
            weights=self.weights,
        )
        return self.with_words(message)

    def answered(self, message: Round) -> Contribution:
        reply = self.victim.participant.handle(message)
        assert isinstance(reply, Contribution)
        return reply

    def refused(self, message: Offer | Round | Close, reason: str) -> Refusal:
        """The victim refuses for ``reason``, pays nothing and says nothing about it."""
        tip, accounts = self.victim.ledger.tip(), self.victim.ledger.accounts()
        reply = self.victim.participant.handle(message)
        if isinstance(reply, Asking) and isinstance(message, Offer):
            peers = self.answers("firm-a", reply.nonce)
            reply = self.victim.participant.handle(replace(message, peers=peers))
        frame = reply.encode()
        refusal = parse_firm_message(frame)
        assert isinstance(refusal, Refusal)
        told = self.victim.ledger.refusals.newest(1)[0]
        assert reason in f"refused ({told.refusal_class}): {told.reason}"
        for word in (reason, *reason.split()):
            assert len(word) < 6 or word.encode() not in frame
        expected = {"firm": "firm-a", "class": refusal.refusal_class}
        assert parse_statement(refusal.statement).predicate == expected
        assert (self.victim.ledger.tip(), self.victim.ledger.accounts()) == (tip, accounts)
        return refusal
