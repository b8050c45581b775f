"""Stock Flower: an unmodified SuperLink and SuperNodes, with TLS and SuperNode authentication, and
the bundle of this repository. Behind each node's local socket is a firm's long-lived agent."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from consortium_in_memory import RecordingMasks
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from greylag_client import agent, composition
from greylag_client.firm import FirmDirectory
from greylag_client.join import join
from greylag_client.local_door import door_path
from greylag_client.policy import DEFAULT_POLICY
from greylag_lab.plastics import write_firms
from greylag_lab.processes import background, free_ports, program, wait_for_port
from greylag_protocols import log
from greylag_protocols.plan import parse_plan
from greylag_protocols.signing import parse_statement
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.enrolment_http import EnrolmentServer
from greylag_server.service import open_store, queue_plan
from greylag_server.store import RunRecord

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
ROUNDS = 3
PATIENCE_S = 450.0  # a quarter of it will do, where nothing else keeps the machine busy
PLAN = (REPOSITORY / "docs/examples/plastics.toml").read_text()
for _old, _new in {
    "min_firms = 5": "min_firms = 3",
    "max_colluding = 2": "max_colluding = 1",
    "rounds = 200": f"rounds = {ROUNDS}",
}.items():
    PLAN = PLAN.replace(_old, _new)


@contextmanager
def flower(root: Path, name: str, command: Sequence[str]) -> Iterator[Path]:
    """A stock Flower process and whatever it starts, ended as one group. Yields its log file."""
    log_file = root / f"{name}.log"
    with log_file.open("wb") as sink:
        process = subprocess.Popen(
            [program(command[0]), *command[1:]],
            stdout=sink,
            stderr=sink,
            env=environment(root),
        )
        try:
            yield log_file
        finally:
            started = [process.pid, *descendants(process.pid)]
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pid in started:  # what it left behind: a SuperLink does not wait for its apps
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    children = [
        int(child)
        for task in Path("/proc").glob(f"{pid}/task/*/children")
        for child in task.read_text().split()
    ]
    return [item for child in children for item in (child, *descendants(child))]


def environment(root: Path) -> dict[str, str]:
    """Flower's own directory, nothing sent home, and the programs that Flower itself starts."""
    return {
        **os.environ,
        "FLWR_HOME": str(root / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{Path(program('flwr')).parent}{os.pathsep}{os.environ['PATH']}",
    }


class Stock:
    """A consortium that was founded and joined as always, and a SuperLink for its rounds."""

    def __init__(self, root: Path, stack: ExitStack, *, firms: int) -> None:
        self.root, self.stack, self.lead = root, stack, root / "lead"
        port, enrol_port, self.port, *self.node_ports = free_ports(3 + firms)
        consortium = Consortium.create(
            self.lead,
            name="test",
            operator="lead",
            host="127.0.0.1",
            port=port,
            enrol_port=enrol_port,
        )
        self.names = self.join_firms(consortium, firms)
        signed = Enrolment(consortium).current_membership(time.time())
        self.membership = parse_statement(signed.statement).digest.hex()
        self.store = open_store(consortium)
        stack.callback(self.store.close)
        self.run, _ = queue_plan(
            self.store,
            consortium,
            parse_plan(PLAN),
            members=firms,
            firms=firms - 1,
            nonce="00c0ffee",
        )

    def join_firms(self, consortium: Consortium, firms: int) -> list[str]:
        tables = write_firms(self.root / "tables", firms + 1)
        del tables["lead"]  # it would count as colluding with one more
        enrolment = Enrolment(consortium)
        server = EnrolmentServer(consortium, enrolment)
        server.start()
        try:
            for name, table in tables.items():
                invite = enrolment.invite(name, None, now_s=time.time())
                joined = join(
                    invite, self.firm(name), data=table, approve_members=None, now_s=time.time()
                )
                joined.firm.policy_path.write_text(DEFAULT_POLICY)
        finally:
            server.stop()
        return list(tables)

    def flwr(self, *arguments: str) -> dict[str, object]:
        ended = subprocess.run(
            [program("flwr"), *arguments, "--format", "json"],
            env=environment(self.root),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return dict(json.loads(ended.stdout[ended.stdout.index("{") :]))

    def firm(self, name: str) -> Path:
        return self.root / "firms" / name

    def start_superlink(self) -> None:
        keys = self.lead / "keys"
        command = ["flower-superlink", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--ssl-ca-certfile", str(keys / "ca.pem")]
        command += ["--ssl-certfile", str(keys / "server.pem")]
        command += ["--ssl-keyfile", str(keys / "server.key.pem")]
        command += ["--enable-supernode-auth", "--database", str(self.root / "state.db")]
        command += ["--disable-runtime-dependency-installation"]
        log_file = self.stack.enter_context(flower(self.root, "superlink", command))
        home = self.root / "flwr"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            '[superlink]\ndefault = "stock"\n[superlink.stock]\n'
            f'address = "127.0.0.1:{self.port}"\nroot-certificates = "{keys / "ca.pem"}"\n'
        )
        wait_for_port(self.port, log_file)

    def start_supernodes(self) -> None:
        """One for each firm; the lead's operator writes down whose node each is."""
        lines = ["[nodes]"]
        for name, port in zip(self.names, self.node_ports, strict=True):
            key = ec.generate_private_key(ec.SECP384R1())
            secret, public = self.root / f"{name}.key", self.root / f"{name}.pub"
            secret.write_bytes(
                key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            )
            public.write_bytes(
                key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            )
            node = self.flwr("supernode", "register", str(public))["node-id"]
            lines.append(f'{name} = "{node}"')
            command = ["flower-supernode", "--superlink", f"127.0.0.1:{self.port}"]
            command += ["--root-certificates", str(self.firm(name) / "keys" / "ca.pem")]
            command += ["--auth-supernode-private-key", str(secret), "--port", str(port)]
            command += ["--node-config", f'agent="{door_path(self.firm(name))}"']
            self.stack.enter_context(flower(self.root, f"node-{name}", command))
        (self.lead / "flower.toml").write_text("\n".join(lines) + "\n")

    def wait_for_end(self) -> RunRecord:
        until_s = time.monotonic() + PATIENCE_S
        while (record := self.store.run(self.run)).status not in ("done", "failed"):
            logs = sorted(self.root.glob("*.log"))
            assert time.monotonic() < until_s, "\n".join(
                f"== {item.name}\n{item.read_text()[-3000:]}" for item in logs
            )
            time.sleep(0.3)
        return record


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Stock]:
    with ExitStack() as stack:
        yield Stock(tmp_path, stack, firms=4)


@contextmanager
def agents_here(stock: Stock, names: Sequence[str]) -> Iterator[dict[str, RecordingMasks]]:
    """The agents of firms that allow Flower, in this process: the agent's own composition, but for
    masks that write down what they cover."""
    stop, threads, masks = threading.Event(), [], {}
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            firm = FirmDirectory.open(stock.firm(name))
            allow = firm.policy_path.read_text().replace(
                'engines = ["grpc"]', 'engines = ["flower"]'
            )
            firm.policy_path.write_text(allow)
            masks[name] = RecordingMasks()
            patch.setattr(composition, "PairwiseMasks", lambda name=name: masks[name])
            participant = agent.make_participant(firm, approve=stock.membership)
            threads += agent.make_threads(firm, participant, stop)
    for thread in threads:
        thread.start()
    try:
        yield masks
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.slow
def test_three_rounds_on_stock_flower_add_up_and_an_unwilling_agent_refuses(stock: Stock) -> None:
    *willing, unwilling = stock.names
    unwilling_log = stock.root / f"{unwilling}.log"
    command = ["run", str(stock.firm(unwilling)), "--approve-members", stock.membership]
    stock.stack.enter_context(background("greylag-client", command, unwilling_log))
    stock.start_superlink()
    stock.start_supernodes()
    with agents_here(stock, willing) as masks:
        settings = f'directory="{stock.lead}" run="{stock.run}"'
        stock.flwr("run", str(REPOSITORY / "deploy/flower-app"), "stock", "--run-config", settings)
        record = stock.wait_for_end()

    assert (record.status, record.rounds_done, record.attempts) == ("done", ROUNDS, ROUNDS)
    store = stock.store
    statements = [parse_statement(envelope) for envelope in store.entries()]
    rounds = [item for item in statements if item.kind == log.ROUND_KIND]
    assert len(rounds) == ROUNDS
    for statement in rounds:
        content = store.artefact(bytes.fromhex(statement.predicate["sum"]))
        assert content is not None
        put_in = [recorded.put_in[statement.digest] for recorded in masks.values()]
        assert len(put_in) == len(willing)
        expected = np.sum(np.stack(put_in).astype(np.int64), axis=0)
        np.testing.assert_array_equal(np.frombuffer(content, "<i4"), expected)
        assert np.any(expected)

    refusals = [item.predicate for item in statements if item.kind == log.REFUSAL_KIND]
    assert {(item["firm"], item["class"]) for item in refusals} == {(unwilling, "policy")}
    assert "engines does not allow 'flower'" in " ".join(unwilling_log.read_text().split())
    assert {item.firm for item in store.participants(stock.run)} == set(willing)
