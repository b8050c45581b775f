"""The file behind enrolment: its tables, its transactions, and what is looked up in it.

SQLite, WAL, synchronous=FULL. Holds hashes of tokens, public keys, certificates and signed epochs;
no secret.
"""

import hmac
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from greylag_protocols.errors import ConfigError
from greylag_protocols.invite import spki_pin
from greylag_protocols.membership import Member

SCHEMA_VERSION = 2
LOCK_TIMEOUT_S = 10.0
KEPT_CERTIFICATES = 16

Departure = Literal["removed", "revoked", "left"]

_SCHEMA = """
CREATE TABLE invites (
    token_hash BLOB PRIMARY KEY,
    firm TEXT NOT NULL,
    operator TEXT NOT NULL,
    expires_s INTEGER NOT NULL,
    used_s INTEGER,
    revoked_s INTEGER
) STRICT;
CREATE TABLE members (
    firm TEXT PRIMARY KEY,
    operator TEXT NOT NULL,
    identity TEXT NOT NULL UNIQUE,
    recovery TEXT NOT NULL,
    joined_s INTEGER NOT NULL
) STRICT;
CREATE TABLE epochs (
    epoch INTEGER PRIMARY KEY,
    expires_s INTEGER NOT NULL,
    document BLOB NOT NULL,
    statement BLOB NOT NULL,
    delivered INTEGER NOT NULL DEFAULT 0
) STRICT;
"""
_SCHEMA_OF_2 = """
CREATE TABLE certificates (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    firm TEXT NOT NULL,
    pin TEXT NOT NULL UNIQUE,
    request_digest BLOB NOT NULL,
    certificate TEXT NOT NULL,
    used INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE departures (
    firm TEXT NOT NULL,
    identity TEXT NOT NULL,
    how TEXT NOT NULL,
    gone_s INTEGER NOT NULL,
    PRIMARY KEY (firm, identity)
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInvite:
    """One invite, without its token. Times are Unix seconds."""

    operator: str
    expires_s: int
    used_s: int | None
    revoked_s: int | None


class EnrolmentFile:
    """Opens connections to one file; makes its tables if it is new.

    Raises:
        ConfigError: another version wrote the file, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # SQLite gives its side files the mode of the main one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{path} cannot be used: {error}; restore it from a backup") from None

    def _prepare(self) -> None:
        with self.connection() as db:
            db.execute("PRAGMA journal_mode = WAL")
        with self.transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                _execute(db, _SCHEMA + _SCHEMA_OF_2)
            elif version == 1:
                _execute(db, _SCHEMA_OF_2)
                _move_certificates(db)
            elif version != SCHEMA_VERSION:
                raise ConfigError(
                    f"{self._path} was written by another version of greylag (schema {version}, "
                    f"not {SCHEMA_VERSION}); use that version"
                )
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection in which each statement commits by itself."""
        opened = sqlite3.connect(self._path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
        with closing(opened) as db:
            db.execute("PRAGMA synchronous = FULL")
            yield db

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block, or nothing of it; no other writer in between."""
        with self.connection() as db:
            db.execute("BEGIN IMMEDIATE")
            with db:  # commits, or rolls back when the block raises
                yield db


def find_invite(db: sqlite3.Connection, firm: str, token_hash: bytes) -> StoredInvite | None:
    """The firm's invite whose token has this hash."""
    found = None
    for stored, *facts in db.execute(
        "SELECT token_hash, operator, expires_s, used_s, revoked_s FROM invites WHERE firm = ?",
        (firm,),
    ):
        if hmac.compare_digest(stored, token_hash):
            found = facts
    if found is None:
        return None
    operator, expires_s, used_s, revoked_s = found
    return StoredInvite(operator=operator, expires_s=expires_s, used_s=used_s, revoked_s=revoked_s)


def find_repeated(db: sqlite3.Connection, firm: str, request_digest: bytes) -> str | None:
    """The certificate that this very request got before, if it did (PEM)."""
    for stored, certificate in db.execute(
        "SELECT request_digest, certificate FROM certificates WHERE firm = ?", (firm,)
    ):
        if hmac.compare_digest(stored, request_digest):
            return str(certificate)
    return None


def add_certificate(
    db: sqlite3.Connection, firm: str, certificate: x509.Certificate, pem: str, digest: bytes
) -> bool:
    """Note a certificate that was issued; False if its key was certified before."""
    added = db.execute(
        "INSERT OR IGNORE INTO certificates (firm, pin, request_digest, certificate) "
        "VALUES (?, ?, ?, ?)",
        (firm, spki_pin(certificate), digest, pem),
    )
    return added.rowcount == 1


def list_members(db: sqlite3.Connection) -> tuple[Member, ...]:
    """All members, sorted by name."""
    rows = db.execute(
        "SELECT firm, operator, identity, recovery FROM members ORDER BY firm"
    ).fetchall()
    return tuple(
        Member(name=row[0], operator=row[1], identity=row[2], recovery=row[3]) for row in rows
    )


def prune_certificates(db: sqlite3.Connection, firm: str) -> None:
    """Forget what can no longer matter: a member may ask for certificates without end."""
    db.execute(
        "DELETE FROM certificates WHERE firm = ?1 AND number NOT IN (SELECT number FROM "
        "certificates WHERE firm = ?1 ORDER BY number DESC LIMIT ?2) AND number NOT IN (SELECT "
        "number FROM certificates WHERE firm = ?1 AND used = 1 ORDER BY number DESC LIMIT ?2)",
        (firm, KEPT_CERTIFICATES),
    )


def find_identity(db: sqlite3.Connection, firm: str) -> str | None:
    """A member's identity key, hex."""
    row = db.execute("SELECT identity FROM members WHERE firm = ?", (firm,)).fetchone()
    return None if row is None else str(row[0])


def former_identities(db: sqlite3.Connection, firm: str) -> list[tuple[str, Departure]]:
    """Identities (hex) that are no longer members under a firm's name, and how each went."""
    return db.execute(
        "SELECT identity, how FROM departures WHERE firm = ? ORDER BY gone_s", (firm,)
    ).fetchall()


def _execute(db: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):
        db.execute(statement)


def _move_certificates(db: sqlite3.Connection) -> None:
    """Version 1 kept each member's only certificate beside its keys."""
    for firm, pem, digest in db.execute(
        "SELECT firm, certificate, request_digest FROM members"
    ).fetchall():
        add_certificate(db, firm, x509.load_pem_x509_certificate(pem.encode()), pem, digest)
    db.execute("ALTER TABLE members DROP COLUMN certificate")
    db.execute("ALTER TABLE members DROP COLUMN request_digest")
