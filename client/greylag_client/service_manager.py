"""What systemd or a container's engine has of a running agent: its logs, and its signs of life.

Signs of life are systemd's ``sd_notify``; without systemd, nothing happens.
"""

import contextlib
import logging
import os
import socket
import sys


def quiet_grpc() -> None:
    """Keep gRPC's own lines, in terms of its source, off stderr; before it is imported only."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def plain_logs() -> None:
    """Whole lines on stderr where no person looks on: no breaks, no colours."""
    if not sys.stderr.isatty():
        line = "%(asctime)s %(levelname)s %(message)s"
        logging.basicConfig(format=line, level=logging.INFO, force=True)


def notify(state: str) -> None:
    """Send a state such as ``READY=1`` to the service manager, if there is one."""
    if sys.platform == "win32":
        return
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), address)  # a manager that is away must not end the agent


def watchdog_wait_s() -> float | None:
    """How often the service manager wants a sign of life, with room to spare; None if never."""
    text, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not text.isdigit() or int(text) == 0 or process not in ("", str(os.getpid())):
        return None
    return int(text) / 1e6 / 3
