"""What the figures share: CPU clocks, medians, the table and the JSON document."""

import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PACKAGES = ("cryptography", "flwr", "grpcio", "numpy", "opacus", "randomgen", "torch")
STARTED_S = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        name: what was measured.
        where: the sizes that it was measured at.
        bound: what it may be at most; None if it is only reported.
        details: what else was seen, for the JSON document.
    """

    name: str
    where: dict[str, int]
    value: float
    unit: str
    bound: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def broken(self) -> bool:
        """Whether the bound does not hold (NaN holds no bound)."""
        return self.bound is not None and not self.value <= self.bound


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"[{time.monotonic() - STARTED_S:5.0f} s] {text}", file=sys.stderr, flush=True)


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all threads, while ``work`` runs."""
    started_s = time.process_time()
    work()
    return time.process_time() - started_s


def compare(
    first: Callable[[], object], second: Callable[[], object], *, repeats: int
) -> tuple[float, float]:
    """Median CPU seconds of two pieces of work.

    They take turns, so that what else goes on in the machine meets both alike. One turn of each
    goes before, to warm up.
    """
    pairs = [(cpu_s(first), cpu_s(second)) for _ in range(repeats + 1)][1:]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.split(":", 1)[1].strip() for line in names if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def report(figures: Sequence[Figure]) -> bool:
    """JSON on stdout, a table on stderr. Returns whether all bounds hold."""
    table = Table(show_edge=False)
    for column in ("figure", "where", "measured", "bound", ""):
        table.add_column(column, no_wrap=column != "figure")
    for item in figures:
        where = " ".join(f"{key}={value:,}" for key, value in item.where.items())
        bound = "" if item.bound is None else f"<= {item.bound:g}"
        verdict = "" if item.bound is None else ("BROKEN" if item.broken else "holds")
        table.add_row(item.name, where, f"{item.value:,.3f} {item.unit}", bound, verdict)
    Console(stderr=True, width=150).print(table)
    print(json.dumps({"machine": machine(), "figures": [asdict(item) for item in figures]}))
    return not any(item.broken for item in figures)
