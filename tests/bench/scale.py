"""How a round grows with firms and weights: real programs over mutual TLS. `make bench-scale`.

    python tests/bench/scale.py [--firms 10 50 100 200] [--dimensions 10000 100000] [--rounds 20]

Firms are hosted 25 to a process, as a service company would, and train on tables of their own. All
share this machine's cores, so a round here is what 200 firms' machines do, done by these cores: of
the seconds, gradients and contributions would be spent at the firms, side by side. Where they went
is told in CPU seconds, as the threads that spent them counted; wall seconds of a round follow.
"""

import argparse
import itertools
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from consortium import ROWS, feature_names, plan_text
from founding import Founded
from harness import Figure, report, say

HOSTED = 25
DIMENSIONS = (10_000, 100_000)
TIMEOUT_S = 1800.0
CORES = os.cpu_count() or 1
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run's rounds but the first, which warms everything up: per round, over all processes.

    ``*_s`` are CPU seconds but for ``wall_s``, the median's wall seconds.
    """

    firms: int
    dimension: int
    rounds: int
    attempts: int
    wall_s: float
    gradients_s: float
    contribution_s: float
    ledger_s: float
    agents_rest_s: float
    coordinator_s: float
    log_s: float

    @property
    def overhead_s(self) -> float:
        """Wall seconds of a round without gradients and contributions."""
        return self.wall_s - (self.gradients_s + self.contribution_s) / CORES


def measure(firms: int, dimension: int, rounds: int) -> Measured:
    """One run."""
    say(f"{firms} firms, d = {dimension:,}, {rounds} rounds")
    names = feature_names(dimension)
    plan = plan_text(
        firms=firms,
        dimension=dimension,
        rounds=rounds,
        max_attempts=2 * rounds,
        max_colluding=min(HOSTED, firms - 2),
    )
    rng = np.random.default_rng(0)
    through = Path(__file__).with_name("scale_process.py")
    with tempfile.TemporaryDirectory(prefix="greylag-scale-") as name, ExitStack() as stack:
        world = Founded(Path(name), stack, plan=plan, through=through)
        for number in range(firms):
            table = world.root / f"{number}.csv"
            values = rng.random((ROWS, len(names))).round(3)
            columns = dict(zip(names, values.T, strict=True))
            pl.DataFrame({**columns, "y": values.mean(1)}).write_csv(table)
            world.join(f"supplier-{number:03d}", table)
        agents = world.start_agents(-(-firms // HOSTED))
        world.train()
        pids = [world.server.pid, *(agent.pid for agent in agents)]
        marks = _watch(world.lead / "log.sqlite", pids, rounds)
        run = world.wait_for_end(rounds=rounds, timeout_s=TIMEOUT_S)
        notes = [_read_notes(out, marks) for out in world.outs]
    steps = rounds - 1
    server, *others = (
        (last - first) / steps for first, last in zip(marks[0].cpu_s, marks[-1].cpu_s, strict=True)
    )
    spent = {key: sum(item.get(key, 0.0) for item in notes) / steps for key in _keys(notes)}
    known = spent["vector"] + spent["checks"] + spent["keys"] + spent["ledger"]
    walls = [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(marks)]
    return Measured(
        firms=firms,
        dimension=dimension,
        rounds=run["rounds"],
        attempts=run["attempts"],
        wall_s=statistics.median(walls),
        gradients_s=spent["gradients"],
        contribution_s=spent["vector"] - spent["gradients"] + spent["checks"] + spent["keys"],
        ledger_s=spent["ledger"],
        agents_rest_s=sum(others) - known,
        coordinator_s=server - spent["log"],
        log_s=spent["log"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """When a round was seen to be done, and the processes' CPU seconds by then."""

    at_s: float
    cpu_s: list[float]


def _watch(database: Path, pids: list[int], rounds: int) -> list[Mark]:
    """A mark for each completed round."""
    marks: list[Mark] = []
    until_s = time.monotonic() + TIMEOUT_S
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10) as db:
        while len(marks) < rounds:
            if time.monotonic() > until_s:
                raise RuntimeError(f"after {TIMEOUT_S:.0f} s only {len(marks)} rounds are done")
            row = db.execute("SELECT rounds_done, status FROM runs").fetchone()
            if row is not None and row[1] == "failed":
                raise RuntimeError(f"the run failed after {row[0]} rounds")
            if row is not None and row[0] > len(marks):
                mark = Mark(at_s=time.monotonic(), cpu_s=[_cpu_s(pid) for pid in pids])
                marks += [mark] * (row[0] - len(marks))
            time.sleep(0.01)
    return marks


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _read_notes(path: Path, marks: list[Mark]) -> dict[str, float]:
    """CPU seconds by what they were spent on, between the first mark and the last."""
    total: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        note = json.loads(line)
        if marks[0].at_s < note["at_s"] <= marks[-1].at_s:
            total[note["what"]] = total.get(note["what"], 0.0) + note["cpu_s"]
    return total


def _keys(notes: list[dict[str, float]]) -> set[str]:
    return {key for item in notes for key in item}


def _figures(item: Measured) -> list[Figure]:
    where = {"firms": item.firms, "d": item.dimension}
    largest = item.firms == 200 and item.dimension == 100_000
    per_firm_ms = 1000 * (item.coordinator_s + item.log_s) / item.firms

    def figure(name: str, value: float, unit: str = "s", bound: float | None = None) -> Figure:
        return Figure(name=name, where=where, value=value, unit=unit, bound=bound)

    return [
        figure("attempts for a round", item.attempts / item.rounds, "", 1.0),
        figure("a round, wall", item.wall_s),
        figure("CPU: gradients", item.gradients_s),
        figure("CPU: contributions", item.contribution_s),
        figure("CPU: firms' ledgers", item.ledger_s),
        figure("CPU: agents' network and the rest", item.agents_rest_s),
        figure("CPU: coordinator", item.coordinator_s),
        figure("CPU: the lead's log", item.log_s),
        figure("coordinator and log, CPU per firm", per_firm_ms, "ms", 2.0 if largest else None),
        figure(f"round overhead on {CORES} cores", item.overhead_s, "s", 1.5 if largest else None),
    ]


def _growth(runs: list[Measured]) -> list[Figure]:
    """Exponents: how the coordinator, the overhead and the firms' work grow with the firms."""
    figures = []
    for dimension in sorted({item.dimension for item in runs}):
        some = [item for item in runs if item.dimension == dimension and item.firms >= 50]
        if len(some) < 2:
            continue
        logs = np.log([item.firms for item in some])
        for name, values, bound in (
            ("coordinator and log", [item.coordinator_s + item.log_s for item in some], 1.25),
            ("contributions of all firms", [item.contribution_s for item in some], None),
        ):
            exponent = float(np.polyfit(logs, np.log(values), 1)[0])
            figures.append(
                Figure(
                    name=f"growth with firms: {name}, exponent",
                    where={"d": dimension, "from": some[0].firms, "to": some[-1].firms},
                    value=exponent,
                    unit="",
                    bound=bound,
                )
            )
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description="How a round grows with firms and weights.")
    parser.add_argument("--firms", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS, choices=DIMENSIONS)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error("--rounds: at least 3, of which the first is not counted")
    runs = [
        measure(firms, dimension, options.rounds)
        for dimension in options.dimensions
        for firms in options.firms
    ]
    figures = [item for run in runs for item in _figures(run)] + _growth(runs)
    return 0 if report(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
