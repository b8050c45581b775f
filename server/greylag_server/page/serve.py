"""Runs the page beside the coordinator: a server in a thread of its own, which ends with it."""

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
from greylag_protocols.errors import ConfigError, GreylagError

from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.page.accounts import Accounts
from greylag_server.page.actions import Actions, Steering
from greylag_server.page.app import Page, make_app
from greylag_server.page.door import Door
from greylag_server.page.facts import Live
from greylag_server.page.guard import LOOPBACK
from greylag_server.page.rendering import Renderer
from greylag_server.page.source import Desk

logger = logging.getLogger(__name__)

FOLLOW_S = 0.5
END_S = 5.0


class OperatorPage:
    """The page of one consortium.

    On the loopback it speaks plain HTTP; people elsewhere reach it through a tunnel. On any other
    address it speaks TLS with the consortium's own certificate, and nothing else.

    Args:
        log_path: the lead's database, which exists.
        live, steering: what the serving process adds; without them nobody is shown as online, and
            runs cannot be steered.
        bind, port: the address to listen on; port 0 takes a free one.

    Attributes:
        app, desk: the ASGI application, and what it knows.

    Raises:
        ConfigError: the port is taken, or a file cannot be opened.
    """

    def __init__(
        self,
        consortium: Consortium,
        *,
        log_path: Path,
        enrolment: Enrolment,
        live: Live | None = None,
        steering: Steering | None = None,
        bind: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.secure = bind not in LOOPBACK
        self._socket = _listen(bind, port)
        self.bind, self.port = bind, int(self._socket.getsockname()[1])
        self._stop = threading.Event()
        try:
            self._accounts = Accounts(consortium.root, clock=clock)
            self.desk = Desk(
                consortium,
                log_path=log_path,
                enrolment=enrolment,
                accounts=self._accounts,
                live=live,
                clock=clock,
            )
        except ConfigError:
            self._socket.close()
            raise
        page = Page(
            desk=self.desk,
            door=Door(entropy=os.urandom, clock=time.monotonic),
            accounts=self._accounts,
            actions=Actions(
                enrolment=enrolment, accounts=self._accounts, steering=steering, clock=clock
            ),
            renderer=Renderer(),
            secure=self.secure,
            port=self.port,
            stopping=self._stop.is_set,
        )
        self.app = make_app(page, hosts=frozenset({consortium.settings.host, bind}))
        config = uvicorn.Config(
            self.app,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            proxy_headers=False,  # an address that a request itself names is worth nothing
            server_header=False,
            limit_concurrency=128,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=16 << 10,
        )
        if self.secure:
            config.ssl_certfile = consortium.server_cert_path
            config.ssl_keyfile = consortium.server_key_path
            config.ssl_context_factory = _tls_context
        self._server = uvicorn.Server(config)
        self._threads = [
            threading.Thread(target=work, name=f"operators-page-{work.__name__}", daemon=True)
            for work in (self._serve, self._follow)
        ]

    @property
    def address(self) -> str:
        """Where people find it."""
        host = f"[{self.bind}]" if ":" in self.bind else self.bind
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}/"

    def start(self) -> None:
        """Serve."""
        for thread in self._threads:
            thread.start()
        logger.info("the operator's page is at %s", self.address)
        if not self._accounts.all():
            logger.info(
                "nobody can sign in to it yet: greylag-server user add NAME --role operator"
            )

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._server.should_exit = True
        for thread in self._threads:
            if thread.is_alive():
                thread.join(END_S)
        self._socket.close()
        self.desk.close()

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except Exception:  # the coordinator goes on without its page
            logger.exception("the operator's page ended by an error; the coordinator goes on")

    def _follow(self) -> None:
        while not self._stop.wait(FOLLOW_S):
            try:
                self.desk.follow(self._stop)
            except (GreylagError, ValueError, KeyError, TypeError):
                logger.exception("the log cannot be shown on the operator's page")
                return


def _listen(bind: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    try:
        return socket.create_server((bind, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"the operator's page cannot be served at {bind}:{port} ({error}); name another "
            "address or port"
        ) from None


def _tls_context(_: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
