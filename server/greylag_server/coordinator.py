"""The lead's side of a run: a state machine without transport, clock or threads.

    offering --enough firms accepted--> training --all rounds, or no way on--> closing --> over

It is fed events (``receive``, ``lost``, ``appeared``, ``deadline``) and returns the messages to send;
whatever must survive a crash is written to the store before a message that depends on it is returned.

An attempt is all or nothing. A firm that fails voids it; the next attempt has a strictly smaller
roster, new one-time keys and wholly fresh contributions. A firm that voided two attempts is out; others
may come back at every ``REJOIN_EVERY``-th round. After a crash the attempt in flight is sent again,
byte for byte: firms that had answered repeat themselves, and nothing new is released.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from greylag_protocols import log
from greylag_protocols.errors import GreylagError, VerificationError
from greylag_protocols.keys import VerifiedBatch, batch_leaves, prove_key, verify_batch
from greylag_protocols.log import AttemptRecord, ChainTip
from greylag_protocols.membership import Membership
from greylag_protocols.merkle import root_of
from greylag_protocols.messages import (
    Accepted,
    Close,
    Closed,
    Contribution,
    Offer,
    Refusal,
    Round,
    SignedBatch,
    parse_coordinator_message,
    parse_firm_message,
)
from greylag_protocols.optimiser import ModelState, model_digest, take_step
from greylag_protocols.parameters import initial_weights
from greylag_protocols.round import Attempt, RosterKey, initial_seed
from greylag_protocols.signing import Signer, parse_statement, verify_statement
from greylag_protocols.terms import REJOIN_EVERY, Terms, terms_digest
from numpy.typing import NDArray

from greylag_server.store import RunRecord, Store

logger = logging.getLogger(__name__)

MAX_VOIDS = 2


@dataclass(frozen=True, slots=True)
class Send:
    """A frame for a firm."""

    firm: str
    frame: bytes


@dataclass(slots=True, kw_only=True)
class _Firm:
    """What the coordinator knows of one firm in this run."""

    name: str
    identity_key: bytes
    tip: ChainTip
    accepted: bool = False
    online: bool = False
    voids: int = 0
    batch: VerifiedBatch | None = None
    statement: bytes = b""
    keys: tuple[bytes, ...] = ()
    closed: bool = False

    def has_key(self, attempt: int) -> bool:
        return self.batch is not None and attempt in self.batch.facts.attempts


@dataclass(slots=True, kw_only=True)
class _InFlight:
    """The attempt that is being answered; vectors are added as they come."""

    attempt: Attempt
    frame: bytes
    total: NDArray[np.uint32]
    waiting: set[str]
    entries: list[bytes] = field(default_factory=list)


class Coordinator:
    """One run.

    Args:
        record: the stored run, with its membership; a half-done one is taken up where it stopped.
    """

    def __init__(
        self,
        record: RunRecord,
        *,
        terms: Terms,
        membership: Membership,
        signer: Signer,
        store: Store,
    ) -> None:
        self.terms = terms
        self._record = record
        self._membership = membership
        self._signer = signer
        self._store = store
        self._digest = terms_digest(record.terms)
        self.status = record.status
        self.reason = record.reason
        self.attempts = record.attempts
        self.roster = record.roster
        self._state = record.state
        self._flight: _InFlight | None = None
        self._shown: set[bytes] = set()  # batches that every firm of the roster has been sent
        self._late: list[bytes] = []  # entries that came outside an attempt
        self._firms = {
            member.name: _Firm(
                name=member.name, identity_key=member.identity_key, tip=store.tip(member.name)
            )
            for member in membership.members
        }
        for participant in store.participants(record.run):
            self._firms[participant.firm].accepted = True
            self._firms[participant.firm].voids = participant.voids
        if record.frame is not None and self.status == "training":
            self._resume(record.frame)

    # -- what the shell asks -------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.status in ("done", "failed")

    @property
    def rounds_done(self) -> int:
        return 0 if self._state is None else self._state.rounds_done

    @property
    def waiting(self) -> frozenset[str]:
        """The firms whose answer is outstanding."""
        if self._flight is not None:
            return frozenset(self._flight.waiting)
        if self.status == "closing":
            open_firms = (item for item in self._firms.values() if item.accepted)
            return frozenset(item.name for item in open_firms if item.online and not item.closed)
        return frozenset()

    # -- events --------------------------------------------------------------------------------

    def appeared(self, firm: str) -> list[Send]:
        """A firm's agent is connected (again): it gets what it needs to take part."""
        known = self._firms.get(firm)
        if known is None or self.over:
            return []
        known.online = True
        if self.status == "closing":
            return self._close_one(known)
        if self._flight is not None and firm in self._flight.waiting:
            return [Send(firm, self._flight.frame)]
        if known.voids >= MAX_VOIDS or (self.status == "training" and not known.accepted):
            return []
        offer = Offer(
            run=self._record.run,
            next_attempt=self.attempts + 1,
            seen=known.tip.seq,
            terms=self._record.terms,
            membership=self._signed_membership,
        )
        return [Send(firm, offer.encode())]

    def receive(self, firm: str, frame: bytes) -> list[Send]:
        """A firm answered."""
        known = self._firms.get(firm)
        if known is None or self.over:
            return []
        try:
            message = parse_firm_message(frame)
            if message.run != self._record.run:
                raise VerificationError("an answer for another run")
            if isinstance(message, Accepted):
                return self._accepted(known, message)
            if isinstance(message, Contribution):
                return self._contributed(known, message)
            if isinstance(message, Closed):
                return self._closed(known, message)
            return self._refused(known, message)
        except GreylagError as error:
            logger.warning("%s: %s", firm, error)
            return self._failed(known)

    def lost(self, firm: str) -> list[Send]:
        """A firm's agent is gone."""
        known = self._firms.get(firm)
        if known is None or self.over:
            return []
        known.online = False
        return self._failed(known)

    def deadline(self) -> list[Send]:
        """Time is up for whatever is being waited for."""
        if self._flight is not None:
            return self._void(sorted(self._flight.waiting))
        if self.status == "offering":
            return self._start_training(complete=False)
        if self.status == "closing":
            self._end()
        return []

    def cancel(self, reason: str) -> list[Send]:
        """End the run early."""
        return self._begin_closing(reason)

    # -- offering ------------------------------------------------------------------------------

    @property
    def _signed_membership(self) -> "SignedMembership":
        if self._record.membership is None:
            raise VerificationError("the run has no membership; it was never opened")
        return self._record.membership

    def _accepted(self, firm: _Firm, message: Accepted) -> list[Send]:
        tip = self._follow(firm, message.entries)
        self._take_batch(firm, message.batch)
        acceptance = self._find_acceptance(message.entries)
        with self._store.transaction():
            self._store.append(message.entries)
            self._store.set_tip(firm.name, tip)
            if acceptance is not None:
                self._store.add_participant(self._record.run, firm.name, acceptance)
        firm.tip = tip
        firm.accepted = firm.accepted or acceptance is not None
        if self.status == "offering":
            return self._start_training(complete=True)
        return self._begin_attempt() if self._flight is None else []

    def _find_acceptance(self, entries: Sequence[bytes]) -> bytes | None:
        for envelope in entries:
            statement = parse_statement(envelope)
            if statement.kind == log.ACCEPTANCE_KIND and statement.digest == self._digest:
                return envelope
        return None

    def _start_training(self, *, complete: bool) -> list[Send]:
        accepted = [item for item in self._firms.values() if item.accepted]
        if complete and len(accepted) < self._record.firms:
            return []
        if len(accepted) < self.terms.privacy.min_firms:
            return self._begin_closing(
                f"{len(accepted)} firms accepted, min_firms is {self.terms.privacy.min_firms}",
                failed=True,
            )
        acceptances = [item.acceptance for item in self._store.participants(self._record.run)]
        weights = initial_weights(initial_seed(self._digest, acceptances), self.terms.parameters)
        self._state = ModelState.start(weights)
        with self._store.transaction():
            self._store.save_state(self._record.run, self._state)
            self._move("training")
        return self._begin_attempt()

    # -- attempts ------------------------------------------------------------------------------

    def _begin_attempt(self) -> list[Send]:
        """Send the next attempt, or begin to close when there is nothing more to do."""
        if self._state is None or self.status != "training":
            return []
        if self._state.rounds_done >= self.terms.training.rounds:
            return self._begin_closing("all rounds done")
        roster = self._next_roster()
        number = max(
            [self.attempts + 1, *(self._firms[name].batch.facts.first for name in roster)]
        )
        roster = [name for name in roster if self._firms[name].has_key(number)]
        if number > self.terms.privacy.max_attempts:
            return self._begin_closing(f"max_attempts used up after {self.attempts} attempts")
        if len(roster) < self.terms.privacy.min_firms:
            return self._await_firms(roster)
        message = self._compose(number, roster)
        frame = message.encode()
        with self._store.transaction():
            if self._late:
                self._store.append(self._late)
                self._late = []
            self._store.save_attempt(self._record.run, number, roster, frame)
        self.attempts, self.roster = number, tuple(roster)
        self._flight = self._open_flight(message, frame)
        return [Send(name, frame) for name in roster]

    def _next_roster(self) -> list[str]:
        """Firms that can take part, sorted; newcomers to the roster only at rejoining rounds."""
        able = [
            item.name
            for item in self._firms.values()
            if item.accepted and item.online and item.batch and item.voids < MAX_VOIDS
        ]
        if self.roster and self.rounds_done % REJOIN_EVERY:
            able = [name for name in able if name in self.roster]
        return sorted(able)
