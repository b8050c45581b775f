"""What a run's transitions leave behind: each method is one durable transaction.

The coordinator decides, this writes. A message that depends on a fact is sent only after the method
that wrote the fact has returned, so that a process which dies at any point can go on.
"""

import logging
from collections.abc import Sequence

import numpy as np
from greylag_protocols import log
from greylag_protocols.log import AttemptRecord, ChainTip
from greylag_protocols.membership import Membership
from greylag_protocols.messages import Round
from greylag_protocols.optimiser import ModelState
from greylag_protocols.quantise import RingGrid
from greylag_protocols.signing import Signer
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_server.flight import Flight
from greylag_server.roster import MAX_VOIDS, Firm
from greylag_server.store import RunStatus, Store

logger = logging.getLogger(__name__)


class Books:
    """The log and state of one run."""

    def __init__(
        self, store: Store, *, run: str, terms: Terms, terms_digest: bytes, signer: Signer
    ) -> None:
        self._store = store
        self._run = run
        self._terms = terms
        self._digest = terms_digest
        self._signer = signer

    def firms(self, membership: Membership) -> dict[str, Firm]:
        """The members by name, as the store knows them."""
        firms = {
            member.name: Firm(
                name=member.name,
                identity_key=member.identity_key,
                tip=self._store.tip(member.name),
            )
            for member in membership.members
        }
        for participant in self._store.participants(self._run):
            firm = firms[participant.firm]
            firm.accepted, firm.voids, firm.closed = True, participant.voids, participant.closed
        return firms

    def move(self, status: RunStatus, reason: str) -> None:
        """The run enters another state."""
        with self._store.transaction():
            self._store.set_status(self._run, status, reason)

    def follow(
        self,
        firm: Firm,
        tip: ChainTip,
        fresh: Sequence[bytes],
        *,
        acceptance: bytes | None = None,
        closed: bool = False,
    ) -> None:
        """Entries of a firm's chain outside of an attempt, and what they mean for the run."""
        with self._store.transaction():
            self._store.append(fresh)
            self._store.set_tip(firm.name, tip)
            if acceptance is not None:
                self._store.add_participant(self._run, firm.name, acceptance)
            if closed:
                self._store.set_closed(self._run, firm.name)
        firm.tip = tip

    def refused(self, statement: bytes) -> None:
        """A firm declined."""
        with self._store.transaction():
            self._store.append([statement])

    def started(self, acceptances: Sequence[bytes], state: ModelState) -> None:
        """Training begins with ``state``."""
        entry = log.sign_start(
            self._signer,
            run=self._run,
            terms=self._digest,
            acceptances=acceptances,
            state=state.digest(),
        )
        with self._store.transaction():
            self._store.append([entry])
            self._store.save_state(self._run, state)
            self._store.set_status(self._run, "training")

    def sent(self, message: Round, frame: bytes) -> None:
        """An attempt is about to go out; its number is never used for anything else."""
        with self._store.transaction():
            self._store.save_attempt(self._run, message.attempt, message.roster, frame)

    def completed(
        self,
        flight: Flight,
        record: AttemptRecord,
        integers: NDArray[np.int32],
        grid: RingGrid,
        state: ModelState,
    ) -> None:
        """A round: its receipts, the sum that was decoded, and the state that follows."""
        content = integers.astype("<i4").tobytes()
        digest = log.sum_digest(content)
        entry = log.sign_round(
            self._signer,
            record,
            model_in=flight.attempt.model,
            state_out=state.digest(),
            sum_digest=digest,
            grid_step=grid.step.hex(),
            event_type=self._terms.mechanism.event_type,
        )
        with self._store.transaction():
            self._end(flight, record, entry, left=record.roster, retrying=False)
            self._store.keep(digest, content)
            self._store.save_state(self._run, state)

    def voided(
        self,
        flight: Flight,
        record: AttemptRecord,
        *,
        missing: Sequence[str],
        left: Sequence[str],
    ) -> None:
        """An attempt that came to nothing; what was received of receipts is logged all the same."""
        entry = log.sign_void(self._signer, record, missing=missing)
        with self._store.transaction():
            self._end(flight, record, entry, left=left, retrying=True)
            for name in missing:
                self._store.count_void(self._run, name)
        logger.warning(
            "%s: attempt %d is void: %s did not answer (a firm that voids %d is out of the run)",
            self._run,
            record.attempt,
            ", ".join(missing) or "nobody",
            MAX_VOIDS,
        )

    def _end(
        self,
        flight: Flight,
        record: AttemptRecord,
        entry: bytes,
        *,
        left: Sequence[str],
        retrying: bool,
    ) -> None:
        self._store.append([*flight.entries, entry])
        self._store.keep_cosignatures(flight.attempt.checkpoint, flight.words)
        for name, tip in zip(record.roster, record.tips, strict=True):
            self._store.set_tip(name, tip)
        self._store.end_attempt(self._run, left, retrying=retrying)
