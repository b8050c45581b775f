"""One target under the fuzzer, in a process of its own; ``run.py`` starts it.

    python worker.py TARGET CORPUS [options of libFuzzer] [INPUT ...]

With an input's file instead of a corpus it is run once: that reproduces a finding.
"""

import logging
import sys
from pathlib import Path
from random import Random

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PACKAGES = ["greylag_protocols", "greylag_audit", "greylag_server", "greylag_client"]

with atheris.instrument_imports(include=PACKAGES):
    from fuzz.damage import damage
    from fuzz.targets import FAMILIES, load_targets


def find_target(name: str):
    """The target called ``name``; the other programs are not loaded for one of the core's."""
    with atheris.instrument_imports(include=PACKAGES):
        for family in FAMILIES:
            targets = load_targets([family])
            if name in targets:
                return targets[name]
    raise SystemExit(f"no target {name!r}")


def main() -> None:
    """Fuzz until libFuzzer's own limits end it."""
    logging.disable()  # one line for each input would be all that it does
    name, *arguments = sys.argv[1:]
    target = find_target(name)
    donors = target.seeds()

    def try_one(data: bytes) -> None:
        try:
            target.parse(data)
        except target.allowed:
            return

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        # libFuzzer's own mutations find bytes that matter; ours keep a message's form.
        if seed % 4 == 0:
            return atheris.Mutate(data, max_size)
        return damage(data, target.form, Random(seed), donors)[:max_size]

    for seed in donors:
        target.parse(seed)  # a seed that its own parser refuses would fuzz the first check only
    atheris.Setup([sys.argv[0], *arguments], try_one, custom_mutator=mutate)
    atheris.Fuzz()


main()
