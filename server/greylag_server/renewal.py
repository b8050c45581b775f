"""Members' TLS certificates after joining: renewed, and looked at whenever a firm connects.

The authority's signature alone lets nobody in: the firm must be a member, and the key one that was
certified for it since it joined. Newer certificates displace older ones only when they are used, so
that a firm whose replies were lost can still connect with what it has.
"""

import sqlite3
from collections.abc import Sequence

from cryptography.hazmat.primitives.serialization import Encoding
from greylag_protocols.errors import VerificationError
from greylag_protocols.renewal import RenewalReply, RenewalRequest

from greylag_server.consortium import Consortium
from greylag_server.enrolment_store import (
    Departure,
    EnrolmentFile,
    add_certificate,
    find_identity,
    find_repeated,
    former_identities,
    prune_certificates,
)
from greylag_server.refusals import GONE, EnrolmentError

ALLOWED_BACK = 1  # a directory restored from a copy may be this many used certificates behind

_HOW: dict[Departure, str] = {
    "removed": "the lead removed it",
    "revoked": "its recovery key took its identity back",
    "left": "it left",
}
_COME_BACK = "to come back, ask the lead for an invite and join with a new directory"


class Certificates:
    """Issues and judges members' certificates.

    Args:
        consortium: whose authority signs.
        file: the members.
    """

    def __init__(self, consortium: Consortium, file: EnrolmentFile) -> None:
        self._consortium = consortium
        self._id = consortium.settings.id
        self._file = file

    def renew(self, request: RenewalRequest, *, now_s: float) -> RenewalReply:
        """A new certificate for the member that ``request`` comes from, valid for 90 days; the
        same one again for the same request, whose reply was lost.

        Raises:
            EnrolmentError: not a member's request, or for a key that was certified before. Nothing
                was changed.
        """
        if request.consortium != self._id:
            raise EnrolmentError(
                "other-consortium",
                f"this renewal is for consortium {request.consortium!r}; here is {self._id!r}",
            )
        identity = self._proved_identity(request)
        with self._file.transaction() as db:
            if find_identity(db, request.firm) != identity:
                raise _not_proved(request.firm)  # it went in this very moment
            pem = find_repeated(db, request.firm, request.digest())
            if pem is None:
                pem = self._issue(db, request, now_s)
        return RenewalReply(certificate=pem, ca=self._consortium.ca_pem.decode())

    def refusals(self, presented: Sequence[tuple[str, str]]) -> list[str]:
        """Why firms with these certificates may not connect; empty for those that may.

        Args:
            presented: each certificate's common name and pin (``invite.spki_pin``).
        """
        with self._file.connection() as db:
            return [self._refusal(db, firm, pin) for firm, pin in presented]

    def _proved_identity(self, request: RenewalRequest) -> str:
        """The member's identity key (hex), which signed the request.

        Whether there is such a member is told to nobody else.
        """
        with self._file.connection() as db:
            identity = find_identity(db, request.firm)
            former = former_identities(db, request.firm)
        if identity is not None and _is_proved(request, identity):
            return identity
        for key, how in former:
            if _is_proved(request, key):
                raise EnrolmentError(GONE[how], self._gone(request.firm, how))
        raise _not_proved(request.firm)

    def _issue(self, db: sqlite3.Connection, request: RenewalRequest, now_s: float) -> str:
        try:
            certificate = self._consortium.authority.sign_firm(
                request.csr, firm=request.firm, now_s=now_s
            )
        except VerificationError as error:
            raise EnrolmentError("bad-csr", f"{error}; renew again") from None
        pem = certificate.public_bytes(Encoding.PEM).decode()
        if not add_certificate(db, request.firm, certificate, pem, request.digest()):
            raise EnrolmentError(
                "bad-csr", "this TLS key was certified before; renew again, with a new key"
            )
        prune_certificates(db, request.firm)
        return pem

    def _refusal(self, db: sqlite3.Connection, firm: str, pin: str) -> str:
        if find_identity(db, firm) is None:
            former = former_identities(db, firm)
            if not former:
                return f"consortium {self._id} does not list {firm!r}; ask the lead"
            return self._gone(firm, former[-1][1])
        row = db.execute(
            "SELECT number, used FROM certificates WHERE firm = ? AND pin = ?", (firm, pin)
        ).fetchone()
        if row is None:
            return (
                f"this certificate is not of the keys with which {firm!r} joined {self._id} last; "
                "use the directory of that join"
            )
        number, used = row
        (newer,) = db.execute(
            "SELECT count(*) FROM certificates WHERE firm = ? AND used = 1 AND number > ?",
            (firm, number),
        ).fetchone()
        if newer > ALLOWED_BACK:
            return (
                f"this certificate of {firm!r} was replaced by {newer} newer ones: another copy "
                "of this firm's directory is in use; go on with the latest"
            )
        if not used:
            db.execute("UPDATE certificates SET used = 1 WHERE number = ?", (number,))
        return ""

    def _gone(self, firm: str, how: Departure) -> str:
        return f"{firm!r} is no longer a member of {self._id}: {_HOW[how]}; {_COME_BACK}"


def _is_proved(request: RenewalRequest, identity: str) -> bool:
    try:
        request.check_proof(bytes.fromhex(identity))
    except VerificationError:
        return False
    return True


def _not_proved(firm: str) -> EnrolmentError:
    return EnrolmentError(
        "bad-proof",
        f"this is not signed by the identity key of a member called {firm!r}; use the directory of "
        "its latest join, or ask the lead",
    )
