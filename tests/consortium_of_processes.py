"""A small consortium of real processes: server, agents, files; the tests start and stop it."""

import sqlite3
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from greylag_client.firm import FirmDirectory
from greylag_client.join import join
from greylag_client.ledger import Ledger
from greylag_lab.plastics import write_firms
from greylag_lab.processes import background, call_json, free_ports, wait_for_port
from greylag_protocols import log
from greylag_protocols.encoding import parse_json
from greylag_protocols.log import ChainTip
from greylag_protocols.signing import parse_statement
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.service import open_store

FIRMS = 5
PLAN = (Path(__file__).parents[1] / "docs/examples/plastics.toml").read_text()
PLAN = PLAN.replace("min_firms = 5", "min_firms = 4").replace("rounds = 200", "rounds = 60")


class World:
    """A consortium whose firms have joined; processes are started by the test."""

    def __init__(
        self, root: Path, stack: ExitStack, *, firms: int = FIRMS, round_wait_s: float = 30
    ) -> None:
        self.root, self.stack, self.lead = root, stack, root / "lead"
        self._round_wait_s = round_wait_s
        self.recovery_keys: dict[str, str] = {}
        self.tables = write_firms(root / "tables", firms)
        self.plan = root / "plan.toml"
        self.plan.write_text(PLAN)
        self.port, self.enrol_port = free_ports(2)
        ports = ["--port", str(self.port), "--enrol-port", str(self.enrol_port)]
        call_json(
            "greylag-server",
            ["init", str(self.lead), "--name", "test", *ports, "--format", "json"],
        )
        self.server = self.start_server()
        for name in self.tables:
            self.join(name)
        self.digest = self.status()["membership"]

    def start_server(self) -> "subprocess.Popen[bytes]":
        serve = ["serve", "--dir", str(self.lead), "--round-wait-s", str(self._round_wait_s)]
        log_file = self.root / "server.log"
        server = self.stack.enter_context(background("greylag-server", serve, log_file))
        wait_for_port(self.enrol_port, log_file)
        return server

    def invite(self, name: str) -> str:
        return Enrolment(Consortium.open(self.lead)).invite(name, None, now_s=time.time())

    def join(self, name: str) -> None:
        """As the command does; here in this process, since every test needs five of them."""
        joined = join(
            self.invite(name),
            self.firm(name),
            data=self.tables[name],
            approve_members=None,
            now_s=time.time(),
        )
        self.recovery_keys[name] = joined.recovery_key

    def firm(self, name: str) -> Path:
        return self.root / "firms" / name

    def start_agent(self, *names: str) -> "subprocess.Popen[bytes]":
        command = ["run", *(str(self.firm(name)) for name in names)]
        log_file = self.root / f"{'-'.join(names)}.log"
        approve = ["--approve-members", self.digest]
        return self.stack.enter_context(
            background("greylag-client", [*command, *approve], log_file)
        )

    def set_pace(self, *, rounds: int = 60, reply_offset_s: float = 0.0) -> None:
        """How many rounds there will be, and how long each takes at least: a test that does
        something in the midst of a run needs one that is not over before."""
        pace = f"rounds = {rounds}\nreply_offset_s = {reply_offset_s}"
        self.plan.write_text(PLAN.replace("rounds = 60", pace))

    def start_training(self) -> str:
        train = ["train", str(self.plan), "--dir", str(self.lead), "--no-wait"]
        return str(call_json("greylag-server", [*train, "--format", "json"])["run"])

    def status(self) -> dict[str, object]:
        return call_json("greylag-server", ["status", "--dir", str(self.lead), "--format", "json"])

    def rounds_done(self) -> int:
        with sqlite3.connect(self.lead / "log.sqlite", timeout=10) as db:
            row = db.execute("SELECT rounds_done FROM runs").fetchone()
        return 0 if row is None else int(row[0])

    def wait_for_rounds(self, rounds: int) -> None:
        until_s = time.monotonic() + 120
        while self.rounds_done() < rounds:
            assert time.monotonic() < until_s, (self.root / "server.log").read_text()[-2000:]
            time.sleep(0.02)

    def wait_for_end(self) -> dict[str, object]:
        until_s = time.monotonic() + 120
        while True:
            (run,) = self.status()["runs"]  # type: ignore[misc]
            if run["status"] in ("done", "failed"):
                return dict(run)
            assert time.monotonic() < until_s, (self.root / "server.log").read_text()[-2000:]
            time.sleep(0.3)

    def ledger(self, name: str) -> Ledger:
        return Ledger(FirmDirectory.open(self.firm(name)).ledger_path)

    def check_books(self) -> None:
        """Log and ledgers tell one story: every receipt logged, in unbroken chains."""
        consortium = Consortium.open(self.lead)
        store = open_store(consortium)
        entries = list(store.entries())
        documents = [
            store.artefact(parse_statement(entry).digest)
            for entry in entries
            if parse_statement(entry).kind == "membership/v1"
        ]
        latest = max((parse_json(item) for item in documents if item), key=lambda m: m["epoch"])
        keys = {item["name"]: bytes.fromhex(item["identity"]) for item in latest["members"]}
        tips = dict.fromkeys(keys, ChainTip())
        attempts: dict[str, dict[str, list[int]]] = {name: {} for name in keys}
        for entry in entries:
            statement = parse_statement(entry)
            if statement.kind in log.CHAINED_KINDS:
                firm = statement.predicate["firm"]
                tips[firm] = tips[firm].follow(entry, firm=firm, identity_key=keys[firm])
                if statement.kind == log.RECEIPT_KIND:
                    of_run = attempts[firm].setdefault(statement.predicate["run"], [])
                    of_run.append(statement.predicate["attempt"])
        for name in keys:
            ledger = self.ledger(name)
            assert ledger.tip() == tips[name], f"{name}: ledger and log differ"
            for account in ledger.accounts():
                own = attempts[name].pop(account.run, [])
                assert own == sorted(set(own)), f"{name}, {account.run}: an attempt twice"
                assert account.charged == len(own)
            assert not attempts[name], f"{name}: receipts of a run that it has no account of"
