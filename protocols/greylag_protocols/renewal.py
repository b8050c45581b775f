"""What a member asks of the lead after joining: a new TLS certificate, and to leave.

Both rest on the identity key that the member list holds, and on nothing else. A certificate that
has expired, or that a thief holds as well, decides neither. Neither needs a clock: the lead knows
every TLS key that it certified and certifies none twice, so that an old request does nothing new;
and who has left stays gone.
"""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from greylag_protocols.encoding import (
    EXACT_INT,
    canonical_json,
    parse_as,
    parse_json,
    tagged_hash,
)
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.invite import MAX_REQUEST_BYTES, ConsortiumId, Pem
from greylag_protocols.membership import Name
from greylag_protocols.signing import Signer, parse_statement, verify_statement
from greylag_protocols.terms import STRICT

RENEWAL_KIND, RENEWAL_PATH = "renewal/v1", "/v1/renew"
LEAVE_KIND, LEAVE_PATH = "leave/v1", "/v1/leave"
MAX_REPLY_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRequest:
    """What a member posts for a new certificate.

    Attributes:
        csr: PKCS #10 request for a TLS key that was never certified before, PEM; common name is
            the firm's name.
        proof: DSSE envelope by the firm's identity key over ``digest()``.
    """

    __pydantic_config__ = STRICT
    consortium: ConsortiumId
    firm: Name
    csr: Pem
    proof: Annotated[str, Field(max_length=8192)] = field(repr=False)

    @classmethod
    def prove(cls, signer: Signer, *, consortium: str, firm: str, csr: str) -> "RenewalRequest":
        """The request, signed by the firm's identity key."""
        digest = _renewal_digest(consortium, firm, csr)
        proof = signer.sign(RENEWAL_KIND, consortium, digest, {"firm": firm})
        return cls(consortium=consortium, firm=firm, csr=csr, proof=proof.decode())

    def digest(self) -> bytes:
        """Hash of all that is asked for, 32 bytes: equal for a repetition, and only then."""
        return _renewal_digest(self.consortium, self.firm, self.csr)

    def check_proof(self, identity_key: bytes) -> None:
        """The identity key (32 bytes) signed this very request.

        Raises:
            VerificationError: it did not.
        """
        try:
            encoded = self.proof.encode()
        except UnicodeEncodeError:
            raise VerificationError("the renewal's proof is not text") from None
        signed = verify_statement(encoded, identity_key, RENEWAL_KIND)
        if signed.digest != self.digest() or signed.subject != self.consortium:
            raise VerificationError("the renewal's proof covers another request")

    def encode(self) -> bytes:
        return canonical_json(self)


def parse_renewal_request(body: bytes) -> RenewalRequest:
    """A request from outside.

    Raises:
        ConfigError, VerificationError: not one.
    """
    value = parse_json(body, max_bytes=MAX_REQUEST_BYTES)
    return parse_as(RenewalRequest, value, what="renewal request")


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalReply:
    """The new certificate and the authority that signed it, PEM."""

    __pydantic_config__ = STRICT
    certificate: Pem
    ca: Pem

    def encode(self) -> bytes:
        return canonical_json(self)


def parse_renewal_reply(body: bytes) -> RenewalReply:
    """A reply from outside.

    Raises:
        ConfigError, VerificationError: not one.
    """
    return parse_as(RenewalReply, parse_json(body, max_bytes=MAX_REPLY_BYTES), what="renewal reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """A firm's last word: it has left. ``left_s`` is its own clock's time, in Unix seconds."""

    __pydantic_config__ = STRICT
    consortium: ConsortiumId
    firm: Name
    left_s: Annotated[int, Field(ge=0, le=EXACT_INT)]

    def sign(self, signer: Signer) -> bytes:
        """The statement about the identity that signs it. It needs no clock and no answer, and is
        accepted over any channel."""
        predicate = {"consortium": self.consortium, "firm": self.firm, "left_s": self.left_s}
        return signer.sign(LEAVE_KIND, self.firm, signer.public_key, predicate)


def claimed_leave(envelope: bytes) -> Leave:
    """What an envelope says of who left, **unverified**: to find the key to check it with.

    Raises:
        VerificationError: it says no such thing.
    """
    statement = parse_statement(envelope)
    if statement.kind != LEAVE_KIND:
        raise VerificationError(f"expected a {LEAVE_KIND} statement, found {statement.kind}")
    try:
        leave = parse_as(Leave, statement.predicate, what="leave")
    except ConfigError as error:
        raise VerificationError(str(error)) from None
    if statement.subject != leave.firm:
        raise VerificationError("leave: a firm can speak of itself alone")
    return leave


def verify_leave(envelope: bytes, identity_key: bytes, *, consortium: str) -> Leave:
    """What a firm said when it left, if its identity key (32 bytes) signed it.

    Raises:
        VerificationError: signed by another key, about another identity or consortium.
    """
    leave = claimed_leave(envelope)
    statement = verify_statement(envelope, identity_key, LEAVE_KIND)
    if statement.digest != identity_key:
        raise VerificationError(f"{leave.firm}: a leave of another identity than its own")
    if leave.consortium != consortium:
        raise VerificationError(
            f"{leave.firm} has left consortium {leave.consortium!r}; this is {consortium!r}"
        )
    return leave


def _renewal_digest(consortium: str, firm: str, csr: str) -> bytes:
    return tagged_hash("greylag/renewal/v1", consortium.encode(), firm.encode(), csr.encode())
