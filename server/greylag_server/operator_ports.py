"""What the operator reaches beside the firms' ports: the page and the metrics."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from greylag_protocols.errors import ConfigError

from greylag_server import steering
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.grid_grpc import GrpcGrid
from greylag_server.metrics import Metrics, MetricsServer
from greylag_server.page.actions import Steering
from greylag_server.page.facts import Live
from greylag_server.page.serve import OperatorPage
from greylag_server.settings import DEFAULT_METRICS_PORT, DEFAULT_PAGE_PORT, ServerSettings
from greylag_server.store import LOG_FILE, Store

T = TypeVar("T")


class OperatorPorts:
    """Page and metrics of one serving process, as far as the settings want them.

    Attributes:
        metrics: counts along, served or not.

    Raises:
        ConfigError: a port that the settings name is taken.
    """

    def __init__(
        self,
        consortium: Consortium,
        store: Store,
        enrolment: Enrolment,
        grid: GrpcGrid,
        settings: ServerSettings,
    ) -> None:
        self.metrics = Metrics(
            store,
            connected=lambda: len(grid.connected()),
            received_bytes=lambda: grid.received_bytes,
        )
        self._page: OperatorPage | None = None
        self._metrics_server: MetricsServer | None = None
        if settings.metrics_port != 0:
            self._metrics_server = _serve_at(
                settings.metrics_port,
                DEFAULT_METRICS_PORT,
                lambda port: MetricsServer(self.metrics, bind=settings.metrics_bind, port=port),
            )
        try:
            if settings.page_port != 0:
                self._page = _serve_at(
                    settings.page_port,
                    DEFAULT_PAGE_PORT,
                    lambda port: OperatorPage(
                        consortium,
                        log_path=consortium.root / LOG_FILE,
                        enrolment=enrolment,
                        live=_live(store, grid),
                        steering=_steering(store),
                        bind=settings.operator_bind,
                        port=port,
                    ),
                )
        except ConfigError:
            self.stop()
            raise

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where the page and the metrics are."""
        found = {}
        if self._page is not None:
            found["page"] = self._page.address
        if self._metrics_server is not None:
            found["metrics"] = self._metrics_server.address
        return found

    def start(self) -> None:
        """Serve the page; the metrics are served already."""
        if self._page is not None:
            self._page.start()

    def stop(self) -> None:
        """End both."""
        if self._page is not None:
            self._page.stop()
        if self._metrics_server is not None:
            self._metrics_server.stop()


def _serve_at(chosen: int | None, usual: int, serve: Callable[[int], T]) -> T:
    """At the port that was chosen, or at the usual one, or at a free one if that is taken."""
    if chosen is not None:
        return serve(chosen)
    try:
        return serve(usual)
    except ConfigError:
        return serve(0)


def _live(store: Store, grid: GrpcGrid) -> Live:
    return Live(
        online=lambda: dict.fromkeys(grid.connected(), ""),
        phases=lambda run: steering.phases(store, run),
        paused=lambda: steering.paused_runs(store),
    )


def _steering(store: Store) -> Steering:
    return Steering(
        pause=lambda run, because, by: steering.pause(store, run, by, time.time()),
        resume=lambda run, because, by: steering.resume(store, run, by, time.time()),
        cancel=lambda run, because, by: steering.cancel(store, run, because, by, time.time()),
    )
