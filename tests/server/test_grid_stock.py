"""Stock Flower's node ids become greylag's, and what a SuperLink does to messages is translated."""

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, Metadata, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from greylag_protocols.errors import ConfigError
from greylag_server import flower_app, grid_stock
from greylag_server.consortium import Consortium
from greylag_server.grid_messages import firm_part, node_id, unwrap, wrap
from greylag_server.grid_stock import StockGrid

FIRMS = {7: "firm-a", 8: "firm-b", 2**63 + 5: "firm-c"}


class SuperLink(Grid):
    """A Grid as a SuperLink offers it: ids of its own, replies later, losses and drops.

    Its ids are those of messages, as they are counted here; ``answers`` is by node.
    """

    def __init__(self) -> None:
        self.nodes: list[int] = [*FIRMS, 99]
        self.pushed: list[Message] = []
        self.answers: dict[int, RecordDict | Error] = {}
        self.drop = False

    def get_node_ids(self) -> Iterable[int]:
        return self.nodes

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        if self.drop:
            return []
        messages = list(messages)
        self.pushed += messages
        return [f"stock-{len(self.pushed) - len(messages) + at}" for at in range(len(messages))]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = []
        for key in message_ids:
            request = self.pushed[int(key.removeprefix("stock-"))]
            answer = self.answers.pop(request.metadata.dst_node_id, None)
            if answer is not None:
                metadata = Metadata(
                    1, f"reply-{key}", request.metadata.dst_node_id, 1, key, "", 0.0, 60.0, "query"
                )
                kind = "error" if isinstance(answer, Error) else "content"
                made: dict[str, Any] = {kind: answer, "metadata": metadata}
                replies.append(Message(**made))
        return replies

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
        raise NotImplementedError


def reply(frame: bytes, agent: bytes = b"one") -> RecordDict:
    return RecordDict({"greylag": ConfigRecord({"frame": frame, "agent": agent})})


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    monkeypatch.setattr(grid_stock, "PAUSE_S", 0.001)
    for name in ("_task_id", "_run_id", "_node_id"):  # as flwr's launcher of ServerApps does
        monkeypatch.setattr(TaskIdentity, name, 1)
    return SuperLink()


def node_of(grid: StockGrid, firm: str) -> int:
    return next(item for item in grid.get_node_ids() if firm_part(item) == firm_part(node_id(firm)))


def push(grid: StockGrid, firm: str, frame: bytes = b"ask") -> str:
    message = wrap(frame, node_of(grid, firm), "train")
    assert list(grid.push_messages([message])) == [message.metadata.message_id]
    return str(message.metadata.message_id)


def test_nodes_are_firms_and_strangers_are_left_alone(link: SuperLink) -> None:
    grid = StockGrid(link, FIRMS)
    assert list(grid.get_node_ids()) == [node_id(name) for name in FIRMS.values()]
    link.nodes = [8]
    assert list(grid.get_node_ids()) == [node_id("firm-b")]


def test_a_frame_goes_to_the_firms_node_and_the_reply_comes_under_our_id(link: SuperLink) -> None:
    grid = StockGrid(link, FIRMS)
    first, second = push(grid, "firm-a", b"to a"), push(grid, "firm-c", b"to c")
    sent = [(item.metadata.dst_node_id, unwrap(item)) for item in link.pushed]
    assert sent == [(7, b"to a"), (2**63 + 5, b"to c")]
    assert {item.metadata.message_type for item in link.pushed} == {"train"}
    assert list(grid.pull_messages([first, second])) == []
    link.answers[2**63 + 5] = reply(b"from c")
    (answer,) = grid.pull_messages([first, second])
    assert (answer.metadata.reply_to_message_id, unwrap(answer)) == (second, b"from c")
    link.answers[7] = reply(b"from a")
    (answer,) = grid.pull_messages([first, second])
    assert (answer.metadata.reply_to_message_id, unwrap(answer)) == (first, b"from a")
    assert list(grid.pull_messages([first, second])) == []  # once only


def test_another_agent_behind_a_node_is_another_connection(link: SuperLink) -> None:
    grid = StockGrid(link, FIRMS)
    seen = []
    for agent in (b"one", b"one", b"two", b"two"):
        key = push(grid, "firm-a")
        link.answers[7] = reply(b"", agent)
        assert len(list(grid.pull_messages([key]))) == 1
        seen.append(node_of(grid, "firm-a"))
    assert seen[0] == seen[1] == node_id("firm-a", 0)
    assert seen[2] == seen[3] == node_id("firm-a", 1)
    push(grid, "firm-a")  # the new id reaches the node as well
    assert link.pushed[-1].metadata.dst_node_id == 7


def test_a_lost_node_and_a_dropped_message_are_losses(link: SuperLink) -> None:
    grid = StockGrid(link, FIRMS)
    key = push(grid, "firm-a")
    link.answers[7] = Error(code=1, reason="node unavailable")
    (answer,) = grid.pull_messages([key])
    assert answer.has_error()
    assert (answer.metadata.reply_to_message_id, answer.error.reason) == (key, "node unavailable")
    link.drop = True
    key = push(grid, "firm-b")
    (answer,) = grid.pull_messages([key])
    assert answer.has_error()
    assert answer.metadata.reply_to_message_id == key


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({}),
        RecordDict({"greylag": ConfigRecord({})}),
        RecordDict({"greylag": ConfigRecord({"frame": "text", "agent": "text"})}),
    ],
)
def test_a_reply_without_a_frame_is_an_empty_one(link: SuperLink, content: RecordDict) -> None:
    grid = StockGrid(link, FIRMS)
    key = push(grid, "firm-a")
    link.answers[7] = content
    (answer,) = grid.pull_messages([key])
    assert unwrap(answer) == b""  # which the coordinator refuses to parse
    assert node_of(grid, "firm-a") == node_id("firm-a")


# -- the app's own edge ------------------------------------------------------------------------


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "flower.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nodes_are_read_from_the_leads_file(tmp_path: Path) -> None:
    path = write(tmp_path, f'[nodes]\nfirm-a = "7"\nfirm-b = "{2**64 - 1}"\n')
    assert flower_app.read_nodes(path) == {7: "firm-a", 2**64 - 1: "firm-b"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[nodes]\nfirm-a = 7", "firm-a"),
        ("[nodes]\nfirm-a = 'seven'", "firm-a"),
        ("[nodes]\nfirm-a = '7'\nfirm-b = '7'", "one node stands for two firms"),
        ("[nodes]\nfirm-a = '7'\nfirm-b = '07'", "one node stands for two firms"),
        ("[node]\nfirm-a = '7'", "did you mean 'nodes'"),
        ("nodes", "not TOML"),
    ],
)
def test_the_file_is_read_strictly(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        flower_app.read_nodes(write(tmp_path, text))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="flwr supernode register"):
        flower_app.read_nodes(tmp_path / "flower.toml")


def start(config: dict[str, Any]) -> None:
    flower_app.app(SuperLink(), Context(1, 1, {}, RecordDict(), config))


WAITS = {"offer-wait-s": 1.0, "round-wait-s": 1.0, "close-wait-s": 1.0}


def test_the_app_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name the lead's directory"):
        start({"directory": "", **WAITS})
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        lead = tmp_path / "lead"
        Consortium.create(
            lead, name="t", operator="l", host="127.0.0.1", port=port, enrol_port=port
        )
        config = {"directory": str(lead), "nodes": "", "run": "", **WAITS}
        with pytest.raises(ConfigError, match=r"lead/flower\.toml does not exist"):
            start(config)
        write(lead, '[nodes]\nfirm-a = "7"\n')
        # whoever holds the agents' port may be coordinating the same runs
        with pytest.raises(ConfigError, match="end `greylag-server serve`"):
            start(config)
    with pytest.raises(ConfigError, match="no run is waiting"):
        start(config)
