"""The agent's door for programs on its own machine: a unix socket that frames come in by.

    request   size (4, big-endian) | frame
    reply     agent (16) | size (4, big-endian) | frame

One exchange is one connection; ``agent`` is drawn when the door opens, so that an agent that was
started again is known by it. The socket has mode 0600 and stands alone in a directory of mode 0700:
who may knock may as well read the firm's keys. Yet what knocks may be a program that the lead
shipped (see docs/flower.md), so a guest can do no more than a coordinator: hand in a frame of
bounded size, in bounded time, one guest after the other. Who breaks a rule is told nothing.
"""

import logging
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from greylag_protocols.errors import ConfigError, GreylagError, RemoteError, VerificationError

logger = logging.getLogger(__name__)

DIRECTORY, SOCKET_FILE = "door", "agent.sock"
AGENT_BYTES, SIZE_BYTES = 16, 4
MAX_FRAME_BYTES = 512 << 20
CHUNK_BYTES = 1 << 20
GUEST_S = 30.0  # for a guest to hand in a frame, and again to take the reply
ANSWER_S = 1800.0  # for a guest to wait: others may be before it, and a round takes its time
POLL_S = 0.2
WAITING_GUESTS = 16
LONGEST_PATH_BYTES = 100  # Linux has room for 107, others for less

Answer = Callable[[bytes], bytes]


def door_path(root: Path) -> Path:
    """Where the agent of the firm's directory ``root`` has its door."""
    return root / DIRECTORY / SOCKET_FILE


class LocalDoor:
    """An open door. The caller sees to it that there is one agent only for a path.

    Args:
        path: of the socket; its directory is made if it is absent.
        answer: frame in, frame out; a GreylagError is logged, and the guest gets no reply.
        agent: 16 random bytes.
        guest_s: seconds that a guest has to hand in its frame, and again to take the reply.

    Raises:
        ConfigError: something else stands at ``path``, or the socket cannot be made.
    """

    def __init__(
        self, path: Path, answer: Answer, *, agent: bytes, guest_s: float = GUEST_S
    ) -> None:
        self._path = path
        self._answer = answer
        self._agent = agent
        self._guest_s = guest_s
        try:
            self._socket = _listen(path)
        except OSError as error:
            raise ConfigError(f"{path}: no socket can be made: {error.strerror}") from None

    def serve(self, stop: threading.Event) -> None:
        """Answer guests, one after the other, until ``stop`` is set; then close the door."""
        self._socket.settimeout(POLL_S)
        try:
            while not stop.is_set():
                try:
                    guest, _ = self._socket.accept()
                except TimeoutError:
                    continue
                with guest:
                    self._attend(guest)
        finally:
            self.close()

    def close(self) -> None:
        """Close the door, and remove the socket."""
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _attend(self, guest: socket.socket) -> None:
        try:
            frame = _receive_frame(guest, time.monotonic() + self._guest_s)
            reply = self._answer(frame)
            guest.settimeout(self._guest_s)
            guest.sendall(self._agent + len(reply).to_bytes(SIZE_BYTES, "big") + reply)
        except GreylagError as error:
            logger.warning("local door: a frame that could not be answered: %s", error)
        except OSError as error:
            logger.warning("local door: a guest that left: %s", error)


def ask_agent(path: Path, frame: bytes, *, timeout_s: float = ANSWER_S) -> tuple[bytes, bytes]:
    """Hand a frame to the agent behind the socket ``path``; its 16 bytes, and its reply.

    Raises:
        RemoteError: no agent is there, or it did not answer.
    """
    if sys.platform == "win32":
        raise ConfigError("there are no local doors on Windows: Python has no unix sockets there")
    with socket.socket(socket.AF_UNIX) as channel:
        try:
            with _short(path) as address:
                channel.connect(address)
            until_s = time.monotonic() + timeout_s
            channel.settimeout(timeout_s)
            channel.sendall(len(frame).to_bytes(SIZE_BYTES, "big") + frame)
            agent = _receive(channel, AGENT_BYTES, until_s)
            return agent, _receive_frame(channel, until_s)
        except (OSError, VerificationError) as error:
            raise RemoteError(
                f"no answer at {path} ({error}): see that `greylag-client run` is up for this "
                "firm, and in its log why it did not answer",
                peer="local agent",
            ) from None


def _listen(path: Path) -> socket.socket:
    if sys.platform == "win32":
        raise ConfigError("there are no local doors on Windows: Python has no unix sockets there")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists() or path.is_symlink():
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"{path} is not a socket; move it away")
        path.unlink()  # of an agent that was killed: nobody listens there any more
    door = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(door.fileno(), 0o600)  # before it has a name, so that it never is wider
        with _short(path) as address:
            door.bind(address)
        path.chmod(0o600)  # where the line above does not count for the name
        door.listen(WAITING_GUESTS)
    except OSError:
        door.close()
        raise
    return door


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """An address for ``path`` that is short enough for a socket."""
    if sys.platform == "win32":
        raise OSError("no unix sockets")
    if len(os.fsencode(path)) <= LONGEST_PATH_BYTES:
        yield str(path)
        return
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)


def _receive_frame(channel: socket.socket, until_s: float) -> bytes:
    size = int.from_bytes(_receive(channel, SIZE_BYTES, until_s), "big")
    if not 0 < size <= MAX_FRAME_BYTES:
        raise VerificationError(f"a frame of {size} bytes")
    return _receive(channel, size, until_s)


def _receive(channel: socket.socket, size: int, until_s: float) -> bytes:
    """Exactly ``size`` bytes; memory grows with what arrives, not with what is announced."""
    parts, left = [], size
    while left:
        remaining_s = until_s - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("timed out")
        channel.settimeout(remaining_s)
        part = channel.recv(min(left, CHUNK_BYTES))
        if not part:
            raise VerificationError(f"it ended {left} bytes before its end")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
