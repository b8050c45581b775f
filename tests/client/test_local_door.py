"""The agent's local door: only its owner may knock, and whoever does cannot harm the agent."""

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from consortium_in_memory import RUN, Consortium, make_terms
from flwr.app import ConfigRecord, Context, Message, Metadata, RecordDict
from greylag_client import flower_bridge
from greylag_client.gate import Gate
from greylag_client.local_door import MAX_FRAME_BYTES, LocalDoor, ask_agent, door_path
from greylag_client.participant import Participant
from greylag_client.policy import Engine
from greylag_protocols import log
from greylag_protocols.errors import ConfigError, RemoteError, VerificationError
from greylag_protocols.messages import Close, CoordinatorMessage, FirmMessage, Refusal
from greylag_protocols.parsing import parse_firm_message
from greylag_protocols.signing import verify_statement

AGENT = b"the first agent."
CLOSE = Close(run=RUN, seen=0).encode()


def echo(frame: bytes) -> bytes:
    return frame[::-1]


@contextmanager
def open_door(
    path: Path,
    answer: Callable[[bytes], bytes] = echo,
    *,
    agent: bytes = AGENT,
    guest_s: float = 20.0,
) -> Iterator[Path]:
    stop = threading.Event()
    door = LocalDoor(path, answer, agent=agent, guest_s=guest_s)
    thread = threading.Thread(target=door.serve, args=(stop,))
    thread.start()
    try:
        yield path
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Path]:
    with open_door(door_path(tmp_path)) as path:
        yield path


def send_raw(path: Path, data: bytes) -> bytes:
    """What a guest gets back who sends ``data`` and no more."""
    with socket.socket(socket.AF_UNIX) as guest:
        guest.settimeout(20)
        guest.connect(str(path))
        try:
            guest.sendall(data)
            guest.shutdown(socket.SHUT_WR)
            return guest.recv(1 << 16)
        except (BrokenPipeError, ConnectionResetError, OSError):
            return b""


@pytest.mark.parametrize("size", [1, 1000, 3_000_001])
def test_a_frame_goes_in_and_a_reply_comes_out(door: Path, size: int) -> None:
    frame = os.urandom(size)
    assert ask_agent(door, frame) == (AGENT, frame[::-1])


def test_only_the_owner_may_knock(door: Path) -> None:
    assert stat.S_IMODE(door.lstat().st_mode) == 0o600
    assert stat.S_IMODE(door.parent.lstat().st_mode) == 0o700


def test_a_wide_umask_does_not_widen_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_door(door_path(tmp_path)) as path:
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.lstat().st_mode) == 0o700
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it ended 4 bytes before its end"),
        (b"\x00\x00", "it ended 2 bytes before its end"),
        (b"\x00\x00\x00\x00", "a frame of 0 bytes"),
        (b"\x00\x00\x00\x05abcd", "it ended 1 bytes before its end"),
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), f"a frame of {MAX_FRAME_BYTES + 1} bytes"),
        (b"\xff" * 4 + b"x" * 1000, f"a frame of {2**32 - 1} bytes"),
        (MAX_FRAME_BYTES.to_bytes(4, "big") + b"x", f"ended {MAX_FRAME_BYTES - 1} bytes before"),
    ],
)
def test_who_breaks_a_rule_gets_nothing_and_the_next_guest_is_served(
    door: Path, data: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert send_raw(door, data) == b""
    assert ask_agent(door, b"next") == (AGENT, b"txen")
    assert why in caplog.text


def test_a_guest_who_never_ends_is_shown_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one who sends a byte now and then: the time is for the whole frame."""
    with open_door(door_path(tmp_path), guest_s=0.3) as path:
        with socket.socket(socket.AF_UNIX) as guest:
            guest.connect(str(path))
            guest.sendall(b"\x00\x00\x10\x00")
            done = threading.Event()

            def dribble() -> None:
                while not done.wait(0.05):
                    try:
                        guest.send(b"x")
                    except OSError:
                        return

            dribbler = threading.Thread(target=dribble)
            dribbler.start()
            assert ask_agent(path, b"next") == (AGENT, b"txen")
            done.set()
            dribbler.join()
        assert "timed out" in caplog.text


def test_a_guest_who_does_not_wait_for_the_reply_harms_nobody(tmp_path: Path) -> None:
    with open_door(door_path(tmp_path), lambda _: bytes(8 << 20)) as path:
        with socket.socket(socket.AF_UNIX) as guest:
            guest.connect(str(path))
            guest.sendall(b"\x00\x00\x00\x01x")
        _, reply = ask_agent(path, b"x")
        assert len(reply) == 8 << 20


def test_a_frame_that_cannot_be_answered_gets_no_reply(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(frame: bytes) -> bytes:
        raise VerificationError("not a frame")

    with open_door(door_path(tmp_path), refuse) as path:
        with pytest.raises(RemoteError, match="greylag-client run"):
            ask_agent(path, b"x")
        assert "could not be answered: not a frame" in caplog.text


def test_without_an_agent_one_is_told_what_to_start(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"No such file.*greylag-client run"):
        ask_agent(door_path(tmp_path), b"x")


def test_the_socket_goes_with_the_agent(tmp_path: Path) -> None:
    with open_door(door_path(tmp_path)) as path:
        assert path.is_socket()
    assert not path.exists()


def test_a_killed_agents_socket_is_replaced(tmp_path: Path) -> None:
    path = door_path(tmp_path)
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    with open_door(path, agent=b"the second agent"):
        assert ask_agent(path, b"ab") == (b"the second agent", b"ba")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_nothing_but_a_socket_is_removed(tmp_path: Path, kind: str) -> None:
    path = door_path(tmp_path)
    path.parent.mkdir()
    if kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError, match="not a socket"):
        LocalDoor(path, echo, agent=AGENT)
    assert path.is_file() or path.is_symlink()


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    root = tmp_path / ("long" * 40)
    root.mkdir()
    with open_door(door_path(root)) as path:
        assert ask_agent(path, b"ab") == (AGENT, b"ba")
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert not path.exists()


# -- the gate behind the door ------------------------------------------------------------------


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path, terms=make_terms())


def gate_of(consortium: Consortium, *engines: Engine) -> Gate:
    firm = consortium.firms["firm-a"]
    return Gate(firm.identity, lambda: replace(firm.policy, engines=engines), firm.participant)


@pytest.mark.parametrize(("allowed", "other"), [("grpc", "flower"), ("flower", "grpc")])
def test_what_comes_by_a_forbidden_engine_is_refused_under_the_firms_signature(
    consortium: Consortium, caplog: pytest.LogCaptureFixture, allowed: Engine, other: Engine
) -> None:
    gate, firm = gate_of(consortium, allowed), consortium.firms["firm-a"]
    refusal = parse_firm_message(gate.answer_over(other)(CLOSE))
    assert isinstance(refusal, Refusal)
    assert (refusal.run, refusal.refusal_class) == (RUN, "policy")
    statement = verify_statement(refusal.statement, firm.signer.public_key, log.REFUSAL_KIND)
    assert statement.predicate == {"firm": "firm-a", "class": "policy"}
    assert f"engines does not allow '{other}'" in caplog.text
    assert allowed.encode() not in refusal.statement  # the rule stays here
    # By the other way the same frame comes to the participant, who knows no such run.
    caplog.clear()
    answer = parse_firm_message(gate.answer_over(allowed)(CLOSE))
    assert isinstance(answer, Refusal)
    assert answer.refusal_class == "protocol"
    assert "engines" not in caplog.text


class Counted(Participant):
    """A participant that knows how many are with it, at most."""

    inside = most = 0

    def handle(self, message: CoordinatorMessage) -> FirmMessage:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.02)  # room for others to come in, if they can
        self.inside -= 1
        return super().handle(message)


def test_the_gate_lets_one_frame_through_at_a_time(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    participant = consortium.firms["firm-a"].participant
    monkeypatch.setattr(participant, "__class__", Counted)
    gate = gate_of(consortium, "grpc", "flower")
    engines: list[Engine] = ["grpc", "flower", "grpc", "flower"]
    threads = [threading.Thread(target=gate.answer_over(item), args=(CLOSE,)) for item in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert isinstance(participant, Counted)
    assert participant.most == 1


def test_noise_at_the_gate_is_an_error_of_the_tree(consortium: Consortium) -> None:
    gate = gate_of(consortium, "flower")
    for frame in (b"", b"\x00", os.urandom(200), CLOSE[:-1], CLOSE + b"\x00"):
        with pytest.raises(VerificationError):
            gate.answer_over("flower")(frame)


# -- the bridge before it ----------------------------------------------------------------------


def bridge(path: object, frame: bytes | None) -> ConfigRecord:
    """What the bundle's ClientApp answers, given its SuperNode's config."""
    metadata = Metadata(1, "", 0, 1, "", "", 0.0, 3600.0, "query")
    content = RecordDict({} if frame is None else {"greylag": ConfigRecord({"frame": frame})})
    request = Message(content=content, metadata=metadata)  # type: ignore[call-overload]
    config = {} if path is None else {"agent": path}
    context = Context(1, 1, config, RecordDict(), {})  # type: ignore[arg-type]
    record = flower_bridge.app(request, context).content["greylag"]
    assert isinstance(record, ConfigRecord)
    return record


def test_the_bridge_carries_a_frame_to_the_gate_and_back(
    consortium: Consortium, tmp_path: Path
) -> None:
    gate = gate_of(consortium, "flower")
    with open_door(door_path(tmp_path), gate.answer_over("flower")) as path:
        record = bridge(str(path), CLOSE)
    assert record["agent"] == AGENT
    frame = record["frame"]
    assert isinstance(frame, bytes)
    assert parse_firm_message(frame).run == RUN


@pytest.mark.parametrize("path", [None, "", 7])
def test_a_bridge_that_was_told_no_way_says_how(path: object) -> None:
    with pytest.raises(ConfigError, match="start it with --node-config 'agent="):
        bridge(path, CLOSE)


def test_a_bridge_without_an_agent_fails(tmp_path: Path) -> None:
    """Flower turns that into an error reply; it invents no answer of the firm's."""
    with pytest.raises(RemoteError, match="no answer at"):
        bridge(str(door_path(tmp_path)), CLOSE)


def test_the_bridge_needs_nothing_that_trains() -> None:
    """It is a new process for every message: what it imports is paid each time."""
    code = "import sys; import greylag_client.flower_bridge; print('torch' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "False"
