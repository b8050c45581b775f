"""The firms as witnesses of the log: what they are shown of it, and their cosignatures."""

from collections.abc import Iterable, Mapping, Sequence

from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.log_view import LogView, choose_cosigners, show_log
from greylag_protocols.round import RosterKey, roster_keys_digest
from greylag_protocols.signing import Signer

from greylag_server.store import Store


class Witnesses:
    """The cosignatures of one run's firms, and the views that lead to them."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer
        self._last_size = 0  # of the log that the last completed round was bound to
        self._words: Mapping[str, bytes] = {}  # on that

    def view(self, sizes: Iterable[int | None]) -> LogView:
        """The log for firms that have seen so many entries of it (None: nobody knows)."""
        return make_view(self._store, self._signer, sizes)

    def completed(self, checkpoint: Checkpoint, words: Mapping[str, bytes]) -> None:
        """A round was completed whose attempt was bound to ``checkpoint``."""
        self._last_size, self._words = checkpoint.size, words

    def shown(self, roster: Sequence[RosterKey]) -> tuple[int, tuple[bytes, ...]]:
        """The size of the log that the last completed round was bound to, and those cosignatures
        on it that an attempt with this roster has to show."""
        both = [item.firm for item in roster if item.firm in self._words]
        chosen = choose_cosigners(both, context=roster_keys_digest(item.key for item in roster))
        return self._last_size, tuple(self._words[firm] for firm in chosen)


def make_view(store: Store, signer: Signer, sizes: Iterable[int | None]) -> LogView:
    """The log as it is now, from the smallest of ``sizes`` on."""
    checkpoint = store.checkpoint()
    known = [checkpoint.size if size is None else size for size in sizes]
    first = min([checkpoint.size, *known])
    return show_log(signer, checkpoint, store.leaf_hashes(first))
