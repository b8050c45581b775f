"""The firm's end of the stream: it dials out, answers parcels in order, and dials again.

Framing as in the coordinator's ``grid_grpc``: chunks are ``flag (1) | bytes``, parcels
``id (16) | frame``.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import grpc
from cryptography import x509
from greylag_protocols.errors import ConfigError, GreylagError

from greylag_client.firm import TlsCredentials
from greylag_client.proxy import ProxyError, choose_proxy, connect, join_address

logger = logging.getLogger(__name__)

METHOD = "/greylag.v1.Link/Connect"
CHUNK_BYTES = 1 << 20
ID_BYTES = 16
MAX_FRAME_BYTES = 512 << 20
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 15.0
REPLACED_WAIT_S, LONGEST_REPLACED_WAIT_S = 60.0, 3600.0
WATCH_ENDS_S = 0.3
HELD_S = 1.0  # a connection that lasts so long was not refused
PROXY_TIMEOUT_S = 10.0
FINISH_S = 30.0  # for an answer under way when the agent is told to end
FAREWELL_S = 5.0  # for the lead to take that answer
POLL_S = 0.2
MAX_DETAILS = 400
OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", CHUNK_BYTES + 64),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.use_local_subchannel_pool", 1),  # so that each dial looks the name up again
    # gRPC has variables and rules of its own for proxies; ``open_channel`` alone decides.
    ("grpc.enable_http_proxy", 0),
]

Answer = Callable[[bytes], bytes]
ReadTls = Callable[[], TlsCredentials]


def split_address(address: str) -> tuple[str, int]:
    """The host (without an IPv6 address' brackets) and the port of ``host:port``."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def open_channel(address: str, tls: TlsCredentials) -> grpc.Channel:
    """A channel to the lead, by the way that ``proxy.choose_proxy`` says.

    Through a proxy the channel dials the proxy, and asks there for the lead by name: gRPC's own
    option for a proxy would let its variables ``no_grpc_proxy`` and ``no_proxy`` overrule it.

    Raises:
        ConfigError: the proxy's settings cannot be used.
    """
    credentials = grpc.ssl_channel_credentials(
        root_certificates=tls.ca, private_key=tls.key, certificate_chain=tls.certificate
    )
    host, port = split_address(address)
    target, options = join_address(host, port), list(OPTIONS)
    proxy = choose_proxy(host, port)
    if proxy is not None:
        options += [
            ("grpc.http_connect_server", target),
            ("grpc.ssl_target_name_override", host),  # the certificate is the lead's all the same
        ]
        if proxy.authorization:
            header = f"Proxy-Authorization:{proxy.authorization}"
            options.append(("grpc.http_connect_headers", header))
        target = proxy.address
    return grpc.secure_channel(target, credentials, options=options)


def keep_connected(
    address: str,
    tls: TlsCredentials | ReadTls,
    answer: Answer,
    stop: threading.Event,
    *,
    name: str = "agent",
) -> None:
    """Stay connected to the coordinator until ``stop`` is set, whatever the network does.

    An answer that is under way when ``stop`` is set is finished and handed over first. An agent in
    whose place another one of its firm connects waits long, or the two would throw each other out
    for ever.

    Args:
        address: ``host:port``.
        tls: what to show there; a function is asked at each dial, since certificates are renewed.
        name: whose log lines they are.
    """
    wait_s, said = FIRST_WAIT_S, ""
    replaced_wait_s = REPLACED_WAIT_S
    while not stop.is_set():
        started_s, connection = time.monotonic(), _Connection(address, name, stop)
        reason = connection.serve(tls, answer)
        if time.monotonic() - started_s > 2 * LONGEST_REPLACED_WAIT_S:  # the other one is gone
            replaced_wait_s = REPLACED_WAIT_S
        if connection.replaced:
            logger.error("%s: %s This one tries again in %.0f s", name, reason, replaced_wait_s)
            if stop.wait(replaced_wait_s):
                return
            replaced_wait_s = min(LONGEST_REPLACED_WAIT_S, 2 * replaced_wait_s)
            continue
        if connection.held:
            wait_s, said = FIRST_WAIT_S, ""
        if stop.is_set():
            return
        if reason != said:  # each retry would say it again
            logger.warning("%s: %s", name, reason)
            said = reason
        if stop.wait(wait_s):
            return
        wait_s = min(LONGEST_WAIT_S, 1.5 * wait_s)


class _Connection:
    """One connection, from its dial to its end.

    Attributes:
        held: whether the lead took it.
        replaced: whether the lead ended it for another one of the same firm.
    """

    def __init__(self, address: str, name: str, stop: threading.Event) -> None:
        self._address = address
        self._name = name
        self._stop = stop
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._answering = threading.Lock()
        self._ready_s: float | None = None  # on the steady clock
        self.held = False
        self.replaced = False

    def serve(self, tls: TlsCredentials | ReadTls, answer: Answer) -> str:
        """Dial, and answer until the connection ends; why it did, for people."""
        try:
            credentials = tls() if callable(tls) else tls
            with open_channel(self._address, credentials) as channel:
                channel.subscribe(self._note_state)
                try:
                    self._answer_parcels(channel, answer)
                finally:
                    channel.unsubscribe(self._note_state)
                    # gRPC's thread for it looks every 0.2 s, and fails aloud on a closed channel.
                    time.sleep(WATCH_ENDS_S)
        except grpc.RpcError as error:
            return self._why(error, credentials)
        except GreylagError as error:  # keys that cannot be read, a proxy that cannot be used
            return f"not connected to {self._address}: {error}"
        return f"the lead at {self._address} ended the connection; dialling again"

    def _note_state(self, state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY and self._ready_s is None:
            self._ready_s = time.monotonic()

    def _answer_parcels(self, channel: grpc.Channel, answer: Answer) -> None:
        stream = channel.stream_stream(METHOD)(_outgoing(self._outbox))
        watcher = threading.Thread(target=self._watch, args=(stream,), daemon=True)
        watcher.start()
        try:
            for parcel in _join_parcels(stream):
                with self._answering:
                    if not self._stop.is_set():  # else what came is left to the next agent
                        self._answer_one(parcel, answer)
        finally:
            self._outbox.put(None)
            stream.cancel()

    def _answer_one(self, parcel: bytes, answer: Answer) -> None:
        self._note_held()
        parcel_id, frame = parcel[:ID_BYTES], parcel[ID_BYTES:]
        try:
            self._outbox.put(parcel_id + answer(frame))
        except GreylagError as error:
            logger.warning("%s: a message that could not be answered: %s", self._name, error)

    def _note_held(self) -> None:
        if not self.held:
            self.held = True
            logger.info("%s: connected to the lead at %s", self._name, self._address)

    def _watch(self, stream: grpc.Call) -> None:
        """Say that the connection holds; end it when the agent ends, behind the last answer."""
        while not self._stop.wait(POLL_S):
            if not stream.is_active():
                return
            if self._ready_s is not None and time.monotonic() - self._ready_s > HELD_S:
                self._note_held()
        if self._answering.acquire(timeout=FINISH_S):
            self._answering.release()
        self._outbox.put(None)  # the lead ends the stream when it has all before this
        until_s = time.monotonic() + (FAREWELL_S if self._ready_s is not None else 0.0)
        while stream.is_active() and time.monotonic() < until_s:
            time.sleep(POLL_S / 4)
        stream.cancel()

    def _why(self, error: grpc.RpcError, tls: TlsCredentials) -> str:
        details = getattr(error, "details", None)
        text = str(details() if callable(details) else error)[:MAX_DETAILS]
        text = "".join(char for char in text if char.isprintable())
        code = error.code() if isinstance(error, grpc.Call) else None
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            self.held = False  # however long it took: else each retry would say the same
            return f"the lead at {self._address} refuses this firm: {text}"
        if code is grpc.StatusCode.ABORTED:
            self.replaced = True
            return (
                f"another agent of this firm connected to the lead at {self._address} in place of "
                "this one. A firm has one agent: end the one that should not run (a second machine "
                "or container with a copy of this directory?). If you know of none, somebody has "
                "this firm's keys: tell the lead, and run `greylag-client revoke`."
            )
        if (expired := expired_on(tls.certificate)) is not None:
            return (
                f"not connected to {self._address}: this firm's certificate expired on {expired}. "
                "It renews by itself; the log says why if it cannot. Check this machine's clock"
            )
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return (
                f"the server at {self._address} does not show a certificate of this consortium, or "
                f"this machine's clock (it says {datetime.now(UTC):%Y-%m-%d}) is wrong; "
                "`greylag-client doctor` says which"
            )
        if "HTTP proxy returned response code" in text:
            text = self._ask_proxy() or text
        return f"not connected to {self._address}: {text}"

    def _ask_proxy(self) -> str:
        """What the proxy says to the same request; gRPC tells its status only."""
        try:
            connect(*split_address(self._address), timeout_s=PROXY_TIMEOUT_S).close()
        except (ProxyError, ConfigError) as error:
            return str(error)
        except OSError:
            pass  # the environment does not change while a process runs: not by the proxy after all
        return ""


def expired_on(certificate: bytes) -> str | None:
    """The day on which a PEM certificate expired; None if it has not, or cannot be read."""
    try:
        end = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    except (ValueError, x509.InvalidVersion):
        return None
    return f"{end:%Y-%m-%d}" if end < datetime.now(UTC) else None


def _outgoing(outbox: "queue.SimpleQueue[bytes | None]") -> Iterator[bytes]:
    while (parcel := outbox.get()) is not None:
        view = memoryview(parcel)
        for start in range(0, max(1, len(view)), CHUNK_BYTES - 1):
            last = start + CHUNK_BYTES - 1 >= len(view)
            yield bytes([last]) + view[start : start + CHUNK_BYTES - 1]


def _join_parcels(chunks: Iterator[bytes]) -> Iterator[bytes]:
    joined = bytearray()  # not a list, which chunks of a byte would make many times as large
    for chunk in chunks:
        joined += memoryview(chunk)[1:]
        if not chunk or len(joined) > MAX_FRAME_BYTES:
            return
        if chunk[0]:
            yield bytes(joined)
            joined = bytearray()
