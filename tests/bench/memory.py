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
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
from founding import Founded
from greylag_protocols.plan import parse_plan
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
    # The lead and all the firms of one host collude at most.
    text = PLAN.replace("max_colluding = 6", f"max_colluding = {firms - 2}")
    text = text.replace("min_firms = 8", f"min_firms = {firms}")
    text = text.replace("rounds = 500", f"rounds = {ROUNDS}")
    text = text.replace("max_attempts = 550", f"max_attempts = {2 * ROUNDS}")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="greylag-bench-") as name, ExitStack() as stack:
        world = Founded(Path(name), stack, plan=text)
        for number in range(firms):
            table = world.root / f"{number}.csv"
            _write_table(table, rng, int(rng.integers(*rows, endpoint=True)))
            world.join(f"supplier-{number:03d}", table)
        agents = world.start_agents(processes)
        world.train()
        world.wait_for_end(rounds=ROUNDS, timeout_s=TIMEOUT_S)
        return [_peak_mb(agent) for agent in agents]


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


def _peak_mb(process: "subprocess.Popen[bytes]") -> float:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6
