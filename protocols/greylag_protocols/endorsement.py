"""Saying yes to a member list: a firm's people, or an independent body, for others to rely on.

The lead's own signature is never enough. A firm may let its agent take a new epoch without being
asked when a body that it named endorsed it, or when more firms than may collude did, under
different operators, whom it knows from lists that its own people approved.
"""

from collections.abc import Iterable, Mapping

from greylag_protocols.errors import VerificationError
from greylag_protocols.membership import Membership
from greylag_protocols.signing import Signer, parse_statement, verify_statement

ENDORSEMENT_KIND = "endorsement/v1"
ENDORSEMENT_PATH = "/v1/endorse"


def sign_endorsement(signer: Signer, membership: Membership, *, by: str) -> bytes:
    """The people of ``by`` (a firm, or a body) looked at this very list and agree to it."""
    predicate = {"by": by, "consortium": membership.consortium, "epoch": membership.epoch}
    return signer.sign(ENDORSEMENT_KIND, membership.consortium, membership.digest(), predicate)


def claimed_endorser(envelope: bytes) -> str | None:
    """Who an endorsement says it is by, **unverified**; None if it is something else.

    Raises:
        VerificationError: not a statement at all.
    """
    statement = parse_statement(envelope)
    return str(statement.predicate.get("by")) if statement.kind == ENDORSEMENT_KIND else None


def verify_endorsement(envelope: bytes, key: bytes, membership: Membership) -> str:
    """Who endorsed this very list, if the holder of ``key`` (Ed25519, 32 bytes) did.

    Raises:
        VerificationError: another key, list, epoch or kind of statement.
    """
    statement = verify_statement(envelope, key, ENDORSEMENT_KIND)
    by = statement.predicate.get("by")
    expected = {"by": by, "consortium": membership.consortium, "epoch": membership.epoch}
    if statement.digest != membership.digest() or statement.predicate != expected:
        raise VerificationError(f"an endorsement of another list than epoch {membership.epoch}")
    return str(by)


def endorsed_by_body(
    membership: Membership, envelopes: Iterable[bytes], keys: Iterable[bytes]
) -> bool:
    """Whether one of the bodies that hold ``keys`` endorsed the list."""
    keys = list(keys)
    return any(_holds(envelope, key, membership) for envelope in envelopes for key in keys)


def endorsing_operators(
    membership: Membership,
    envelopes: Iterable[bytes],
    *,
    trusted: Iterable[Membership],
    firm: str,
    revoked: Iterable[str] = (),
) -> frozenset[str]:
    """Operators of firms that endorsed the list and that ``firm`` knows by its own people's word.

    A firm is known if a trusted list and the new one hold the same entry for it. An operator's
    firms count as one; neither the lead's word counts nor the firm's own.
    """
    without = {*revoked, firm}
    operators = {item.operator for item in membership.members if item.name == firm}
    operators.add(membership.lead)
    standing = {item for epoch in trusted for item in epoch.members} & set(membership.members)
    known: Mapping[str, bytes] = {
        item.name: item.identity_key
        for item in standing
        if item.name not in without and item.operator not in operators
    }
    found = set()
    for envelope in envelopes:
        try:
            by = claimed_endorser(envelope)
            if by is not None and by in known:
                found.add(verify_endorsement(envelope, known[by], membership))
        except VerificationError:
            continue  # of another list, or forged: it does no harm and does not count
    return frozenset(membership.member(name).operator for name in found)


def _holds(envelope: bytes, key: bytes, membership: Membership) -> bool:
    try:
        verify_endorsement(envelope, key, membership)
    except VerificationError:
        return False
    return True
