"""The enrolment server, HTTPS: ``POST /v1/enrol``, ``/v1/renew`` and ``/v1/leave``.

Anyone can reach it, so it reads little, answers briefly and repeats nothing that it was sent. It
authenticates itself by the key that invites pin; firms authenticate by the token of their invite,
and once they are members by their identity key.
"""

import asyncio
import logging
import socket
import sqlite3
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

import uvicorn
from greylag_protocols.endorsement import ENDORSEMENT_PATH
from greylag_protocols.errors import ConfigError, GreylagError, VerificationError
from greylag_protocols.invite import (
    ENROLMENT_PATH,
    MAX_REQUEST_BYTES,
    EnrolmentCode,
    parse_request,
)
from greylag_protocols.renewal import LEAVE_PATH, RENEWAL_PATH, parse_renewal_request
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.refusals import EnrolmentError

MAX_FAILURES = 20
FAILURE_WINDOW_S = 60.0
READ_TIMEOUT_S = 15.0
MAX_CONNECTIONS = 64
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0

_log = logging.getLogger(__name__)

T = TypeVar("T")

_STATUS: dict[EnrolmentCode, HTTPStatus] = {
    "malformed": HTTPStatus.BAD_REQUEST,
    "too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "other-consortium": HTTPStatus.NOT_FOUND,
    "unknown-invite": HTTPStatus.NOT_FOUND,
    "expired-invite": HTTPStatus.GONE,
    "used-invite": HTTPStatus.CONFLICT,
    "revoked-invite": HTTPStatus.GONE,
    "bad-csr": HTTPStatus.BAD_REQUEST,
    "bad-proof": HTTPStatus.FORBIDDEN,
    "identity-taken": HTTPStatus.CONFLICT,
    "firm-removed": HTTPStatus.GONE,
    "firm-revoked": HTTPStatus.GONE,
    "firm-left": HTTPStatus.GONE,
    "too-many-failures": HTTPStatus.TOO_MANY_REQUESTS,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}


class FailureLimit:
    """At most ``limit`` failures in any ``window_s`` seconds of a steady clock."""

    def __init__(self, limit: int = MAX_FAILURES, window_s: float = FAILURE_WINDOW_S) -> None:
        self._limit = limit
        self._window_s = window_s
        self._times: deque[float] = deque()

    def reached(self, steady_s: float) -> bool:
        while self._times and steady_s - self._times[0] >= self._window_s:
            self._times.popleft()
        return len(self._times) >= self._limit

    def count(self, steady_s: float) -> None:
        self._times.append(steady_s)


def make_app(enrolment: Enrolment, *, clock: Callable[[], float] = time.time) -> Starlette:
    """The ASGI application; ``clock`` gives Unix seconds."""
    failures = FailureLimit()

    async def answer(request: Request, act: Callable[[bytes], bytes]) -> Response:
        try:
            reply = await run_in_threadpool(act, await _read_body(request))
        except EnrolmentError as error:
            return _refusal(error)
        except (sqlite3.Error, OSError, GreylagError) as error:
            # The fault is this machine's: its operator is told what, the firm only that.
            _log.error("%s could not be completed: %s", request.url.path, error)
            return _refusal(
                EnrolmentError("unavailable", "the lead's machine could not do this now; try later")
            )
        status = HTTPStatus.OK if reply else HTTPStatus.NO_CONTENT
        return Response(reply, status_code=status, media_type="application/json")

    async def enrol(request: Request) -> Response:
        # One event loop runs this, so the limit needs no lock.
        if failures.reached(time.monotonic()):
            return _refusal(
                EnrolmentError(
                    "too-many-failures", "too many failed attempts; wait a minute and join again"
                )
            )
        response = await answer(
            request,
            lambda body: enrolment.enrol(_parsed(parse_request, body), now_s=clock()).encode(),
        )
        fault = response.status_code == _STATUS["unavailable"]
        if response.status_code != HTTPStatus.OK and not fault:
            failures.count(time.monotonic())
        return response

    # Nothing can be guessed at the others: each costs a look-up and a signature's check, and
    # strangers' failures must not keep members from renewing.

    async def renew(request: Request) -> Response:
        certificates = enrolment.certificates
        return await answer(
            request,
            lambda body: certificates.renew(
                _parsed(parse_renewal_request, body), now_s=clock()
            ).encode(),
        )

    def take_leave(body: bytes) -> bytes:
        enrolment.leave(body, now_s=clock())
        return b""

    async def leave(request: Request) -> Response:
        return await answer(request, take_leave)

    def take_endorsement(body: bytes) -> bytes:
        enrolment.endorse(body)
        return b""

    async def endorse(request: Request) -> Response:
        return await answer(request, take_endorsement)

    return Starlette(
        routes=[
            Route(ENROLMENT_PATH, enrol, methods=["POST"]),
            Route(RENEWAL_PATH, renew, methods=["POST"]),
            Route(LEAVE_PATH, leave, methods=["POST"]),
            Route(ENDORSEMENT_PATH, endorse, methods=["POST"]),
        ]
    )


class EnrolmentServer:
    """Serves enrolment over TLS from a thread of its own.

    Args:
        consortium: whose keys it shows.
        enrolment: what it serves.
        port: 0 takes a free one; the settings' where it is not given.
        bind_host: the address to listen on. Without it, the loopback if the consortium's host is
            that, and else every address: the host's name may be one that a router forwards.
        clock: gives Unix seconds.
    """

    def __init__(
        self,
        consortium: Consortium,
        enrolment: Enrolment,
        port: int | None = None,
        *,
        bind_host: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._consortium = consortium
        self._app = make_app(enrolment, clock=clock)
        self._wanted_port = consortium.settings.enrol_port if port is None else port
        loopback = consortium.settings.host in ("127.0.0.1", "localhost")
        self._bind_host = bind_host or ("127.0.0.1" if loopback else "")
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before ``start``."""
        return self._port

    def start(self) -> None:
        """Listen and serve; returns once connections are taken.

        Raises:
            ConfigError: the port is in use or not allowed.
        """
        listener = _listen(self._bind_host, self._wanted_port)
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=16 << 10,
            ssl_certfile=self._consortium.server_cert_path,
            ssl_keyfile=self._consortium.server_key_path,
            ssl_context_factory=_tls_context,
        )
        server = uvicorn.Server(config)
        # Off the main thread uvicorn leaves signals alone; the program that serves handles them.
        thread = threading.Thread(
            target=server.run, args=([listener],), name="enrolment", daemon=True
        )
        thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        self._server, self._thread = server, thread
        if not server.started:
            listener.close()
            self.stop()
            raise ConfigError(
                f"the enrolment server did not start on port {self._port}; see the log above"
            )

    def stop(self) -> None:
        """Finish what was begun and stop; does nothing when it is not running."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(STOP_TIMEOUT_S)
        self._server = self._thread = None
        self._port = 0


def _tls_context(config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _listen(host: str, port: int) -> socket.socket:
    try:
        if host == "" and socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=MAX_CONNECTIONS
            )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise ConfigError(
            f"cannot listen for enrolment on port {port}: {error.strerror}; stop the program that "
            "has it, or set another enrol_port in consortium.toml (invites name the port, so "
            "send new ones)"
        ) from None


def _parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    try:
        return parse(body)
    except (ConfigError, VerificationError):
        # The parser quotes what it found, and that may be the token.
        raise EnrolmentError(
            "malformed", "this is not a request that this version understands"
        ) from None


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_REQUEST_BYTES:
                    raise EnrolmentError(
                        "too-large", f"the request has more than {MAX_REQUEST_BYTES} bytes"
                    )
    except (TimeoutError, ClientDisconnect):
        raise EnrolmentError("malformed", "the request did not arrive whole") from None
    return bytes(body)


def _refusal(error: EnrolmentError) -> Response:
    return JSONResponse(
        {"error": error.code, "message": str(error)}, status_code=_STATUS[error.code]
    )
