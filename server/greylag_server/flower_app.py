"""The ServerApp of the bundle for stock Flower: one run of the lead's directory, on Flower's Grid.

It does what ``greylag-server serve`` does with a run, in the process that the SuperLink starts for
it. The run config names the directory; see ``deploy/flower-app/pyproject.toml`` and docs/flower.md.
If the process dies, start the app again: the run goes on where it stopped.
"""

import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from greylag_protocols.encoding import parse_as, parse_toml
from greylag_protocols.errors import ConfigError
from greylag_protocols.membership import Name
from greylag_protocols.terms import STRICT
from pydantic import Field

from greylag_server.app import Patience, make_server_app
from greylag_server.consortium import Consortium, ConsortiumSettings
from greylag_server.coordinator import Coordinator
from greylag_server.enrolment import Enrolment
from greylag_server.grid_stock import StockGrid
from greylag_server.service import log_epoch, make_coordinator, open_run, open_store
from greylag_server.store import RunRecord, Store

logger = logging.getLogger(__name__)

NODES_FILE = "flower.toml"
NodeId = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]

app = ServerApp()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nodes:
    """``flower.toml``: by firm, the id that its SuperNode's key was registered under (a string,
    since it may be beyond what TOML promises for integers)."""

    __pydantic_config__ = STRICT
    nodes: Mapping[Name, NodeId]


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the run that the run config names."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = dict(context.run_config)
    directory = str(config.get("directory", ""))
    if not directory:
        raise ConfigError(
            "no consortium: name the lead's directory, "
            "flwr run --run-config 'directory=\"/path/of/the/lead\"'"
        )
    root = Path(directory)
    consortium = Consortium.open(root)
    firms = read_nodes(Path(str(config.get("nodes") or root / NODES_FILE)))
    with _only_coordinator(consortium.settings):
        store = open_store(consortium)
        try:
            record = _take_up(store, consortium, str(config.get("run", "")))
            coordinator = make_coordinator(store, consortium, record)
            run = make_server_app(coordinator, _patience(config), _tell, threading.Event())
            run(StockGrid(grid, firms), context)
        finally:
            store.close()


def read_nodes(path: Path) -> dict[int, str]:
    """By stock node id, the firm.

    Raises:
        ConfigError: the file is missing or wrong, or names a node twice.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist: write there, under [nodes], a line for each firm, such as "
            'supplier-01 = "8193...", with the id that `flwr supernode register` told'
        ) from None
    parsed = parse_as(_Nodes, parse_toml(content, what=str(path)), what=str(path))
    firms = {int(node): firm for firm, node in parsed.nodes.items()}
    if len(firms) < len(parsed.nodes):
        raise ConfigError(f"{path}: one node stands for two firms; each firm has its own SuperNode")
    return firms


def _take_up(store: Store, consortium: Consortium, run: str) -> RunRecord:
    record = store.run(run) if run else store.next_run()
    if record is None:
        raise ConfigError("no run is waiting; queue one with `greylag-server train PLAN --no-wait`")
    if record.status == "queued":
        enrolment = Enrolment(consortium, on_epoch=lambda signed: log_epoch(store, signed))
        open_run(store, consortium, record.run, enrolment.current_membership(time.time()))
        record = store.run(record.run)
    return record


@contextmanager
def _only_coordinator(settings: ConsortiumSettings) -> Iterator[None]:
    """Two coordinators must not work on one store. The agents' port, which ``serve`` holds too, is
    the lock; agents elsewhere cannot reach what is bound here."""
    with socket.socket() as lock:
        lock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # but no second listener
        try:
            lock.bind(("127.0.0.1", settings.port))
            lock.listen(1)
        except OSError:
            raise ConfigError(
                f"port {settings.port} is in use: end `greylag-server serve` (or another run of "
                "this app) for this consortium first"
            ) from None
        yield


def _patience(config: Mapping[str, Any]) -> Patience:
    waits = {name: config.get(f"{name}-wait-s") for name in ("offer", "round", "close")}
    try:
        return Patience(**{f"{name}_s": float(str(wait)) for name, wait in waits.items()})
    except ValueError:
        raise ConfigError(f"run config: waits are seconds, not {waits}") from None


def _tell(coordinator: Coordinator) -> None:
    logger.info(
        "%s: %s, round %d of %d, %d attempts%s",
        coordinator.terms.run_id,
        coordinator.status,
        coordinator.rounds_done,
        coordinator.terms.training.rounds,
        coordinator.attempts,
        f" ({coordinator.reason})" if coordinator.reason else "",
    )
