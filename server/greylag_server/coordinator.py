"""The lead's side of a run: a state machine without transport, clock or threads.

    offering --enough firms accepted--> training --all rounds, or no way on--> closing --> over

    per firm:  Offer -> (Asking -> Ask to others -> Seen -> Offer ->) Accepted -> Round, Round, ...

It is fed events (``appeared``, ``receive``, ``lost``, ``deadline``) and returns the messages to
send; what must survive a crash is in the store before a message that depends on it is returned.

An attempt is all or nothing. A firm that fails voids it; the next attempt has a strictly smaller
roster, new one-time keys and wholly fresh contributions. A firm that voided two attempts is out;
others may come back at every ``REJOIN_EVERY``-th round. After a crash the attempt in flight is sent
again, byte for byte: firms that had answered repeat themselves, and nothing new is released.
"""

import logging
from collections import Counter
from collections.abc import Callable

import numpy as np
from greylag_protocols import log
from greylag_protocols.errors import ConfigError, GreylagError, VerificationError
from greylag_protocols.log import AttemptRecord
from greylag_protocols.membership import Membership, revoked_in
from greylag_protocols.messages import (
    Accepted,
    Asking,
    Close,
    Closed,
    Contribution,
    Refusal,
    Round,
    Seen,
)
from greylag_protocols.optimiser import ModelState, take_step
from greylag_protocols.parameters import initial_weights
from greylag_protocols.parsing import parse_coordinator_message, parse_firm_message
from greylag_protocols.round import initial_seed
from greylag_protocols.signing import Signer, verify_statement
from greylag_protocols.terms import REJOIN_EVERY, Terms, terms_digest
from numpy.typing import NDArray

from greylag_server.books import Books
from greylag_server.flight import Flight, Send, make_round
from greylag_server.offers import Offers
from greylag_server.roster import Firm, acceptance_in, candidates
from greylag_server.steering import cancel_reason
from greylag_server.store import RunRecord, RunStatus, Store
from greylag_server.vouching import Vouching
from greylag_server.witnesses import Witnesses

logger = logging.getLogger(__name__)


class Coordinator:
    """One run.

    Args:
        record: the stored run, opened; a half-done one is taken up where it stopped.
        watch_sum: shown every decoded integer sum (tests compare it with what firms put in).
    """

    def __init__(
        self,
        record: RunRecord,
        *,
        terms: Terms,
        membership: Membership,
        signer: Signer,
        store: Store,
        watch_sum: Callable[[NDArray[np.int32]], None] = lambda _: None,
    ) -> None:
        if record.membership is None:
            raise ConfigError(f"run {record.run} was never opened with a membership")
        self.terms = terms
        self.status: RunStatus = record.status
        self.reason = record.reason
        self.attempts = record.attempts
        self.roster = record.roster
        self._retrying = record.retrying
        self._run = record.run
        self._wanted = record.firms
        self._membership = membership
        self._store = store
        self._watch_sum = watch_sum
        self._digest = terms_digest(record.terms)
        self._books = Books(
            store, run=record.run, terms=terms, terms_digest=self._digest, signer=signer
        )
        self._witnesses = Witnesses(store, signer)
        self._offers = Offers(
            store,
            self._witnesses,
            run=record.run,
            terms=record.terms,
            membership=record.membership,
            membership_digest=membership.digest(),
        )
        self._state = record.state
        self.refusals: Counter[str] = Counter()  # by class, since this process took the run up
        self.voided = 0  # attempts, since then
        self._flight: Flight | None = None
        needed = terms.privacy.max_colluding + 1
        self._wish = store.last_wish(record.run)
        self._vouching = Vouching(record.run, membership=membership, needed=needed)
        self._shown: set[bytes] = set()  # key batches that every open session has been sent
        self._firms = self._books.firms(membership)
        if record.frame is not None and self.status == "training":
            message = parse_coordinator_message(record.frame)
            if isinstance(message, Round):  # what was in flight when the process ended
                self._flight = Flight.of(message, record.frame, terms, self._digest)

    # -- what the shell asks -------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.status in ("done", "failed")

    @property
    def settled(self) -> bool:
        """Whether every firm that accepted has also closed."""
        return all(item.closed for item in self._firms.values() if item.accepted)

    @property
    def held(self) -> bool:
        """Whether an operator's pause keeps the run from going on."""
        waiting = self._flight is None and self.status in ("offering", "training")
        return waiting and self._wish is not None and self._wish.wish == "pause"

    @property
    def waiting(self) -> int:
        """Firms whose answers to the attempt under way are missing."""
        return 0 if self._flight is None else len(self._flight.waiting)

    @property
    def run(self) -> str:
        """The run's id."""
        return self._run

    @property
    def voids(self) -> int:
        """How often a firm's silence voided an attempt so far."""
        return sum(item.voids for item in self._firms.values())

    @property
    def rounds_done(self) -> int:
        """Completed rounds."""
        return 0 if self._state is None else self._state.rounds_done

    @property
    def members(self) -> tuple[str, ...]:
        """The consortium's firms under this run's membership."""
        return tuple(self._firms)

    @property
    def accepted(self) -> int:
        """Number of firms that accepted the terms."""
        return sum(item.accepted for item in self._firms.values())

    # -- events --------------------------------------------------------------------------------

    def appeared(self, name: str) -> list[Send]:
        """A firm's agent is connected (again): it gets what it needs to take part."""
        firm = self._firms.get(name)
        if firm is None:
            return []
        firm.online, firm.refused = True, False
        if self.over or self.status == "closing":
            return [self._close(firm)] if firm.accepted and not firm.closed else []
        if self._flight is not None:
            # It may have been restarted; if so it refuses, and the attempt is void.
            waiting = name in self._flight.waiting
            firm.batch = firm.batch if waiting else None
            return [Send(name, self._flight.frame, is_round=True)] if waiting else []
        firm.batch = None
        if self.status == "training":
            return [*self._begin_attempt(), *self._carry_questions()]
        return [self._offer(firm), *self._carry_questions()]

    def receive(self, name: str, frame: bytes) -> list[Send]:
        """A firm answered."""
        firm = self._firms.get(name)
        if firm is None:
            return []
        try:
            message = parse_firm_message(frame)
            if message.run != self._run:
                raise VerificationError("an answer for another run")
            if isinstance(message, Asking):
                firm.log_size, firm.held = message.log_size, message.seq
                self._vouching.open(name, message.nonce)
                return self._carry_questions()
            if isinstance(message, Seen):
                self._vouching.take(name, message.statements)
                return self._carry_questions()
            if isinstance(message, Accepted):
                return self._take_acceptance(firm, message)
            if isinstance(message, Contribution):
                return self._take_contribution(firm, message)
            if isinstance(message, Closed):
                return self._take_closed(firm, message)
            if isinstance(message, Refusal):
                return self._take_refusal(firm, message)
            raise VerificationError("an answer to what was not asked")
        except GreylagError as error:
            logger.warning("%s: %s: %s", self._run, name, error)
            firm.refused = True
            return self._failed(firm)

    def reconsider(self) -> list[Send]:
        """Firms that refused the offer are asked again when somebody endorsed the member list."""
        if self.status != "offering" or not self._offers.outdated():
            return []
        again = [item for item in self._firms.values() if item.online and item.refused]
        for firm in again:
            firm.refused = False
        return [self._offer(firm) for firm in again]

    def obey(self) -> list[Send]:
        """Do what an operator asked for meanwhile, between two rounds."""
        last, self._wish = self._wish, self._store.last_wish(self._run)
        if self._wish is None or self.status not in ("offering", "training"):
            return []
        if self._wish != last:
            logger.info("%s: %s, asked for by %s", self._run, self._wish.wish, self._wish.who)
        elif self._wish.wish != "cancel":  # that may have been asked of a process before this
            return []
        if self._wish.wish == "cancel" and self.status == "offering":
            return self._begin_closing(cancel_reason(self._wish))
        return self._begin_attempt()

    def lost(self, name: str) -> list[Send]:
        """A firm's agent is gone."""
        firm = self._firms.get(name)
        if firm is None:
            return []
        firm.online = False
        self._vouching.drop(name)
        return [*self._failed(firm), *self._carry_questions()]

    def deadline(self) -> list[Send]:
        """Time is up for whatever is being waited for."""
        if self._flight is not None:
            return self._void(self._flight, sorted(self._flight.waiting))
        if self.status == "offering":
            return self._start_training()
        if self.status == "closing":
            self._end()
            return []
        for firm in self._firms.values():
            firm.refused = firm.refused or firm.asked
            firm.asked = False
        return self._begin_attempt(final=True)

    # -- offering ------------------------------------------------------------------------------

    def _offer(self, firm: Firm, peers: tuple[bytes, ...] = ()) -> Send:
        return self._offers.make(firm, next_attempt=self.attempts + 1, peers=peers)

    def _carry_questions(self) -> list[Send]:
        """Questions of started firms to others, and their answers back."""
        online = [item.name for item in self._firms.values() if item.online]
        asks = [Send(peer, ask.encode()) for peer, ask in self._vouching.asks(online)]
        ready = self._vouching.ready()
        return asks + [self._offer(self._firms[name], peers) for name, peers in ready.items()]

    def _take_acceptance(self, firm: Firm, message: Accepted) -> list[Send]:
        tip, fresh = firm.follow(message.entries)
        firm.take_batch(message.batch, run=self._run, membership=self._membership)
        firm.log_size = message.log_size
        acceptance = acceptance_in(fresh, self._digest)
        if acceptance is None and not firm.accepted:
            raise VerificationError("no acceptance of these terms among its entries")
        self._books.follow(firm, tip, fresh, acceptance=acceptance)
        firm.accepted, firm.asked = True, False
        self._shown.clear()  # its session is new and knows nobody's keys
        if self.status == "offering":
            ready = sum(item.has_key(1) for item in self._firms.values())
            return self._start_training() if ready >= self._wanted else []
        return self._begin_attempt()

    def _start_training(self) -> list[Send]:
        present = [item for item in self._standing() if item.able and item.has_key(1)]
        least = self.terms.privacy.min_firms
        if len(present) < least:
            return self._begin_closing(f"only {len(present)} firms accepted; min_firms is {least}")
        acceptances = [item.acceptance for item in self._store.participants(self._run)]
        seed = initial_seed(self._digest, acceptances)
        self._state = ModelState.start(initial_weights(seed, self.terms.parameters))
        self._books.started(acceptances, self._state)
        self.status = "training"
        return self._begin_attempt()

    # -- attempts ------------------------------------------------------------------------------

    def _begin_attempt(self, *, final: bool = False) -> list[Send]:
        """Send the next attempt, or what has to come before it, or begin to close.

        ``final``: waiting for more firms or keys is over.
        """
        if self.status != "training" or self._flight is not None or self._state is None:
            return []
        if self._state.rounds_done >= self.terms.training.rounds:
            return self._begin_closing("")
        if self._wish is not None and self._wish.wish == "cancel":
            return self._begin_closing(cancel_reason(self._wish))
        if self.held:
            return []
        able = candidates(
            self._standing(),
            last=self.roster,
            rounds_done=self.rounds_done,
            retrying=self._retrying,
        )
        # A firm's ledger may be ahead of this store (restored from a backup): follow it.
        firsts = [item.batch.facts.first for item in able if item.batch is not None]
        number = max([self.attempts + 1, *firsts])
        if number > self.terms.privacy.max_attempts:
            return self._begin_closing(f"max_attempts used up after {self.attempts} attempts")
        lacking = [item for item in able if not item.has_key(number)]
        if lacking and not final:
            return [self._offer(item) for item in lacking if not item.asked]
        present = [item for item in able if item.has_key(number)]
        least = self.terms.privacy.min_firms
        if len(present) < least:
            if final:
                return self._begin_closing(f"only {len(present)} firms left; min_firms is {least}")
            return []  # firms may still connect; the shell's deadline ends the wait
        return self._send_attempt(number, present, self._state)

    def _standing(self) -> list[Firm]:
        """The firms whose identities nobody has revoked."""
        revoked = revoked_in(self._membership, self._store.revocations())
        return [item for item in self._firms.values() if item.name not in revoked]

    def _send_attempt(self, number: int, present: list[Firm], state: ModelState) -> list[Send]:
        message = make_round(
            self._run,
            number=number,
            round_number=state.rounds_done + 1,
            log_view=self._witnesses.view(item.log_size for item in present),
            witnesses=self._witnesses,
            weights=state.published(),
            firms=present,
            shown=self._shown,
        )
        frame = message.encode()
        self._books.sent(message, frame)
        self.attempts, self.roster = number, message.roster
        self._shown.update(item.statement for item in present)
        self._flight = Flight.of(message, frame, self.terms, self._digest)
        return [Send(name, frame, is_round=True) for name in message.roster]

    def _take_contribution(self, firm: Firm, message: Contribution) -> list[Send]:
        flight = self._flight
        tip, fresh = firm.follow(message.entries)
        if flight is None or message.attempt != flight.attempt.attempt:
            # Late: the attempt is void, but its receipt belongs in the log.
            self._books.follow(firm, tip, fresh)
            return []
        if firm.name not in flight.waiting:
            return []
        if message.batch is not None:
            firm.take_batch(message.batch, run=self._run, membership=self._membership)
        flight.add(firm, message, fresh)
        firm.tip = tip
        return self._complete(flight) if not flight.waiting else []

    def _complete(self, flight: Flight) -> list[Send]:
        """The whole roster answered: decode, step, and make it durable in one transaction."""
        if self._state is None:
            return []
        grid = self.terms.grid(len(flight.attempt.roster))
        try:
            integers = grid.decode(flight.total)
        except VerificationError as error:
            # Nobody can tell who answered out of context, so no smaller roster would be better.
            logger.error("%s: %s", self._run, error)
            self._record_void(flight, [])
            return self._begin_closing(str(error))
        self._watch_sum(integers)
        state = take_step(
            self._state,
            integers,
            rule=self.terms.step_rule,
            grid_step=grid.step,
            denominator=self.terms.denominator,
            noise_variance=self.terms.noise_variance(grid.firms),
        )
        self._books.completed(flight, self._attempt_record(flight), integers, grid, state)
        self._witnesses.completed(flight.attempt.checkpoint, flight.words)
        self._state, self._flight, self._retrying = state, None, False
        if self.rounds_done % REJOIN_EVERY == 0:
            for firm in self._firms.values():  # who refused may have thought better of it
                if firm.refused:
                    firm.refused, firm.batch = False, None
        return self._begin_attempt()

    def _failed(self, firm: Firm) -> list[Send]:
        """A firm is gone, refused or answered wrongly."""
        firm.asked = False
        if self._flight is not None and firm.name in self._flight.waiting:
            return self._void(self._flight, [firm.name])
        return self._begin_attempt() if self._flight is None else []

    def _void(self, flight: Flight, missing: list[str]) -> list[Send]:
        """The attempt comes to nothing; the next has a smaller roster."""
        self._record_void(flight, missing)
        return self._begin_attempt()

    def _record_void(self, flight: Flight, missing: list[str]) -> None:
        left = [name for name in self.roster if name not in missing]
        self.voided += 1
        self._books.voided(flight, self._attempt_record(flight), missing=missing, left=left)
        for name in missing:
            self._firms[name].voids += 1
            self._firms[name].batch = None
        self.roster, self._retrying, self._flight = tuple(left), True, None

    def _attempt_record(self, flight: Flight) -> AttemptRecord:
        return flight.record(self._run, [self._firms[name].tip for name in flight.attempt.firms])

    # -- refusals and closing ------------------------------------------------------------------

    def _take_refusal(self, firm: Firm, message: Refusal) -> list[Send]:
        verify_statement(message.statement, firm.identity_key, log.REFUSAL_KIND)
        logger.warning("%s: %s refused (%s)", self._run, firm.name, message.refusal_class)
        self._books.refused(message.statement)
        self.refusals[message.refusal_class] += 1
        firm.refused = True
        return self._failed(firm)

    def _begin_closing(self, reason: str) -> list[Send]:
        self.reason = reason
        self._move("closing")
        closing = [item for item in self._firms.values() if item.accepted and not item.closed]
        sends = [self._close(item) for item in closing if item.online]
        if not sends:
            self._end()
        return sends

    def _close(self, firm: Firm) -> Send:
        return Send(firm.name, Close(run=self._run, seen=firm.tip.seq).encode())

    def _take_closed(self, firm: Firm, message: Closed) -> list[Send]:
        tip, fresh = firm.follow(message.entries)
        self._books.follow(firm, tip, fresh, closed=True)
        firm.closed = True
        waiting = any(
            item.accepted and item.online and not item.closed for item in self._firms.values()
        )
        if self.status == "closing" and not waiting:
            self._end()
        return []

    def _end(self) -> None:
        self._move("done" if self.rounds_done else "failed")

    def _move(self, status: RunStatus) -> None:
        self._books.move(status, self.reason)
        self.status = status
