"""What the lead keeps, durably: the log, artefacts, runs and their state, in one SQLite file.

A round's receipts, its commit and the new model state are one transaction, so model and log never
disagree, whenever the process dies. Log entries are append-only by trigger; the tree's frontier
moves in the same transaction, so that every checkpoint is a state that was once durable.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.errors import ConfigError
from greylag_protocols.log import ChainTip
from greylag_protocols.membership import SignedMembership
from greylag_protocols.merkle import Frontier, hash_leaf
from greylag_protocols.optimiser import ModelState

from greylag_server.store_schema import SCHEMA, pack_state, unpack_state

RunStatus = Literal["queued", "offering", "training", "closing", "done", "failed"]
LOG_FILE = "log.sqlite"  # in the consortium's directory
COSIGNED_KEPT = 8
OPEN_STATUSES = ("queued", "offering", "training", "closing")
Wish = Literal["pause", "resume", "cancel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wished:
    """What an operator last asked of a run."""

    wish: Wish
    because: str
    who: str
    at_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as stored.

    ``roster`` is that of the last attempt, or, when ``retrying`` its round, what a void left of it;
    ``frame`` is the attempt in flight, exactly as it was sent.
    """

    run: str
    terms: bytes
    firms: int
    status: RunStatus
    reason: str
    membership: SignedMembership | None
    rounds_done: int
    attempts: int
    roster: tuple[str, ...]
    retrying: bool
    state: ModelState | None
    frame: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantRecord:
    """A firm that accepted a run."""

    firm: str
    acceptance: bytes
    voids: int
    closed: bool


class Store:
    """The lead's database. Writing methods belong inside ``with store.transaction():``."""

    def __init__(self, path: Path | str, *, origin: str) -> None:
        self._origin = origin
        self._writing = threading.RLock()  # enrolment has threads of its own, and writes here too
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def check_file(self) -> None:
        """Look for damage.

        Raises:
            ConfigError: there is some.
        """
        (said,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise ConfigError(f"the lead's database is damaged ({said}); restore it from a backup")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside, or none; durable when it ends. Other threads wait for it."""
        with self._writing:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # -- log -----------------------------------------------------------------------------------

    def append(self, envelopes: Sequence[bytes]) -> None:
        """Add entries to the log and move the frontier."""
        frontier = self._frontier()
        for envelope in envelopes:
            self._db.execute("INSERT INTO entries VALUES (?, ?)", (frontier.size, envelope))
            frontier = frontier.append(hash_leaf(envelope))
        self._db.execute(
            "INSERT INTO frontier VALUES (1, ?, ?) "
            "ON CONFLICT (one) DO UPDATE SET size = excluded.size, peaks = excluded.peaks",
            (frontier.size, b"".join(frontier.peaks)),
        )

    def _frontier(self) -> Frontier:
        row = self._db.execute("SELECT size, peaks FROM frontier").fetchone()
        if row is None:
            return Frontier()
        size, joined = row
        return Frontier(size, tuple(joined[at : at + 32] for at in range(0, len(joined), 32)))

    def checkpoint(self) -> Checkpoint:
        """The log's durable state."""
        frontier = self._frontier()
        return Checkpoint(origin=self._origin, size=frontier.size, root=frontier.root)

    def leaf_hashes(self, start: int) -> list[bytes]:
        """The tree's leaves from ``start`` on, 32 bytes each."""
        return [hash_leaf(envelope) for envelope in self.entries(start)]

    def keep_cosignatures(self, checkpoint: Checkpoint, words: Mapping[str, bytes]) -> None:
        """What firms cosigned; of older checkpoints only those of the last ``COSIGNED_KEPT``."""
        if not words:
            return
        row = checkpoint.size, checkpoint.root
        self._db.executemany(
            "INSERT OR REPLACE INTO cosignatures (size, root, firm, cosignature) "
            "VALUES (?, ?, ?, ?)",
            [(*row, firm, word) for firm, word in words.items()],
        )
        self._db.execute(
            "DELETE FROM cosignatures WHERE size < (SELECT min(size) FROM (SELECT DISTINCT size "
            "FROM cosignatures ORDER BY size DESC LIMIT ?))",
            (COSIGNED_KEPT,),
        )

    def cosigned(self) -> list[tuple[Checkpoint, dict[str, bytes]]]:
        """The last cosigned checkpoints, newest first, with the firms' cosignatures."""
        found: dict[int, tuple[Checkpoint, dict[str, bytes]]] = {}
        query = "SELECT size, root, firm, cosignature FROM cosignatures ORDER BY size DESC, firm"
        for size, root, firm, word in self._db.execute(query):
            checkpoint = Checkpoint(origin=self._origin, size=size, root=root)
            found.setdefault(size, (checkpoint, {}))[1][firm] = word
        return list(found.values())

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """The log's envelopes from ``start`` on, in order."""
        query = "SELECT envelope FROM entries WHERE position >= ? ORDER BY position"
        for (envelope,) in self._db.execute(query, (start,)):
            yield envelope

    def keep(self, digest: bytes, content: bytes) -> None:
        """Store an artefact under the digest that the log names it by."""
        self._db.execute("INSERT OR IGNORE INTO artefacts VALUES (?, ?)", (digest, content))

    def artefact(self, digest: bytes) -> bytes | None:
        """An artefact, if it is here."""
        row = self._db.execute(
            "SELECT content FROM artefacts WHERE digest = ?", (digest,)
        ).fetchone()
        return None if row is None else bytes(row[0])

    # -- firms ---------------------------------------------------------------------------------

    def tip(self, firm: str) -> ChainTip:
        """The last entry of a firm's chain that the log holds."""
        row = self._db.execute("SELECT seq, head FROM tips WHERE firm = ?", (firm,)).fetchone()
        return ChainTip() if row is None else ChainTip(seq=row[0], head=row[1])

    def set_tip(self, firm: str, tip: ChainTip) -> None:
        """Move a firm's tip, with the entries that lead to it."""
        self._db.execute(
            "INSERT INTO tips VALUES (?, ?, ?) "
            "ON CONFLICT (firm) DO UPDATE SET seq = excluded.seq, head = excluded.head",
            (firm, tip.seq, tip.head),
        )

    def add_participant(self, run: str, firm: str, acceptance: bytes) -> None:
        """A firm accepted a run."""
        self._db.execute(
            "INSERT OR IGNORE INTO participants (run, firm, acceptance) VALUES (?, ?, ?)",
            (run, firm, acceptance),
        )

    def count_void(self, run: str, firm: str) -> None:
        """A firm voided an attempt."""
        self._db.execute(
            "UPDATE participants SET voids = voids + 1 WHERE run = ? AND firm = ?", (run, firm)
        )

    def participants(self, run: str) -> list[ParticipantRecord]:
        """The firms that accepted a run."""
        rows = self._db.execute(
            "SELECT firm, acceptance, voids, closed FROM participants WHERE run = ? ORDER BY firm",
            (run,),
        )
        return [
            ParticipantRecord(firm=row[0], acceptance=row[1], voids=row[2], closed=bool(row[3]))
            for row in rows
        ]

    def set_closed(self, run: str, firm: str) -> None:
        """A firm's closed entry is in the log."""
        self._db.execute(
            "UPDATE participants SET closed = 1 WHERE run = ? AND firm = ?", (run, firm)
        )

    def add_revocation(self, envelope: bytes) -> None:
        """A revocation, from now on shown to every firm that is offered a run."""
        self._db.execute("INSERT OR IGNORE INTO revocations VALUES (?)", (envelope,))

    def revocations(self) -> tuple[bytes, ...]:
        """All revocations that the lead knows of."""
        rows = self._db.execute("SELECT envelope FROM revocations ORDER BY rowid")
        return tuple(row[0] for row in rows)

    def add_endorsement(self, envelope: bytes, membership: bytes) -> bool:
        """Somebody's word for the member list with this digest. Returns whether it is new."""
        added = self._db.execute(
            "INSERT OR IGNORE INTO endorsements VALUES (?, ?)", (envelope, membership)
        )
        return added.rowcount == 1

    def endorsements(self, membership: bytes) -> tuple[bytes, ...]:
        """All endorsements of the member list with this digest."""
        rows = self._db.execute(
            "SELECT envelope FROM endorsements WHERE membership = ? ORDER BY rowid", (membership,)
        )
        return tuple(row[0] for row in rows)

    # -- what operators ask for ----------------------------------------------------------------

    def add_wish(self, run: str, wished: Wished) -> None:
        """An operator's word about a run; the process that serves obeys it, also a later one."""
        self._db.execute(
            "INSERT INTO wishes (run, wish, because, who, at_s) VALUES (?, ?, ?, ?, ?)",
            (run, wished.wish, wished.because, wished.who, wished.at_s),
        )

    def last_wish(self, run: str) -> Wished | None:
        """The last one; after ``cancel`` none is taken any more."""
        row = self._db.execute(
            "SELECT wish, because, who, at_s FROM wishes WHERE run = ? ORDER BY number DESC",
            (run,),
        ).fetchone()
        if row is None:
            return None
        return Wished(wish=row[0], because=row[1], who=row[2], at_s=row[3])

    def keep_pace(self, run: str, pace: str) -> None:
        """How fast a run goes, as JSON; overwritten."""
        self._db.execute("INSERT OR REPLACE INTO paces VALUES (?, ?)", (run, pace))

    def pace(self, run: str) -> str | None:
        """The last ``keep_pace``."""
        row = self._db.execute("SELECT pace FROM paces WHERE run = ?", (run,)).fetchone()
        return None if row is None else str(row[0])

    def keep_ahead(self, firm: str, size: int) -> None:
        """A firm says that it has seen ``size`` entries of this log, which holds fewer."""
        self._db.execute("INSERT OR REPLACE INTO ahead VALUES (?, ?)", (firm, size))

    def ahead(self) -> dict[str, int]:
        """All firms that said so, with what they have seen."""
        return dict(self._db.execute("SELECT firm, size FROM ahead ORDER BY firm").fetchall())

    # -- runs ----------------------------------------------------------------------------------

    def queue_run(self, run: str, terms: bytes, *, firms: int) -> None:
        """A new run; it starts when ``firms`` firms have accepted, or the offer's time is up."""
        self._db.execute(
            "INSERT INTO runs (run, terms, firms, status) VALUES (?, ?, ?, 'queued')",
            (run, terms, firms),
        )

    def open_run(self, run: str, membership: SignedMembership) -> None:
        """Offers go out under this membership, and it stays the run's own."""
        self._db.execute(
            "UPDATE runs SET status = 'offering', membership = ?, membership_statement = ? "
            "WHERE run = ?",
            (membership.document, membership.statement, run),
        )

    def set_status(self, run: str, status: RunStatus, reason: str = "") -> None:
        """Move a run on."""
        self._db.execute(
            "UPDATE runs SET status = ?, reason = CASE ? WHEN '' THEN reason ELSE ? END "
            "WHERE run = ?",
            (status, reason, reason, run),
        )

    def save_attempt(self, run: str, attempt: int, roster: Sequence[str], frame: bytes) -> None:
        """An attempt, before it is sent: its number is never used for anything else."""
        self._db.execute(
            "UPDATE runs SET attempts = ?, roster = ?, frame = ? WHERE run = ?",
            (attempt, json.dumps(list(roster)), frame, run),
        )

    def end_attempt(self, run: str, roster: Sequence[str], *, retrying: bool) -> None:
        """The attempt in flight is over; ``roster`` is who may take part in a retry."""
        self._db.execute(
            "UPDATE runs SET frame = NULL, roster = ?, retrying = ? WHERE run = ?",
            (json.dumps(list(roster)), int(retrying), run),
        )

    def save_state(self, run: str, state: ModelState) -> None:
        """The model and optimiser after a round (or before the first)."""
        self._db.execute(
            "UPDATE runs SET rounds_done = ?, state = ? WHERE run = ?",
            (state.rounds_done, pack_state(state), run),
        )

    def next_run(self) -> RunRecord | None:
        """The oldest run that is not over."""
        marks = ", ".join("?" for _ in OPEN_STATUSES)
        clause = f"WHERE status IN ({marks}) ORDER BY rowid LIMIT 1"
        return next(self._runs(clause, OPEN_STATUSES), None)

    def open_runs(self) -> list[str]:
        """The runs that are not over, in the order in which they are taken up."""
        marks = ", ".join("?" for _ in OPEN_STATUSES)
        query = f"SELECT run FROM runs WHERE status IN ({marks}) ORDER BY rowid"
        return [str(row[0]) for row in self._db.execute(query, OPEN_STATUSES)]

    def run(self, run: str) -> RunRecord:
        """A run by its id, or by its plan's name if that names one run only.

        Raises:
            ConfigError: there is none; the known ones are listed.
        """
        found = list(self._runs("WHERE run = ?", (run,)))
        if not found:
            found = [item for item in self.runs() if item.run.rpartition("-")[0] == run]
        if len(found) != 1:
            known = ", ".join(item.run for item in self.runs()) or "none yet"
            raise ConfigError(f"no single run {run!r}; known runs: {known}")
        return found[0]

    def runs(self) -> list[RunRecord]:
        """All runs, oldest first."""
        return list(self._runs("ORDER BY rowid", ()))

    def _runs(self, clause: str, values: Sequence[str]) -> Iterator[RunRecord]:
        query = (  # clauses are literals of this class
            "SELECT run, terms, firms, status, reason, membership, membership_statement, "
            f"rounds_done, attempts, roster, retrying, state, frame FROM runs {clause}"
        )
        for row in self._db.execute(query, values).fetchall():
            signed = None
            if row[5] is not None:
                signed = SignedMembership(document=row[5], statement=row[6])
            yield RunRecord(
                run=row[0],
                terms=row[1],
                firms=row[2],
                status=row[3],
                reason=row[4],
                membership=signed,
                rounds_done=row[7],
                attempts=row[8],
                roster=tuple(json.loads(row[9])),
                retrying=bool(row[10]),
                state=None if row[11] is None else unpack_state(row[11]),
                frame=row[12],
            )
