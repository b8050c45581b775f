"""Firms come, renew and go, by the commands that people type and a lead in a process of its own."""

import json
import os
import pty
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from consortium_of_processes import World
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from greylag_client.enrolment_client import make_csr
from greylag_client.firm import FirmDirectory, TlsCredentials
from greylag_client.renewal import seconds_left
from greylag_lab.processes import background, call, call_json, free_ports, program, wait_for_port
from greylag_server.consortium import Consortium

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

DAY_S = 24 * 3600


class Lead:
    """A served consortium without firms."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root, self.dir, self.log = root, root / "lead", root / "server.log"
        self.port, self.enrol_port = free_ports(2)
        ports = ["--port", str(self.port), "--enrol-port", str(self.enrol_port)]
        call("greylag-server", ["init", str(self.dir), "--name", "test", *ports])
        self.stack = stack
        self.start()

    def start(self) -> None:
        serve = background("greylag-server", ["serve", "--dir", str(self.dir)], self.log)
        self.process = self.stack.enter_context(serve)
        wait_for_port(self.enrol_port, self.log)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def say(self, *arguments: str) -> dict[str, object]:
        return call_json("greylag-server", [*arguments, "--dir", str(self.dir), "--format", "json"])

    def join(self, name: str) -> dict[str, object]:
        invite = str(self.say("invite", name)["invite"])
        where = ["--dir", str(self.root / name), "--format", "json"]
        return call_json("greylag-client", ["join", invite, *where])

    def names(self) -> list[str]:
        members = self.say("status")["members"]
        return [item["name"] for item in members]  # type: ignore[attr-defined]


@pytest.fixture
def lead(tmp_path: Path) -> Iterator[Lead]:
    with ExitStack() as stack:
        yield Lead(tmp_path, stack)


def wait_for(condition: Callable[[], object], log: Path) -> None:
    until_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until_s, log.read_text()[-2000:]
        time.sleep(0.05)


def failed(*arguments: str) -> str:
    """What `greylag-client` says when the input is at fault."""
    ended = subprocess.run(
        [program("greylag-client"), *arguments], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    return " ".join(ended.stderr.split())


def test_an_agent_whose_certificate_expired_renews_it_and_connects(lead: Lead) -> None:
    lead.join("north")
    firm = FirmDirectory.open(lead.root / "north")
    expire(lead, firm)
    old, log = firm.read_tls(), lead.root / "agent.log"
    assert seconds_left(old.certificate, time.time()) < 0
    with background("greylag-client", ["run", str(firm.root)], log):
        wait_for(lambda: "north connected" in lead.log.read_text(), log)
    assert firm.read_tls().key != old.key
    assert seconds_left(firm.read_tls().certificate, time.time()) > 89 * DAY_S
    said = " ".join(log.read_text().split())
    assert "the certificate has 0 days left" in said
    assert "the new one is valid for" in said


def expire(lead: Lead, firm: FirmDirectory) -> None:
    """Give the firm's own TLS key a certificate of 100 days ago."""
    tls = firm.read_tls()
    key = load_pem_private_key(tls.key, None)
    old = Consortium.open(lead.dir).authority.sign_firm(
        make_csr(key, "north"),  # type: ignore[arg-type]
        firm="north",
        now_s=time.time() - 100 * DAY_S,
    )
    pem = old.public_bytes(Encoding.PEM)
    firm.write_tls(TlsCredentials(ca=tls.ca, key=tls.key, certificate=pem))


def test_a_removed_firm_reads_why_it_is_not_let_in(lead: Lead) -> None:
    lead.join("north")
    log = lead.root / "agent.log"
    with background("greylag-client", ["run", str(lead.root / "north")], log):
        wait_for(lambda: "north connected" in lead.log.read_text(), log)
        assert lead.say("remove", "north")["epoch"] == 2
        sentence = "'north' is no longer a member"
        wait_for(lambda: sentence in " ".join(log.read_text().split()), log)


def test_a_firm_leaves(lead: Lead) -> None:
    lead.join("south")
    consortium = lead.join("north")["consortium"]
    firm = lead.root / "north"
    said = call_json("greylag-client", ["leave", str(firm), "--yes", "--format", "json"])
    assert said["lead_told"]
    assert lead.names() == ["south"]
    told = failed("run", str(firm))
    assert f"this firm left {consortium} on 20" in told
    assert "a new invite, a new directory" in told
    call_json("greylag-client", ["budget", str(firm), "--format", "json"])
    # The name is free again, for a new directory.
    invite = str(lead.say("invite", "north")["invite"])
    assert "not an empty directory" in failed("join", invite, "--dir", str(firm))
    call("greylag-client", ["join", invite, "--dir", str(lead.root / "north-2")])
    assert lead.names() == ["north", "south"]


def test_a_firm_leaves_while_the_lead_is_away(lead: Lead) -> None:
    lead.join("north")
    lead.stop()
    firm = lead.root / "north"
    said = call_json("greylag-client", ["leave", str(firm), "--yes", "--format", "json"])
    assert not said["lead_told"]
    assert "cannot be reached" in str(said["reason"])
    lead.start()
    assert lead.names() == ["north"]
    handed = lead.root / "mailed.json"
    handed.write_bytes(Path(str(said["statement"])).read_bytes())
    facts = lead.say("revoke", str(handed))
    assert (facts["firm"], facts["how"], facts["epoch"]) == ("north", "left", 2)
    assert lead.names() == []


def test_one_question_at_a_terminal_and_a_recovery_key_that_is_kept_nowhere(
    lead: Lead, record_property: Callable[[str, object], None]
) -> None:
    data = lead.root / "our recipes 数据.xlsx"
    data.write_bytes(b"")
    invite = str(lead.say("invite", "north")["invite"])
    began_s = time.monotonic()
    person, terminal = pty.openpty()
    joining = subprocess.Popen(
        [program("greylag-client"), "join", invite, "--format", "json"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=lead.root,
    )
    os.close(terminal)
    os.write(person, f"'{data}' \n".encode())
    stdout, stderr = joining.communicate(timeout=60)
    os.close(person)
    took_s = time.monotonic() - began_s
    record_property("join_s", round(took_s, 2))
    print(f"from invite to ready: {took_s:.2f} s")
    assert joining.returncode == 0, stderr.decode()
    facts = json.loads(stdout)
    assert stderr.decode().count("?") == 1
    assert FirmDirectory.open(lead.root / "north").data_path == data
    key = facts["recovery_key"]
    assert len(key) == 64
    log = lead.root / "agent.log"
    with background("greylag-client", ["run", str(lead.root / "north")], log):
        wait_for(lambda: "north connected" in lead.log.read_text(), log)
    call("greylag-client", ["leave", str(lead.root / "north"), "--yes"])
    files = [path for path in lead.root.rglob("*") if path.is_file()]
    assert {log, lead.log} <= set(files)
    for path in files:
        held = path.read_bytes()
        assert key.encode() not in held, path
        assert bytes.fromhex(key) not in held, path
    assert key not in stderr.decode()


def test_open_runs_are_closed_by_leaving(world: World) -> None:
    name, *others = world.tables
    world.start_agent(*others)
    leaver = world.start_agent(name)
    run = world.start_training()
    world.wait_for_rounds(3)
    assert "an agent is running" in failed("leave", str(world.firm(name)), "--yes")
    leaver.terminate()
    leaver.wait()
    left = call_json(
        "greylag-client", ["leave", str(world.firm(name)), "--yes", "--format", "json"]
    )
    assert left["closed"] == [run]
    assert left["lead_told"]
    (account,) = world.ledger(name).accounts()
    assert account.closed
    assert account.charged >= 3
    ended = world.wait_for_end()
    assert ended["status"] == "done"  # the other four go on
    assert name not in ended["roster"]  # type: ignore[operator]
    spent = call_json("greylag-client", ["budget", str(world.firm(name)), "--format", "json"])
    assert run in json.dumps(spent)
