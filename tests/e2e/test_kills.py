"""Agents' processes killed by SIGKILL at any point: the ledger holds all that left, once, for good.

The lead is real (TLS, gRPC, coordinator, store); its firms are those of ``firms_to_kill``. The
default is 60 kills; ``GREYLAG_KILLS=200`` makes it as many. What this cannot show: that commits
reach the platter. A killed process loses nothing that the kernel has.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from certificates import issue_firm, issue_lead
from consortium_in_memory import NAME, NOW_S, Consortium, make_terms, run_on
from firms_to_kill import GAPS, POLICY
from greylag_client.ledger import Ledger
from greylag_client.spending import accounts_of
from greylag_protocols import log
from greylag_protocols.messages import Accepted, Closed, Contribution
from greylag_protocols.parsing import parse_firm_message
from greylag_protocols.signing import parse_statement
from greylag_protocols.terms import Terms, terms_digest
from greylag_server.app import Patience, say_goodbye
from greylag_server.authority import CertificateAuthority
from greylag_server.coordinator import Coordinator
from greylag_server.flight import Send
from greylag_server.grid_grpc import GrpcGrid
from greylag_server.store import Store

KILLS = int(os.environ.get("GREYLAG_KILLS", "60"))
SEED = 20
FIRMS = 8
SCRIPT = Path(__file__).parents[1] / "firms_to_kill.py"
PATIENCE = Patience(offer_s=10.0, round_s=2.0, close_s=2.0)
LOOK_S = 0.05

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120 + 2 * KILLS)]


@dataclass(slots=True)
class Received:
    """All that reached the lead, taken or not."""

    attempts: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    entries: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))

    def note(self, firm: str, frame: bytes) -> None:
        message = parse_firm_message(frame)
        if isinstance(message, Contribution):
            self.attempts[firm].add((message.run, message.attempt))
        if isinstance(message, Contribution | Accepted | Closed):
            self.entries[firm].update(message.entries)


class Lead:
    """The real lead of one consortium and its runs, one after another."""

    def __init__(self, root: Path) -> None:
        self.consortium = Consortium(root, terms=self.terms(0), firms=FIRMS)
        self.received = Received()
        self.store = Store(root / "log.sqlite", origin=NAME)
        authority = CertificateAuthority.create(NAME, now_s=time.time())
        for name, firm in self.consortium.firms.items():
            tls = issue_firm(authority, name)
            (root / name / "tls.key.pem").write_bytes(tls.key)
            (root / name / "tls.pem").write_bytes(tls.certificate)
            (root / name / "seed").write_bytes(bytes([10 + "abcdefgh".index(name[-1])] * 32))
            firm.ledger.close_file()
        (root / "ca.pem").write_bytes(authority.certificate_pem)
        (root / "lead.key").write_bytes(self.consortium.lead.public_key)
        (root / "name").write_text(NAME)
        (root / "now").write_text(str(NOW_S))
        (root / "terms.json").write_bytes(self.terms(0).encode())
        tls = issue_lead(authority)
        self.grid = GrpcGrid(
            "127.0.0.1:0",
            ca=tls.ca,
            key=tls.key,
            certificate=tls.certificate,
            max_frame_bytes=1 << 20,
        )

    @staticmethod
    def terms(number: int) -> Terms:
        # Every fourth run goes past the 50th round, where firms that died may come back. The
        # mechanism is the same, so that nobody has to solve for its epsilon again.
        rounds = 53 if number % 4 == 3 else 14
        return make_terms(rounds=rounds, max_attempts=80, run=f"small-{number}")

    def run(self, number: int) -> Coordinator:
        """A whole run, with goodbyes."""
        terms, store = self.terms(number), self.store
        encoded = terms.encode()
        with store.transaction():
            store.queue_run(terms.run_id, encoded, firms=FIRMS)
            store.keep(terms_digest(encoded), encoded)
            store.open_run(terms.run_id, self.consortium.signed)
        coordinator = self._coordinator(terms)
        stop = threading.Event()
        limit = threading.Timer(60, stop.set)
        limit.start()
        run_on(self.grid, coordinator, stop=stop, patience=PATIENCE)
        limit.cancel()
        assert coordinator.over, f"run {number} did not end"
        return coordinator

    def say_goodbye(self) -> None:
        """Whoever died in a run's last moment can close it now."""
        until_s = time.monotonic() + 30
        for record in self.store.runs():
            coordinator = self._coordinator(self.terms(int(record.run.split("-")[1])))
            while not coordinator.settled:
                assert time.monotonic() < until_s, f"{record.run} stays open"
                say_goodbye(self.grid, coordinator, PATIENCE)

    def _coordinator(self, terms: Terms) -> Coordinator:
        received = self.received

        class Listening(Coordinator):
            def receive(self, name: str, frame: bytes) -> list[Send]:
                received.note(name, frame)
                return super().receive(name, frame)

        return Listening(
            self.store.run(terms.run_id),
            terms=terms,
            membership=self.consortium.membership,
            signer=self.consortium.lead,
            store=self.store,
        )

    def logged(self) -> dict[str, list[bytes]]:
        """Each firm's chain, as far as the log holds it."""
        chains: dict[str, list[bytes]] = {name: [] for name in self.consortium.firms}
        for envelope in self.store.entries():
            statement = parse_statement(envelope)
            if statement.kind in log.CHAINED_KINDS:
                chains[statement.predicate["firm"]].append(envelope)
        return chains


class Watcher:
    """Looks at the ledgers while firms die: what was charged or written never becomes less."""

    def __init__(self, ledgers: dict[str, Path]) -> None:
        self._ledgers = ledgers
        self._seen: dict[tuple[str, str], tuple[int, ...]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.looks = 0
        self.complaints: list[str] = []

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            for firm, path in self._ledgers.items():
                self.look(firm, path)

    def look(self, firm: str, path: Path) -> None:
        with closing(sqlite3.connect(path, timeout=10)) as db:
            rows = db.execute("SELECT run, charged, last_attempt, last_round, closed FROM runs")
            now = {str(row[0]): tuple(row[1:]) for row in rows.fetchall()}
            now[""] = db.execute("SELECT count(*), coalesce(max(seq), 0) FROM entries").fetchone()
        self.looks += 1
        gone = {name for known, name in self._seen if known == firm} - set(now)
        self.complaints += [f"{firm}: {run} is gone" for run in gone]
        for run, values in now.items():
            before = self._seen.get((firm, run), values)
            if any(new < old for new, old in zip(values, before, strict=True)):
                self.complaints.append(f"{firm}: {run or 'chain'} fell from {before} to {values}")
            self._seen[firm, run] = values


def unpaid(firm: str, path: Path, received: Received) -> set[tuple[str, int]]:
    """The attempts that the lead has a vector for, and the ledger no receipt."""
    attempts, ledger = set(received.attempts[firm]), Ledger(path)
    statements = [parse_statement(envelope) for envelope in ledger.entries_after(0)]
    ledger.close_file()
    return attempts - {
        (item.predicate["run"], item.predicate["attempt"])
        for item in statements
        if item.kind == log.RECEIPT_KIND
    }


def complaints_about(
    firm: str, path: Path, received: Received, logged: list[bytes], terms: dict[str, Terms]
) -> list[str]:
    """What is wrong with a firm's ledger, given all that the lead received and logged."""
    found = []
    ledger = Ledger(path)
    entries = list(ledger.entries_after(0))
    receipts = [
        (statement.predicate["run"], statement.predicate["attempt"])
        for statement in map(parse_statement, entries)
        if statement.kind == log.RECEIPT_KIND
    ]
    if lost := received.attempts[firm] - set(receipts):
        found.append(f"received, not in the ledger: {sorted(lost)}")
    if lost_entries := received.entries[firm] - set(entries):
        found.append(f"{len(lost_entries)} received entries are not in the ledger")
    if twice := [item for item, times in Counter(receipts).items() if times > 1]:
        found.append(f"charged twice: {twice}")
    if entries[: len(logged)] != logged:
        found.append("the chain is another than the log's")
    if received.entries[firm] & set(entries[len(logged) :]):
        found.append("entries that were sent are not logged")
    by_run = Counter(run for run, _ in receipts)
    found += [
        f"{account.run}: charged {account.charged}, {by_run[account.run]} receipts"
        for account in ledger.accounts()
        if account.charged != by_run[account.run]
    ]
    accounts = accounts_of(ledger, POLICY, [], now_s=NOW_S)
    ledger.close_file()
    # The budget once more, from nothing but the lead's log and the terms.
    released = Counter(
        statement.predicate["run"]
        for statement in map(parse_statement, logged)
        if statement.kind == log.RECEIPT_KIND
    )
    spent = sum(terms[run].privacy.epsilon for run in released)
    (account_now,) = accounts
    if abs(account_now.spent - spent) > 1e-9 * max(1.0, spent):
        found.append(f"spent {account_now.spent}, by the log {spent}")
    shown = {line.run: line.charged for line in account_now.runs if line.charged}
    if shown != dict(released):
        found.append(f"charged {shown}, by the log {dict(released)}")
    return found


@contextmanager
def firms_to_kill(root: Path, lead: Lead) -> Iterator["subprocess.Popen[str]"]:
    arguments = [str(root), str(lead.grid.port), str(SEED), str(KILLS), *lead.consortium.firms]
    with (root / "firms.log").open("w") as sink:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments],
            stdin=subprocess.PIPE,
            stderr=sink,
            text=True,
            bufsize=1,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            yield process
        finally:
            if process.stdin:
                process.stdin.close()
            process.wait(30)


def kills(root: Path) -> Counter[str]:
    path = root / "kills.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(json.loads(line)["point"] for line in lines)


def tell(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")


def test_whenever_an_agent_is_killed_its_ledger_holds_all_that_left(memory_path: Path) -> None:
    root = memory_path
    lead = Lead(root)
    paths = {name: root / name / "ledger.sqlite" for name in lead.consortium.firms}
    number, ends = 0, Counter[str]()
    with firms_to_kill(root, lead) as process, Watcher(paths) as watcher:
        while kills(root).total() < KILLS:
            tell(process, "run")
            coordinator = lead.run(number)
            ends[coordinator.status] += 1
            for name, path in paths.items():  # at once: a firm that lost a receipt is soon shut out
                assert not unpaid(name, path, lead.received), name
            number += 1
            assert number < KILLS, f"too few kills: {kills(root)}"
        tell(process, "calm")
        coordinator = lead.run(number)
        lead.say_goodbye()
    lead.grid.stop()
    counts, logged = kills(root), lead.logged()
    print(json.dumps({"kills": counts, "runs": number + 1, "ends": ends, "looks": watcher.looks}))
    said = (root / "firms.log").read_text()
    assert "ended by itself" not in said, said[-3000:]
    assert (coordinator.status, coordinator.rounds_done) == (
        "done",
        coordinator.terms.training.rounds,
    )
    assert counts.total() >= KILLS
    assert ends["done"] > 0
    for gap, points in GAPS.items():
        assert sum(counts[point] for point in points) >= KILLS // 10, gap
    assert not watcher.complaints
    terms = {f"small-{at}": lead.terms(at) for at in range(number + 1)}
    for name, path in paths.items():
        assert not complaints_about(name, path, lead.received, logged[name], terms), name
        ledger = Ledger(path)
        assert list(ledger.entries_after(0)) == logged[name], f"{name}: something was never sent"
        ledger.close_file()
    _check_that_faults_are_found(root, lead, logged["firm-a"], terms)
    lead.store.close()


FAULTS = {
    "charged but": "UPDATE runs SET charged = charged - 1 WHERE run = (SELECT max(run) FROM runs)",
    "refunded": "UPDATE runs SET charged = 0",
    "a receipt lost": "DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries) - 3",
    "the last lost": "DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)",
    "charged twice": "INSERT INTO entries SELECT (SELECT max(seq) FROM entries) + 1, run, envelope "
    "FROM entries WHERE seq = (SELECT max(seq) FROM entries) - 3",
}


def _check_that_faults_are_found(
    root: Path, lead: Lead, logged: list[bytes], terms: dict[str, Terms]
) -> None:
    """The checks above can fail: a ledger with one fault never passes them."""
    for name, fault in FAULTS.items():
        path = root / "firm-a" / "changed.sqlite"
        shutil.copy(root / "firm-a" / "ledger.sqlite", path)
        watcher = Watcher({})
        watcher.look("firm-a", path)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("DROP TRIGGER entries_stay")
            db.execute("DROP TRIGGER entries_remain")
            db.execute(fault)
        watcher.look("firm-a", path)
        found = complaints_about("firm-a", path, lead.received, logged, terms)
        assert found, name
        assert watcher.complaints or name == "charged twice", name
        path.unlink()
