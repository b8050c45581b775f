"""What this firm has seen of the lead's log, durably: the edge of the tree, and the lead's word.

A firm goes on only with a log that grew out of the one it saw, and that holds every entry of its
own which the lead says it holds. What it then cosigns, it never contradicts: the new edge is on the
disk before the cosignature leaves.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.errors import VerificationError
from greylag_protocols.log_view import LogView
from greylag_protocols.merkle import Frontier, hash_leaf

from greylag_client.ledger_file import LedgerFile

PAST_KEPT = 4096  # entries: some rounds of the largest roster


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The log as it was seen.

    Attributes:
        edge: the tree's right edge.
        own: entries of this firm's chain that are in it, counted from the first.
        signature: the lead's, over the checkpoint.
    """

    edge: Frontier = field(default_factory=Frontier)
    own: int = 0
    signature: bytes = b""

    def checkpoint(self, origin: str) -> Checkpoint:
        """The state of the log named ``origin``."""
        return Checkpoint(origin=origin, size=self.edge.size, root=self.edge.root)

    def grown(
        self,
        view: LogView,
        *,
        origin: str,
        lead_key: bytes,
        held: int | None,
        entries: Sequence[bytes],
    ) -> "Sight":
        """What is seen after ``view``.

        Args:
            held: how many of this firm's entries the lead says the log holds; None if it says
                nothing, and those that are found are counted.
            entries: this firm's own after the ``own``-th.

        Raises:
            VerificationError: the log did not grow out of this one, or lacks an entry.
        """
        new = view.new_leaves(self.edge)
        if held is None:
            found = itertools.takewhile(lambda item: hash_leaf(item) in new, entries)
            held = self.own + sum(1 for _ in found)
        if held < self.own:
            raise VerificationError(
                f"the lead says that its log holds {held} entries of this firm; it held {self.own}"
            )
        if held - self.own > len(entries):
            raise VerificationError(
                "the log holds entries of this firm that its ledger lacks: the ledger was "
                "restored from an old copy. It is rebuilt from them when the lead next offers a "
                "run; until then nothing is answered"
            )
        edge = view.extend(self.edge, origin=origin, lead_key=lead_key)
        for seq, envelope in enumerate(entries[: held - self.own], start=self.own + 1):
            if hash_leaf(envelope) not in new:
                raise VerificationError(
                    f"the lead's log lacks entry {seq} of this firm, or holds it altered. Take "
                    "part in nothing and ask the lead"
                )
        return Sight(edge=edge, own=held, signature=view.signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The states of the log that led to the last one, some thousand entries back; in memory only.

    Other firms' cosignatures are on one of these: the log has grown since.
    """

    start: Frontier = field(default_factory=Frontier)
    leaves: tuple[bytes, ...] = ()

    def grown(self, known: Frontier, view: LogView) -> "Past":
        """The same with what ``view`` shows after ``known``, the edge it was checked against."""
        start, leaves = self.start, self.leaves
        if start.size + len(leaves) != known.size:  # the agent has just started
            start, leaves = known, ()
        leaves += view.leaves[max(0, known.size - view.first) :]
        if len(leaves) > 2 * PAST_KEPT:
            for leaf in leaves[:-PAST_KEPT]:
                start = start.append(leaf)
            leaves = leaves[-PAST_KEPT:]
        return Past(start=start, leaves=leaves)

    def at(self, size: int, *, origin: str) -> Checkpoint | None:
        """The log's state of ``size`` entries, if this firm can still tell."""
        count = size - self.start.size
        if not 0 <= count <= len(self.leaves):
            return None
        edge = self.start
        for leaf in self.leaves[:count]:
            edge = edge.append(leaf)
        return Checkpoint(origin=origin, size=size, root=edge.root)


class Witness:
    """The last sight in a ledger's file."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def sight(self) -> Sight:
        """What was seen last."""
        row = self._file.db.execute("SELECT size, peaks, own, signature FROM lead_log").fetchone()
        if row is None:
            return Sight()
        size, joined, own, signature = row
        peaks = tuple(joined[at : at + 32] for at in range(0, len(joined), 32))
        return Sight(edge=Frontier(size, peaks), own=own, signature=signature)

    def keep(self, sight: Sight) -> None:
        """Remember it; in a transaction of the caller's."""
        self._file.db.execute(
            "INSERT INTO lead_log (one, size, peaks, own, signature) VALUES (1, ?, ?, ?, ?) "
            "ON CONFLICT (one) DO UPDATE SET size = excluded.size, peaks = excluded.peaks, "
            "own = excluded.own, signature = excluded.signature",
            (sight.edge.size, b"".join(sight.edge.peaks), sight.own, sight.signature),
        )
