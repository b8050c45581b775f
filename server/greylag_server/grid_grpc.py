"""A Flower Grid over gRPC: one mutually authenticated stream per firm, opened by the firm.

On the stream, each gRPC message is ``flag (1) | bytes``; flag 1 ends a parcel. A parcel is
``message id (16) | frame``. Parcels of one direction follow one another and never interleave. A
firm is who its TLS certificate says; a second connection of a firm replaces the first.

A round goes to all firms at once: its chunks exist once for all of them, after a first one with the
message id; and gRPC, which copies and encrypts them, gets those of ``SENDERS`` firms at a time.
"""

import logging
import queue
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass, field

import grpc
from flwr.app import Message
from greylag_protocols.errors import ConfigError

from greylag_server.grid_messages import (
    FrameGrid,
    node_id,
    unwrap,
    wrap_loss,
    wrap_reply,
)

logger = logging.getLogger(__name__)

SERVICE, METHOD = "greylag.v1.Link", "Connect"
CHUNK_BYTES = 1 << 20
ID_BYTES = 16
MAX_CONNECTIONS = 1024
PULL_WAIT_S = 0.05
SENDERS = 16
SENDER_WAIT_S = 5.0  # then a parcel goes all the same: slow firms must not keep others waiting
OPTIONS = [
    ("grpc.max_receive_message_length", CHUNK_BYTES + 64),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),  # a port in use must be an error, not a second listener
]


@dataclass(slots=True, kw_only=True)
class _Session:
    """One firm's open stream."""

    firm: str
    node: int
    outbox: "queue.SimpleQueue[list[bytes] | None]" = field(default_factory=queue.SimpleQueue)
    pending: dict[bytes, Message] = field(default_factory=dict)


class GrpcGrid(FrameGrid):
    """The firms' side of the coordinator's port.

    Args:
        address: ``host:port`` to listen on; port 0 picks a free one (see ``port``).
        max_frame_bytes: a firm that sends more is cut off.

    Raises:
        ConfigError: the port is in use.
    """

    def __init__(
        self, address: str, *, ca: bytes, key: bytes, certificate: bytes, max_frame_bytes: int
    ) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._lock = threading.Condition()
        self._sessions: dict[int, _Session] = {}
        self._connections = 0
        self._senders = threading.Semaphore(SENDERS)
        self._replies: dict[str, Message] = {}
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], root_certificates=ca, require_client_auth=True
        )
        pool = futures.ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="firm")
        self._server = grpc.server(pool, options=OPTIONS, maximum_concurrent_rpcs=MAX_CONNECTIONS)
        connect = grpc.stream_stream_rpc_method_handler(self.serve_stream)
        handler = grpc.method_handlers_generic_handler(SERVICE, {METHOD: connect})
        self._server.add_generic_rpc_handlers((handler,))
        try:
            self.port = int(self._server.add_secure_port(address, credentials))
        except RuntimeError:
            raise ConfigError(
                f"cannot listen on {address}: the port is in use or not allowed. End the other "
                "program, or set another port in consortium.toml"
            ) from None
        self._server.start()

    def stop(self) -> None:
        """Close all streams."""
        with self._lock:
            for session in self._sessions.values():
                session.outbox.put(None)
        self._server.stop(grace=1).wait()

    # -- Flower's Grid ---------------------------------------------------------------------------

    def get_node_ids(self) -> Iterable[int]:
        with self._lock:
            return list(self._sessions)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        frame, chunks = b"", list(split_parcel(b""))
        for message in messages:
            key = message.metadata.message_id
            ids.append(key)
            with self._lock:
                session = self._sessions.get(message.metadata.dst_node_id)
                if session is None:
                    self._replies[key] = wrap_loss("the agent is not connected", message)
                    continue
                parcel_id = uuid.UUID(key).bytes
                session.pending[parcel_id] = message
            if unwrap(message) is not frame:
                frame = unwrap(message)
                chunks = list(split_parcel(frame))
            session.outbox.put([b"\x00" + parcel_id, *chunks])
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are here; waits up to ``PULL_WAIT_S`` for the first."""
        wanted = set(message_ids)
        with self._lock:
            if not wanted & self._replies.keys():
                self._lock.wait(PULL_WAIT_S)
            return [self._replies.pop(key) for key in wanted & self._replies.keys()]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        wanted = set(self.push_messages(messages))
        end_s = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while wanted and (end_s is None or time.monotonic() < end_s):
            for reply in self.pull_messages(wanted):
                wanted.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
        return replies

    # -- streams -----------------------------------------------------------------------------------

    def serve_stream(
        self, chunks: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """One firm's stream, from its first to its last chunk."""
        names = context.auth_context().get("x509_common_name", [])
        if len(names) != 1:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no common name in the certificate")
        session = self._open(names[0].decode())
        context.add_callback(lambda: session.outbox.put(None))
        reader = threading.Thread(
            target=self._read, args=(session, chunks), name=f"read-{session.firm}", daemon=True
        )
        reader.start()
        try:
            while (parcel := session.outbox.get()) is not None:
                in_turn = self._senders.acquire(timeout=SENDER_WAIT_S)
                try:
                    yield from parcel
                finally:
                    if in_turn:
                        self._senders.release()
                del parcel  # or it would stay until the next one
        finally:
            self._close(session)

    def _open(self, firm: str) -> _Session:
        with self._lock:
            self._connections += 1
            session = _Session(firm=firm, node=node_id(firm, self._connections))
            for other in [item for item in self._sessions.values() if item.firm == firm]:
                other.outbox.put(None)
                self._drop(other, "replaced by a newer connection")
            self._sessions[session.node] = session
            self._lock.notify_all()
        logger.info("%s connected", firm)
        return session

    def _close(self, session: _Session) -> None:
        with self._lock:
            self._drop(session, "the connection ended")
            self._lock.notify_all()

    def _drop(self, session: _Session, reason: str) -> None:
        """Forget a session; whoever waits for its answers learns that none will come."""
        if self._sessions.pop(session.node, None) is None:
            return
        logger.info("%s: %s", session.firm, reason)
        for message in session.pending.values():
            self._replies[message.metadata.message_id] = wrap_loss(reason, message)
        session.pending.clear()

    def _read(self, session: _Session, chunks: Iterator[bytes]) -> None:
        try:
            for parcel in join_parcels(chunks, limit=self._max_frame_bytes):
                parcel_id, frame = parcel[:ID_BYTES], parcel[ID_BYTES:]
                del parcel
                self._take_reply(session, parcel_id, frame)
                del frame
        except (grpc.RpcError, ValueError) as error:
            logger.info("%s: %s", session.firm, error or type(error).__name__)
        finally:
            session.outbox.put(None)

    def _take_reply(self, session: _Session, parcel_id: bytes, frame: bytes) -> None:
        with self._lock:
            message = session.pending.pop(parcel_id, None)
            if message is not None:
                self._replies[message.metadata.message_id] = wrap_reply(frame, message)
                self._lock.notify_all()


def split_parcel(parcel: bytes) -> Iterator[bytes]:
    """A parcel, or the rest of one, as stream chunks."""
    view = memoryview(parcel)
    for start in range(0, max(1, len(view)), CHUNK_BYTES - 1):
        last = start + CHUNK_BYTES - 1 >= len(view)
        yield bytes([last]) + view[start : start + CHUNK_BYTES - 1]


def join_parcels(chunks: Iterator[bytes], *, limit: int) -> Iterator[bytes]:
    """Parcels from stream chunks.

    Raises:
        ValueError: a parcel longer than ``limit``, or an empty chunk.
    """
    joined = bytearray()  # not a list, which chunks without content would lengthen without end
    for chunk in chunks:
        if not chunk:
            raise ValueError("an empty chunk")
        if len(joined) + len(chunk) - 1 > limit:
            raise ValueError(f"a message longer than {limit} bytes")
        if not chunk[0] or joined:
            joined += memoryview(chunk)[1:]
        if chunk[0]:
            parcel = bytes(joined) if joined else chunk[1:]
            joined = bytearray()
            del chunk  # what was handed on must not stay here until the next one comes
            yield parcel
            del parcel
