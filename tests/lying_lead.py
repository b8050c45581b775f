"""A lead's hand on a consortium in memory: it builds its messages itself, honest ones and lies.

The firm under attack is ``firm-a``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from consortium_in_memory import Consortium, Firm
from greylag_protocols.keys import prove_batch
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
from greylag_protocols.parsing import parse_firm_message
from greylag_protocols.signing import parse_statement

ALL = ("firm-a", "firm-b", "firm-c", "firm-d")


class Lead:
    """The lead's hand on a consortium: offers, rounds, and what it knows of every firm's keys."""

    def __init__(self, consortium: Consortium) -> None:
        self.consortium = consortium
        self.run = consortium.terms.run_id
        self.batches: dict[str, tuple[SignedBatch, int]] = {}
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
        )
        return replace(offer, **changes)

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
        return Round(
            run=self.run,
            round_number=attempt if round_number is None else round_number,
            attempt=attempt,
            log_size=10 + attempt,
            log_root=bytes([attempt] * 32),
            roster=tuple(roster),
            seen=tuple(0 for _ in roster),
            keys=tuple(keys[name] for name in roster),
            proofs=tuple(proofs[name] for name in roster),
            batches=tuple(self.batches[name][0].statement for name in roster),
            weights=self.weights,
        )

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
