"""A Flower Grid in one process: the same messages to the same ClientApps, without a network."""

from collections.abc import Callable, Iterable, Mapping

from flwr.app import Message

from greylag_server.grid_messages import FrameGrid, node_id

Answer = Callable[[Message], Message]


class LocalGrid(FrameGrid):
    """Calls each firm's app when a message is pushed; the reply waits to be pulled.

    Args:
        firms: by name, what answers a message.
    """

    def __init__(self, firms: Mapping[str, Answer]) -> None:
        self._nodes = {node_id(name): answer for name, answer in firms.items()}
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            key = message.metadata.message_id
            self._replies[key] = self._nodes[message.metadata.dst_node_id](message)
            ids.append(key)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(key) for key in list(message_ids) if key in self._replies]
