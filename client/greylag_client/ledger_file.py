"""The ledger's SQLite file: one writer at a time, and what was committed is on the disk.

Write-ahead log and ``synchronous=FULL``: when a transaction's block ends, the disk has it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from greylag_protocols.errors import ConfigError, RefusedError

VERSION = 3  # of the tables; a file of another version is refused

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
    unit TEXT NOT NULL,
    epsilon REAL NOT NULL,
    delta REAL NOT NULL,
    max_attempts INTEGER NOT NULL,
    accepted_s INTEGER NOT NULL,
    last_s INTEGER NOT NULL,
    charged INTEGER NOT NULL DEFAULT 0 CHECK (charged <= max_attempts),
    last_attempt INTEGER NOT NULL DEFAULT 0,
    last_round INTEGER NOT NULL DEFAULT 0,
    roster TEXT NOT NULL DEFAULT '',
    roster_changes INTEGER NOT NULL DEFAULT 0,
    closed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS datasets (
    name TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    standard TEXT NOT NULL,
    opened_s INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS run_data (
    run TEXT NOT NULL,
    dataset TEXT NOT NULL,
    commitment BLOB NOT NULL,
    PRIMARY KEY (run, dataset)
) STRICT;
CREATE TABLE IF NOT EXISTS units_of_data (
    tag BLOB NOT NULL,
    dataset TEXT NOT NULL,
    unit TEXT NOT NULL,
    PRIMARY KEY (tag, dataset)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS data_key (
    tag BLOB PRIMARY KEY
) STRICT;
CREATE TABLE IF NOT EXISTS peers (
    firm TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    head BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS lead_log (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    peaks BLOB NOT NULL,
    own INTEGER NOT NULL,
    signature BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS refusals (
    number INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    class TEXT NOT NULL,
    reason TEXT NOT NULL,
    first_s INTEGER NOT NULL,
    last_s INTEGER NOT NULL,
    times INTEGER NOT NULL
) STRICT;
"""


class LedgerFile:
    """An open ledger file.

    Args:
        path: the SQLite file, or ``:memory:`` (only the lab's simulation keeps nothing).
        copied: open a copy in memory; the file is only read, and there need not be one.

    Raises:
        ConfigError: it was made by another version, or is no SQLite file.
    """

    def __init__(self, path: Path | str, *, copied: bool = False) -> None:
        where = ":memory:" if copied else path
        self.db = sqlite3.connect(where, isolation_level=None, timeout=5, check_same_thread=False)
        try:
            if copied:
                _copy(Path(path), self.db)
            self._prepare(path)
        except sqlite3.DatabaseError as error:
            self.db.close()
            raise ConfigError(
                f"{path}: the ledger cannot be used ({error}). It may be damaged, on a "
                "read-only or full disk, or held by another program; put that right, or restore it "
                "from a backup"
            ) from None

    def _prepare(self, path: Path | str) -> None:
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        (tables,) = self.db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and version != VERSION:
            self.db.close()
            raise ConfigError(
                f"{path} was written by another version of greylag (tables of version {version}, "
                f"here {VERSION}); use that version, or ask for a way to move it. Do not delete it"
            )
        if not tables:
            with self.transaction():
                for statement in _statements(SCHEMA):
                    self.db.execute(statement)
                self.db.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; a disk that does not take it refuses, and nothing is sent."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise RefusedError(
                f"the ledger could not be written ({error}); nothing was sent. Free disk space "
                "or end the other program that holds the file, then start the agent again",
                refusal_class="protocol",
            ) from None


def _copy(path: Path, into: sqlite3.Connection) -> None:
    """What a file and its write-ahead log hold; nothing is written beside it, not even by SQLite.

    ``immutable`` would leave the log out, and with it the last debits. A log without its index,
    which a disk put back from a backup may have, needs a disk that can be written.
    """
    if not path.exists():
        return
    mode = "immutable=1"
    with suppress(FileNotFoundError):
        if path.with_name(path.name + "-wal").stat().st_size:
            mode = "mode=ro"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as source:
        source.backup(into)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script (``executescript`` would commit on its own)."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
