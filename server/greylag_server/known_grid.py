"""A lead that was put back from a copy must not go on: firms have seen more of its log.

What such a lead would append stands at places of the log that other entries have taken; signed, it
is a second history, and every firm would hold the proof. So each firm that connects is first asked
how much of the log it has seen, by a ``Show`` that starts beyond everything: its agent answers that
with a number, and nothing is signed for it. One answer above the own size stops this lead.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Message
from greylag_protocols.errors import ConfigError, GreylagError
from greylag_protocols.log_view import HASH_BYTES, LogView
from greylag_protocols.messages import Cosigned, Show
from greylag_protocols.notes import SIGNATURE_BYTES
from greylag_protocols.parsing import parse_firm_message

from greylag_server.grid_messages import FrameGrid, firm_part, node_id, unwrap, wrap
from greylag_server.store import Store

logger = logging.getLogger(__name__)

BEYOND = (1 << 53) - 1  # more entries than any log has
NO_RUN = "log-seen"
LOOK_S = 0.05
PROMPT_S = 2.0  # who has not answered by then is looked after once a second: it costs the others


def ask_size() -> bytes:
    """The question: how much of the log have you seen?"""
    view = LogView(
        first=BEYOND, leaves=(), root=bytes(HASH_BYTES), signature=bytes(SIGNATURE_BYTES)
    )
    return Show(run=NO_RUN, log=view).encode()


def check_ahead(store: Store, members: Iterable[str]) -> None:
    """Refuse to serve while a member has seen more of the log than there is.

    Raises:
        ConfigError: one has; says what to do.
    """
    size, names = store.checkpoint().size, set(members)
    ahead = {firm: seen for firm, seen in store.ahead().items() if firm in names and seen > size}
    if ahead:
        firm, most = max(ahead.items(), key=lambda item: item[1])
        raise ConfigError(
            f"this log has {size} entries, and {firm} says that it saw {most} of them"
            + (f" ({len(ahead)} firms say so)" if len(ahead) > 1 else "")
            + ". The lead was probably restored from a copy; going on would make a second history. "
            "Nothing was signed. Restore a newer copy with `greylag-server restore`; "
            "docs/operations.md says what else there is. If this lead was never "
            f"restored, ask {firm}; a firm that says what is not so is taken out with "
            "`greylag-server remove`"
        )


class KnownGrid(FrameGrid):
    """A grid of those firms that have seen no more of the log than there is.

    Args:
        inner: carries the messages.
        members: the firms that belong now.

    Raises:
        ConfigError: from ``get_node_ids``, see ``check_ahead``.
    """

    def __init__(
        self, inner: FrameGrid, store: Store, members: Callable[[], Iterable[str]]
    ) -> None:
        self._inner, self._store, self._members = inner, store, members
        self._asked: dict[str, int] = {}  # question's id: node
        self._known: set[int] = set()
        self._asked_s = self._next_s = 0.0

    def get_node_ids(self) -> Iterable[int]:
        nodes = set(self._inner.get_node_ids())
        self._known &= nodes
        new = nodes - self._known - set(self._asked.values())
        if new:
            questions = [wrap(ask_size(), node, "query") for node in new]
            self._asked |= {
                item.metadata.message_id: item.metadata.dst_node_id for item in questions
            }
            list(self._inner.push_messages(questions))
            self._asked_s = self._next_s = time.monotonic()
        if self._asked and (now_s := time.monotonic()) >= self._next_s:
            self._next_s = now_s if now_s - self._asked_s < PROMPT_S else now_s + 1.0
            for reply in self._inner.pull_messages(list(self._asked)):
                node = self._asked.pop(reply.metadata.reply_to_message_id)
                if not reply.has_error():
                    self._hear(node, reply)
        return [node for node in nodes if node in self._known]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._inner.pull_messages(message_ids)

    def wait_for(self, firms: Iterable[str], *, wait_s: float, stop: threading.Event) -> None:
        """Give these firms time to connect and to say what they saw."""
        missing = {firm_part(node_id(firm)) for firm in firms}
        until_s = time.monotonic() + wait_s
        while missing and time.monotonic() < until_s and not stop.is_set():
            missing -= {firm_part(node) for node in self.get_node_ids()}
            stop.wait(LOOK_S if missing else 0)

    def _hear(self, node: int, reply: Message) -> None:
        names: Mapping[int, str] = {firm_part(node_id(name)): name for name in self._members()}
        name = names.get(firm_part(node), "")
        try:
            said = parse_firm_message(unwrap(reply))
        except GreylagError as error:
            logger.warning("%s: %s", name, error)
        else:
            # Whoever refuses to say refuses the offers, too; nobody needs to be kept from it.
            size = self._store.checkpoint().size
            if isinstance(said, Cosigned) and said.log_size > size and name:
                with self._store.transaction():
                    self._store.keep_ahead(name, said.log_size)
                check_ahead(self._store, names.values())
        self._known.add(node)
