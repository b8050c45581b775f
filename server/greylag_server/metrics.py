"""What Prometheus is told: counts and seconds of this process, and the state of the lead's files.

No label holds more than a fixed word: neither firms nor their budgets are named.
"""

import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from wsgiref.simple_server import WSGIServer

from greylag_protocols.errors import ConfigError
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from greylag_server.coordinator import Coordinator
from greylag_server.deadlines import PHASES, Pace
from greylag_server.steering import PaceNote
from greylag_server.store import Store

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
REFUSAL_CLASSES = ("policy", "protocol")
OUTCOMES = ("complete", "void")
PACE_KEPT_S = 5.0  # a write to the disk, so not after every round


class Metrics:
    """Counts along with one serving process (a ``Meter``).

    Args:
        connected: number of firms' agents that are connected.
        received_bytes: bytes that came from firms since the start.
    """

    def __init__(
        self, store: Store, *, connected: Callable[[], int], received_bytes: Callable[[], int]
    ) -> None:
        self._store = store
        self.registry = CollectorRegistry()
        self._rounds = Counter("greylag_rounds", "Completed rounds.", registry=self.registry)
        self._attempts = Counter(
            "greylag_attempts", "Attempts that ended.", ["outcome"], registry=self.registry
        )
        self._refusals = Counter(
            "greylag_refusals", "Firms' refusals.", ["class"], registry=self.registry
        )
        self._seconds = Histogram(
            "greylag_round_seconds",
            "Seconds of a completed round: to the first answer, to the last one, and at the lead.",
            ["phase"],
            buckets=SECONDS,
            registry=self.registry,
        )
        for phase in PHASES:
            self._seconds.labels(phase)
        for outcome in OUTCOMES:
            self._attempts.labels(outcome)
        for name in REFUSAL_CLASSES:
            self._refusals.labels(name)
        self.registry.register(_State(store, connected, received_bytes))
        self._run, self._voids, self._kept_s = "", 0, -PACE_KEPT_S
        self._refused: Tally[str] = Tally()

    def looked(self, coordinator: Coordinator, pace: Pace) -> None:
        """Count what is new, and keep the pace for whoever asks for it."""
        if coordinator.run != self._run:
            self._run, self._voids = coordinator.run, 0
            self._refused = Tally()
        self._attempts.labels("void").inc(coordinator.voided - self._voids)
        self._voids = coordinator.voided
        for name, count in coordinator.refusals.items():
            self._refusals.labels(name).inc(count - self._refused[name])
        self._refused = coordinator.refusals.copy()
        now_s = time.monotonic()
        if now_s - self._kept_s >= PACE_KEPT_S and (known := pace.summary()) is not None:
            self._kept_s = now_s
            round_s, phases = known
            with self._store.transaction():
                self._store.keep_pace(self._run, PaceNote(round_s=round_s, phases=phases).encode())

    def completed(self, parts: Mapping[str, float]) -> None:
        """A round was completed."""
        self._rounds.inc()
        self._attempts.labels("complete").inc()
        for phase, seconds in parts.items():
            self._seconds.labels(phase).observe(seconds)


class _State(Collector):
    """Looked up at every scrape."""

    def __init__(
        self, store: Store, connected: Callable[[], int], received_bytes: Callable[[], int]
    ) -> None:
        self._store, self._connected, self._received = store, connected, received_bytes

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "greylag_connected_firms", "Connected agents.", value=self._connected()
        )
        yield GaugeMetricFamily(
            "greylag_log_entries", "Entries of the log.", value=self._store.checkpoint().size
        )
        yield GaugeMetricFamily(
            "greylag_runs_waiting", "Runs not over.", value=len(self._store.open_runs())
        )
        yield CounterMetricFamily(
            "greylag_bytes_received", "Bytes from firms' agents.", value=self._received()
        )


class MetricsServer:
    """``/metrics`` on a port of its own.

    Raises:
        ConfigError: the port is taken.
    """

    def __init__(self, metrics: Metrics, *, bind: str, port: int) -> None:
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            self._server, self._thread = start_http_server(
                port, addr=bind, registry=metrics.registry
            )
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served at {bind}:{port} ({error.strerror}); set another "
                "metrics_port in server.toml"
            ) from None
        self.port = int(self._server.server_port)
        self.address = f"http://{bind}:{self.port}/metrics"

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
