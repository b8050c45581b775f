"""Memory of the firms' processes, as `greylag-client run` starts them, at its peak in a run.

Fifty firms that one service company hosts in one process, and ten firms with a process each. All is
real: a server, firms that joined, tables of the glass example's shape (made-up recipes; the example
wants 89 columns, hidden layers of 64, at most 5,000 rows of a firm), a whole run with its goodbyes.

Not counted is the process that works out what terms cost (``accounting_child``): about 120 MB for
the seconds in which an offer is looked at.
"""

import itertools
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
from greylag_client.join import join
from greylag_lab.processes import background, call_json, free_ports, wait_for_port
from greylag_protocols.plan import parse_plan
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from harness import Figure, say

PLAN = (Path(__file__).parents[2] / "docs/examples/glass.toml").read_text(encoding="utf-8")
ROUNDS = 4
HOSTED, HOSTED_ROWS, HOSTED_MB = 50, (100, 400), 1500.0
ALONE, ALONE_ROWS, ALONE_MB = 10, (4800, 5000), 450.0
TIMEOUT_S = 300.0


def measure_memory() -> list[Figure]:
    """Peak resident memory of agents' processes."""
    hosted = _measure(HOSTED, HOSTED_ROWS, processes=1)
    alone = _measure(ALONE, ALONE_ROWS, processes=ALONE)
    return [
        Figure(
            name="agents' memory, peak: firms in one process",
            where={"firms": HOSTED, "d": _dimension()},
            value=hosted[0],
            unit="MB",
            bound=HOSTED_MB,
        ),
        Figure(
            name="agents' memory, peak: the largest of single ones",
            where={"firms": ALONE, "d": _dimension()},
            value=max(alone),
            unit="MB",
            bound=ALONE_MB,
            details={"each_mb": alone},
        ),
    ]


def _dimension() -> int:
    plan = parse_plan(PLAN)
    width, hidden = len(plan.data.feature_names), plan.model.hidden
    sizes = [width, *hidden, len(plan.data.targets)]
    return sum((a + 1) * b for a, b in itertools.pairwise(sizes))


def _measure(firms: int, rows: tuple[int, int], *, processes: int) -> list[float]:
    """Peak MB of each process, of ``firms`` shared out over ``processes``."""
    say(f"memory of {firms} agents in {processes} process(es), {ROUNDS} rounds")
    with tempfile.TemporaryDirectory(prefix="greylag-bench-") as name, ExitStack() as stack:
        root = Path(name)
        lead, directories = _found(root, stack, firms, rows)
        status = call_json("greylag-server", ["status", "--dir", str(lead), "--format", "json"])
        agents = []
        for at in range(processes):
            run = ["run", *map(str, directories[at::processes])]
            run += ["--approve-members", str(status["membership"])]
            log = root / f"agent-{at}.log"
            agents.append(stack.enter_context(background("greylag-client", run, log)))
        train = ["train", str(root / "plan.toml"), "--dir", str(lead), "--no-wait"]
        call_json("greylag-server", [*train, "--format", "json"])
        _wait_for_end(lead, root)
        return [_peak_mb(agent) for agent in agents]


def _found(
    root: Path, stack: ExitStack, firms: int, rows: tuple[int, int]
) -> tuple[Path, list[Path]]:
    """A consortium that is served, whose firms have joined: its directory, and theirs."""
    # The lead and all the firms of one host collude at most.
    text = PLAN.replace("max_colluding = 6", f"max_colluding = {firms - 2}")
    text = text.replace("min_firms = 8", f"min_firms = {firms}")
    text = text.replace("rounds = 500", f"rounds = {ROUNDS}")
    text = text.replace("max_attempts = 550", f"max_attempts = {2 * ROUNDS}")
    (root / "plan.toml").write_text(text, encoding="utf-8")
    lead, (port, enrol_port) = root / "lead", free_ports(2)
    ports = ["--port", str(port), "--enrol-port", str(enrol_port)]
    init = ["init", str(lead), "--name", "bench", *ports, "--format", "json"]
    call_json("greylag-server", init)
    log = root / "server.log"
    serve = ["serve", "--dir", str(lead), "--round-wait-s", "120"]
    stack.enter_context(background("greylag-server", serve, log))
    wait_for_port(enrol_port, log)
    enrolment, rng = Enrolment(Consortium.open(lead)), np.random.default_rng(0)
    directories = []
    for number in range(firms):
        name = f"supplier-{number:02d}"
        table = root / f"{name}.csv"
        _write_table(table, rng, int(rng.integers(*rows, endpoint=True)))
        invite = enrolment.invite(name, None, now_s=time.time())
        join(invite, root / name, data=table, approve_members="shown", now_s=time.time())
        directories.append(root / name)
    return lead, directories


def _write_table(path: Path, rng: np.random.Generator, rows: int) -> None:
    """Recipes of up to seven oxides each, in families of ten."""
    data = parse_plan(PLAN).data
    parts = np.zeros((rows, len(data.feature_names)))
    for row in parts:
        chosen = rng.choice(len(row), 7, replace=False)
        row[chosen] = np.round(100 * rng.dirichlet(np.ones(7)), 2)
    columns = dict(zip(data.feature_names, parts.T, strict=True))
    columns["tg_k"] = rng.uniform(400, 1200, rows)
    pl.DataFrame(columns).with_columns(ref_id=pl.arange(rows) // 10).write_csv(path)


def _wait_for_end(lead: Path, root: Path) -> None:
    until_s = time.monotonic() + TIMEOUT_S
    status = ["status", "--dir", str(lead), "--format", "json"]
    while True:
        (run,) = call_json("greylag-server", status)["runs"]
        if run["status"] == "done" and run["rounds"] == ROUNDS:
            return
        if run["status"] in ("done", "failed") or time.monotonic() > until_s:
            logs = [path.read_text(errors="replace")[-1500:] for path in _logs(root)]
            raise RuntimeError(f"the run did not go through: {run}\n" + "\n".join(logs))
        time.sleep(0.5)


def _logs(root: Path) -> Sequence[Path]:
    return sorted(root.glob("*.log"))


def _peak_mb(process: "subprocess.Popen[bytes]") -> float:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6
