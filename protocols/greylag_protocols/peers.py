"""What firms remember of each other, so that a machine that was set back or copied is found out.

A firm's ledger only grows. Its key batches carry how far it had grown, and the others remember it.
A firm that has just started, and may have been restored from an old copy without knowing, asks the
others before it hands out keys: each signs the last entry that it saw of the asker, together with
the asker's nonce, so that no old answer can be shown again.

``max_colluding + 1`` answers are enough, from firms that could stand in one roster: at least one of
them is honest. What no honest firm saw, none can tell: entries show with the next key batch, 64
attempts later at most.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from greylag_protocols.encoding import parse_as
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.log import ChainTip
from greylag_protocols.membership import Hex32, Membership, Name
from greylag_protocols.signing import Signer, parse_statement, verify_statement
from greylag_protocols.terms import STRICT

SEEN_KIND = "seen/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A firm's word: the last entry that ``firm`` saw of ``about``'s chain; 0 if none ever."""

    __pydantic_config__ = STRICT
    firm: str
    consortium: str
    about: Name
    nonce: Hex32
    seq: Annotated[int, Field(ge=0)]

    def sign(self, signer: Signer, head: bytes) -> bytes:
        """The statement; ``head`` is the hash of that entry."""
        predicate = {
            "firm": self.firm,
            "consortium": self.consortium,
            "about": self.about,
            "nonce": self.nonce,
            "seq": self.seq,
        }
        return signer.sign(SEEN_KIND, self.about, head, predicate)


def verify_seen(envelope: bytes, membership: Membership) -> tuple[Seen, bytes]:
    """A member's statement, and the head that it names.

    Raises:
        VerificationError: bad signature or shape, or not a member's.
    """
    try:
        claim = parse_as(Seen, parse_statement(envelope).predicate, what="seen statement")
    except ConfigError as error:
        raise VerificationError(str(error)) from None
    member = membership.member(claim.firm)
    statement = verify_statement(envelope, member.identity_key, SEEN_KIND)
    if claim.consortium != membership.consortium or statement.subject != claim.about:
        raise VerificationError(f"{claim.firm}: a statement about another consortium or firm")
    return claim, statement.digest


def count_peers(
    statements: Iterable[bytes],
    *,
    membership: Membership,
    firm: str,
    nonce: str,
    tip: ChainTip,
    head_at: Callable[[int], bytes | None],
    max_colluding: int,
) -> int:
    """How many other firms vouch that ``firm``'s ledger holds all that they saw of it.

    Only firms that could stand in one roster count: an operator may run more members than ever
    stand in a roster, and would vouch with all of them.

    Args:
        nonce: the one that ``firm`` asked with.
        tip: where its ledger stands.
        head_at: the hash of one of its own entries, by number.

    Raises:
        VerificationError: a firm saw an entry that the ledger lacks, or another one in its place;
            or a statement is no answer to this question.
    """
    vouched = set()
    for envelope in statements:
        seen, head = verify_seen(envelope, membership)
        if (seen.about, seen.nonce) != (firm, nonce) or seen.firm == firm:
            raise VerificationError(f"{seen.firm}: an answer to another question")
        if seen.seq > tip.seq or (seen.seq and head_at(seen.seq) != head):
            raise VerificationError(
                f"{seen.firm} saw entry {seen.seq} of this firm's ledger, which it lacks (it has "
                f"{tip.seq}): it was restored from an old copy, or a copy of this firm runs "
                "elsewhere. Take part in nothing until that is cleared up"
            )
        vouched.add(seen.firm)
    return membership.independent(vouched, max_colluding)
