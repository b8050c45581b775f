"""The firm's end of the enrolment server: one request over a connection to the pinned key.

Nothing is sent before the server has shown the TLS key that the invite named. Whoever holds that
key is the lead, so what comes back is the lead's word; it is checked all the same against what this
firm asked for.
"""

import http.client
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store
from cryptography.x509.verification import VerificationError as ChainError
from greylag_protocols.encoding import parse_json
from greylag_protocols.errors import RemoteError, VerificationError
from greylag_protocols.invite import MAX_REPLY_BYTES, Invite, spki_pin

from greylag_client.firm import FirmSettings, TlsCredentials
from greylag_client.proxy import connect

CONNECT_TIMEOUT_S = 20.0
RETRY_DELAYS_S = (0.5, 2.0)
MAX_SHOWN_CHARS = 400
OK_STATUSES = (http.client.OK, http.client.NO_CONTENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where a consortium's enrolment server is, and what it must show.

    Attributes:
        pin: SHA-256 of its TLS public key, hex.
        named_by: what says so, for people.
    """

    consortium: str
    host: str
    port: int
    pin: str
    named_by: str

    @classmethod
    def of_invite(cls, invite: Invite) -> "Desk":
        return cls(
            consortium=invite.consortium,
            host=invite.host,
            port=invite.port,
            pin=invite.pin,
            named_by="the invite",
        )

    @classmethod
    def of_firm(cls, settings: FirmSettings) -> "Desk":
        return cls(
            consortium=settings.consortium,
            host=settings.host,
            port=settings.enrol_port,
            pin=settings.server_pin,
            named_by="firm.toml",
        )

    def post(self, path: str, body: bytes, *, unsure: str = "") -> tuple[int, bytes]:
        """Status and body of the answer.

        The server allows the very same request again, so it is repeated when a reply is lost on its
        way or the lead's machine is busy.

        Args:
            unsure: what to add where the request may have been carried out all the same.

        Raises:
            RemoteError: no answer.
            VerificationError: it is not the server that was named; nothing was sent.
            ConfigError: the proxy's settings cannot be used.
        """
        sent, delays_s = False, iter(RETRY_DELAYS_S)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        while True:
            delay_s = next(delays_s, None)
            connection = _PinnedConnection(self)
            try:
                connection.connect()
                sent = True
                connection.request("POST", path, body, headers)
                response = connection.getresponse()
                answer = response.read(MAX_REPLY_BYTES + 1)
                if response.status != http.client.SERVICE_UNAVAILABLE or delay_s is None:
                    return response.status, answer
            except (OSError, http.client.HTTPException, ValueError) as error:
                if not sent or delay_s is None:
                    self._raise_unreachable(error, unsure if sent else None)
            finally:
                connection.close()
            time.sleep(delay_s)

    def _raise_unreachable(self, error: Exception, unsure: str | None) -> NoReturn:
        where = f"{self.host}:{self.port}"
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if unsure is not None:
            raise RemoteError(
                f"the enrolment server at {where} gave no answer ({reason}){unsure}",
                peer=self.consortium,
            ) from None
        raise RemoteError(
            f"the enrolment server at {where} cannot be reached ({reason}); check that this "
            "machine may connect there, and that greylag-server serve is running at the lead",
            peer=self.consortium,
        ) from None


class _PinnedConnection(http.client.HTTPConnection):
    """HTTP over TLS to whoever holds the pinned key; every connect checks, before any byte goes."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk.host, desk.port, timeout=CONNECT_TIMEOUT_S)
        self._desk = desk

    def connect(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # No public authority vouches for a consortium; the pin below takes that place.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = connect(self._desk.host, self._desk.port, timeout_s=CONNECT_TIMEOUT_S)
        try:
            secured = context.wrap_socket(plain, server_hostname=self._desk.host)
        except BaseException:
            plain.close()
            raise
        if not shows_pin(secured, self._desk.pin):
            secured.close()
            raise VerificationError(
                f"the server at {self.host}:{self.port} is not the one that {self._desk.named_by} "
                "names; nothing was sent. Something on the way may be opening TLS connections, or "
                "the lead made a new consortium: ask the lead, by phone, for a new invite"
            )
        self.sock = secured


def shows_pin(secured: ssl.SSLSocket, pin: str) -> bool:
    """Whether the other end's certificate is for the pinned key."""
    encoded = secured.getpeercert(binary_form=True)
    if encoded is None:
        return False
    try:
        return spki_pin(x509.load_der_x509_certificate(encoded)) == pin
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return False


class DeclinedError(RemoteError):
    """The lead declined a request; ``code`` (``invite.EnrolmentCode``, or whatever came) says
    which rule."""

    def __init__(self, message: str, *, peer: str, code: str) -> None:
        super().__init__(message, peer=peer)
        self.code = code


def read_refusal(consortium: str, status: int, body: bytes) -> DeclinedError:
    """What a server answered that did not do what was asked."""
    code, message = "", ""
    try:
        value = parse_json(body)
        code, message = str(value["error"]), str(value["message"])
    except (VerificationError, KeyError, TypeError):
        message = f"HTTP status {status}; is another program listening on that port?"
    # What a remote wrote goes to a terminal: no control characters, and not without end.
    shown = "".join(char for char in message[:MAX_SHOWN_CHARS] if char.isprintable())
    return DeclinedError(f"the lead declined: {shown}", peer=consortium, code=code)


class Issued(Protocol):
    """A reply with a certificate and its authority, PEM (``EnrolmentReply``, ``RenewalReply``)."""

    @property
    def certificate(self) -> str: ...

    @property
    def ca(self) -> str: ...


def make_tls_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key from the operating system's entropy."""
    return ec.generate_private_key(ec.SECP256R1())


def make_csr(key: ec.EllipticCurvePrivateKey, firm: str) -> str:
    """A request for a certificate of ``key`` in the firm's name, PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, firm)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name)
    return csr.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def check_certificate(
    reply: Issued, firm: str, key: ec.EllipticCurvePrivateKey, now_s: float
) -> None:
    """The certificate is for this firm and key, and its authority's, now.

    Raises:
        VerificationError: it is not.
    """
    try:
        certificate = x509.load_pem_x509_certificate(reply.certificate.encode())
        authority = x509.load_pem_x509_certificate(reply.ca.encode())
        verifier = (
            PolicyBuilder()
            .store(Store([authority]))
            .time(datetime.fromtimestamp(int(now_s), UTC))
            .build_client_verifier()
        )
        verifier.verify(certificate, [])
        names = [attribute.value for attribute in certificate.subject]
        own = certificate.public_key() == key.public_key()
    except (ValueError, ChainError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise VerificationError(
            f"the certificate that the lead issued does not hold ({error}); check this machine's "
            "clock, and tell the lead"
        ) from None
    if not own or names != [firm]:
        raise VerificationError(
            f"the certificate that the lead issued is not for {firm!r} and its key; tell the lead"
        )


def credentials(reply: Issued, key: ec.EllipticCurvePrivateKey) -> TlsCredentials:
    """What to keep of a checked reply: one certificate each, whatever stood around it."""
    certificate, ca = (
        x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.PEM)
        for text in (reply.certificate, reply.ca)
    )
    return TlsCredentials(
        ca=ca,
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate=certificate,
    )
