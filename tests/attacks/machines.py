"""Machines under attack: watched, copied, set back; and what the other firms say of them."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from consortium_in_memory import Consortium, Firm, make_terms
from greylag_client.ledger import Ledger
from greylag_client.participant import Participant
from greylag_client.session import ClippedSums, OneTable
from greylag_protocols.messages import Ask, Contribution, Round, Seen
from greylag_protocols.terms import Terms
from lying_lead import ALL, Lead
from numpy.typing import NDArray

Weights, Units, Sums = NDArray[np.float32], NDArray[np.intp], NDArray[np.float64]
WIDE = 900  # hidden units: 5,402 weights, enough for a statistic to mean something


def wide(terms: Terms) -> Terms:
    """The same run with more weights."""
    return replace(terms, model=replace(terms.model, hidden=(WIDE,)))


@dataclass
class Watched:
    """An engine that remembers the clipped sums it gave away."""

    engine: ClippedSums
    sums: list[NDArray[np.float64]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.engine)

    def clipped_sum(
        self, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        self.sums.append(self.engine.clipped_sum(weights, units))
        return self.sums[-1]


def watched_lead(root: Path, terms: Terms, **options: object) -> Lead:
    """A lead over a consortium below ``root`` whose firms' engines are watched."""
    place = root / f"consortium-{len(list(root.iterdir()))}"
    place.mkdir()
    consortium = Consortium(place, terms=terms, **options)  # type: ignore[arg-type]
    for firm in consortium.firms.values():
        firm.load_engine = watching(firm.load_engine)
        firm.restart()
    return Lead(consortium)


def watching(load: Callable[[Terms], ClippedSums]) -> Callable[[Terms], ClippedSums]:
    return lambda terms: Watched(load(terms))


def sums_of(participant: Participant, run: str) -> list[NDArray[np.float64]]:
    """The clipped sums that a participant's watched engine gave away."""
    engine = participant._sessions[run].engine
    assert isinstance(engine, Watched)
    return engine.sums


def answered(by: Participant, message: Round) -> Contribution:
    reply = by.handle(message)
    assert isinstance(reply, Contribution)
    return reply


def copy_of(firm: Firm, *, memory: bool, own_ledger: bool = True) -> Participant:
    """A copy of a firm as it is now: its ledger's file and, if wanted, its process's memory."""
    ledger = Ledger(keep_copy(firm)) if own_ledger else firm.ledger
    copy = Participant(
        identity=firm.identity,
        policy=lambda: firm.policy,
        ledger=ledger,
        memberships=firm.memberships,
        data=OneTable(firm.load_engine),
        masker=firm.masks,
        entropy=firm.participant._entropy,
        clock=firm.clock,
    )
    if memory:
        copy._peers.vouched_for, copy._peers.nonce = (
            firm.participant._peers.vouched_for,
            firm.participant._peers.nonce,
        )
        for run, session in firm.participant._sessions.items():
            keys, batches = deepcopy(session.keys), dict(session.batches)
            copy._sessions[run] = replace(session, keys=keys, batches=batches)
    return copy


def keep_copy(firm: Firm) -> Path:
    """A backup of a firm's ledger."""
    path = firm.root / f"backup-{len(list(firm.root.iterdir()))}"
    with closing(sqlite3.connect(path)) as target:
        firm.ledger._db.backup(target)
    return path


def put_back(firm: Firm, backup: Path) -> None:
    """The backup is restored, and the agent started; its security officer suspects nothing."""
    for path in firm.root.glob("ledger.sqlite*"):
        path.unlink()
    shutil.copy(backup, firm.root / "ledger.sqlite")
    firm.restart()  # closes the file that was unlinked, opens the one in its place


def spend(lead: Lead, attempts: range) -> None:
    """The victim answers some attempts."""
    for attempt in attempts:
        lead.answered(lead.round(attempt))


def show_keys(lead: Lead, attempt: int) -> None:
    """The victim's next batch, and with it how far its ledger is, reaches the other firms."""
    lead.enter("firm-a", next_attempt=attempt)
    for name in ALL[1:]:
        answered(lead.consortium.firms[name].participant, lead.round(attempt))


def words(lead: Lead, nonce: str, *peers: str) -> tuple[bytes, ...]:
    """What peers say that they saw of the victim."""
    ask = Ask(run=lead.run, firms=("firm-a",), nonces=(nonce,))
    replies = [lead.consortium.firms[name].participant.handle(ask) for name in peers]
    return tuple(item for reply in replies if isinstance(reply, Seen) for item in reply.statements)


@dataclass
class Tripwire:
    """An engine in which something happens whenever record 0 was sampled."""

    engine: ClippedSums
    then: Callable[[Sums], Sums]
    sampled: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.engine)

    def clipped_sum(self, weights: Weights, units: Units) -> Sums:
        self.sampled.append(0 in units)
        total = self.engine.clipped_sum(weights, units)
        return self.then(total) if self.sampled[-1] else total


def tripwire_lead(root: Path, then: Callable[[Sums], Sums]) -> tuple[Lead, Tripwire]:
    """A lead whose victim's record 0 trips something; all draws are the same every time."""
    lead = Lead(Consortium(root, terms=make_terms(rounds=8)))
    victim = lead.victim
    engine = Tripwire(victim.load_engine(lead.consortium.terms), then)
    victim.load_engine = lambda _: engine
    victim.restart()
    for at, firm in enumerate(lead.consortium.firms.values()):
        firm.participant._entropy = np.random.default_rng(at).bytes
    return lead.enter(), engine
