"""The firm's end of the stream: it dials out, answers parcels in order, and dials again.

Framing as in the coordinator's ``grid_grpc``: chunks are ``flag (1) | bytes``, parcels
``id (16) | frame``.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator

import grpc
from greylag_protocols.errors import GreylagError

from greylag_client.firm import TlsCredentials

logger = logging.getLogger(__name__)

METHOD = "/greylag.v1.Link/Connect"
CHUNK_BYTES = 1 << 20
ID_BYTES = 16
MAX_FRAME_BYTES = 512 << 20
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 15.0
OPTIONS = [
    ("grpc.max_receive_message_length", CHUNK_BYTES + 64),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.use_local_subchannel_pool", 1),
]

Answer = Callable[[bytes], bytes]


def keep_connected(
    address: str, tls: TlsCredentials, answer: Answer, stop: threading.Event
) -> None:
    """Stay connected to the coordinator until ``stop`` is set, whatever the network does."""
    wait_s = FIRST_WAIT_S
    while not stop.is_set():
        try:
            if _serve_once(address, tls, answer, stop):
                wait_s = FIRST_WAIT_S
        except grpc.RpcError as error:
            logger.info("not connected to %s: %s", address, _reason(error))
        if stop.wait(wait_s):
            return
        wait_s = min(LONGEST_WAIT_S, 1.5 * wait_s)


def _reason(error: grpc.RpcError) -> str:
    details = getattr(error, "details", None)
    return str(details()) if callable(details) else str(error)


def _serve_once(address: str, tls: TlsCredentials, answer: Answer, stop: threading.Event) -> bool:
    """One connection, until it ends. Returns whether anything was received on it."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=tls.ca, private_key=tls.key, certificate_chain=tls.certificate
    )
    outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    received = False
    with grpc.secure_channel(address, credentials, options=OPTIONS) as channel:
        connect = channel.stream_stream(METHOD)
        stream = connect(_outgoing(outbox))
        watcher = threading.Thread(target=_cancel_on, args=(stop, stream), daemon=True)
        watcher.start()
        try:
            for parcel in _join_parcels(stream):
                received = True
                parcel_id, frame = parcel[:ID_BYTES], parcel[ID_BYTES:]
                try:
                    outbox.put(parcel_id + answer(frame))
                except GreylagError as error:
                    logger.warning("a message that could not be answered: %s", error)
        finally:
            outbox.put(None)
            stream.cancel()
    return received


def _cancel_on(stop: threading.Event, stream: grpc.Call) -> None:
    while stream.is_active() and not stop.wait(0.2):
        pass
    stream.cancel()


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
