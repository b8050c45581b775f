"""`serve-model` over mutual TLS against bare ONNX Runtime behind a gRPC method of bytes.

The glass plan's columns and a network of 27,000 random weights; both servers and the load are
processes of their own and share this machine. Singles and tables: closed loop, as many calls under
way as stated. Latency: open loop at half the single rate of the bound, each answer timed from when
its request was due. Both sides take turns.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from greylag_lab.processes import background, free_ports, wait_for_port
from harness import Figure, say

HERE = Path(__file__).parent
PLAN = HERE.parents[1] / "docs/examples/glass.toml"
SINGLES, SINGLES_AT_ONCE = 4000, 128
TABLES, TABLES_AT_ONCE, TABLE_ROWS = 60, 4, 4096
TURNS = 3
SINGLES_S, ROWS_S, P99_MS, RATIO = 1500.0, 100_000.0, 20.0, 1.5
INFER = "/inference.GRPCInferenceService/ModelInfer"


def measure_serving() -> list[Figure]:
    """Rates, latency and the ratios to the bare runtime."""
    sys.path.append(str(HERE.parent))
    from serving_lead import serving_lead  # needs tests/ on the path

    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="greylag-bench-")))
        world = stack.enter_context(serving_lead(root))
        text = PLAN.read_text(encoding="utf-8").replace("hidden = [64, 64]", "hidden = [128, 128]")
        release, terms = world.release(plan=text)
        tls = root / "tls"
        lead = root / "lead-tls"
        consortium = world.lead.consortium
        own = consortium.ca_pem, consortium.server_key_pem, consortium.server_cert_pem
        firm = world.tls["anna"]
        for where, files in ((tls, (firm.ca, firm.key, firm.certificate)), (lead, own)):
            where.mkdir(mode=0o700)
            for name, content in zip(("ca", "key", "certificate"), files, strict=True):
                (where / f"{name}.pem").write_bytes(content)
        port, http_port, bare_port = free_ports(3)
        log = root / "serve.log"
        ports = ["--grpc-port", str(port), "--http-port", str(http_port)]
        command = ["serve-model", str(release), "--dir", str(world.directory), *ports]
        server = stack.enter_context(background("greylag-server", command, log))
        model, columns = str(release / "model.onnx"), str(len(terms.data.feature_names))
        arguments = [str(bare_port), model, str(lead), columns]
        bare = subprocess.Popen([sys.executable, str(HERE / "serving_bare.py"), *arguments])
        stack.callback(bare.wait)
        stack.callback(bare.kill)
        for each in (http_port, bare_port):
            wait_for_port(each, log)
        facts = {"tls": str(tls), "model": terms.run.name}
        ours = facts | {"kind": "ours", "port": port, "method": INFER, "pid": server.pid}
        theirs = facts | {"kind": "bare", "port": bare_port, "method": "/bare/Predict"}
        theirs["pid"] = bare.pid
        where = {"weights": terms.dimension}
        return [
            *_rates(ours, theirs, where, rows=1),
            *_rates(ours, theirs, where, rows=TABLE_ROWS),
        ]


def _rates(
    ours: dict[str, Any], theirs: dict[str, Any], where: dict[str, int], *, rows: int
) -> list[Figure]:
    single = rows == 1
    what = "single predictions" if single else f"tables of {rows} rows"
    calls, width = (SINGLES, SINGLES_AT_ONCE) if single else (TABLES, TABLES_AT_ONCE)
    asked = {"rows": rows, "calls": calls, "width": width, "rate": 0}
    walls: dict[str, list[float]] = {"ours": [], "bare": []}
    spent: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(TURNS):
        say(f"{what}, turn {turn + 1} of {TURNS}")
        for side in (ours, theirs):
            before_s = cpu_of(side["pid"])
            walls[side["kind"]].append(load(side | asked)["wall_s"])
            spent[side["kind"]].append(cpu_of(side["pid"]) - before_s)
    own_cpu_s, bare_cpu_s = statistics.median(spent["ours"]), statistics.median(spent["bare"])
    own_s, bare_s = statistics.median(walls["ours"]), statistics.median(walls["bare"])
    rate, least = calls * rows / own_s, SINGLES_S if single else ROWS_S
    figures = [
        Figure(
            name=f"serving, {what}: time for {least:,.0f} rows",
            where=where | {"at_once": width},
            value=least / rate,
            unit="s",
            bound=1.0,
            details={"rows_per_s": rate, "bare_rows_per_s": calls * rows / bare_s, **walls},
        ),
        Figure(
            name=f"serving, {what}: time / bare ONNX Runtime behind gRPC",
            where=where | {"at_once": width},
            value=own_s / bare_s,
            unit="x",
            bound=RATIO,
        ),
        Figure(
            name=f"serving, {what}: the server's CPU / bare ONNX Runtime behind gRPC",
            where=where | {"at_once": width},
            value=own_cpu_s / bare_cpu_s,
            unit="x",
            bound=RATIO,
            details=spent,
        ),
    ]
    if single:
        half = SINGLES_S / 2
        say(f"latency at {half:.0f} a second")
        found = load(ours | asked | {"rate": half})
        figures.append(
            Figure(
                name="serving, single predictions: p99, open loop at half the bound's rate",
                where=where | {"per_s": int(half)},
                value=found["p99_ms"],
                unit="ms",
                bound=P99_MS,
                details=found,
            )
        )
    return figures


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(asked: dict[str, Any]) -> dict[str, float]:
    """What a process of load measured."""
    command = [sys.executable, str(HERE / "serving_load.py")]
    ended = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, timeout=180
    )
    if ended.returncode:
        raise RuntimeError(f"the load failed: {ended.stderr[-2000:]}")
    return dict(json.loads(ended.stdout))
