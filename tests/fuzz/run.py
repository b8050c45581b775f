"""Fuzz every parser of bytes from outside for an equal share of some minutes.

    python tests/fuzz/run.py [--seconds 300] [--jobs 2] [--json FILE] [--findings DIR] [TARGET ...]

An exception outside a target's error tree, an input that takes too long and one that takes too much
memory are findings: each is kept in the directory of findings, which is outside of the repository,
and the command that repeats it is printed. Exit code: 0 nothing found, 1 something was.
"""

import argparse
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fuzz.targets import load_targets  # noqa: E402 - found through the path above

RSS_LIMIT_MB = 2048
GRACE_S = 90  # for imports, and for one input that is still allowed to run
PROGRESS = re.compile(r"#\d+\s.*?cov: (\d+) ft: (\d+) corp: (\d+)/")
STATISTIC = re.compile(r"stat::(\w+):\s+(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one target's share of the time came to."""

    target: str
    executions: int
    coverage: int
    features: int
    corpus: int
    peak_rss_mb: int
    finding: str | None
    detail: str


def fuzz(name: str, *, seconds: int, findings: Path) -> Outcome:
    """Run one target for ``seconds``, from a corpus of real messages that is thrown away after."""
    target = load_targets()[name]
    memory = "/dev/shm"  # noqa: S108 - the directory below it is private
    fast = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="greylag-fuzz-", dir=fast) as scratch:
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
        command = [
            *(sys.executable, str(HERE / "worker.py"), name, str(corpus)),
            f"-max_total_time={seconds}",
            f"-timeout={target.timeout_s}",
            f"-rss_limit_mb={RSS_LIMIT_MB}",
            f"-max_len={max(target.max_bytes, *(2 * len(seed) for seed in target.seeds()))}",
            f"-artifact_prefix={findings / name}-",
            "-print_final_stats=1",
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                cwd=scratch,
                env=os.environ | {"GREYLAG_FUZZ_SCRATCH": scratch},
                timeout=seconds + GRACE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _outcome(name, "", findings, failed=True, reason="did not end in time")
    return _outcome(name, done.stdout + done.stderr, findings, failed=done.returncode != 0)


def _outcome(name: str, output: str, findings: Path, *, failed: bool, reason: str = "") -> Outcome:
    progress = PROGRESS.findall(output)
    coverage, features, corpus = map(int, progress[-1]) if progress else (0, 0, 0)
    statistics = {key: int(value) for key, value in STATISTIC.findall(output)}
    executions = statistics.get("number_of_executed_units", 0)
    finding = None
    if failed:
        kept = sorted(findings.glob(f"{name}-*"), key=lambda path: path.stat().st_mtime)
        finding = str(kept[-1]) if kept else "no input kept"
    elif executions == 0:
        finding, reason = "no input tried", "the fuzzer did not start"
    return Outcome(
        target=name,
        executions=executions,
        coverage=coverage,
        features=features,
        corpus=corpus,
        peak_rss_mb=statistics.get("peak_rss_mb", 0),
        finding=finding,
        detail=(reason or _cause(output)) if finding else "",
    )


def _cause(output: str) -> str:
    """What the fuzzer said, without its running account of the corpus."""
    lines = [line for line in output.splitlines() if not line.startswith(("#", "INFO", "stat::"))]
    return "\n".join(lines[:12] + ["..."] * (len(lines) > 52) + lines[12:][-40:])


def report(outcomes: list[Outcome]) -> None:
    """The table, on stderr; what was found stands below it."""
    print(f"{'target':24}{'executions':>12}{'coverage':>10}{'features':>10}{'corpus':>8}"
          f"{'MB':>6}  finding", file=sys.stderr)  # fmt: skip
    for item in outcomes:
        print(f"{item.target:24}{item.executions:>12,}{item.coverage:>10}{item.features:>10}"
              f"{item.corpus:>8}{item.peak_rss_mb:>6}  {item.finding or '-'}",
              file=sys.stderr)  # fmt: skip
    for item in outcomes:
        if item.finding:
            repeat = f"{sys.executable} {HERE / 'worker.py'} {item.target} {item.finding}"
            print(f"\n{item.target}: {item.detail}\nrepeat: {repeat}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help="names; all where none is given")
    parser.add_argument("--seconds", type=int, default=300, help="for all targets together")
    parser.add_argument("--jobs", type=int, default=2, help="targets at the same time")
    parser.add_argument("--json", type=Path, help="write the document here, not to stdout")
    parser.add_argument("--findings", type=Path, help="where inputs that fail are kept")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing was left out: atheris is not installed (pip install atheris)",
              file=sys.stderr)  # fmt: skip
        return 0
    logging.disable()  # the accountants' remarks on made-up terms
    known = load_targets()
    if unknown := set(options.targets) - known.keys():
        parser.error(f"no target {sorted(unknown)[0]!r}; there are {', '.join(known)}")
    names = options.targets or list(known)
    findings = options.findings or Path(tempfile.gettempdir()) / "greylag-fuzz-findings"
    findings.mkdir(parents=True, exist_ok=True)
    share = max(1, options.seconds * options.jobs // len(names))
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(lambda name: fuzz(name, seconds=share, findings=findings), names))
    report(outcomes)
    document = json.dumps({"seconds": options.seconds, "targets": [asdict(o) for o in outcomes]})
    if options.json:
        options.json.write_text(document + "\n")
    else:
        print(document)
    return 1 if any(item.finding for item in outcomes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
