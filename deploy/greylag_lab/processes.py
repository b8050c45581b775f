"""greylag's own programs as processes: called, or kept in the background."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from greylag_protocols.errors import GreylagError

STOP_S = 10.0


def program(name: str) -> str:
    """The console script beside this interpreter."""
    return str(Path(sys.executable).parent / name)


def call(name: str, arguments: Sequence[str], *, show_progress: bool = False) -> str:
    ended = subprocess.run(  # noqa: S603 - our own programs, arguments as a list
        [program(name), *arguments],
        stdout=subprocess.PIPE,
        stderr=None if show_progress else subprocess.PIPE,
        text=True,
        check=False,
    )
    if ended.returncode:
        said = (ended.stderr or "see above").strip()
        raise GreylagError(f"{name} {arguments[0]} ended with {ended.returncode}: {said[-800:]}")
    return ended.stdout


def call_json(
    name: str, arguments: Sequence[str], *, show_progress: bool = False
) -> dict[str, Any]:
    document = json.loads(call(name, arguments, show_progress=show_progress))
    return dict(document)


@contextmanager
def background(name: str, arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the background; it is told to end, and then made to."""
    with log.open("wb") as sink:
        process = _spawn([program(name), *arguments], sink)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _spawn(command: Sequence[str], sink: IO[bytes]) -> subprocess.Popen[bytes]:
    # One thread each: eight agents share this machine's cores.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    return subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)  # noqa: S603


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [int(item.getsockname()[1]) for item in sockets]


def wait_for_port(port: int, log: Path) -> None:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise GreylagError(f"the server did not start; see {log}")
