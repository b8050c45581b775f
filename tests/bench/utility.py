"""What a model is worth at each epsilon, beside its rivals: `make bench-utility`.

    python tests/bench/utility.py [--data NAME ...] [--csv NAME=FILE ...] [--models NAME ...]
        [--seeds N] [--first-seed N] [--epsilons E ...] [--newcomers N] [--ablation] [--quick]
        [--plot FILE]

One JSON document on stdout, progress and a summary on stderr. Simulated in this one process,
without masks, which cancel. Plans are those of docs/examples: their constants were chosen on split
seeds from 10 on, and are judged on seeds from 0 on.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from harness import machine, say
from threadpoolctl import threadpool_limits

ALL_EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)


def main() -> int:
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    warnings.filterwarnings("ignore")  # flwr's and opacus' notes on their own interfaces
    logging.disable(logging.WARNING)
    # Imported here: torch and flwr read what stands above.
    from utility_plot import draw
    from utility_runs import MODELS
    from utility_tables import NAMES, make_case

    asked = _parse_arguments(NAMES, tuple(MODELS))
    given = dict(asked.csv)
    tables: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place, threadpool_limits(1):
        for name in asked.data:
            case = make_case(name, given, Path(place))
            if isinstance(case, str):
                skipped[name] = case
                say(f"{name} is left out: {case}")
                continue
            tables[name] = _measure(case, asked)
    _summarise(tables)
    if asked.plot is not None and tables:
        asked.plot.write_text(draw(tables), encoding="utf-8")
        say(f"plot: {asked.plot}")
    print(
        json.dumps({"machine": machine(), "models": MODELS, "tables": tables, "skipped": skipped})
    )
    return 0 if tables else 1


def _measure(case: Any, asked: argparse.Namespace) -> dict[str, Any]:
    from utility_facts import judge, paired, table_facts
    from utility_runs import run_ablation, run_split

    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    if asked.ablation:
        levers: dict[str, list[Any]] = {}
        for seed in seeds:
            for label, found in run_ablation(case, seed):
                levers.setdefault(label, []).append(judge(case, found)["central"])
        plain = levers.pop("as it is")
        ablation = {}
        for label, scores in levers.items():
            pairs = [{"a": a, "b": b} for a, b in zip(scores, plain, strict=True)]
            ablation[label] = paired(pairs, "a", "b")
    pieces = [
        run_split(case, seed, asked.epsilons, asked.models, asked.newcomers) for seed in seeds
    ]
    facts = table_facts(case, seeds, [split for split, _ in pieces], [left for _, left in pieces])
    return facts | ({"ablation": ablation} if asked.ablation else {})


def _summarise(tables: dict[str, Any]) -> None:
    """For people: every model's score and the gap that it closes."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(show_edge=False)
    for column in ("table", "epsilon", "model", "score", "95 % interval", "gap closed"):
        shown.add_column(column)
    for name, facts in tables.items():
        for item in facts["epsilons"]:
            for model, score in item["models"].items():
                closed = item["gap_closed"].get(model)
                shown.add_row(
                    name,
                    f"{item['epsilon']:g}",
                    model,
                    f"{score['value']:.4g} {score['unit']}",
                    f"{score['low']:.4g} to {score['high']:.4g}",
                    "" if closed is None else f"{closed:.0%}",
                )
    Console(stderr=True, width=110).print(shown)


def _parse_arguments(names: tuple[str, ...], models: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what models are worth at each epsilon.")
    parser.add_argument("--data", nargs="+", choices=names, default=list(names), metavar="NAME",
                        help=f"some of {', '.join(names)}; default: all")  # fmt: skip
    parser.add_argument("--csv", action="append", default=[], type=_named_file, metavar="NAME=FILE",
                        help="a table that is not made here, or another copy of it")  # fmt: skip
    parser.add_argument("--models", nargs="+", choices=models, default=list(models), metavar="NAME",
                        help=f"some of {', '.join(models)}; default: all")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="how many splits; default 3")
    parser.add_argument("--first-seed", type=int, default=0, help="the first split; default 0")
    parser.add_argument("--epsilons", nargs="+", type=float, default=list(ALL_EPSILONS))
    parser.add_argument("--newcomers", type=int, default=5, help="firms to leave out; default 5")
    parser.add_argument("--ablation", action="store_true", help="each lever off in turn, too")
    parser.add_argument("--quick", action="store_true", help="digits, one split, epsilon 2")
    parser.add_argument("--plot", type=Path, help="an SVG file to write")
    asked = parser.parse_args()
    if asked.quick:
        asked.data, asked.seeds, asked.epsilons = ["digits"], 1, [2.0]
    if asked.seeds < 1:
        parser.error("--seeds must be at least 1")
    return asked


def _named_file(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(path)


if __name__ == "__main__":
    sys.exit(main())
