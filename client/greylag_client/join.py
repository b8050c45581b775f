"""Join a consortium: make the firm's keys, enrol them with an invite, check all that comes back.

Nothing is sent before the server has shown the TLS key that the invite pins. The directory appears
whole or not at all, and the private keys never leave this machine.
"""

import http.client
import socket
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store
from cryptography.x509.verification import VerificationError as ChainError
from greylag_protocols.encoding import parse_json
from greylag_protocols.errors import ConfigError, RemoteError, VerificationError
from greylag_protocols.invite import (
    ENROLMENT_PATH,
    MAX_REPLY_BYTES,
    EnrolmentReply,
    EnrolmentRequest,
    Invite,
    parse_invite,
    parse_reply,
    spki_pin,
)
from greylag_protocols.membership import Membership
from greylag_protocols.signing import Ed25519Signer

from greylag_client.firm import (
    SETTINGS_FILE,
    FirmDirectory,
    FirmSettings,
    TlsCredentials,
    fill,
)
from greylag_client.firm_files import stage_directory

CONNECT_TIMEOUT_S = 20.0
RETRY_DELAYS_S = (0.5, 2.0)
APPROVE_SHOWN = "shown"

# What the firm can put right itself, by another invite or by joining anew.
_INVITE_CODES = frozenset(
    {
        "other-consortium",
        "unknown-invite",
        "expired-invite",
        "used-invite",
        "revoked-invite",
        "identity-taken",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinResult:
    """What to show after joining.

    Attributes:
        membership: the epoch that the firm joined with; people compare its fingerprints.
        digest: of that epoch, hex: what ``approve`` takes.
        approved: whether it is approved already.
        recovery_key: raw Ed25519 private key, hex. Print it once; it is stored nowhere.
    """

    firm: FirmDirectory
    membership: Membership
    digest: str
    approved: bool
    recovery_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """The firm's new private keys."""

    tls: ec.EllipticCurvePrivateKey
    identity: Ed25519PrivateKey
    recovery: Ed25519PrivateKey

    @classmethod
    def make(cls) -> "_Keys":
        return cls(
            tls=ec.generate_private_key(ec.SECP256R1()),
            identity=Ed25519PrivateKey.generate(),
            recovery=Ed25519PrivateKey.generate(),
        )

    def request(self, invite: Invite) -> EnrolmentRequest:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, invite.firm)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name)
        return EnrolmentRequest.prove(
            invite,
            csr=csr.sign(self.tls, hashes.SHA256()).public_bytes(Encoding.PEM).decode(),
            signer=Ed25519Signer(self.identity.private_bytes_raw()),
            recovery_key=self.recovery.public_key().public_bytes_raw(),
        )


def join(
    invite_text: str,
    directory: Path,
    *,
    data: Path | None,
    approve_members: str | None,
    now_s: float,
) -> JoinResult:
    """Enrol a firm and write its directory.

    Args:
        invite_text: the line that the lead sent.
        directory: absent or empty; a failed join leaves it so.
        data: the firm's data, to be remembered in firm.toml.
        approve_members: the digest (hex) of the membership to approve, known from elsewhere;
            "shown" to approve whatever list comes back; None to decide later.
        now_s: Unix seconds.

    Raises:
        ConfigError: the invite, the directory or an option cannot be used.
        RemoteError: the enrolment server does not answer, or not as it should.
        VerificationError: it is not the server that the invite names, or its reply does not hold.
    """
    invite = parse_invite(invite_text)
    wanted = _parse_approval(approve_members)
    if data is not None and not data.exists():
        raise ConfigError(f"{data} does not exist; name the firm's data, or join without it")
    keys = _Keys.make()
    with stage_directory(directory, last=SETTINGS_FILE) as staged:
        reply = _enrol(invite, keys.request(invite))
        membership = _check_reply(reply, invite, keys, now_s)
        digest = membership.digest().hex()
        approved = wanted in (APPROVE_SHOWN, digest)
        own = membership.member(invite.firm)
        fill(
            staged,
            settings=FirmSettings(
                consortium=invite.consortium,
                firm=invite.firm,
                operator=own.operator,
                host=reply.host,
                port=reply.port,
                enrol_port=invite.port,
                server_pin=invite.pin,
                lead_key=reply.lead_key,
                data="" if data is None else str(data.resolve()),
            ),
            identity_key=keys.identity.private_bytes_raw(),
            tls=TlsCredentials(
                ca=reply.ca.encode(),
                key=keys.tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
                certificate=reply.certificate.encode(),
            ),
            seen=reply.membership,
            approve=approved,
        )
    return JoinResult(
        firm=FirmDirectory.open(directory),
        membership=membership,
        digest=digest,
        approved=approved,
        recovery_key=keys.recovery.private_bytes_raw().hex(),
    )


class _PinnedConnection(http.client.HTTPConnection):
    """HTTP over TLS to whoever holds the pinned key; every connect checks, before any byte goes."""

    def __init__(self, invite: Invite) -> None:
        super().__init__(invite.host, invite.port, timeout=CONNECT_TIMEOUT_S)
        self._invite = invite

    def connect(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # No public authority vouches for a consortium; the pin below takes that place.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = socket.create_connection((self.host, self.port), timeout=self.timeout)
        try:
            secured = context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise
        if not _shows_pin(secured, self._invite.pin):
            secured.close()
            raise VerificationError(
                f"the server at {self.host}:{self.port} is not the one that the invite names; "
                "nothing was sent. Something on the way may be opening TLS connections, or the "
                "lead made a new consortium: ask the lead, by phone, for a new invite"
            )
        self.sock = secured


def _shows_pin(secured: ssl.SSLSocket, pin: str) -> bool:
    encoded = secured.getpeercert(binary_form=True)
    if encoded is None:
        return False
    try:
        return spki_pin(x509.load_der_x509_certificate(encoded)) == pin
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return False


def _enrol(invite: Invite, request: EnrolmentRequest) -> EnrolmentReply:
    status, body = _post(invite, request.encode())
    if status != http.client.OK:
        _raise_refusal(invite, status, body)
    try:
        return parse_reply(body)
    except (ConfigError, VerificationError) as error:
        raise RemoteError(
            f"the lead's reply cannot be read ({error}); compare the versions of greylag at both "
            "ends",
            peer=invite.consortium,
        ) from None


def _post(invite: Invite, request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer.

    The server allows the very same request again, so it is repeated when a reply is lost on its way
    or the lead's machine is busy.
    """
    sent, delays_s = False, iter(RETRY_DELAYS_S)
    headers = {"Content-Type": "application/json", "Connection": "close"}
    while True:
        delay_s = next(delays_s, None)
        connection = _PinnedConnection(invite)
        try:
            connection.connect()
            sent = True
            connection.request("POST", ENROLMENT_PATH, request, headers)
            response = connection.getresponse()
            body = response.read(MAX_REPLY_BYTES + 1)
            if response.status != http.client.SERVICE_UNAVAILABLE or delay_s is None:
                return response.status, body
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not sent or delay_s is None:
                _raise_unreachable(invite, error, sent=sent)
        finally:
            connection.close()
        time.sleep(delay_s)


def _raise_unreachable(invite: Invite, error: Exception, *, sent: bool) -> NoReturn:
    where = f"{invite.host}:{invite.port}"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if sent:
        raise RemoteError(
            f"the enrolment server at {where} gave no answer ({reason})" + _maybe_enrolled(invite),
            peer=invite.consortium,
        ) from None
    raise RemoteError(
        f"the enrolment server at {where} cannot be reached ({reason}); check that this machine "
        "may connect there, and that greylag-server serve is running at the lead",
        peer=invite.consortium,
    ) from None


def _maybe_enrolled(invite: Invite) -> str:
    return (
        ". It may have enrolled this firm all the same: if a second join says that the invite was "
        f"used, ask the lead to remove {invite.firm!r} and to send a new invite"
    )


def _raise_refusal(invite: Invite, status: int, body: bytes) -> NoReturn:
    code, message = "", ""
    try:
        value = parse_json(body)
        code, message = str(value["error"]), str(value["message"])
    except (VerificationError, KeyError, TypeError):
        message = f"HTTP status {status}; is another program listening on that port?"
    # What a remote wrote goes to a terminal: no control characters, and not without end.
    shown = "".join(char for char in message[:400] if char.isprintable())
    if code in _INVITE_CODES:
        raise ConfigError(f"the lead declined: {shown}")
    if status == http.client.SERVICE_UNAVAILABLE:
        shown += _maybe_enrolled(invite)
    raise RemoteError(f"the lead declined: {shown}", peer=invite.consortium)


def _check_reply(reply: EnrolmentReply, invite: Invite, keys: _Keys, now_s: float) -> Membership:
    """The membership, if the reply is the pinned lead's answer to this very request."""
    membership = reply.membership.verify(
        bytes.fromhex(reply.lead_key), consortium=invite.consortium, now_s=now_s
    )
    own = membership.member(invite.firm)
    identity = keys.identity.public_key().public_bytes_raw().hex()
    recovery = keys.recovery.public_key().public_bytes_raw().hex()
    if (own.identity, own.recovery) != (identity, recovery):
        raise VerificationError(
            f"the lead listed {invite.firm!r} under other keys than this firm's; ask the lead"
        )
    _check_certificate(reply, invite.firm, keys.tls, now_s)
    return membership


def _check_certificate(
    reply: EnrolmentReply, firm: str, key: ec.EllipticCurvePrivateKey, now_s: float
) -> None:
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


def _parse_approval(text: str | None) -> str | None:
    if text is None or text == APPROVE_SHOWN:
        return text
    digest = text.strip().lower()
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ConfigError(
            f"{text!r} is not a membership's digest; give its 64 hex digits, or "
            f"{APPROVE_SHOWN!r} to approve the list that the lead sends"
        )
    return digest
