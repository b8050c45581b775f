"""How far the ledgers of other firms were when this firm last saw them."""

from collections.abc import Mapping

from greylag_protocols.errors import RefusedError
from greylag_protocols.log import ChainTip

from greylag_client.ledger_file import LedgerFile


class PeerNotes:
    """The notes in a ledger's file."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def tip(self, firm: str) -> ChainTip:
        """The last entry that was seen of a peer's chain."""
        row = self._file.db.execute(
            "SELECT seq, head FROM peers WHERE firm = ?", (firm,)
        ).fetchone()
        return ChainTip() if row is None else ChainTip(seq=row[0], head=row[1])

    def note(self, tips: Mapping[str, ChainTip]) -> None:
        """Remember how far peers' ledgers were: all of them, or none.

        Raises:
            RefusedError: one was further before, or shows another entry in the same place: the
                peer's machine was set back or copied.
        """
        if not tips:
            return
        with self._file.transaction():
            for firm, tip in tips.items():
                self._note(firm, tip)

    def _note(self, firm: str, tip: ChainTip) -> None:
        known = self.tip(firm)
        if tip.seq < known.seq or (tip.seq == known.seq and tip.head != known.head):
            raise RefusedError(
                f"{firm} shows ledger entry {tip.seq}, where {known.seq} was seen before: its "
                "machine was set back or copied. Ask that firm before going on",
                refusal_class="protocol",
            )
        if tip.seq > known.seq:
            self._file.db.execute(
                "INSERT INTO peers (firm, seq, head) VALUES (?, ?, ?) "
                "ON CONFLICT (firm) DO UPDATE SET seq = excluded.seq, head = excluded.head",
                (firm, tip.seq, tip.head),
            )
