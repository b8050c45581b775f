"""Who may use the operator's page, and what they did: ``page.sqlite`` of the consortium's
directory, mode 0600.

Passwords are kept as argon2id hashes. The journal only grows, by trigger; what is done on the
command line stands in it too.
"""

import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import NAME_PATTERN

FILE = "page.sqlite"
Role = Literal["operator", "viewer"]
ROLES: tuple[Role, ...] = get_args(Role)
LEAST_PASSWORD, MOST_PASSWORD = 12, 256  # characters
MOST_WORDS = 200  # characters of one field in the journal
# RFC 9106, second recommended option, on one core: the coordinator has the others.
HASHER = PasswordHasher(time_cost=3, memory_cost=64 << 10, parallelism=1)
TERMINAL = "terminal"  # who acts on the command line

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('operator', 'viewer')),
    hash TEXT NOT NULL,
    made_s INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS journal (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_s INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    about TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS journal_stays BEFORE UPDATE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal only grows'); END;
CREATE TRIGGER IF NOT EXISTS journal_remains BEFORE DELETE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal only grows'); END;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who may sign in. ``number`` is another one if the name is given anew."""

    number: int
    name: str
    role: Role
    made_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One line of the journal; ``what`` and ``outcome`` are keys of texts."""

    at_s: int
    who: str
    what: str
    about: str
    outcome: str


class Accounts:
    """The file at ``path``. Each call opens it anew: the command line may change it meanwhile.

    Args:
        root: the consortium's directory.
        clock: gives Unix seconds.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = root / FILE
        self._clock = clock
        self._hashing = threading.Lock()  # one at a time: each takes 64 MiB
        self._nobody = ""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            with self._open() as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"{self.path} cannot be used: {error}") from None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            yield db

    def add(self, name: str, role: str, password: str) -> None:
        """Make an account, or give one that exists another role and password: its sessions end.

        Raises:
            ConfigError: an unusable name or role, or too short a password.
        """
        if not re.fullmatch(NAME_PATTERN, name) or name == TERMINAL:
            raise ConfigError(
                f"{name!r} is not a usable name: 1 to 40 lower-case letters, digits and hyphens, "
                f"beginning and ending with a letter or digit, and not {TERMINAL!r}"
            )
        if role not in ROLES:
            raise ConfigError(f"--role is 'operator' or 'viewer', not {role!r}")
        if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
            raise ConfigError(
                f"a password has {LEAST_PASSWORD} to {MOST_PASSWORD} characters; take a few words"
            )
        if password.casefold() == name.casefold() * (len(password) // len(name)):
            raise ConfigError("this password is the account's name; take a few words")
        hashed = HASHER.hash(password)
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            with db:
                db.execute("DELETE FROM accounts WHERE name = ?", (name,))
                db.execute(
                    "INSERT INTO accounts (name, role, hash, made_s) VALUES (?, ?, ?, ?)",
                    (name, role, hashed, int(self._clock())),
                )

    def remove(self, name: str) -> None:
        """Take an account away: its sessions end.

        Raises:
            ConfigError: there is none of this name.
        """
        with self._open() as db:
            if not db.execute("DELETE FROM accounts WHERE name = ?", (name,)).rowcount:
                raise ConfigError(f"no account {name!r}; see: greylag-server user list")

    def all(self) -> tuple[Account, ...]:
        """The accounts by name."""
        with self._open() as db:
            rows = db.execute("SELECT number, name, role, made_s FROM accounts ORDER BY name")
            return tuple(_account(row) for row in rows)

    def find(self, name: str) -> Account | None:
        """The account of this name."""
        with self._open() as db:
            row = db.execute(
                "SELECT number, name, role, made_s FROM accounts WHERE name = ?", (name,)
            ).fetchone()
        return None if row is None else _account(row)

    def check(self, name: str, password: str) -> Account | None:
        """The account that this password opens. It takes as long where there is none."""
        with self._open() as db:
            row = db.execute(
                "SELECT number, name, role, made_s, hash FROM accounts WHERE name = ?", (name,)
            ).fetchone()
        with self._hashing:
            self._nobody = self._nobody or HASHER.hash("nobody has this password")
            try:
                right = HASHER.verify(row[4] if row else self._nobody, password[:MOST_PASSWORD])
            except (VerificationError, InvalidHashError):
                return None
        return _account(row[:4]) if row is not None and right else None

    # -- journal ---------------------------------------------------------------------------------

    def note(self, who: str, what: str, about: str = "", outcome: str = "done") -> None:
        """Write down who did what."""
        with self._open() as db:
            self._write(db, who, what, about, outcome)

    @contextmanager
    def deed(self, who: str, what: str, about: str) -> Iterator[None]:
        """Writes down what the block does, and whether it failed. If the journal cannot be
        written, the block is not begun."""
        outcome = "failed"
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield
                outcome = "done"
            finally:
                self._write(db, who, what, about, outcome)
                db.execute("COMMIT")

    def _write(self, db: sqlite3.Connection, *words: str) -> None:
        db.execute(
            "INSERT INTO journal (at_s, who, what, about, outcome) VALUES (?, ?, ?, ?, ?)",
            (int(self._clock()), *(item[:MOST_WORDS] for item in words)),
        )

    def journal(self, most: int) -> tuple[Deed, ...]:
        """The last lines, newest first."""
        with self._open() as db:
            rows = db.execute(
                "SELECT at_s, who, what, about, outcome FROM journal ORDER BY number DESC LIMIT ?",
                (most,),
            ).fetchall()
        return tuple(
            Deed(at_s=row[0], who=row[1], what=row[2], about=row[3], outcome=row[4]) for row in rows
        )


def _account(row: tuple[int, str, Role, int]) -> Account:
    return Account(number=row[0], name=row[1], role=row[2], made_s=row[3])
