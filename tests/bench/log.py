"""What a round adds to the lead's log, and a replay of a long run of a real size.

An entry costs an insert, a leaf hash and a step of the tree's edge; plain inserts of the same bytes
into a plain table, in transactions as durable, say what of that is SQLite's own.
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from greylag_protocols import log
from greylag_protocols.signing import Ed25519Signer
from greylag_server.store import Store
from harness import Figure, compare, say

FIRMS = 200
APPEND_MS, REPLAY_S = 10.0, 20.0
TURNS = 60
PLAN = Path(__file__).parents[2] / "docs" / "examples" / "glass.toml"
REPLAY_FIRMS, REPLAY_ROUNDS = 20, 500


def measure_log() -> list[Figure]:
    """Appending a round's entries; replaying the glass example."""
    with tempfile.TemporaryDirectory(prefix="greylag-bench-") as name:
        return [*measure_append(Path(name)), *measure_replay(Path(name))]


def make_entries() -> list[bytes]:
    """A round's receipts and the lead's record of it."""
    signers = {f"supplier-{at:03d}": Ed25519Signer(os.urandom(32)) for at in range(FIRMS)}
    names, context = list(signers), os.urandom(32)
    facts = {"run": "bench-1", "round_number": 7, "attempt": 7, "context": context}
    receipts = [
        log.sign_receipt(
            signers[name],
            log.ChainTip(seq=7, head=os.urandom(32)),
            firm=name,
            roster_size=FIRMS,
            event_type="poisson-gaussian/v1",
            charged=7,
            **facts,
        )
        for name in names
    ]
    tips = [log.ChainTip(seq=8, head=log.entry_head(item)) for item in receipts]
    commit = log.sign_round(
        Ed25519Signer(os.urandom(32)),
        log.AttemptRecord(**facts, roster=names, tips=tips),
        model_in=os.urandom(32),
        state_out=os.urandom(32),
        sum_digest=os.urandom(32),
        grid_step=(0.5).hex(),
        event_type="poisson-gaussian/v1",
    )
    return [*receipts, commit]


def measure_append(root: Path) -> list[Figure]:
    """Median CPU of one transaction that appends a round's entries."""
    entries = make_entries()
    say(f"a log that grows by {len(entries)} entries at a time")
    store = Store(root / "log.sqlite", origin="bench")
    plain = sqlite3.connect(root / "plain.sqlite", isolation_level=None)
    plain.execute("PRAGMA journal_mode=WAL")
    plain.execute("PRAGMA synchronous=FULL")
    plain.execute("CREATE TABLE entries (position INTEGER PRIMARY KEY, envelope BLOB NOT NULL)")
    place = count()

    def append() -> None:
        with store.transaction():
            store.append(entries)

    def insert() -> None:
        plain.execute("BEGIN IMMEDIATE")
        for envelope in entries:
            plain.execute("INSERT INTO entries VALUES (?, ?)", (next(place), envelope))
        plain.execute("COMMIT")

    ours_s, plain_s = compare(append, insert, repeats=TURNS)
    store.close()
    plain.close()
    where = {"firms": FIRMS, "entries": len(entries), "bytes": sum(map(len, entries))}
    return [
        Figure(
            name="a round's entries into the log",
            where=where,
            value=ours_s * 1e3,
            unit="ms CPU",
            bound=APPEND_MS,
        ),
        Figure(
            name="the same, over plain inserts",
            where=where,
            value=ours_s / plain_s,
            unit="times",
            details={"plain_ms": plain_s * 1e3},
        ),
    ]


def measure_replay(root: Path) -> list[Figure]:
    """CPU of `greylag-audit replay` on a run under the glass example's terms."""
    from audit import RUN, write_evidence

    text = PLAN.read_text(encoding="utf-8")
    say(f"a run of {REPLAY_ROUNDS} rounds under {PLAN.name}: signing")
    entries = write_evidence(root, REPLAY_FIRMS, REPLAY_ROUNDS, plan=text)
    say("replay")
    command = [sys.executable, __file__, str(root / "bundle")]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{RUN} does not replay: {ended.stdout}{ended.stderr}")
    facts = json.loads(ended.stdout.splitlines()[-1])
    where = {"firms": REPLAY_FIRMS, "rounds": REPLAY_ROUNDS, "entries": entries}
    return [Figure(name="replay", where=where, value=facts["cpu_s"], unit="s CPU", bound=REPLAY_S)]


def run_program(work: Callable[[], None]) -> int:
    """The exit code of a program of ours."""
    try:
        work()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def main() -> None:
    """A replay, and what it costs, on stdout."""
    from greylag_audit import cli

    started_s = time.process_time()
    sys.argv[1:] = ["replay", sys.argv[1], "--format", "json"]
    code = run_program(cli.main)
    print(json.dumps({"cpu_s": time.process_time() - started_s}))
    sys.exit(code)


if __name__ == "__main__":
    main()
