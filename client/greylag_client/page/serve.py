"""Runs the page beside the agents: a server in a thread, on loopback, that ends with them."""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence

import uvicorn
from greylag_protocols.errors import ConfigError

from greylag_client.page.app import make_app
from greylag_client.page.door import Door
from greylag_client.page.link_file import read_link, remove_link, write_link
from greylag_client.page.source import House

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
END_S = 5.0


class PageServer:
    """The page of some firms at ``port`` (0: any free one).

    Each link opens one session. The next one lies in ``page.link`` of every firm's directory,
    readable by the agent's account only: who may read that may read the keys too. Only somebody
    who sits at the terminal is told the first one; a service's log is no place for it.

    Raises:
        ConfigError: the port is taken, or a link cannot be written.
    """

    def __init__(self, houses: Sequence[House], *, port: int = 0) -> None:
        self._roots = [house.firm.root for house in houses]
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if sys.platform != "win32":  # there it would let another program take the port over
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((ADDRESS, port))
            self._socket.listen()
        except (OSError, OverflowError) as error:
            self._socket.close()
            raise ConfigError(
                f"the page cannot be served at {ADDRESS}:{port} ({error}); name another port, or "
                "none: any free one is taken"
            ) from None
        self.port = int(self._socket.getsockname()[1])
        try:
            door = Door(entropy=os.urandom, clock=time.monotonic, show_link=self._show)
        except ConfigError:
            self._socket.close()
            raise
        app = make_app(_by_name(houses), door, port=self.port, stopping=self._is_stopping)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # a link's token would stand in it
            log_level="warning",
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
            limit_concurrency=64,
            h11_max_incomplete_event_size=16_384,
            http="h11",
            loop="asyncio",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="page", daemon=True)

    @property
    def link(self) -> str:
        """The address that opens the next session; a secret.

        Raises:
            ConfigError: it cannot be read.
        """
        return read_link(self._roots[0])

    def start(self) -> None:
        """Serve."""
        self._thread.start()
        if sys.stderr.isatty():
            sys.stderr.write(f"\nThe firm's page, for one session: {self.link}\n\n")
        logger.info(
            "the firm's page is at http://%s:%d; for a link that opens it: greylag-client page %s",
            ADDRESS,
            self.port,
            self._roots[0],
        )

    def stop(self) -> None:
        """End, and take the links away."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(END_S)
        self._socket.close()
        for root in self._roots:
            remove_link(root)

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except Exception:  # the agents go on without their page
            logger.exception("the page ended by an error; the agents go on")

    def _is_stopping(self) -> bool:
        return bool(self._server.should_exit)

    def _show(self, token: str) -> None:
        address = f"http://{ADDRESS}:{self.port}/?token={token}"
        for root in self._roots:
            write_link(root, address)


def _by_name(houses: Sequence[House]) -> dict[str, House]:
    """The firms by name; a second one of a name, in another consortium, gets a number."""
    named: dict[str, House] = {}
    for house in houses:
        name, number = house.name, 2
        while name in named:
            name, number = f"{house.name}-{number}", number + 1
        named[name] = house
    return named
