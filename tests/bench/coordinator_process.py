"""The lead's process of the coordinator's figures: what ``greylag-server serve`` runs for a run.

    python coordinator_process.py DIRECTORY

Prints one JSON line with the port, and one with what was measured when the run is over.
"""

import itertools
import json
import logging
import sys
import threading
import time
from pathlib import Path

# Also what is not used here: memory is measured, and the real program has these loaded as well.
import greylag_server.service  # noqa: F401
from consortium import LEAD, open_membership, signer_of
from flwr.app import Context, RecordDict
from greylag_protocols.membership import SignedMembership
from greylag_protocols.plan import parse_terms
from greylag_server.app import Patience, make_server_app
from greylag_server.coordinator import Coordinator
from greylag_server.grid_grpc import GrpcGrid
from greylag_server.store import Store

MAX_FRAME_BYTES = 256 << 20
PATIENCE = Patience(offer_s=120.0, round_s=120.0, close_s=60.0)


def memory_mb(name: str) -> float:
    """A line of this process's status, such as VmHWM, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6


def main(root: Path) -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    imports_mb = memory_mb("VmRSS")
    encoded = (root / "terms.json").read_bytes()
    terms = parse_terms(encoded)
    signed = SignedMembership(
        document=(root / "membership.json").read_bytes(),
        statement=(root / "membership.dsse").read_bytes(),
    )
    membership = open_membership(signed)
    store = Store(root / "log.sqlite", origin=terms.consortium)
    with store.transaction():
        store.queue_run(terms.run_id, encoded, firms=len(membership.members))
        store.open_run(terms.run_id, signed)
    coordinator = Coordinator(
        store.run(terms.run_id),
        terms=terms,
        membership=membership,
        signer=signer_of(LEAD),
        store=store,
    )
    grid = GrpcGrid(
        "127.0.0.1:0",
        ca=(root / "ca.pem").read_bytes(),
        key=(root / "lead.key").read_bytes(),
        certificate=(root / "lead.pem").read_bytes(),
        max_frame_bytes=MAX_FRAME_BYTES,
    )
    print(json.dumps({"port": grid.port}), flush=True)
    marks: dict[int, tuple[float, float]] = {}

    def watch(current: Coordinator) -> None:
        marks.setdefault(current.rounds_done, (time.process_time(), time.monotonic()))

    app = make_server_app(coordinator, PATIENCE, watch, threading.Event())
    app(grid, Context(1, 1, {}, RecordDict(), {}))
    grid.stop()
    rounds = sorted(marks)
    steps = [
        (marks[later][0] - marks[earlier][0], marks[later][1] - marks[earlier][1])
        for earlier, later in itertools.pairwise(rounds)
    ]
    measured = {
        "status": coordinator.status,
        "reason": coordinator.reason,
        "rounds_done": coordinator.rounds_done,
        "attempts": coordinator.attempts,
        "start_cpu_s": marks[0][0],
        "round_cpu_s": [cpu for cpu, _ in steps],
        "round_wall_s": [wall for _, wall in steps],
        "imports_mb": imports_mb,
        "peak_mb": memory_mb("VmHWM"),
    }
    store.close()
    print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
