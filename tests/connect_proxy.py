"""A small real CONNECT proxy for tests: loopback threads; it counts, and may ask for a name."""

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class ConnectProxy:
    """A running proxy.

    Attributes:
        account: ``user:password`` that it demands with basic authentication, or empty.
        answer: what it replies to every request in place of a tunnel, or empty.
        hosts: names that it resolves itself, by the address to connect to.
        asked: the targets of all requests.
        opened: the targets of those that got a tunnel.
        heads: the requests' heads, as they came.
    """

    port: int
    account: str = ""
    answer: bytes = b""
    hosts: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, channel: socket.socket) -> None:
        with channel, suppress(OSError):
            head = _read_head(channel)
            if not head:
                return
            target = head.split(b" ")[1].decode()
            self.heads.append(head)
            self.asked.append(target)
            if self.answer:
                channel.sendall(self.answer)
                return
            wanted = b"Proxy-Authorization: Basic " + base64.b64encode(self.account.encode())
            # A header's blanks are free; gRPC puts two.
            if self.account and wanted not in head.replace(b":  ", b": "):
                channel.sendall(refusal("Basic realm=test"))
                return
            host, _, port = target.rpartition(":")
            host = host.strip("[]")
            with socket.create_connection((self.hosts.get(host, host), int(port))) as far:
                self.opened.append(target)
                channel.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
                there = threading.Thread(target=_pump, args=(channel, far), daemon=True)
                there.start()
                _pump(far, channel)
                there.join()


def refusal(*schemes: str) -> bytes:
    """The reply of a proxy that wants authentication by ``schemes``."""
    lines = "".join(f"Proxy-Authenticate: {item}\r\n" for item in schemes)
    return (
        f"HTTP/1.1 407 Proxy Authentication Required\r\n{lines}Content-Length: 0\r\n\r\n".encode()
    )


@contextmanager
def connect_proxy(
    *, account: str = "", answer: bytes = b"", hosts: dict[str, str] | None = None
) -> Iterator[ConnectProxy]:
    """A proxy that runs within the block (see ``ConnectProxy``)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = ConnectProxy(listener.getsockname()[1], account, answer, hosts or {})
        thread = threading.Thread(target=_accept, args=(listener, proxy), daemon=True)
        thread.start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _accept(listener: socket.socket, proxy: ConnectProxy) -> None:
    with suppress(OSError):
        while True:
            channel, _ = listener.accept()
            threading.Thread(target=proxy.serve, args=(channel,), daemon=True).start()


def _read_head(channel: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = channel.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def _pump(near: socket.socket, far: socket.socket) -> None:
    with suppress(OSError):
        while data := near.recv(1 << 16):
            far.sendall(data)
    for side in (near, far):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
