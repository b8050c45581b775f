"""A Flower Grid over gRPC: one mutually authenticated stream per firm, opened by the firm.

On the stream, each gRPC message is ``flag (1) | bytes``; flag 1 ends a parcel. A parcel is
``message id (16) | frame``. Parcels of one direction follow one another and never interleave. A
firm is who its TLS certificate says; a second connection of a firm replaces the first.

A round goes to all firms at once: its chunks exist once for all of them, after a first one with the
message id; and gRPC, which copies and encrypts them, gets those of ``SENDERS`` firms at a time.

All streams live in one thread with an event loop. With two threads for each of 200 firms the
interpreter spent as much on passing its lock around as on the streams themselves.
"""

import asyncio
import contextlib
import ctypes
import logging
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
from cryptography import x509
from flwr.app import Message
from greylag_protocols.errors import ConfigError
from greylag_protocols.invite import spki_pin

from greylag_server.grid_messages import (
    FrameGrid,
    node_id,
    unwrap,
    wrap_loss,
    wrap_reply,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")
_StreamContext: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
# Why firms with these certificates (common name, pin of the key) may not connect; empty: they may.
Refusals: TypeAlias = Callable[[Sequence[tuple[str, str]]], Sequence[str]]

SERVICE, METHOD = "greylag.v1.Link", "Connect"
CHUNK_BYTES = 1 << 20
ID_BYTES = 16
MAX_CONNECTIONS = 1024
PULL_WAIT_S = 0.05
M_ARENA_MAX = -8  # of glibc's malloc.h
SENDERS = 16
RECHECK_S = 10.0  # a firm that was taken out may stay connected for so long
SENDER_WAIT_S = 5.0  # then a parcel goes all the same: slow firms must not keep others waiting
REPLACED = "another agent of this firm connected"  # with the status that nothing else here ends by
OPTIONS = [
    ("grpc.max_receive_message_length", CHUNK_BYTES + 64),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),  # a port in use must be an error, not a second listener
]


@dataclass(slots=True, kw_only=True, eq=False)
class _Session:
    """One firm's open stream."""

    firm: str
    pin: str
    node: int
    outbox: "asyncio.Queue[list[bytes] | None]" = field(default_factory=asyncio.Queue)
    pending: dict[bytes, Message] = field(default_factory=dict)
    replaced: bool = False


class GrpcGrid(FrameGrid):
    """The firms' side of the coordinator's port.

    Args:
        address: ``host:port`` to listen on; port 0 picks a free one (see ``port``).
        max_frame_bytes: a firm that sends more is cut off.
        refusals: asked whenever a firm connects, and about all connected firms from time to time;
            without it everyone may connect whose certificate is the authority's.

    Raises:
        ConfigError: the port is in use.
    """

    def __init__(
        self,
        address: str,
        *,
        ca: bytes,
        key: bytes,
        certificate: bytes,
        max_frame_bytes: int,
        refusals: Refusals | None = None,
    ) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._refusals = refusals
        self._lock = threading.Condition()  # guards the three below
        self._sessions: dict[int, _Session] = {}
        self._connections = 0
        self._replies: dict[str, Message] = {}
        self.received_bytes = 0  # written by the loop's thread alone
        self._senders = asyncio.Semaphore(SENDERS)
        _share_one_arena()
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], root_certificates=ca, require_client_auth=True
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="grid", daemon=True)
        self._thread.start()
        try:
            self._server, self.port = self._in_loop(self._listen(address, credentials))
        except RuntimeError:
            self._end_loop()
            raise ConfigError(
                f"cannot listen on {address}: the port is in use or not allowed. End the other "
                "program, or set another port in consortium.toml"
            ) from None

    async def _listen(
        self, address: str, credentials: grpc.ServerCredentials
    ) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CONNECTIONS)
        connect = grpc.stream_stream_rpc_method_handler(self._serve_stream)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: connect}),)
        )
        port = server.add_secure_port(address, credentials)
        await server.start()
        if self._refusals is not None:
            self._recheck_task = asyncio.create_task(self._recheck(self._refusals))
        return server, port

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._in_loop(_cancel_others())
        self._in_loop(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def stop(self) -> None:
        """Close all streams."""
        with self._lock:
            sessions = list(self._sessions.values())
        self._loop.call_soon_threadsafe(self._deliver, [(item, None) for item in sessions])
        self._in_loop(self._server.stop(grace=1))
        self._end_loop()

    def connected(self) -> list[str]:
        """The firms whose agents are connected."""
        with self._lock:
            return sorted(item.firm for item in self._sessions.values())

    # -- Flower's Grid ---------------------------------------------------------------------------

    def get_node_ids(self) -> Iterable[int]:
        with self._lock:
            return list(self._sessions)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids: list[str] = []
        parcels: list[tuple[_Session, list[bytes] | None]] = []
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
            parcels.append((session, [b"\x00" + parcel_id, *chunks]))
        if parcels:
            self._loop.call_soon_threadsafe(self._deliver, parcels)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are here; waits up to ``PULL_WAIT_S`` for the first."""
        wanted = set(message_ids)
        with self._lock:
            if not wanted & self._replies.keys():
                self._lock.wait(PULL_WAIT_S)
            return [self._replies.pop(key) for key in wanted & self._replies.keys()]

    # -- streams, in the event loop's thread -----------------------------------------------------

    def _deliver(self, parcels: Iterable[tuple[_Session, list[bytes] | None]]) -> None:
        for session, parcel in parcels:
            session.outbox.put_nowait(parcel)

    async def _serve_stream(self, _: AsyncIterable[bytes], context: _StreamContext) -> None:
        """One firm's stream, from its first to its last chunk."""
        names = context.auth_context().get("x509_common_name", [])
        if len(names) != 1:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "no common name in the certificate"
            )
        firm, pin = names[0].decode(), _pin_of(context)
        await self._check_admission(firm, pin, context)
        session = self._open(firm, pin)
        reader = asyncio.create_task(self._read(session, context))
        try:
            while (parcel := await session.outbox.get()) is not None:
                await self._send(parcel, context)
                del parcel  # or it would stay until the next one
        except grpc.aio.BaseError as error:  # it hung up in the middle of a parcel
            logger.info("%s: %s", session.firm, type(error).__name__)
        finally:
            reader.cancel()
            self._close(session)
        if session.replaced:  # an agent that is still there must not just dial again
            await context.abort(grpc.StatusCode.ABORTED, REPLACED)

    async def _check_admission(self, firm: str, pin: str, context: _StreamContext) -> None:
        """End the stream of a firm that may not connect, with a sentence for its log."""
        if self._refusals is None:
            return
        try:
            (reason,) = await asyncio.to_thread(self._refusals, [(firm, pin)])
        except (sqlite3.Error, OSError) as error:
            logger.error("%s could not be looked up: %s", firm, error)
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "the lead's machine could not look up its members"
            )
        if reason:
            logger.info("%s was turned away: %s", firm, reason)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)

    async def _recheck(self, refusals: Refusals) -> None:
        """Hang up on firms that may no longer be connected: removed, revoked or gone by another
        program, or by another thread of this one."""
        while True:
            await asyncio.sleep(RECHECK_S)
            with self._lock:
                sessions = list(self._sessions.values())
            presented = [(session.firm, session.pin) for session in sessions]
            try:
                reasons = await asyncio.to_thread(refusals, presented)
            except (sqlite3.Error, OSError) as error:
                logger.error("the connected firms could not be looked up: %s", error)
                continue
            for session, reason in zip(sessions, reasons, strict=True):
                if reason:
                    session.outbox.put_nowait(None)
                    with self._lock:
                        self._drop(session, reason)

    async def _send(self, parcel: list[bytes], context: _StreamContext) -> None:
        in_turn = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SENDER_WAIT_S):
                in_turn = await self._senders.acquire()
        try:
            for chunk in parcel:
                await context.write(chunk)
        finally:
            if in_turn:
                self._senders.release()

    def _open(self, firm: str, pin: str) -> _Session:
        with self._lock:
            self._connections += 1
            session = _Session(firm=firm, pin=pin, node=node_id(firm, self._connections))
            for other in [item for item in self._sessions.values() if item.firm == firm]:
                other.replaced = True
                other.outbox.put_nowait(None)
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

    async def _read(self, session: _Session, context: _StreamContext) -> None:
        parcels = ParcelReader(limit=self._max_frame_bytes)
        try:
            while (chunk := await context.read()) is not grpc.aio.EOF:
                self.received_bytes += len(chunk)
                if (parcel := parcels.take(chunk)) is not None:
                    self._take_reply(session, *parcel)
                del chunk, parcel  # or they would stay until the next ones
        except (grpc.aio.BaseError, ValueError) as error:
            logger.info("%s: %s", session.firm, error or type(error).__name__)
        finally:
            session.outbox.put_nowait(None)

    def _take_reply(self, session: _Session, parcel_id: bytes, frame: bytes) -> None:
        with self._lock:
            message = session.pending.pop(parcel_id, None)
            if message is not None:
                self._replies[message.metadata.message_id] = wrap_reply(frame, message)
                self._lock.notify_all()


def _pin_of(context: _StreamContext) -> str:
    """SHA-256 of the public key that the firm has just shown in its handshake, hex."""
    (pem,) = context.auth_context()["x509_pem_cert"]
    return spki_pin(x509.load_pem_x509_certificate(pem))


async def _cancel_others() -> None:
    """End every task of this loop but the caller's."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _share_one_arena() -> None:
    """Keep glibc from giving each thread of gRPC's an arena of its own.

    Every one of them would hold on to room for vectors: 600 MB with 200 firms instead of 450.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have no arenas
        mallopt(M_ARENA_MAX, 1)


def split_parcel(parcel: bytes) -> Iterator[bytes]:
    """A parcel, or the rest of one, as stream chunks."""
    view = memoryview(parcel)
    for start in range(0, max(1, len(view)), CHUNK_BYTES - 1):
        last = start + CHUNK_BYTES - 1 >= len(view)
        yield bytes([last]) + view[start : start + CHUNK_BYTES - 1]


class ParcelReader:
    """Parcels from the chunks of one stream.

    Args:
        limit: the most bytes that a parcel may have.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        # Not a list, which chunks without content would lengthen without end.
        self._joined = bytearray()

    def take(self, chunk: bytes) -> tuple[bytes, bytes] | None:
        """The message id and frame of the parcel that ``chunk`` ends, if it ends one.

        Raises:
            ValueError: a parcel longer than ``limit``, or an empty chunk.
        """
        if not chunk:
            raise ValueError("an empty chunk")
        if len(self._joined) + len(chunk) - 1 > self._limit:
            raise ValueError(f"a message longer than {self._limit} bytes")
        if chunk[0] and not self._joined:  # the usual one: it is copied once
            return chunk[1 : 1 + ID_BYTES], chunk[1 + ID_BYTES :]
        self._joined += memoryview(chunk)[1:]
        if not chunk[0]:
            return None
        parcel, self._joined = memoryview(self._joined), bytearray()
        return bytes(parcel[:ID_BYTES]), bytes(parcel[ID_BYTES:])
