"""greylag frames in Flower messages: the one module here that builds flwr's ``Message``.

``Message`` is built from ready ``Metadata``: its other constructor reads process-wide globals that
only flwr's own launcher sets. ``tests/server/test_grid_contract.py`` holds the pinned version to
that.

A node id is 48 bits of the firm name's hash and a 15-bit connection number: an agent that comes
back is a new node, so that its return is seen even between two looks.
"""

import hashlib
import time
import uuid
from collections.abc import Iterable

from flwr.app import ConfigRecord, Error, Message, Metadata, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

RECORD = "greylag"
FIELD = "frame"
RUN_ID = 1
SERVER_NODE = 1
TTL_S = 3600.0
NODE_LOST = 1
CONNECTIONS = 1 << 15


def node_id(firm: str, connection: int = 0) -> int:
    """The Flower node id of a firm's ``connection``-th connection."""
    digest = hashlib.sha256(b"greylag/node/v1|" + firm.encode()).digest()
    return int.from_bytes(digest[:6], "big") * CONNECTIONS + connection % CONNECTIONS


def firm_part(node: int) -> int:
    """What the node ids of all connections of one firm have in common."""
    return node // CONNECTIONS


def wrap(frame: bytes, node: int, message_type: str) -> Message:
    """A request to ``node`` (an ``Offer``, ``Round`` or ``Close``)."""
    metadata = Metadata(
        run_id=RUN_ID,
        message_id=uuid.uuid4().hex,
        src_node_id=SERVER_NODE,
        dst_node_id=node,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=TTL_S,
        message_type=message_type,
    )
    content = RecordDict({RECORD: ConfigRecord({FIELD: frame})})
    return Message(content=content, metadata=metadata)  # type: ignore[call-overload,no-any-return]


def wrap_reply(frame: bytes, request: Message) -> Message:
    """A firm's answer to ``request``."""
    return Message(RecordDict({RECORD: ConfigRecord({FIELD: frame})}), reply_to=request)


def wrap_loss(reason: str, request: Message) -> Message:
    """The answer that will never come."""
    return Message(Error(code=NODE_LOST, reason=reason), reply_to=request)


def unwrap(message: Message) -> bytes:
    """The frame in a message; empty if it holds none."""
    return unwrap_content(message.content)


def unwrap_content(content: RecordDict) -> bytes:
    """The frame in a message's content; empty if it holds none."""
    record = content.get(RECORD)
    frame = record.get(FIELD) if isinstance(record, ConfigRecord) else None
    return frame if isinstance(frame, bytes) else b""


class FrameGrid(Grid):
    """What greylag's Grids share: they carry frames, and know no run of flwr's but what they are
    told."""

    _run: Run | None = None

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        if self._run is None:
            raise RuntimeError("set_run was not called")
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return wrap(unwrap_content(content), dst_node_id, message_type)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        waiting = set(self.push_messages(messages))
        until_s = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (until_s is None or time.monotonic() < until_s):
            for reply in self.pull_messages(list(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
        return replies
