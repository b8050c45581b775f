"""Real processes: a server, agents, their ledgers; killed without warning and started again."""

import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from greylag_client.firm import FirmDirectory
from greylag_client.ledger import Ledger
from greylag_lab.plastics import write_firms
from greylag_lab.processes import background, call_json, free_ports, program, wait_for_port
from greylag_protocols import log
from greylag_protocols.encoding import parse_json
from greylag_protocols.log import ChainTip
from greylag_protocols.signing import parse_statement
from greylag_server.consortium import Consortium
from greylag_server.service import open_store

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

FIRMS = 5
PLAN = (Path(__file__).parents[2] / "docs/examples/plastics.toml").read_text()
PLAN = PLAN.replace("min_firms = 5", "min_firms = 4").replace("rounds = 200", "rounds = 60")


class World:
    """A consortium whose firms have joined; processes are started by the test."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root, self.stack, self.lead = root, stack, root / "lead"
        self.tables = write_firms(root / "tables", FIRMS)
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
        serve = ["serve", "--dir", str(self.lead), "--round-wait-s", "30"]
        log_file = self.root / "server.log"
        server = self.stack.enter_context(background("greylag-server", serve, log_file))
        wait_for_port(self.enrol_port, log_file)
        return server

    def invite(self, name: str) -> str:
        arguments = ["invite", name, "--dir", str(self.lead), "--format", "json"]
        return str(call_json("greylag-server", arguments)["invite"])

    def join(self, name: str) -> None:
        where = ["--dir", str(self.firm(name)), "--data", str(self.tables[name])]
        call_json("greylag-client", ["join", self.invite(name), *where, "--format", "json"])

    def firm(self, name: str) -> Path:
        return self.root / "firms" / name

    def start_agent(self, *names: str) -> "subprocess.Popen[bytes]":
        command = ["run", *(str(self.firm(name)) for name in names)]
        log_file = self.root / f"{'-'.join(names)}.log"
        approve = ["--approve-members", self.digest]
        return self.stack.enter_context(
            background("greylag-client", [*command, *approve], log_file)
        )

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
        attempts: dict[str, list[int]] = {name: [] for name in keys}
        for entry in entries:
            statement = parse_statement(entry)
            if statement.kind in log.CHAINED_KINDS:
                firm = statement.predicate["firm"]
                tips[firm] = tips[firm].follow(entry, firm=firm, identity_key=keys[firm])
                if statement.kind == log.RECEIPT_KIND:
                    attempts[firm].append(statement.predicate["attempt"])
        for name in keys:
            ledger = self.ledger(name)
            assert ledger.tip() == tips[name], f"{name}: ledger and log differ"
            assert attempts[name] == sorted(set(attempts[name])), f"{name}: an attempt twice"
            (account,) = ledger.accounts()
            assert account.charged == len(attempts[name])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


def test_killed_agent_costs_one_attempt(world: World) -> None:
    rounds = 300
    # A public reply offset paces the rounds, so that five 50th rounds leave half a minute to come
    # back in, however busy the machine is.
    slow = f"rounds = {rounds}\nreply_offset_s = 0.15"
    world.plan.write_text(PLAN.replace("rounds = 60", slow))
    agents = {name: world.start_agent(name) for name in world.tables}
    world.start_training()
    world.wait_for_rounds(5)
    agents["supplier-02"].send_signal(signal.SIGKILL)
    agents["supplier-02"].wait()
    world.wait_for_rounds(15)
    world.start_agent("supplier-02")
    run = world.wait_for_end()
    assert (run["status"], run["rounds"]) == ("done", rounds)
    assert run["attempts"] == rounds + 1
    assert run["roster"] == sorted(world.tables)
    world.check_books()


def test_killed_coordinator_goes_on(world: World) -> None:
    world.start_agent(*world.tables)  # one host process for all firms
    world.start_training()
    for rounds in (3, 20, 40):
        world.wait_for_rounds(rounds)
        world.server.send_signal(signal.SIGKILL)
        world.server.wait()
        before = world.rounds_done()
        world.server = world.start_server()
        world.wait_for_rounds(before)
    run = world.wait_for_end()
    assert (run["status"], run["rounds"]) == ("done", 60)
    assert run["attempts"] == 60, "the attempt in flight was sent again, not replaced"
    world.check_books()
    release = ["release", str(run["run"]), "--dir", str(world.lead), "--format", "json"]
    call_json("greylag-server", [*release, "--out", str(world.root / "release")])
    out = world.root / "predicted.csv"
    predict = [str(world.root / "release"), str(world.tables["lead"]), "-o", str(out)]
    subprocess.run([program("greylag-client"), "predict", *predict], check=True)
    header = out.read_text().splitlines()[0]
    assert "tensile_modulus_mpa_predicted" in header
    assert "out_of_range" in header


def test_wrong_input_is_told_and_nothing_is_lost(world: World) -> None:
    def fails(command: list[str]) -> tuple[int, str]:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.stdout == ""
        return ended.returncode, " ".join(ended.stderr.split())

    server = [program("greylag-server")]
    client = [program("greylag-client")]
    # a port in use
    code, said = fails([*server, "serve", "--dir", str(world.lead)])
    assert code == 2
    assert str(world.port) in said
    # fewer firms than the plan wants
    large = world.root / "large.toml"
    large.write_text(PLAN.replace("min_firms = 4", "min_firms = 6"))
    code, said = fails([*server, "train", str(large), "--dir", str(world.lead)])
    assert code == 2
    assert "5 firms are enrolled" in said
    # an unknown key
    typo = world.root / "typo.toml"
    typo.write_text(PLAN.replace("sampling_rate", "sampling_rat"))
    code, said = fails([*server, "train", str(typo), "--dir", str(world.lead)])
    assert code == 2
    assert "did you mean 'sampling_rate'" in said
    # an invite that was used
    text = world.invite("newcomer")
    where = ["--dir", str(world.firm("newcomer")), "--format", "json"]
    call_json("greylag-client", ["join", text, *where])
    again = ["--dir", str(world.root / "elsewhere"), "--format", "json"]
    code, said = fails([*client, "join", text, *again])
    assert code == 2
    assert "used" in said
    assert not (world.root / "elsewhere").exists()
    # a table that does not fit
    table = world.root / "bad.csv"
    table.write_text(
        world.tables["lead"].read_text().replace("\n", "\n", 1).replace(",", ",abc", 5)
    )
    code, said = fails([*client, "check", str(table), "--plan", str(world.plan)])
    assert code == 2
    assert "bad.csv" in said
