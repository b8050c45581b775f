"""Invites, members and membership epochs, in one SQLite file.

An enrolment is one transaction: the invite is used, the member added and the next epoch signed, or
none of it. A token is stored as its hash. The same request again, after a lost reply, gets the same
certificate. Each call opens its own connection, so ``greylag-server invite`` may run beside
``greylag-server serve``.
"""

import re
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.hazmat.primitives.serialization import Encoding
from greylag_protocols.endorsement import claimed_endorser, verify_endorsement
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.invite import (
    TOKEN_BYTES,
    EnrolmentReply,
    EnrolmentRequest,
    Invite,
    encode_token,
    token_hash,
)
from greylag_protocols.membership import Member, SignedMembership
from greylag_protocols.renewal import claimed_leave, verify_leave
from greylag_protocols.signing import parse_statement
from greylag_protocols.terms import NAME_PATTERN

from greylag_server.consortium import Consortium
from greylag_server.enrolment_store import (
    Departure,
    EnrolmentFile,
    StoredInvite,
    add_certificate,
    find_identity,
    find_invite,
    find_repeated,
    former_identities,
    list_members,
)
from greylag_server.epochs import Epochs, OnEpoch
from greylag_server.refusals import EnrolmentError
from greylag_server.renewal import Certificates

INVITE_LIFETIME_S = 7 * 24 * 3600

OnLeave: TypeAlias = Callable[[bytes], None]
OnEndorse: TypeAlias = Callable[[bytes, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInvite:
    """An invite that can still be used. ``expires_s`` is in Unix seconds."""

    firm: str
    operator: str
    expires_s: int


class Enrolment:
    """Who may join, who did, and the epochs that say so.

    Args:
        consortium: the open lead's directory.
        on_epoch: called once per epoch in their order, after the commit; a crash may repeat the
            last call, none is left out. Epochs made while nobody listened are delivered later.
        on_leave: called with a firm's verified statement before the firm is taken out; a crash may
            repeat the call.
        on_endorse: called with a member's verified endorsement and the digest of the list that it
            is about, perhaps more than once.
        agents_port: where agents connect, if the settings leave the port open (0).
    """

    def __init__(
        self,
        consortium: Consortium,
        *,
        on_epoch: OnEpoch | None = None,
        on_leave: OnLeave | None = None,
        on_endorse: OnEndorse | None = None,
        agents_port: int | None = None,
    ) -> None:
        self._consortium = consortium
        self._settings = consortium.settings
        self._on_leave = on_leave
        self._on_endorse = on_endorse
        self._agents_port = self._settings.port if agents_port is None else agents_port
        self._file = EnrolmentFile(consortium.enrolment_path)
        self._epochs = Epochs(consortium, self._file, on_epoch)
        self.certificates = Certificates(consortium, self._file)

    def invite(
        self, firm: str, operator: str | None = None, *, now_s: float, port: int | None = None
    ) -> str:
        """An invite for ``firm``: one line, valid for 7 days, to be used once.

        An earlier unused invite of the firm becomes void.

        Args:
            firm: its name in this consortium.
            operator: who runs its agent; the firm itself where it is not given.
            now_s: Unix seconds.
            port: of the enrolment server, if the settings leave it open (0).

        Raises:
            ConfigError: a name is unusable, or the firm is a member already.
        """
        operator = firm if operator is None else operator
        for what, name in (("firm", firm), ("operator", operator)):
            if not re.fullmatch(NAME_PATTERN.removesuffix("$"), name):
                raise ConfigError(
                    f"{what} {name!r} is not a usable name: 1 to 40 lower-case letters, digits "
                    "and hyphens, beginning and ending with a letter or digit"
                )
        port = self._settings.enrol_port if port is None else port
        if port == 0:
            raise ConfigError("the enrolment port is not fixed; set enrol_port in consortium.toml")
        token, expires_s = encode_token(secrets.token_bytes(TOKEN_BYTES)), int(now_s)
        expires_s += INVITE_LIFETIME_S
        with self._file.transaction() as db:
            if db.execute("SELECT 1 FROM members WHERE firm = ?", (firm,)).fetchone():
                raise ConfigError(
                    f"{firm!r} is a member already; to let it join anew with other keys, remove "
                    "it first"
                )
            db.execute(
                "UPDATE invites SET revoked_s = ? "
                "WHERE firm = ? AND used_s IS NULL AND revoked_s IS NULL",
                (int(now_s), firm),
            )
            db.execute(
                "INSERT INTO invites (token_hash, firm, operator, expires_s) VALUES (?, ?, ?, ?)",
                (token_hash(self._settings.id, token), firm, operator, expires_s),
            )
        return Invite(
            consortium=self._settings.id,
            firm=firm,
            host=self._settings.host,
            port=port,
            pin=self._consortium.server_pin,
            token=token,
            expires_s=expires_s,
        ).encode()

    def enrol(self, request: EnrolmentRequest, *, now_s: float) -> EnrolmentReply:
        """Admit the firm that ``request`` comes from, or repeat the reply that it lost.

        Raises:
            EnrolmentError: the invite is unknown, of another consortium, expired, used or void, or
                the keys are not proved. Nothing was changed.
        """
        if request.consortium != self._settings.id:
            raise EnrolmentError(
                "other-consortium",
                f"this invite is for consortium {request.consortium!r}; here is "
                f"{self._settings.id!r}. Ask the lead for an invite to the right one",
            )
        with self._file.transaction() as db:
            invite = find_invite(db, request.firm, request.token_hash)
            if invite is None:
                raise EnrolmentError(
                    "unknown-invite",
                    f"consortium {request.consortium!r} knows no such invite; ask the lead for a "
                    "new one",
                )
            # A reply may be lost on its way: who asks again for the very same gets it again.
            certificate = find_repeated(db, request.firm, request.digest())
            if certificate is None:
                _check_usable(invite, now_s)
                certificate = self._admit(db, request, invite.operator, now_s)
            signed = self._epochs.current(db, now_s)
        self.deliver_epochs()
        return EnrolmentReply(
            certificate=certificate,
            ca=self._consortium.ca_pem.decode(),
            lead_key=self._consortium.signer.public_key.hex(),
            host=self._settings.host,
            port=self._agents_port,
            document=signed.document.decode(),
            statement=signed.statement.decode(),
        )

    def remove(
        self,
        firm: str,
        *,
        now_s: float,
        how: Departure = "removed",
        identity: str | None = None,
    ) -> SignedMembership:
        """Issue an epoch without ``firm``, which may then be invited anew.

        Args:
            how: what the firm is told when it asks for anything.
            identity: the key (hex) that it has to have; whichever it has where it is not given.

        Raises:
            ConfigError: it is not a member.
        """
        with self._file.transaction() as db:
            listed = find_identity(db, firm)
            if listed is None or identity not in (None, listed):
                raise ConfigError(f"{firm!r} is not a member; see: greylag-server status")
            db.execute("DELETE FROM members WHERE firm = ?", (firm,))
            db.execute("DELETE FROM certificates WHERE firm = ?", (firm,))
            db.execute(
                "INSERT OR REPLACE INTO departures VALUES (?, ?, ?, ?)",
                (firm, listed, how, int(now_s)),
            )
            signed = self._epochs.issue(db, now_s)
        self.deliver_epochs()
        return signed

    def leave(self, envelope: bytes, *, now_s: float) -> str:
        """Take out the firm whose statement this is; nothing more happens if it is gone already.

        Raises:
            EnrolmentError: no statement of a member's own identity about this consortium.
        """
        try:
            claimed = claimed_leave(envelope)
        except VerificationError as error:
            raise EnrolmentError("malformed", str(error)) from None
        if claimed.consortium != self._settings.id:
            raise EnrolmentError(
                "other-consortium",
                f"this firm leaves consortium {claimed.consortium!r}; here is "
                f"{self._settings.id!r}",
            )
        with self._file.connection() as db:
            identity = find_identity(db, claimed.firm)
            former = [key for key, _ in former_identities(db, claimed.firm)]
        if identity is not None and self._is_leave(envelope, identity):
            if self._on_leave is not None:
                self._on_leave(envelope)
            self.remove(claimed.firm, now_s=now_s, how="left", identity=identity)
        elif not any(self._is_leave(envelope, key) for key in former):
            raise EnrolmentError(
                "bad-proof",
                f"this is not signed by the identity key of a member called {claimed.firm!r}",
            )
        return claimed.firm

    def _is_leave(self, envelope: bytes, identity: str) -> bool:
        try:
            verify_leave(envelope, bytes.fromhex(identity), consortium=self._settings.id)
        except VerificationError:
            return False
        return True

    def endorse(self, envelope: bytes, *, by_body: bool = False) -> int:
        """Take an endorsement of an epoch; the same one again changes nothing.

        Args:
            by_body: it is an independent body's, whose key firms know and this lead need not.

        Returns:
            the epoch's number.

        Raises:
            EnrolmentError: no endorsement of an epoch of this consortium, or by no firm of it.
        """
        try:
            by = claimed_endorser(envelope)
            membership = self._epochs.find(parse_statement(envelope).digest)
        except VerificationError as error:
            raise EnrolmentError("malformed", str(error)) from None
        try:
            if by is None or membership is None:
                raise VerificationError("not about a member list that this lead signed")
            if not by_body:
                verify_endorsement(envelope, membership.member(by).identity_key, membership)
        except VerificationError as error:
            raise EnrolmentError("bad-proof", f"this endorsement does not hold: {error}") from None
        if self._on_endorse is not None:
            self._on_endorse(envelope, membership.digest())
        return membership.epoch

    def current_membership(self, now_s: float) -> SignedMembership:
        """The latest epoch, or the next one when less than 10 days of it remain.

        Raises:
            ConfigError: no firm has joined yet.
        """
        with self._file.transaction() as db:
            signed = self._epochs.current(db, now_s)
        self.deliver_epochs()
        return signed

    def members(self) -> tuple[Member, ...]:
        """The members by name, as the next epoch would list them."""
        with self._file.connection() as db:
            return list_members(db)

    def open_invites(self, now_s: float) -> tuple[OpenInvite, ...]:
        """The invites that can still be used, by firm."""
        with self._file.connection() as db:
            rows = db.execute(
                "SELECT firm, operator, expires_s FROM invites WHERE used_s IS NULL "
                "AND revoked_s IS NULL AND expires_s > ? ORDER BY firm",
                (int(now_s),),
            ).fetchall()
        return tuple(OpenInvite(firm=row[0], operator=row[1], expires_s=row[2]) for row in rows)

    def deliver_epochs(self) -> None:
        """Hand every epoch that ``on_epoch`` has not yet had to it, oldest first."""
        self._epochs.deliver()

    def _admit(
        self, db: sqlite3.Connection, request: EnrolmentRequest, operator: str, now_s: float
    ) -> str:
        """Mark the invite used, add the member, issue an epoch; returns the certificate."""
        try:
            certificate = self._consortium.authority.sign_firm(
                request.csr, firm=request.firm, now_s=now_s
            )
        except VerificationError as error:
            raise EnrolmentError("bad-csr", f"{error}; join again") from None
        try:
            request.check_proof()
        except VerificationError:
            raise EnrolmentError(
                "bad-proof", "the firm did not prove that it holds its identity key; join again"
            ) from None
        taken = db.execute(
            "SELECT 1 FROM members WHERE identity IN (?1, ?2) OR recovery IN (?1, ?2) UNION ALL "
            "SELECT 1 FROM departures WHERE identity IN (?1, ?2) AND how != 'removed'",
            (request.identity, request.recovery),
        ).fetchone()
        if taken or request.identity == request.recovery:
            raise EnrolmentError(
                "identity-taken", "one of these keys is in use already; join again with new keys"
            )
        pem = certificate.public_bytes(Encoding.PEM).decode()
        if not add_certificate(db, request.firm, certificate, pem, request.digest()):
            raise EnrolmentError(
                "bad-csr", "this TLS key was certified before; join again with new keys"
            )
        db.execute(
            "UPDATE invites SET used_s = ? WHERE token_hash = ?", (int(now_s), request.token_hash)
        )
        db.execute(
            "INSERT INTO members VALUES (?, ?, ?, ?, ?)",
            (request.firm, operator, request.identity, request.recovery, int(now_s)),
        )
        self._epochs.issue(db, now_s)
        return pem


def _check_usable(invite: StoredInvite, now_s: float) -> None:
    if invite.used_s is not None:
        raise EnrolmentError(
            "used-invite",
            "this invite was used already. If not by you, tell the lead at once; it can remove "
            "the member and send a new invite",
        )
    if invite.revoked_s is not None:
        raise EnrolmentError(
            "revoked-invite", "a newer invite replaces this one; use that, or ask the lead for it"
        )
    if now_s >= invite.expires_s:
        raise EnrolmentError(
            "expired-invite", "this invite has expired; ask the lead for a new one"
        )
