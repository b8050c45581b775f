"""The way out through a real proxy on the loopback, and every answer that keeps one in."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from connect_proxy import ConnectProxy, connect_proxy, refusal
from greylag_client.firm import TlsCredentials
from greylag_client.link import open_channel
from greylag_client.proxy import MAX_REPLY_BYTES, ProxyError, choose_proxy, connect
from greylag_protocols.errors import ConfigError
from lead_port import lead_port

VARIABLES = ["https_proxy", "http_proxy", "no_proxy", "all_proxy", "grpc_proxy", "no_grpc_proxy"]
WORD = "pa:ss wört"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*VARIABLES, "GREYLAG_PROXY_USER", "GREYLAG_PROXY_PASSWORD"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def echo_server() -> Iterator[int]:
    """Sends back the first bytes that come, with its own word before them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    channel, _ = listener.accept()
                except OSError:
                    return
                with channel:
                    channel.sendall(b"hello ")
                    channel.sendall(channel.recv(100))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def talk(host: str, port: int) -> bytes:
    with connect(host, port, timeout_s=5) as channel:
        channel.sendall(b"world")
        said = b""
        while part := channel.recv(100):
            said += part
        return said


def test_without_a_proxy_the_connection_is_direct() -> None:
    with echo_server() as port:
        assert talk("127.0.0.1", port) == b"hello world"


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY"])
def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with echo_server() as port, connect_proxy(hosts={"lead.test": "127.0.0.1"}) as proxy:
        monkeypatch.setenv(name, proxy.url)
        assert talk("lead.test", port) == b"hello world"
        assert proxy.opened == [f"lead.test:{port}"]
        assert b"Authorization" not in proxy.heads[0]


def test_a_proxy_for_plain_http_is_not_one_for_the_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert choose_proxy("lead.test", 443) is None


def test_basic_authentication_from_the_url_or_from_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with echo_server() as port, connect_proxy(account=f"anna:{WORD}") as proxy:
        at = proxy.url.removeprefix("http://")
        monkeypatch.setenv("https_proxy", f"http://anna:pa%3Ass%20w%C3%B6rt@{at}")
        assert talk("127.0.0.1", port) == b"hello world"
        monkeypatch.setenv("https_proxy", f"http://other:nothing@{at}")
        with pytest.raises(ProxyError, match="does not accept this user name and password"):
            talk("127.0.0.1", port)
        monkeypatch.setenv("GREYLAG_PROXY_USER", "anna")
        monkeypatch.setenv("GREYLAG_PROXY_PASSWORD", WORD)
        assert talk("127.0.0.1", port) == b"hello world"
        assert len(proxy.opened) == 2


def test_a_password_is_in_no_error_and_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [refusal("Basic"), refusal("NTLM"), b"HTTP/1.1 502 no\r\n\r\n", b"SSH-2.0\r\n\r\n"]
    for answer in answers:
        with connect_proxy(answer=answer) as proxy:
            monkeypatch.setenv("https_proxy", f"http://anna:hush@127.0.0.1:{proxy.port}")
            with pytest.raises(ProxyError) as caught:
                connect("lead.test", 443, timeout_s=5)
            assert "hush" not in f"{caught.value!r} {caught.value} {choose_proxy('a', 1)!r}"
            assert proxy.asked == ["lead.test:443"]
    for url in ["http://anna:hush@[::1", "socks5://anna:hush@p:1", "http://a:hush@p:x", "http://"]:
        monkeypatch.setenv("https_proxy", url)
        with pytest.raises(ConfigError, match=r"http://HOST:PORT") as wrong:
            choose_proxy("lead.test", 443)
        assert "hush" not in repr(wrong.value)
        assert wrong.value.__cause__ is None


def test_schemes_that_greylag_cannot_speak_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = ["Negotiate", "NTLM", "NTLM TlRMTVNT"]
    with connect_proxy(answer=refusal(*offers)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(ProxyError, match=r"Negotiate \(Kerberos\), NTLM") as caught:
            connect("lead.test", 443, timeout_s=5)
    assert caught.value.schemes == ("Negotiate", "NTLM")
    for word in ("px", "cntlm", "no_proxy", "lead.test:443", proxy.url.removeprefix("http://")):
        assert word in str(caught.value)


def test_a_proxy_that_offers_basic_among_others_asks_for_a_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with connect_proxy(answer=refusal("NTLM", 'Basic realm="x"')) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(ProxyError, match="GREYLAG_PROXY_PASSWORD") as caught:
            connect("lead.test", 443, timeout_s=5)
    assert caught.value.schemes == ("NTLM", "Basic")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "HTTP status 403"),
        (b"HTTP/1.1 2OO fine\r\n\r\n", "does not answer as an HTTP proxy"),
        (b"HTTP/1.1 200 cut short", "does not answer as an HTTP proxy"),
        (b"HTTP/1.1\r\n\r\n", "does not answer as an HTTP proxy"),
        (b"\xff\xfe\r\n\r\n", "does not answer as an HTTP proxy"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (2 * MAX_REPLY_BYTES), "does not answer as an HTTP"),
    ],
)
def test_what_is_no_tunnel_is_refused(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str
) -> None:
    with connect_proxy(answer=answer) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(ProxyError, match=said):
            connect("lead.test", 443, timeout_s=5)


def test_a_proxy_that_says_nothing_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ProxyError, match="gave no answer"):
            connect("lead.test", 443, timeout_s=0.2)
    with pytest.raises(ProxyError, match="cannot be reached"):
        connect("lead.test", 443, timeout_s=0.2)


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("lead.test", "lead.test", True),
        ("LEAD.test", "lead.TEST", True),
        (".test", "lead.test", True),
        ("test", "lead.test", True),
        ("est", "lead.test", False),
        ("other, lead.test:443", "lead.test", True),
        ("lead.test:444", "lead.test", False),
        ("*", "lead.test", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("fd00::12", "fd00::12", True),
        ("[fd00::12]", "fd00::12", True),
        ("[fd00::12]:443", "fd00::12", True),
        ("fd00::1", "fd00::12", False),
    ],
)
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, direct: bool) -> None:
    monkeypatch.setenv("https_proxy", "proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    proxy = choose_proxy(host, 443)
    assert (proxy is None) == direct
    if proxy is not None:
        assert proxy.address == "proxy.test:3128"


def test_an_ipv6_target_stands_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    with connect_proxy(answer=refusal("NTLM")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(ProxyError):
            connect("fd00::12", 443, timeout_s=5)
        assert proxy.asked == ["[fd00::12]:443"]


def test_a_name_cannot_bring_headers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with connect_proxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(ConfigError):
            connect("lead.test:1 HTTP/1.1\r\nX: y", 443, timeout_s=5)
        assert proxy.asked == []


# -- the same decision for gRPC ----------------------------------------------------------------


def ask_lead(address: str, tls: TlsCredentials) -> bytes:
    with open_channel(address, tls) as channel:
        return bytes(channel.unary_unary("/test/Echo")(b"here", timeout=10))


@pytest.mark.parametrize("host", ["lead.test", "127.0.0.1", "::1"])
def test_grpc_goes_through_the_same_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with (
        lead_port(host) as lead,
        connect_proxy(account=f"anna:{WORD}", hosts={host: "127.0.0.1"}) as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("GREYLAG_PROXY_USER", "anna")
        monkeypatch.setenv("GREYLAG_PROXY_PASSWORD", WORD)
        # gRPC's own variables would send it elsewhere, or past the proxy
        monkeypatch.setenv("no_grpc_proxy", "*")
        monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
        shown = f"[{host}]" if ":" in host else host
        assert ask_lead(f"{shown}:{lead.port}", lead.tls) == b"here"
        assert proxy.opened == [f"{shown}:{lead.port}"]
        refused_proxy_password(monkeypatch, proxy, f"{shown}:{lead.port}", lead.tls)


def refused_proxy_password(
    monkeypatch: pytest.MonkeyPatch, proxy: ConnectProxy, address: str, tls: TlsCredentials
) -> None:
    monkeypatch.setenv("GREYLAG_PROXY_PASSWORD", "wrong")
    with pytest.raises(grpc.RpcError) as caught:
        ask_lead(address, tls)
    assert "407" in str(caught.value.details())
    assert len(proxy.opened) == 1


def test_grpc_goes_past_the_proxy_where_no_proxy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with lead_port("127.0.0.1") as lead, connect_proxy() as proxy:
        for name in ("https_proxy", "grpc_proxy", "http_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("no_grpc_proxy", "elsewhere")
        assert ask_lead(f"127.0.0.1:{lead.port}", lead.tls) == b"here"
        assert proxy.asked == []


def test_through_a_proxy_too_the_lead_must_show_its_own_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        lead_port("other.test") as other,
        connect_proxy(hosts={"lead.test": "127.0.0.1"}) as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(grpc.RpcError):
            ask_lead(f"lead.test:{other.port}", other.tls)
        assert proxy.opened == [f"lead.test:{other.port}"]
