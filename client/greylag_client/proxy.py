"""The way out: to the lead directly, or through the HTTP CONNECT proxy that the environment names.

One decision for every connection of this program: urllib's rules for ``https_proxy`` and
``no_proxy`` (on Windows and macOS also the system's settings). User name and password come from
``GREYLAG_PROXY_USER`` and ``GREYLAG_PROXY_PASSWORD``, or from the proxy's URL; they appear in no
message. Only basic authentication is spoken.
"""

import base64
import os
import socket
import time
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from greylag_protocols.errors import ConfigError, RemoteError

USER_VARIABLE, PASSWORD_VARIABLE = "GREYLAG_PROXY_USER", "GREYLAG_PROXY_PASSWORD"
MAX_REPLY_BYTES = 16 << 10
DEFAULT_PORT = 80
MAX_SCHEMES = 8
# Schemes that tie a connection to a Windows logon; nothing here can speak them.
LOGON_SCHEMES = {"ntlm": "NTLM", "negotiate": "Negotiate (Kerberos)", "kerberos": "Kerberos"}
RELAY = (
    "Run a local relay that speaks it (px or cntlm) and point https_proxy to that, or ask IT to "
    "let this machine reach {target} without the proxy, and name the host in no_proxy"
)


class ProxyError(RemoteError):
    """The proxy cannot be reached, or did not let the connection through.

    Attributes:
        schemes: the kinds of authentication that it offered, if it asked for one.
    """

    def __init__(self, message: str, *, peer: str, schemes: tuple[str, ...] = ()) -> None:
        super().__init__(message, peer=peer)
        self.schemes = schemes


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Where the proxy is, and what it is told of who asks."""

    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        return join_address(self.host, self.port)

    @property
    def authorization(self) -> str:
        """The value of the header ``Proxy-Authorization``, or empty."""
        if not self.user:
            return ""
        # RFC 7617; UTF-8, since the older default is not the same everywhere.
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def join_address(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def choose_proxy(host: str, port: int) -> Proxy | None:
    """The proxy for connections to ``host:port``; None if they go there directly.

    Raises:
        ConfigError: https_proxy is not one that can be used.
    """
    url = urllib.request.getproxies().get("https", "")
    if not url:
        return None
    # urllib cuts a port off; a bare IPv6 address would lose its end, and no_proxy lists both forms
    names = {join_address(host, port), f"{host}:{port}"}
    if any(urllib.request.proxy_bypass(name) for name in names):
        return None
    return _parse_proxy(url)


def _parse_proxy(url: str) -> Proxy:
    problem = "https_proxy is not the address of a proxy; write http://HOST:PORT"
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port
        user, password = parts.username or "", parts.password or ""
    except ValueError:  # it would quote the URL, and that may hold a password
        raise ConfigError(problem) from None
    if parts.scheme != "http":
        raise ConfigError(
            "https_proxy names a proxy that is not spoken to in plain HTTP; greylag can only use "
            "http://HOST:PORT (what goes through it is TLS all the same)"
        )
    user = os.environ.get(USER_VARIABLE) or unquote(user)
    password = os.environ.get(PASSWORD_VARIABLE) or unquote(password)
    if not host or not _is_token(host):
        raise ConfigError(problem)
    if ":" in user:
        raise ConfigError("a proxy's user name cannot hold a colon; see " + USER_VARIABLE)
    return Proxy(host=host, port=port or DEFAULT_PORT, user=user, password=password)


def connect(host: str, port: int, *, timeout_s: float) -> socket.socket:
    """A TCP connection to ``host:port``, through the proxy if the environment says so.

    Args:
        timeout_s: for all of it together; it is also the socket's timeout afterwards.

    Raises:
        OSError: without a proxy: the host cannot be reached.
        ProxyError: the proxy cannot be reached, or refuses.
        ConfigError: the proxy's settings or the host cannot be used.
    """
    proxy = choose_proxy(host, port)
    if proxy is None:
        return socket.create_connection((host, port), timeout=timeout_s)
    until_s = time.monotonic() + timeout_s
    try:
        channel = socket.create_connection((proxy.host, proxy.port), timeout=timeout_s)
    except OSError as error:
        raise ProxyError(
            f"the proxy {proxy.address} cannot be reached ({error.strerror or error}); check "
            "https_proxy, or ask IT",
            peer=proxy.address,
        ) from None
    try:
        _open_tunnel(channel, proxy, join_address(host, port), until_s)
        channel.settimeout(timeout_s)
    except BaseException:
        channel.close()
        raise
    return channel


def _open_tunnel(channel: socket.socket, proxy: Proxy, target: str, until_s: float) -> None:
    if not _is_token(target):
        raise ConfigError("a host's name holds characters that no host's name has")
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    try:
        channel.sendall("\r\n".join([*lines, "", ""]).encode())
        head = _read_head(channel, until_s)
    except OSError as error:
        raise ProxyError(
            f"the proxy {proxy.address} gave no answer ({error.strerror or error}); is it an HTTP "
            "proxy? Ask IT",
            peer=proxy.address,
        ) from None
    status, schemes = _parse_head(head)
    if 200 <= status < 300:
        return
    raise ProxyError(
        _why_refused(status, schemes, proxy, target), peer=proxy.address, schemes=schemes
    )


def _read_head(channel: socket.socket, until_s: float) -> bytes:
    """The reply's head, and no byte of what follows: that belongs to the tunnel."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        remaining_s = until_s - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("timed out")
        channel.settimeout(remaining_s)
        byte = channel.recv(1)
        if not byte or len(head) >= MAX_REPLY_BYTES:
            break  # what is there may still say why
        head += byte
    return bytes(head)


def _parse_head(head: bytes) -> tuple[int, tuple[str, ...]]:
    """The status (0 if it is none of HTTP's) and the schemes of authentication that are offered."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    ended = head.endswith(b"\r\n\r\n")
    if not (ended and words[0] in ("HTTP/1.1", "HTTP/1.0") and len(words) > 1):
        return 0, ()
    status = (
        int(words[1]) if len(words[1]) == 3 and words[1].isascii() and words[1].isdigit() else 0
    )
    schemes: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        words = value.split()
        if name.strip().lower() == "proxy-authenticate" and words and words[0].isalnum():
            schemes.append(words[0][:20])
    return status, tuple(dict.fromkeys(schemes[:MAX_SCHEMES]))


def _why_refused(status: int, schemes: tuple[str, ...], proxy: Proxy, target: str) -> str:
    where = f"the proxy {proxy.address}"
    if status == 0:
        return f"{where} does not answer as an HTTP proxy does; check https_proxy"
    if status != 407:
        return (
            f"{where} does not let connections through to {target} (HTTP status {status}); ask IT "
            "to allow CONNECT to that host and port"
        )
    offered = [LOGON_SCHEMES.get(item.lower(), item) for item in schemes]
    if "basic" not in [item.lower() for item in schemes]:
        named = ", ".join(offered) or "no kind that it names"
        return (
            f"{where} wants authentication by {named}, which greylag does not speak. "
            + RELAY.format(target=target)
        )
    if proxy.user:
        return (
            f"{where} does not accept this user name and password; check {USER_VARIABLE} and "
            f"{PASSWORD_VARIABLE}, or those in https_proxy"
        )
    return f"{where} wants a user name and a password: set {USER_VARIABLE} and {PASSWORD_VARIABLE}"


def _is_token(text: str) -> bool:
    """Whether a text can stand in a request's first line."""
    return text.isascii() and text.isprintable() and " " not in text
