"""Who asked for how many rows: ``serving.sqlite`` of the consortium's directory, mode 0600.

A request is counted before its answer leaves, in one durable transaction with all others that wait
at that moment. So every answer that left is counted, once; one that was counted may have been lost
on its way. A firm that asks again with the same request id and the same values within
``RETRY_WINDOW_S`` gets its answer without being counted again, by whichever process.
"""

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from greylag_protocols.errors import ConfigError

from greylag_server.consortium import Consortium

FILE = "serving.sqlite"
RETRY_WINDOW_S = 600
LOCK_TIMEOUT_S = 10.0
CHECKPOINT_PAGES = 4000  # of 4 KiB; fewer would make a firm wait for the disk more often
FORGOTTEN_AT_ONCE = 256

_SCHEMA = """
CREATE TABLE IF NOT EXISTS used (
    month TEXT NOT NULL,
    firm TEXT NOT NULL,
    row_count INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (month, firm)
) STRICT;
CREATE TABLE IF NOT EXISTS answered (
    number INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    at_s INTEGER NOT NULL
) STRICT;
"""
_REMEMBER = """
INSERT INTO answered (key, at_s) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET at_s = excluded.at_s WHERE at_s <= ?
"""
_ADD = """
INSERT INTO used VALUES (?, ?, ?, ?) ON CONFLICT (month, firm)
DO UPDATE SET row_count = row_count + excluded.row_count, requests = requests + excluded.requests
"""
_OLDEST = "SELECT number, at_s FROM answered ORDER BY number LIMIT 1"
_FORGET = "DELETE FROM answered WHERE number < ? AND at_s <= ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a firm was answered."""

    rows: int
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One request to be counted.

    Attributes:
        key: see ``retry_key``; None where the firm gave its request no id.
        limit: rows that the firm may ask for in a month; None for as many as it likes.
    """

    firm: str
    rows: int
    key: bytes | None
    limit: int | None


def retry_key(firm: str, request: str, values: bytes) -> bytes:
    """What is remembered of a request, 16 bytes: the same for the same id and values of a firm."""
    head = f"{len(firm)} {firm} {len(request)} {request} ".encode()
    return hashlib.blake2b(head + values, digest_size=16, person=b"greylag/retry/1").digest()


class Meter:
    """The open file; its methods may be called by one thread at a time.

    Raises:
        ConfigError: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(
                path, isolation_level=None, timeout=LOCK_TIMEOUT_S, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"{path} cannot be used: {error}; free the disk or restore the file, for no "
                "prediction goes out uncounted"
            ) from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def count(self, charges: Sequence[Charge], *, now_s: float) -> list[int | None]:
        """Count requests, all in one durable transaction.

        Returns: of each, None if it may be answered; otherwise it would pass its firm's limit and
            was not counted, and the rows are those that are left to the firm.
        """
        month = month_of(now_s)
        verdicts: list[int | None] = []
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                added: dict[str, list[int]] = {}
                before: dict[str, int] = {}
                for item in charges:
                    rows, requests = added.setdefault(item.firm, [0, 0])
                    if item.firm not in before:
                        before[item.firm] = self._rows(month, item.firm)
                    used = before[item.firm] + rows
                    verdicts.append(self._judge(item, used, now_s))
                    if verdicts[-1] is None and self._is_new(item, now_s):
                        added[item.firm] = [rows + item.rows, requests + 1]
                changed = [(month, firm, *more) for firm, more in added.items() if more[1]]
                self._db.executemany(_ADD, changed)
                self._forget(int(now_s) - RETRY_WINDOW_S)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        return verdicts

    def _judge(self, item: Charge, used: int, now_s: float) -> int | None:
        if item.limit is None or used + item.rows <= item.limit:
            return None
        if item.key is not None and self._knows(item.key, now_s):
            return None  # it was counted when there was room
        return max(0, item.limit - used)

    def _knows(self, key: bytes, now_s: float) -> bool:
        query = "SELECT 1 FROM answered WHERE key = ? AND at_s > ?"
        return bool(self._db.execute(query, (key, int(now_s) - RETRY_WINDOW_S)).fetchone())

    def _forget(self, since_s: int) -> None:
        """Some of what is too old to be remembered; one look where nothing is."""
        oldest = self._db.execute(_OLDEST).fetchone()
        if oldest is not None and oldest[1] <= since_s:
            self._db.execute(_FORGET, (oldest[0] + FORGOTTEN_AT_ONCE, since_s))

    def _is_new(self, item: Charge, now_s: float) -> bool:
        if item.key is None:
            return True
        since_s = int(now_s) - RETRY_WINDOW_S
        return self._db.execute(_REMEMBER, (item.key, int(now_s), since_s)).rowcount == 1

    def _rows(self, month: str, firm: str) -> int:
        query = "SELECT row_count FROM used WHERE month = ? AND firm = ?"
        row = self._db.execute(query, (month, firm)).fetchone()
        return 0 if row is None else int(row[0])


def month_of(now_s: float) -> str:
    """The month (UTC) of a moment, as ``2026-11``."""
    return time.strftime("%Y-%m", time.gmtime(now_s))


def usage(consortium: Consortium, month: str) -> dict[str, Use]:
    """What each firm was answered in a month (UTC), as ``2026-11``."""
    where = "WHERE month = ? GROUP BY firm"
    return {
        firm: Use(rows=rows, requests=requests)
        for firm, rows, requests in _sums(consortium, where, (month,))
    }


def read_totals(consortium: Consortium) -> dict[str, tuple[int, int]]:
    """Rows and requests that each firm was answered since the consortium began."""
    return {firm: (rows, asked) for firm, rows, asked in _sums(consortium, "GROUP BY firm", ())}


def _sums(
    consortium: Consortium, where: str, values: tuple[str, ...]
) -> list[tuple[str, int, int]]:
    path = consortium.root / FILE
    if not path.exists():
        return []
    query = f"SELECT firm, sum(row_count), sum(requests) FROM used {where} ORDER BY firm"
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_TIMEOUT_S)) as db:
            return db.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise ConfigError(f"{path} cannot be read: {error}; restore it from a backup") from None
