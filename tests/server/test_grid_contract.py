"""The grids over real streams, and what the pinned flwr must go on doing for them."""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from greylag_client import link
from greylag_client.app import answer_frame, make_context
from greylag_client.firm import TlsCredentials
from greylag_client.link import keep_connected
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_server import grid_grpc
from greylag_server.authority import CertificateAuthority, encode_private, make_tls_key
from greylag_server.grid_grpc import CHUNK_BYTES, GrpcGrid, split_parcel
from greylag_server.grid_local import LocalGrid
from greylag_server.grid_messages import firm_part, node_id, unwrap, wrap, wrap_loss, wrap_reply
from parcels import join_parcels

LIMIT = 4 << 20


class Lead:
    """An authority, a listening grid, and the agents that were started on it."""

    def __init__(self, *, limit: int = LIMIT) -> None:
        self.now_s = time.time()
        self.authority = CertificateAuthority.create("glass", now_s=self.now_s)
        self.key = make_tls_key()
        server = self.authority.issue_server(
            self.key.public_key(), host="127.0.0.1", now_s=self.now_s
        )
        self.certificate = server.public_bytes(Encoding.PEM)
        self.grid = self.listen("127.0.0.1:0", limit=limit)
        self.stops: list[tuple[threading.Event, threading.Thread]] = []

    def listen(self, address: str, *, limit: int = LIMIT) -> GrpcGrid:
        return GrpcGrid(
            address,
            ca=self.authority.certificate_pem,
            key=encode_private(self.key),
            certificate=self.certificate,
            max_frame_bytes=limit,
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grid.port}"

    def credentials(
        self, firm: str, signed_by: CertificateAuthority | None = None
    ) -> TlsCredentials:
        key = make_tls_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, firm)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject)
        pem = csr.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        certificate = (signed_by or self.authority).sign_firm(pem, firm=firm, now_s=self.now_s)
        return TlsCredentials(
            ca=self.authority.certificate_pem,
            key=encode_private(key),
            certificate=certificate.public_bytes(Encoding.PEM),
        )

    def start_agent(
        self, firm: str, answer: Callable[[bytes], bytes] = lambda frame: frame
    ) -> threading.Event:
        stop = threading.Event()
        thread = threading.Thread(
            target=keep_connected, args=(self.address, self.credentials(firm), answer, stop)
        )
        thread.start()
        self.stops.append((stop, thread))
        return stop

    def close(self) -> None:
        for stop, _ in self.stops:
            stop.set()
        for _, thread in self.stops:
            thread.join()
        self.grid.stop()


@pytest.fixture
def lead() -> Iterator[Lead]:
    lead = Lead()
    yield lead
    lead.close()


def wait_for(condition: Callable[[], object]) -> None:
    """Until ``condition`` holds; the test's own time limit ends a wait that never ends."""
    while not condition():
        time.sleep(0.01)


def nodes(grid: Grid, count: int) -> list[int]:
    wait_for(lambda: len(list(grid.get_node_ids())) == count)
    return sorted(grid.get_node_ids())


def ask(grid: Grid, node: int, frame: bytes) -> Message:
    (reply,) = grid.send_and_receive([wrap(frame, node, "train")])
    return reply


# -- frames ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 2, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 5]
)
def test_parcels_survive_their_chunks(size: int) -> None:
    parcels = [bytes(size), b"x" * size, b"end"]
    chunks = [chunk for parcel in parcels for chunk in split_parcel(parcel)]
    assert max(len(chunk) for chunk in chunks) <= CHUNK_BYTES
    assert list(join_parcels(iter(chunks), limit=size + 3)) == parcels


def test_a_parcel_over_the_limit_ends_the_stream_before_it_is_whole() -> None:
    taken = []

    def endless() -> Iterator[bytes]:
        while True:
            taken.append(1)
            yield b"\x00" + bytes(99)

    with pytest.raises(ValueError, match="longer than 1000"):
        list(join_parcels(endless(), limit=1000))
    assert len(taken) == 11


def test_an_empty_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="empty chunk"):
        list(join_parcels(iter([b""]), limit=10))


def test_large_frames_go_both_ways(lead: Lead) -> None:
    """More than one chunk there, another size back, for several firms at once."""
    for firm in ("firm-a", "firm-b", "firm-c"):
        lead.start_agent(firm, lambda frame, firm=firm: firm.encode() + frame[::-1])
    frames = {node: bytes([at]) + bytes(3 * CHUNK_BYTES) + b"end" for at, node in
              enumerate(nodes(lead.grid, 3))}  # fmt: skip
    replies = list(
        lead.grid.send_and_receive([wrap(frame, node, "train") for node, frame in frames.items()])
    )
    assert len(replies) == 3
    for reply in replies:
        node = reply.metadata.src_node_id
        firm = next(
            f for f in ("firm-a", "firm-b", "firm-c") if firm_part(node_id(f)) == firm_part(node)
        )
        assert unwrap(reply) == firm.encode() + frames[node][::-1]


def test_messages_are_answered_in_order_and_each_by_its_own_reply(lead: Lead) -> None:
    seen: list[bytes] = []

    def answer(frame: bytes) -> bytes:
        seen.append(frame)
        return b"re:" + frame

    lead.start_agent("firm-a", answer)
    (node,) = nodes(lead.grid, 1)
    frames = [str(number).encode() for number in range(20)]
    messages = [wrap(frame, node, "query") for frame in frames]
    replies = list(lead.grid.send_and_receive(messages))
    by_request = {reply.metadata.reply_to_message_id: unwrap(reply) for reply in replies}
    expected = {item.metadata.message_id: b"re:" + unwrap(item) for item in messages}
    assert by_request == expected
    assert seen == frames


# -- who may connect -------------------------------------------------------------------------------


def try_to_connect(address: str, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    with grpc.secure_channel(address, credentials) as channel:
        stream = channel.stream_stream("/greylag.v1.Link/Connect")(iter([b"\x01hello"]))
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        return caught.value.code()


def test_a_client_without_a_certificate_is_refused(lead: Lead) -> None:
    credentials = grpc.ssl_channel_credentials(lead.authority.certificate_pem)
    assert try_to_connect(lead.address, credentials) == grpc.StatusCode.UNAVAILABLE
    assert list(lead.grid.get_node_ids()) == []


def test_a_certificate_of_another_authority_is_refused(lead: Lead) -> None:
    other = CertificateAuthority.create("glass", now_s=lead.now_s)
    tls = lead.credentials("firm-a", signed_by=other)
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    assert try_to_connect(lead.address, credentials) == grpc.StatusCode.UNAVAILABLE
    assert list(lead.grid.get_node_ids()) == []


def test_a_firm_does_not_talk_to_another_server(lead: Lead) -> None:
    """The agent pins the consortium's authority; a server under another one hears nothing."""
    other = Lead()
    heard = []
    stop = threading.Event()
    tls = lead.credentials("firm-a")

    def listen(frame: bytes) -> bytes:
        heard.append(frame)
        return b""

    thread = threading.Thread(target=keep_connected, args=(other.address, tls, listen, stop))
    thread.start()
    lead.start_agent("firm-b")
    nodes(lead.grid, 1)  # by now an honest agent is connected
    assert list(other.grid.get_node_ids()) == []
    stop.set()
    thread.join()
    other.close()
    assert heard == []


def test_a_port_in_use_is_said(lead: Lead) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 127.*in use.*consortium\.toml"):
        lead.listen(lead.address)
    taken = socket.create_server(("127.0.0.1", 0))
    with contextlib.closing(taken), pytest.raises(ConfigError, match="cannot listen"):
        lead.listen(f"127.0.0.1:{taken.getsockname()[1]}")


# -- connections that end --------------------------------------------------------------------------


def test_an_oversize_frame_cuts_the_firm_off_and_gives_an_error() -> None:
    lead = Lead(limit=100_000)
    with contextlib.closing(lead):
        lead.start_agent("firm-a", lambda frame: bytes(200_000) if frame == b"large" else frame)
        lead.start_agent("firm-b")
        first, second = nodes(lead.grid, 2)
        large = first if firm_part(first) == firm_part(node_id("firm-a")) else second
        other = second if large == first else first
        reply = ask(lead.grid, large, b"large")
        assert reply.has_error()
        assert large not in list(lead.grid.get_node_ids())
        assert unwrap(ask(lead.grid, other, b"small")) == b"small"  # nobody else is disturbed


@contextlib.contextmanager
def raw_stream(lead: Lead, firm: str, *first: bytes) -> Iterator[grpc.Call]:
    """A stream of a firm whose program is not ours: it sends ``first`` and stays."""
    tls, leave = lead.credentials(firm), threading.Event()
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)

    def outgoing() -> Iterator[bytes]:
        yield from first
        leave.wait()

    with grpc.secure_channel(lead.address, credentials) as channel:
        stream = channel.stream_stream("/greylag.v1.Link/Connect")(outgoing())
        try:
            yield stream  # and held here, or it would be cancelled at once
        finally:
            leave.set()


@pytest.mark.parametrize("chunk", [b"", bytes(CHUNK_BYTES + 65)])
def test_a_chunk_out_of_bounds_cuts_the_firm_off_alone(lead: Lead, chunk: bytes) -> None:
    lead.start_agent("firm-a")
    (node,) = nodes(lead.grid, 1)
    with raw_stream(lead, "firm-b", chunk) as stream:
        with contextlib.suppress(grpc.RpcError):
            assert list(stream) == []  # it is over, with or without an error
        assert list(lead.grid.get_node_ids()) == [node]
    assert unwrap(ask(lead.grid, node, b"small")) == b"small"


def test_an_answer_that_nobody_asked_for_is_dropped(lead: Lead) -> None:
    parcel = bytes(16) + b"forged"
    with raw_stream(lead, "firm-a", *split_parcel(parcel), *split_parcel(parcel)):
        (node,) = nodes(lead.grid, 1)
        (key,) = lead.grid.push_messages([wrap(b"question", node, "train")])
        assert list(lead.grid.pull_messages([key])) == []
        assert list(lead.grid.get_node_ids()) == [node]


def test_a_firm_that_does_not_read_holds_nobody_up(
    lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the only turn to be sent something, and the other is sent its frame all the same."""
    monkeypatch.setattr(grid_grpc, "SENDER_WAIT_S", 0.1)
    lead.grid._senders = asyncio.Semaphore(1)
    with raw_stream(lead, "firm-a"):
        (deaf,) = nodes(lead.grid, 1)
        lead.start_agent("firm-b")
        (other,) = set(nodes(lead.grid, 2)) - {deaf}
        (key,) = lead.grid.push_messages([wrap(bytes(64 * CHUNK_BYTES), deaf, "train")])
        wait_for(lead.grid._senders.locked)
        assert unwrap(ask(lead.grid, other, b"small")) == b"small"
        assert lead.grid._senders.locked()
    replies: list[Message] = []
    wait_for(lambda: replies.extend(lead.grid.pull_messages([key])) or replies)
    assert replies[0].has_error()  # it hung up in the middle of its parcel
    wait_for(lambda: not lead.grid._senders.locked())


def test_a_firm_that_leaves_gives_an_error_and_comes_back_as_a_new_node(
    lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "FINISH_S", 1.0)  # what is under way here is never finished
    asked, go_on = threading.Event(), threading.Event()

    def answer(frame: bytes) -> bytes:
        asked.set()
        go_on.wait()
        return frame

    stop = lead.start_agent("firm-a", answer)
    (first,) = nodes(lead.grid, 1)
    message = wrap(b"question", first, "train")
    (key,) = lead.grid.push_messages([message])
    wait_for(asked.is_set)
    stop.set()
    replies: list[Message] = []
    wait_for(lambda: replies.extend(lead.grid.pull_messages([key])) or replies)
    go_on.set()
    assert replies[0].has_error()
    assert replies[0].metadata.reply_to_message_id == message.metadata.message_id
    nodes(lead.grid, 0)
    lead.start_agent("firm-a")
    (second,) = nodes(lead.grid, 1)
    assert second != first
    assert firm_part(first) == firm_part(second)
    assert unwrap(ask(lead.grid, second, b"again")) == b"again"
    assert ask(lead.grid, first, b"to the old one").has_error()


def test_a_second_connection_replaces_the_first(lead: Lead) -> None:
    first_stop = lead.start_agent("firm-a", lambda frame: b"first")
    (first,) = nodes(lead.grid, 1)
    first_stop.set()  # it will not dial again
    lead.start_agent("firm-a", lambda frame: b"second")
    wait_for(lambda: list(lead.grid.get_node_ids()) not in ([], [first]))
    (second,) = nodes(lead.grid, 1)
    assert unwrap(ask(lead.grid, second, b"who")) == b"second"


def replaced(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What agents said when another one of their firm connected in their place."""
    records = [item for item in caplog.records if item.name == link.__name__]
    return [item for item in records if "another agent of this firm" in item.getMessage()]


def test_two_agents_of_a_firm_do_not_throw_each_other_out(
    lead: Lead, caplog: pytest.LogCaptureFixture
) -> None:
    lead.start_agent("firm-a", lambda frame: b"first")
    (first,) = nodes(lead.grid, 1)
    lead.start_agent("firm-a", lambda frame: b"second")
    wait_for(lambda: replaced(caplog))
    (second,) = nodes(lead.grid, 1)
    assert second != first
    time.sleep(2 * link.FIRST_WAIT_S)  # when an agent that had only lost its way would be back
    assert list(lead.grid.get_node_ids()) == [second]
    assert unwrap(ask(lead.grid, second, b"who")) == b"second"
    (said,) = replaced(caplog)
    assert said.levelno == logging.ERROR
    assert "end the one that should not run" in said.getMessage()
    assert "greylag-client revoke" in said.getMessage()
    assert "tries again in 60 s" in said.getMessage()


def test_an_agent_that_is_replaced_again_waits_longer_each_time(
    lead: Lead, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "REPLACED_WAIT_S", 0.05)
    for _ in range(2):
        lead.start_agent("firm-a")
    wait_for(lambda: len(replaced(caplog)) >= 6)
    waits = [item.args[2] for item in replaced(caplog)[:6]]  # type: ignore[index]
    assert sorted(waits)[:2] == [0.05, 0.05]
    assert sorted(waits)[2:4] == [0.1, 0.1]
    assert max(waits) >= 0.2


def test_an_agent_dials_again_until_the_server_is_there(lead: Lead) -> None:
    lead.start_agent("firm-a")
    nodes(lead.grid, 1)
    address = lead.address
    lead.grid.stop()
    lead.grid = lead.listen(address)
    (node,) = nodes(lead.grid, 1)
    assert unwrap(ask(lead.grid, node, b"back")) == b"back"


def test_a_message_that_cannot_be_answered_does_not_end_the_agent(lead: Lead) -> None:
    def answer(frame: bytes) -> bytes:
        if frame == b"bad":
            raise VerificationError("not a greylag frame")
        return frame

    lead.start_agent("firm-a", answer)
    (node,) = nodes(lead.grid, 1)
    lead.grid.push_messages([wrap(b"bad", node, "train")])
    assert unwrap(ask(lead.grid, node, b"good")) == b"good"


def test_a_timeout_gives_the_replies_that_are_there(lead: Lead) -> None:
    go_on = threading.Event()
    lead.start_agent("firm-a")
    lead.start_agent("firm-b", lambda frame: frame if go_on.wait() else b"")
    messages = [wrap(b"x", node, "train") for node in nodes(lead.grid, 2)]
    replies = list(lead.grid.send_and_receive(messages, timeout=0.5))
    go_on.set()
    assert len(replies) == 1
    assert firm_part(replies[0].metadata.src_node_id) == firm_part(node_id("firm-a"))


# -- flwr ------------------------------------------------------------------------------------------


def test_a_message_built_from_metadata_is_what_the_pinned_flwr_accepts() -> None:
    """Its other constructor needs globals that only flwr's launcher sets."""
    message = wrap(b"frame", node_id("firm-a", 3), "train")
    assert unwrap(message) == b"frame"
    assert message.metadata.dst_node_id == node_id("firm-a", 3)
    assert message.metadata.message_type == "train"
    reply = wrap_reply(b"answer", message)
    assert unwrap(reply) == b"answer"
    assert reply.metadata.reply_to_message_id == message.metadata.message_id
    assert reply.metadata.src_node_id == message.metadata.dst_node_id
    lost = wrap_loss("gone", message)
    assert lost.has_error()
    assert lost.error.reason == "gone"
    assert lost.metadata.reply_to_message_id == message.metadata.message_id
    assert wrap(b"", 1, "query").metadata.message_id != message.metadata.message_id


@pytest.mark.parametrize("train", [True, False])
def test_a_client_app_answers_both_kinds_of_message(train: bool) -> None:
    app, kinds = ClientApp(), []

    def answer(message: Message, context: Context) -> Message:
        kinds.append(message.metadata.message_type)
        return wrap_reply(unwrap(message) + b"!", message)

    app.train()(answer)
    app.query()(answer)
    assert answer_frame(app, make_context(), b"frame", train=train) == b"frame!"
    assert kinds == ["train" if train else "query"]


def test_node_ids_fit_flwr_and_tell_firms_apart() -> None:
    ids = [node_id(firm, connection) for firm in ("a", "b") for connection in (0, 1, 32767)]
    assert len(set(ids)) == 6
    assert all(0 < item < 2**63 for item in ids)
    assert firm_part(ids[0]) == firm_part(ids[2])
    assert firm_part(ids[0]) != firm_part(ids[3])
    assert node_id("a", 32768) == node_id("a", 0)  # numbers come round


@dataclass
class Grids:
    """Both grids with one firm that echoes."""

    grid: Grid
    node: int


@pytest.fixture(params=["local", "grpc"])
def echo(request: pytest.FixtureRequest) -> Iterator[Grids]:
    if request.param == "local":
        grid = LocalGrid({"firm-a": lambda message: wrap_reply(unwrap(message), message)})
        yield Grids(grid, node_id("firm-a"))
        return
    lead = Lead()
    lead.start_agent("firm-a")
    yield Grids(lead.grid, nodes(lead.grid, 1)[0])
    lead.close()


def test_both_grids_keep_flwrs_contract(echo: Grids) -> None:
    grid, node = echo.grid, echo.node
    assert isinstance(grid, Grid)
    assert list(grid.get_node_ids()) == [node]
    draft = wrap(b"frame", node, "train")
    message = grid.create_message(draft.content, "query", node, "group")
    assert message.metadata.dst_node_id == node
    (key,) = grid.push_messages([message])
    assert key == message.metadata.message_id
    replies: list[Message] = []
    wait_for(lambda: replies.extend(grid.pull_messages([key])) or replies)
    assert unwrap(replies[0]) == b"frame"
    assert list(grid.pull_messages([key])) == []  # handed over once
    assert unwrap(ask(grid, node, b"other")) == b"other"


def test_both_grids_name_a_run_only_once_it_is_set(echo: Grids) -> None:
    with pytest.raises(RuntimeError, match="set_run"):
        _ = echo.grid.run
    run = Run.create_empty(7)
    echo.grid.set_run(run)
    assert echo.grid.run is run


def test_client_and_server_agree_on_the_stream() -> None:
    """The two ends are separate packages that may not import one another."""
    assert f"/{grid_grpc.SERVICE}/{grid_grpc.METHOD}" == link.METHOD
    assert (link.CHUNK_BYTES, link.ID_BYTES) == (grid_grpc.CHUNK_BYTES, grid_grpc.ID_BYTES)
