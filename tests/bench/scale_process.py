"""One of greylag's programs, which notes the CPU time of what it does.

    python scale_process.py OUT PROGRAM ARGUMENTS...

Every call of the named functions adds a line to OUT: what it was, when it ended (on the steady
clock, which the machine's processes share), its seconds, and how many of them its thread computed.
"""

import functools
import importlib
import json
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# module, class or "", function, what it is
NOTED = {
    "greylag-client": (
        ("greylag_client.contribution", "", "_clipped_sum", "gradients"),
        ("greylag_client.participant", "", "make_vector", "vector"),  # with the gradients in it
        ("greylag_client.participant", "Participant", "_check", "checks"),
        ("greylag_client.masks", "PairwiseMasks", "agree", "keys"),
        ("greylag_client.participant", "Participant", "_debit", "ledger"),
    ),
    "greylag-server": (("greylag_server.store", "Store", "transaction", "log"),),
}


class Notes:
    """Lines in a file; threads may add them at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def add(self, name: str, wall_s: float, cpu_s: float) -> None:
        line = {"what": name, "at_s": time.monotonic(), "wall_s": wall_s, "cpu_s": cpu_s}
        self._file.write(json.dumps(line) + "\n")


def noted(function: Callable[..., Any], name: str, notes: Notes) -> Callable[..., Any]:
    """The same function, noted."""

    @functools.wraps(function)
    def call(*arguments: object, **options: object) -> object:
        wall_s, cpu_s = time.monotonic(), time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            notes.add(name, time.monotonic() - wall_s, time.thread_time() - cpu_s)

    return call


def noted_block(function: Callable[..., Any], name: str, notes: Notes) -> Callable[..., Any]:
    """The same for a context manager: all that is done within it."""

    @contextmanager
    def block(*arguments: object) -> Any:
        wall_s, cpu_s = time.monotonic(), time.thread_time()
        try:
            with function(*arguments) as value:
                yield value
        finally:
            notes.add(name, time.monotonic() - wall_s, time.thread_time() - cpu_s)

    return block


def main(out: Path, program: str, arguments: list[str]) -> None:
    notes = Notes(out)
    for module, owner, function, name in NOTED[program]:
        place = importlib.import_module(module)
        place = getattr(place, owner) if owner else place
        wrap = noted_block if function == "transaction" else noted
        setattr(place, function, wrap(getattr(place, function), name, notes))
    sys.argv = [program, *arguments]
    importlib.import_module(f"{program.replace('-', '_')}.cli").main()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
