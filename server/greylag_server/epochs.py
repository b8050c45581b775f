"""Membership epochs: signed at every change and before they expire, and handed on in order."""

import sqlite3
import threading
from collections.abc import Callable
from typing import TypeAlias

from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError
from greylag_protocols.membership import (
    LIFETIME_S,
    Membership,
    SignedMembership,
    membership_digest,
)

from greylag_server.consortium import Consortium
from greylag_server.enrolment_store import EnrolmentFile, list_members

REISSUE_BELOW_S = 10 * 24 * 3600

OnEpoch: TypeAlias = Callable[[SignedMembership], None]


class Epochs:
    """The epochs in the enrolment file (see ``Enrolment`` for ``on_epoch``)."""

    def __init__(
        self, consortium: Consortium, file: EnrolmentFile, on_epoch: OnEpoch | None
    ) -> None:
        self._consortium = consortium
        self._file = file
        self._on_epoch = on_epoch
        self._delivery = threading.Lock()

    def deliver(self) -> None:
        """Hand every epoch that ``on_epoch`` has not yet had to it, oldest first."""
        if self._on_epoch is None:
            return
        with self._delivery, self._file.connection() as db:
            rows = db.execute(
                "SELECT epoch, document, statement FROM epochs WHERE delivered = 0 ORDER BY epoch"
            ).fetchall()
            for epoch, document, statement in rows:
                self._on_epoch(SignedMembership(document=document, statement=statement))
                db.execute("UPDATE epochs SET delivered = 1 WHERE epoch = ?", (epoch,))

    def current(self, db: sqlite3.Connection, now_s: float) -> SignedMembership:
        """The latest epoch, or the next one when less than 10 days of it remain.

        Raises:
            ConfigError: no firm has joined yet.
        """
        row = db.execute(
            "SELECT expires_s, document, statement FROM epochs ORDER BY epoch DESC LIMIT 1"
        ).fetchone()
        if row is None:
            raise ConfigError("no firm has joined yet; invite one: greylag-server invite FIRM")
        if row[0] - now_s < REISSUE_BELOW_S:
            return self.issue(db, now_s)
        return SignedMembership(document=row[1], statement=row[2])

    def find(self, digest: bytes) -> Membership | None:
        """The epoch whose document has this digest, if it was issued."""
        with self._file.connection() as db:
            rows = db.execute("SELECT document FROM epochs ORDER BY epoch DESC").fetchall()
        for (document,) in rows:
            if membership_digest(document) == digest:
                return parse_as(Membership, parse_json(document), what="stored membership")
        return None

    def issue(self, db: sqlite3.Connection, now_s: float) -> SignedMembership:
        """The next epoch, of the members as they stand."""
        settings = self._consortium.settings
        (last,) = db.execute("SELECT coalesce(max(epoch), 0) FROM epochs").fetchone()
        membership = Membership(
            consortium=settings.id,
            lead=settings.operator,
            epoch=last + 1,
            issued_s=int(now_s),
            expires_s=int(now_s) + LIFETIME_S,
            members=list_members(db),
        )
        signed = SignedMembership.sign(membership, self._consortium.signer)
        db.execute(
            "INSERT INTO epochs (epoch, expires_s, document, statement) VALUES (?, ?, ?, ?)",
            (membership.epoch, membership.expires_s, signed.document, signed.statement),
        )
        return signed
