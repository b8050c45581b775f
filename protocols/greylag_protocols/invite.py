"""How a firm joins: the lead's invite, the firm's request and the lead's reply.

An invite is one line that a person pastes: ``glg1.`` and base64url of JCS JSON with a checksum. It
names the enrolment server by the hash of its TLS key, so that nothing is sent to anyone else, and
holds a token that works once. The firm proves that it holds its identity key by signing a hash of
all that it asks for; the token itself is never signed, stored or logged, only its hash.
"""

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import Field

from greylag_protocols.encoding import canonical_json, parse_as, parse_json, tagged_hash
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.membership import Hex32, Name, SignedMembership
from greylag_protocols.signing import Signer, verify_statement
from greylag_protocols.terms import STRICT

PREFIX = "glg1."
ENROLMENT_KIND = "enrolment/v1"
ENROLMENT_PATH = "/v1/enrol"
TOKEN_BYTES = 32
MAX_INVITE_CHARS = 4096
MAX_REQUEST_BYTES = 64 << 10
MAX_REPLY_BYTES = 16 << 20  # a membership of 10,000 firms fits
CHECKSUM_BYTES = 4  # against slips in copying, not against an adversary

EnrolmentCode = Literal[
    "malformed",
    "too-large",
    "other-consortium",
    "unknown-invite",
    "expired-invite",
    "used-invite",
    "revoked-invite",
    "bad-csr",
    "bad-proof",
    "identity-taken",
    "firm-removed",
    "firm-revoked",
    "firm-left",
    "too-many-failures",
    "unavailable",
]

ConsortiumId = Annotated[str, Field(pattern=r"^[a-z0-9-]{3,49}$")]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,253}$")]
Port = Annotated[int, Field(ge=1, le=65_535)]
Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
Pem = Annotated[str, Field(max_length=8192, pattern=r"^[ -~\r\n]+$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """One firm's admission, to be used once.

    Attributes:
        host, port: the enrolment server.
        pin: SHA-256 of the server's TLS public key (SubjectPublicKeyInfo), hex.
        token: base64url of 32 random bytes; secret.
        expires_s: Unix seconds.
    """

    __pydantic_config__ = STRICT
    consortium: ConsortiumId
    firm: Name
    host: Host
    port: Port
    pin: Hex32
    token: Token = field(repr=False)
    expires_s: int

    def encode(self) -> str:
        """The line that the lead sends to the firm."""
        payload = canonical_json(self)
        return PREFIX + _to_base64url(payload + _checksum(payload))


def parse_invite(text: str) -> Invite:
    """The invite that a person pasted; line breaks and spaces within it do no harm.

    Raises:
        ConfigError: not an invite, cut short, altered, or of another version. Messages never
            repeat any of the text, since it holds the token.
    """
    line = "".join(text.split())
    if not line.startswith(PREFIX):
        raise ConfigError(
            f"this is not an invite of this version of greylag: it must start with {PREFIX!r}; "
            "copy the whole line that the lead sent"
        )
    payload = _from_base64url(line.removeprefix(PREFIX)) if len(line) <= MAX_INVITE_CHARS else b""
    body, check = payload[:-CHECKSUM_BYTES], payload[-CHECKSUM_BYTES:]
    if not body or not hmac.compare_digest(check, _checksum(body)):
        raise ConfigError(
            "the invite is incomplete or was altered on its way; copy the whole line again, or "
            "ask the lead for a new one"
        )
    try:
        return parse_as(Invite, parse_json(body), what="invite")
    except (ConfigError, VerificationError):
        # The parser quotes what it found, and that may be the token.
        raise ConfigError(
            "the invite is whole but does not hold what an invite must; ask the lead which "
            "version of greylag made it"
        ) from None


def encode_token(entropy: bytes) -> str:
    """An invite's token from 32 random bytes."""
    if len(entropy) != TOKEN_BYTES:
        raise ConfigError(f"a token is made of {TOKEN_BYTES} bytes, not {len(entropy)}")
    return _to_base64url(entropy)


def token_hash(consortium: str, token: str) -> bytes:
    """What the lead stores of a token, 32 bytes. A plain hash does: the token has 256 bits."""
    return tagged_hash("greylag/invite-token/v1", consortium.encode(), token.encode())


def spki_pin(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate's public key as SubjectPublicKeyInfo (RFC 7469), hex."""
    key = certificate.public_key()
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """What a firm posts.

    Attributes:
        csr: PKCS #10 request for its TLS certificate, PEM; common name is the firm's name.
        identity, recovery: Ed25519 public keys, hex.
        proof: DSSE envelope by ``identity`` over ``digest()``.
    """

    __pydantic_config__ = STRICT
    consortium: ConsortiumId
    firm: Name
    token: Token = field(repr=False)
    csr: Pem
    identity: Hex32
    recovery: Hex32
    proof: Annotated[str, Field(max_length=8192)] = field(repr=False)

    @classmethod
    def prove(
        cls, invite: Invite, *, csr: str, signer: Signer, recovery_key: bytes
    ) -> "EnrolmentRequest":
        """The request for ``invite``, signed by the identity key that it presents."""
        identity = signer.public_key
        digest = _request_digest(
            invite.consortium, invite.firm, invite.token, csr, identity, recovery_key
        )
        proof = signer.sign(ENROLMENT_KIND, invite.consortium, digest, {"firm": invite.firm})
        return cls(
            consortium=invite.consortium,
            firm=invite.firm,
            token=invite.token,
            csr=csr,
            identity=identity.hex(),
            recovery=recovery_key.hex(),
            proof=proof.decode(),
        )

    @property
    def token_hash(self) -> bytes:
        return token_hash(self.consortium, self.token)

    def digest(self) -> bytes:
        """Hash of all that is asked for, 32 bytes: equal for a repetition, and only then."""
        identity, recovery = bytes.fromhex(self.identity), bytes.fromhex(self.recovery)
        return _request_digest(self.consortium, self.firm, self.token, self.csr, identity, recovery)

    def check_proof(self) -> None:
        """The identity key signed this very request.

        Raises:
            VerificationError: it did not.
        """
        try:
            encoded = self.proof.encode()
        except UnicodeEncodeError:
            raise VerificationError("the enrolment's proof is not text") from None
        signed = verify_statement(encoded, bytes.fromhex(self.identity), ENROLMENT_KIND)
        if signed.digest != self.digest() or signed.subject != self.consortium:
            raise VerificationError("the enrolment's proof covers another request")

    def encode(self) -> bytes:
        return canonical_json(self)


def parse_request(body: bytes) -> EnrolmentRequest:
    """A request from outside.

    Raises:
        ConfigError, VerificationError: not one. The messages may quote the token: do not pass
            them on.
    """
    value = parse_json(body, max_bytes=MAX_REQUEST_BYTES)
    return parse_as(EnrolmentRequest, value, what="enrolment request")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentReply:
    """What the lead returns.

    Attributes:
        certificate, ca: the firm's TLS certificate and the authority that signed it, PEM.
        lead_key: the lead's Ed25519 public key, hex; the firm pins it.
        host, port: where agents connect.
        document, statement: the membership epoch that the firm is in, exact text.
    """

    __pydantic_config__ = STRICT
    certificate: Pem
    ca: Pem
    lead_key: Hex32
    host: Host
    port: Port
    document: str
    statement: str

    @property
    def membership(self) -> SignedMembership:
        return SignedMembership(document=self.document.encode(), statement=self.statement.encode())

    def encode(self) -> bytes:
        return canonical_json(self)


def parse_reply(body: bytes) -> EnrolmentReply:
    """A reply from outside.

    Raises:
        ConfigError, VerificationError: not one.
    """
    value = parse_json(body, max_bytes=MAX_REPLY_BYTES)
    return parse_as(EnrolmentReply, value, what="enrolment reply")


def _request_digest(
    consortium: str, firm: str, token: str, csr: str, identity: bytes, recovery: bytes
) -> bytes:
    hashed = token_hash(consortium, token)
    return tagged_hash(
        "greylag/enrolment/v1",
        consortium.encode(), firm.encode(), hashed, csr.encode(), identity, recovery,
    )  # fmt: skip


def _checksum(payload: bytes) -> bytes:
    return tagged_hash("greylag/invite-checksum/v1", payload)[:CHECKSUM_BYTES]


def _to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _from_base64url(text: str) -> bytes:
    """The bytes, or none at all where ``text`` is not base64url without padding."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        return b""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return b""
