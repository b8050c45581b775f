"""Measured figures: `make bench`. JSON on stdout, a table on stderr, exit 1 if a bound is broken.

    python tests/bench/run.py [masking] [contribution] [coordinator] [clipping] [memory] [audit]
        [log] [suggest] [serving]

Ratios are of CPU times within one run, whose two sides take turns: so they say little of the
machine and of what else it does.
"""

import argparse
import importlib
import os
import sys
import warnings

from harness import report, say

FIGURES = (
    "masking",
    "contribution",
    "coordinator",
    "clipping",
    "memory",
    "audit",
    "log",
    "suggest",
    "serving",
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure, and hold the figures to their bounds.")
    parser.add_argument("figures", nargs="*", help=f"some of {', '.join(FIGURES)}; default: all")
    chosen = parser.parse_args().figures or FIGURES
    if unknown := set(chosen) - set(FIGURES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(FIGURES)}")
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    warnings.filterwarnings("ignore")  # flwr's notes on its own interfaces
    figures = []
    for name in FIGURES:
        if name in chosen:
            # Imported when its turn comes: torch and flwr would weigh on what does without them.
            figures += getattr(importlib.import_module(name), f"measure_{name}")()
    say("done")
    return 0 if report(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
