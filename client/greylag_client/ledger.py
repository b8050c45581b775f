"""The firm's ledger: what was promised, what was spent, durably, before anything leaves.

SQLite with a write-ahead log and ``synchronous=FULL``: when a method returns, the disk has it.
Entries are the firm's own signed statements (see ``greylag_protocols.log``), chained and
append-only; the other tables can be derived from them but are kept in the same transactions.

Budget across runs: the sum of whole-run (epsilon, delta), by unit. A run is charged in full from
its first release on, however early it ends: when to stop is decided after seeing results, so a
part-price would not be a bound (which is also why no privacy filter is used here; whole runs whose
prices are fixed beforehand need none). Before its first release it only reserves.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

from greylag_protocols.accounting import cost_in_finer_unit
from greylag_protocols.errors import BudgetExceededError, RefusedError
from greylag_protocols.log import ChainTip, entry_head
from greylag_protocols.terms import Terms, Unit

from greylag_client.policy import Policy

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY CHECK (seq > 0),
    run TEXT NOT NULL,
    envelope BLOB NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_remain BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY,
    terms BLOB NOT NULL,
    dataset TEXT NOT NULL,
    unit TEXT NOT NULL,
    epsilon REAL NOT NULL,
    delta REAL NOT NULL,
    max_attempts INTEGER NOT NULL,
    charged INTEGER NOT NULL DEFAULT 0 CHECK (charged <= max_attempts),
    last_attempt INTEGER NOT NULL DEFAULT 0,
    last_round INTEGER NOT NULL DEFAULT 0,
    roster TEXT NOT NULL DEFAULT '',
    roster_changes INTEGER NOT NULL DEFAULT 0,
    closed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS peers (
    firm TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    head BLOB NOT NULL
) STRICT;
"""

SignEntry = Callable[[ChainTip], bytes]


UNITS: tuple[Unit, ...] = get_args(Unit)  # from fine to coarse


class Charge(NamedTuple):
    """What one whole run costs a unit of its own kind."""

    unit: Unit
    epsilon: float
    delta: float


def total_charge(charges: Sequence[Charge]) -> tuple[float, float]:
    """(epsilon, delta) of runs together, for the unit that comes off worst.

    Only units that some run promised to protect are looked at. A run of a coarser unit counts for a
    finer one as ``cost_in_finer_unit`` says; a run of a finer unit promises a coarser one nothing
    that could be added up, so a firm that wants groups protected must allow no ``record`` runs.
    """
    worst = (0.0, 0.0)
    for unit in {item.unit for item in charges}:
        costs = [
            (item.epsilon, item.delta)
            if item.unit == unit
            else cost_in_finer_unit(item.epsilon, item.delta)
            for item in charges
            if UNITS.index(item.unit) >= UNITS.index(unit)
        ]
        epsilon, delta = (sum(column) for column in zip(*costs, strict=True))
        worst = max(worst[0], epsilon), max(worst[1], delta)
    return worst


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccount:
    """A run as the ledger knows it. ``roster`` is that of the last attempt answered."""

    run: str
    terms: bytes
    dataset: str
    unit: Unit
    epsilon: float
    delta: float
    max_attempts: int
    charged: int
    last_attempt: int
    last_round: int
    roster: tuple[str, ...]
    roster_changes: int
    closed: bool

    @property
    def holds(self) -> bool:
        """Whether this run's epsilon counts against the limit: reserved, or spent."""
        return self.charged > 0 or not self.closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Debit:
    """What one attempt changes in a run's account."""

    run: str
    round_number: int
    attempt: int
    roster: tuple[str, ...]


class Ledger:
    """One firm's ledger. Every method is one transaction.

    Args:
        path: the SQLite file, or ``:memory:`` (only the lab's simulation keeps nothing).
    """

    def __init__(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        with self._transaction():
            for statement in _statements(SCHEMA):
                self._db.execute(statement)

    def close_file(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; a disk that does not take it refuses, and nothing is sent."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise RefusedError(
                f"the ledger could not be written ({error}); nothing was sent. Free disk space "
                "or end the other program that holds the file, then start the agent again",
                refusal_class="protocol",
            ) from None

    def tip(self) -> ChainTip:
        """Where the firm's chain stands."""
        row = self._db.execute(
            "SELECT seq, envelope FROM entries ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        return ChainTip() if row is None else ChainTip(seq=row[0], head=entry_head(row[1]))

    def entries_after(self, seq: int) -> tuple[bytes, ...]:
        """The envelopes of the chain behind ``seq``, in order."""
        rows = self._db.execute("SELECT envelope FROM entries WHERE seq > ? ORDER BY seq", (seq,))
        return tuple(row[0] for row in rows)

    def account(self, run: str) -> RunAccount | None:
        """One run's account, if the firm ever accepted it."""
        return next(self._accounts("WHERE run = ?", run), None)

    def accounts(self) -> list[RunAccount]:
        """All runs, in the order of acceptance."""
        return list(self._accounts("ORDER BY rowid"))

    def _accounts(self, clause: str, *values: str) -> Iterator[RunAccount]:
        columns = (
            "run, terms, dataset, unit, epsilon, delta, max_attempts, charged, last_attempt, "
            "last_round, roster, roster_changes, closed"
        )
        for row in self._db.execute(f"SELECT {columns} FROM runs {clause}", values):
            fields = dict(zip(columns.split(", "), row, strict=True))
            fields["roster"] = tuple(fields["roster"].split()) if fields["roster"] else ()
            fields["closed"] = bool(fields["closed"])
            yield RunAccount(**fields)

    def accept(
        self, terms: Terms, encoded: bytes, *, dataset: str, policy: Policy, sign: SignEntry
    ) -> None:
        """Reserve the run's whole budget and write the acceptance.

        Raises:
            BudgetExceededError: the reservation would pass a limit; nothing was written.
        """
        with self._transaction():
            held = [item for item in self.accounts() if item.holds and item.dataset == dataset]
            privacy = terms.privacy
            charges = [Charge(item.unit, item.epsilon, item.delta) for item in held]
            charges.append(Charge(privacy.unit, privacy.epsilon, privacy.delta))
            epsilon, delta = total_charge(charges)
            if epsilon > policy.lifetime_epsilon * (1 + 1e-9):
                raise BudgetExceededError(
                    f"lifetime_epsilon = {policy.lifetime_epsilon}: with this run {epsilon:.4g} "
                    "would be reserved or spent. Close unused runs, or decide on a higher limit"
                )
            if delta > policy.lifetime_delta * (1 + 1e-9):
                raise BudgetExceededError(
                    f"lifetime_delta = {policy.lifetime_delta}: with this run {delta:.4g} would "
                    "be reserved or spent"
                )
            self._append(terms.run_id, sign)
            self._db.execute(
                "INSERT INTO runs (run, terms, dataset, unit, epsilon, delta, max_attempts) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    terms.run_id,
                    encoded,
                    dataset,
                    privacy.unit,
                    privacy.epsilon,
                    privacy.delta,
                    privacy.max_attempts,
                ),
            )

    def debit(self, debit: Debit, sign: SignEntry) -> None:
        """Charge one release and write its receipt. Only after this may anything leave.

        Raises:
            RefusedError: the run is closed or unknown, the attempt is old, or the disk is full.
            BudgetExceededError: all attempts of the terms are used up.
        """
        with self._transaction():
            account = self.account(debit.run)
            if account is None or account.closed:
                raise RefusedError(f"run {debit.run} is not open", refusal_class="protocol")
            if debit.attempt <= account.last_attempt:
                raise RefusedError(
                    f"attempt {debit.attempt} of {debit.run} was answered before",
                    refusal_class="protocol",
                )
            if account.charged >= account.max_attempts:
                raise BudgetExceededError(f"all {account.max_attempts} attempts are used up")
            changed = bool(account.roster) and account.roster != debit.roster
            self._append(debit.run, sign)
            self._db.execute(
                "UPDATE runs SET charged = charged + 1, last_attempt = ?, last_round = ?, "
                "roster = ?, roster_changes = roster_changes + ? WHERE run = ?",
                (
                    debit.attempt,
                    debit.round_number,
                    " ".join(debit.roster),
                    int(changed),
                    debit.run,
                ),
            )

    def close_run(self, run: str, sign: SignEntry) -> None:
        """Write the closed entry: the reservation ends, the run id is refused for ever."""
        with self._transaction():
            account = self.account(run)
            if account is None or account.closed:
                return
            self._append(run, sign)
            self._db.execute("UPDATE runs SET closed = 1 WHERE run = ?", (run,))

    def head_at(self, seq: int) -> bytes | None:
        """The hash of an entry of the firm's own chain, if it is there."""
        row = self._db.execute("SELECT envelope FROM entries WHERE seq = ?", (seq,)).fetchone()
        return None if row is None else entry_head(row[0])

    def peer_tip(self, firm: str) -> ChainTip:
        """The last entry that was seen of a peer's chain."""
        row = self._db.execute("SELECT seq, head FROM peers WHERE firm = ?", (firm,)).fetchone()
        return ChainTip() if row is None else ChainTip(seq=row[0], head=row[1])

    def note_peers(self, tips: Mapping[str, ChainTip]) -> None:
        """Remember how far peers' ledgers were: all of them, or none.

        Raises:
            RefusedError: one was further before, or shows another entry in the same place: the
                peer's machine was set back or copied.
        """
        if not tips:
            return
        with self._transaction():
            for firm, tip in tips.items():
                self._note_peer(firm, tip)

    def _note_peer(self, firm: str, tip: ChainTip) -> None:
        known = self.peer_tip(firm)
        if tip.seq < known.seq or (tip.seq == known.seq and tip.head != known.head):
            raise RefusedError(
                f"{firm} shows ledger entry {tip.seq}, where {known.seq} was seen before: its "
                "machine was set back or copied. Ask that firm before going on",
                refusal_class="protocol",
            )
        if tip.seq > known.seq:
            self._db.execute(
                "INSERT INTO peers (firm, seq, head) VALUES (?, ?, ?) "
                "ON CONFLICT (firm) DO UPDATE SET seq = excluded.seq, head = excluded.head",
                (firm, tip.seq, tip.head),
            )

    def _append(self, run: str, sign: SignEntry) -> None:
        tip = self.tip()
        self._db.execute(
            "INSERT INTO entries (seq, run, envelope) VALUES (?, ?, ?)",
            (tip.seq + 1, run, sign(tip)),
        )


def _statements(script: str) -> Iterator[str]:
    """The statements of a script (``executescript`` would commit on its own)."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
