"""Who belongs to a consortium: a signed, epoch-numbered, expiring list of keys and operators.

The document's bytes are hashed; the lead signs the hash, consortium and epoch. Firms pin the lead's
key when they join, and approve an epoch by their own policy: a signature alone is not approval.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from greylag_protocols.encoding import canonical_json, parse_as, parse_json, tagged_hash
from greylag_protocols.errors import VerificationError
from greylag_protocols.signing import Signer, parse_statement, verify_statement
from greylag_protocols.terms import NAME_PATTERN, STRICT

MEMBERSHIP_KIND = "membership/v1"
REVOCATION_KIND = "revocation/v1"
LIFETIME_S = 30 * 24 * 3600
MAX_DOCUMENT_BYTES = 4 << 20

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One firm.

    Attributes:
        name: unique in the consortium; also the common name of its TLS certificate.
        operator: who runs its agent; firms of one operator count as one party that may collude.
        identity: Ed25519 public key that signs its statements, hex.
        recovery: Ed25519 public key whose revocation of ``identity`` is accepted, hex.
    """

    __pydantic_config__ = STRICT
    name: Name
    operator: Name
    identity: Hex32
    recovery: Hex32

    @property
    def identity_key(self) -> bytes:
        return bytes.fromhex(self.identity)

    @property
    def recovery_key(self) -> bytes:
        return bytes.fromhex(self.recovery)


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """One epoch. ``lead`` is the operator that runs the coordinator. Times are Unix seconds."""

    __pydantic_config__ = STRICT
    consortium: str
    lead: Name
    epoch: Annotated[int, Field(ge=1)]
    issued_s: int
    expires_s: int
    members: Annotated[tuple[Member, ...], Field(max_length=10_000)]

    def encode(self) -> bytes:
        """The canonical document."""
        return canonical_json(self)

    def digest(self) -> bytes:
        """What a security officer approves, 32 bytes."""
        return membership_digest(self.encode())

    def member(self, name: str) -> Member:
        """The member called ``name``.

        Raises:
            VerificationError: there is none.
        """
        for member in self.members:
            if member.name == name:
                return member
        raise VerificationError(f"no firm {name!r} in membership epoch {self.epoch}")

    def operators(self, firms: Iterable[str]) -> list[str]:
        """Who runs each of ``firms``.

        Raises:
            VerificationError: one is no member.
        """
        known, names = {member.name: member.operator for member in self.members}, list(firms)
        if strangers := [name for name in names if name not in known]:
            raise VerificationError(f"no firm {strangers[0]!r} in membership epoch {self.epoch}")
        return [known[name] for name in names]

    def coalition(self, roster: Iterable[str]) -> int:
        """The most firms of ``roster`` that the lead and one further operator run together."""
        operators = Counter(self.operators(roster))
        own = operators.pop(self.lead, 0)
        return own + max(operators.values(), default=0)

    def independent(self, firms: Iterable[str], max_colluding: int) -> int:
        """The most of ``firms`` that could stand in one roster: those whom the lead and one further
        operator run count up to ``max_colluding``. More than that many hold an honest firm."""
        operators = Counter(self.operators(firms))
        own = operators.pop(self.lead, 0)
        return max(
            leads + sum(min(count, max_colluding - leads) for count in operators.values())
            for leads in range(min(own, max_colluding) + 1)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedMembership:
    """A membership's document and the lead's statement about it, as bytes."""

    document: bytes
    statement: bytes

    @classmethod
    def sign(cls, membership: Membership, signer: Signer) -> "SignedMembership":
        document = membership.encode()
        statement = signer.sign(
            MEMBERSHIP_KIND,
            membership.consortium,
            membership_digest(document),
            {"epoch": membership.epoch, "expires_s": membership.expires_s},
        )
        return cls(document=document, statement=statement)

    def verify(self, lead_key: bytes, *, consortium: str, now_s: float) -> Membership:
        """The membership, if the lead signed it for this consortium and it has not expired.

        Raises:
            VerificationError: says which of these fails.
            ConfigError: the document has another shape.
        """
        signed = verify_statement(self.statement, lead_key, MEMBERSHIP_KIND)
        if signed.digest != membership_digest(self.document):
            raise VerificationError("the membership's signature covers another document")
        value = parse_json(self.document, max_bytes=MAX_DOCUMENT_BYTES)
        membership = parse_as(Membership, value, what="membership")
        names = [member.name for member in membership.members]
        identities = {member.identity for member in membership.members}
        if names != sorted(set(names)) or len(identities) != len(names):
            raise VerificationError("membership: names or keys are not unique and sorted")
        if any(member.recovery in identities for member in membership.members):
            raise VerificationError("membership: a recovery key is also somebody's identity")
        if membership.expires_s - membership.issued_s > LIFETIME_S:
            raise VerificationError("membership: an epoch lasts 30 days at most")
        if membership.consortium != consortium or signed.subject != consortium:
            raise VerificationError(
                f"this membership is of consortium {membership.consortium!r}, not {consortium!r}"
            )
        if not membership.issued_s - 300 <= now_s < membership.expires_s:
            raise VerificationError(
                f"membership epoch {membership.epoch} is not valid now; check this machine's "
                "clock, or ask the lead to issue a new epoch"
            )
        return membership


def membership_digest(document: bytes) -> bytes:
    """Hash of a membership document's bytes, 32 bytes."""
    return tagged_hash("greylag/membership/v1", document)


def sign_revocation(recovery: Signer, *, consortium: str, firm: str, identity: bytes) -> bytes:
    """A firm's recovery key takes back its identity key (32 bytes), for ever.

    Whoever holds it accepts it, however it came; it needs no clock and no answer.
    """
    predicate = {"firm": firm, "consortium": consortium}
    return recovery.sign(REVOCATION_KIND, firm, identity, predicate)


def claimed_revocation(envelope: bytes) -> str:
    """Whose identity an envelope says it takes back, **unverified**."""
    return str(parse_statement(envelope).predicate.get("firm"))


def verify_revocation(envelope: bytes, membership: Membership) -> Member:
    """The member whose identity, as ``membership`` lists it, an envelope takes back.

    Raises:
        VerificationError: not signed by that member's recovery key, or about another identity.
    """
    member = membership.member(claimed_revocation(envelope))
    statement = verify_statement(envelope, member.recovery_key, REVOCATION_KIND)
    expected = {"firm": member.name, "consortium": membership.consortium}
    if statement.predicate != expected or statement.digest != member.identity_key:
        raise VerificationError(
            f"{member.name}: a revocation of another identity than membership epoch "
            f"{membership.epoch} lists"
        )
    return member


def revoked_in(membership: Membership, revocations: Iterable[bytes]) -> frozenset[str]:
    """The members whose identities the given revocations take back; others do not matter here."""
    revoked = set()
    for envelope in revocations:
        try:
            revoked.add(verify_revocation(envelope, membership).name)
        except VerificationError:
            continue  # of a firm or an identity that this epoch no longer lists
    return frozenset(revoked)
