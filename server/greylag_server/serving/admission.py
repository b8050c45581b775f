"""Who asks: the firm of a TLS certificate, if it may ask now.

The same judgement as for the agents' port (``renewal.Certificates``). It is kept until anything in
the members' file changes, which SQLite tells for a few microseconds a request: so a firm that was
removed or revoked, by whichever program, is refused from its next request on, although its
connection is open.
"""

import sqlite3
import threading
from collections.abc import Callable

from cryptography import x509
from cryptography.x509.oid import NameOID
from greylag_protocols.invite import spki_pin

from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.serving.refusals import DeclinedError

MAX_KEPT = 4096


class Admission:
    """Judges certificates of the consortium's authority, which TLS has checked."""

    def __init__(self, consortium: Consortium, clock: Callable[[], float]) -> None:
        self._enrolment = Enrolment(consortium)
        self._clock = clock
        self._db = sqlite3.connect(
            consortium.enrolment_path, isolation_level=None, check_same_thread=False
        )
        self._lock = threading.Lock()
        self._version = -1
        self._reasons: dict[bytes, str] = {}
        self._known: dict[bytes, tuple[str, str, float]] = {}

    def members(self) -> list[str]:
        """The firms that may ask."""
        return [item.name for item in self._enrolment.members()]

    def close(self) -> None:
        """Close the members' file."""
        self._db.close()

    def firm_of(self, certificate: bytes) -> str:
        """The firm that showed this certificate (PEM or DER).

        Raises:
            DeclinedError: it may not ask.
        """
        with self._lock:
            try:
                if certificate not in self._known:
                    self._read(certificate)
                firm, pin, end_s = self._known[certificate]
                (version,) = self._db.execute("PRAGMA data_version").fetchone()
                if version != self._version:
                    self._version, self._reasons = version, {}
                if certificate not in self._reasons:
                    (reason,) = self._enrolment.certificates.refusals([(firm, pin)])
                    self._reasons[certificate] = reason
            except (sqlite3.Error, OSError):
                raise DeclinedError(
                    "not-now", "the lead's machine could not look up its members; try later"
                ) from None
            reason = self._reasons[certificate]
        if reason:
            raise DeclinedError("not-allowed", reason)
        if self._clock() >= end_s:  # TLS looked when the connection was made
            raise DeclinedError("not-allowed", "the certificate has expired; connect anew")
        return firm

    def _read(self, certificate: bytes) -> None:
        pem = certificate.startswith(b"-----")
        load = x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate
        read = load(certificate)
        names = read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if len(names) != 1:
            raise DeclinedError("not-allowed", "no common name in the certificate")
        if len(self._known) >= MAX_KEPT:
            self._known, self._reasons = {}, {}
        end_s = read.not_valid_after_utc.timestamp()
        self._known[certificate] = str(names[0].value), spki_pin(read), end_s
