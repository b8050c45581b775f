"""A stock Flower Grid with greylag's node ids: which firm a SuperNode stands for.

Stock node ids say nothing of firms. A SuperLink gives one to each SuperNode key that its operator
registers, and lets no other key use it (``--enable-supernode-auth``); so the operator who registers
a firm's key knows the id, and writes it down. A wrong entry costs availability only: a firm's
answer counts under its own signature, and under no other name.

An agent that is started again stays behind the same node, but has lost its keys. The bridge reports
which agent answered; another one counts as another connection, and the coordinator greets it anew.
"""

import time
from collections.abc import Iterable, Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from greylag_server.grid_messages import (
    FIELD,
    RECORD,
    FrameGrid,
    node_id,
    unwrap,
    wrap_loss,
    wrap_reply,
)

AGENT_FIELD = "agent"
PAUSE_S = 0.2  # between looks: each is a request to the SuperLink


class StockGrid(FrameGrid):
    """Speaks for a stock Grid.

    Args:
        grid: what Flower handed to the ServerApp.
        firms: by stock node id, the firm's name. Other nodes are left alone.
    """

    def __init__(self, grid: Grid, firms: Mapping[int, str]) -> None:
        self._grid = grid
        self._firms = dict(firms)
        self._agents: dict[int, bytes] = {}
        self._connections = dict.fromkeys(firms, 0)
        self._sent: dict[str, tuple[str | None, int, Message]] = {}  # by the id that we gave

    def _own_id(self, node: int) -> int:
        return node_id(self._firms[node], self._connections[node])

    def get_node_ids(self) -> Iterable[int]:
        return [self._own_id(node) for node in self._grid.get_node_ids() if node in self._firms]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        nodes = {self._own_id(node): node for node in self._firms}
        given = [item for item in messages if item.metadata.dst_node_id in nodes]
        stock = [
            Message(
                RecordDict({RECORD: ConfigRecord({FIELD: unwrap(item)})}),
                nodes[item.metadata.dst_node_id],
                item.metadata.message_type,
            )
            for item in given
        ]
        keys: list[str | None] = list(self._grid.push_messages(stock)) if stock else []
        keys += [None] * (len(given) - len(keys))  # a message too large is dropped with all others
        for item, key in zip(given, keys, strict=True):
            node = nodes[item.metadata.dst_node_id]
            self._sent[item.metadata.message_id] = key, node, item
        return [item.metadata.message_id for item in given]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are here; after a pause, where there are none."""
        wanted = [key for key in message_ids if key in self._sent]
        own_keys = {key: own for own in wanted if (key := self._sent[own][0]) is not None}
        replies = [
            wrap_loss("not taken by the SuperLink", self._sent.pop(own)[2])
            for own in wanted
            if self._sent[own][0] is None
        ]
        for reply in self._grid.pull_messages(list(own_keys)) if own_keys else []:
            own = own_keys.get(reply.metadata.reply_to_message_id)
            if own is not None:
                _, node, request = self._sent.pop(own)
                replies.append(self._translate(reply, node, request))
        if not replies:
            time.sleep(PAUSE_S)
        return replies

    def _translate(self, reply: Message, node: int, request: Message) -> Message:
        if reply.has_error():
            return wrap_loss(reply.error.reason or "no answer", request)
        record = reply.content.get(RECORD)
        agent = record.get(AGENT_FIELD) if isinstance(record, ConfigRecord) else None
        if isinstance(agent, bytes) and self._agents.setdefault(node, agent) != agent:
            self._agents[node] = agent
            self._connections[node] += 1
        return wrap_reply(unwrap(reply), request)
