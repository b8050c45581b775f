"""Each firm's chain of statements: numbered without a gap, each naming the one before."""

from dataclasses import dataclass, field

from greylag_protocols.errors import VerificationError
from greylag_protocols.log import GENESIS, entry_head

from greylag_audit.entries import Entry
from greylag_audit.findings import Findings
from greylag_audit.members import Author


@dataclass(slots=True, kw_only=True)
class Chain:
    """Where the chain of one key stands; ``head`` is hex, ``last`` the entry that it is of."""

    author: Author
    seq: int = 0
    head: str = GENESIS.hex()
    last: Entry | None = None


@dataclass(slots=True, kw_only=True)
class Chains:
    """All chains, by the fingerprint of their key.

    Attributes:
        watched: the firm whose every head is kept, to be compared with its own ledger.
    """

    findings: Findings
    watched: str = ""
    heads: list[tuple[int, str, int]] = field(default_factory=list)
    by_key: dict[str, Chain] = field(default_factory=dict)

    def follow(self, entry: Entry, author: Author) -> None:
        """The next entry of a chain. After a fault the chain is followed from there on, so that one
        fault is told once."""
        chain = self.by_key.get(entry.key_id)
        if chain is None:
            chain = self.by_key[entry.key_id] = Chain(author=author)
        predicate = entry.predicate
        seq = predicate["seq"]
        if seq != chain.seq + 1:
            self.findings.broken(
                "chain:gap", entry=entry.position, firm=author.firm, found=seq, last=chain.seq
            )
        elif predicate["prev"] != chain.head:
            self.findings.broken("chain:forked", entry=entry.position, firm=author.firm, found=seq)
        chain.seq, chain.head, chain.last = seq, entry_head(entry.envelope).hex(), entry
        if author.firm == self.watched:
            self.heads.append((seq, chain.head, entry.position))

    def check_heads(self) -> None:
        """The last entry of each chain is signed, and with it all before: each holds the hash of
        the one before it, and whoever signed the last one has signed them all."""
        for chain in self.by_key.values():
            if chain.last is None:
                continue
            try:
                chain.last.check_signature(chain.author.key)
            except VerificationError:
                self.findings.broken(
                    "chain:unsigned", entry=chain.last.position, firm=chain.author.firm
                )
