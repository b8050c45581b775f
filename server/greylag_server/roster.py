"""What the coordinator knows of each firm in a run, and who may be in the next roster."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from greylag_protocols import log
from greylag_protocols.errors import VerificationError
from greylag_protocols.keys import VerifiedBatch, prove_batch, verify_batch
from greylag_protocols.log import ChainTip
from greylag_protocols.membership import Membership
from greylag_protocols.messages import SignedBatch
from greylag_protocols.round import RosterKey
from greylag_protocols.signing import parse_statement
from greylag_protocols.terms import REJOIN_EVERY

MAX_VOIDS = 2


@dataclass(slots=True, kw_only=True)
class Firm:
    """One firm. ``tip`` is the last entry of its chain that the log holds."""

    name: str
    identity_key: bytes
    tip: ChainTip
    accepted: bool = False
    online: bool = False
    asked: bool = False  # an offer is outstanding
    refused: bool = False
    voids: int = 0
    closed: bool = False
    log_size: int | None = (
        None  # entries of the log that it has seen, if it said so since the start
    )
    held: int | None = None  # entries of its chain that it asks for more than
    batch: VerifiedBatch | None = None
    statement: bytes = b""
    keys: tuple[bytes, ...] = ()
    proofs: Sequence[tuple[bytes, ...]] = ()

    @property
    def able(self) -> bool:
        """Whether it could take part, given keys."""
        return self.accepted and self.online and not self.refused and self.voids < MAX_VOIDS

    def has_key(self, attempt: int) -> bool:
        """Whether its current batch has a key for ``attempt``."""
        return self.batch is not None and attempt in self.batch.facts.attempts

    def roster_key(self, attempt: int) -> RosterKey:
        """Its key for ``attempt``, with the proof."""
        if self.batch is None or not self.has_key(attempt):
            raise VerificationError(f"{self.name} has no key for attempt {attempt}")
        index = attempt - self.batch.facts.first
        return RosterKey(firm=self.name, key=self.keys[index], proof=self.proofs[index])

    def take_batch(self, signed: SignedBatch, *, run: str, membership: Membership) -> None:
        """Check and keep new one-time keys.

        Raises:
            VerificationError: they are not this firm's, of this run and membership.
        """
        batch = verify_batch(signed.statement, self.identity_key)
        facts = batch.facts
        expected = (self.name, run, membership.consortium, membership.epoch, len(signed.keys))
        if (facts.firm, facts.run, facts.consortium, facts.epoch, facts.size) != expected:
            raise VerificationError("a key batch for another firm, run or membership")
        root, proofs = prove_batch(signed.keys, facts.first)
        if root != batch.root:
            raise VerificationError("a key batch whose keys do not lead to its root")
        self.batch, self.statement = batch, signed.statement
        self.keys, self.proofs = signed.keys, proofs

    def follow(self, entries: Iterable[bytes]) -> tuple[ChainTip, list[bytes]]:
        """The tip after ``entries``, and those of them that are new to the log."""
        tip, fresh = self.tip, []
        for envelope in entries:
            seq = parse_statement(envelope).predicate.get("seq")
            if isinstance(seq, int) and seq <= self.tip.seq:
                continue  # logged before; the firm did not know yet
            tip = tip.follow(envelope, firm=self.name, identity_key=self.identity_key)
            fresh.append(envelope)
        return tip, fresh


def candidates(
    firms: Iterable[Firm], *, last: Sequence[str], rounds_done: int, retrying: bool
) -> list[Firm]:
    """Who may be in the next roster, sorted by name.

    A retry takes what the void left; otherwise firms outside the last roster wait for a rejoining
    round, since every change of roster lets somebody estimate a difference.
    """
    able = sorted((item for item in firms if item.able), key=lambda item: item.name)
    if retrying or (last and rounds_done % REJOIN_EVERY):
        able = [item for item in able if item.name in last]
    return able


def find_entry(entries: Iterable[bytes], kind: str, digest: bytes) -> bytes | None:
    """The entry of ``kind`` about ``digest``, if it is among ``entries``."""
    for envelope in entries:
        statement = parse_statement(envelope)
        if statement.kind == kind and statement.digest == digest:
            return envelope
    return None


def acceptance_in(entries: Iterable[bytes], terms: bytes) -> bytes | None:
    """A firm's acceptance of the terms with this digest."""
    return find_entry(entries, log.ACCEPTANCE_KIND, terms)
