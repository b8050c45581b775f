"""The gate with the real programs: what passes, what does not and why; what a firm then refuses."""

import json
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_evidence import Evidence, make_evidence
from consortium_in_memory import NAME
from consortium_of_processes import World
from greylag_lab.processes import program
from greylag_protocols import log
from greylag_server.release.gate import Checks, check_log
from greylag_server.store import Store

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(480)]


def run(name: str, *arguments: object) -> tuple[int, dict[str, Any]]:
    command = [program(name), *map(str, arguments), "--format", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def names(facts: dict[str, Any]) -> dict[str, bool]:
    return {item["name"]: item["ok"] for item in facts["checks"]}


@pytest.mark.slow
def test_a_model_passes_the_gate_and_is_withdrawn(world: World) -> None:
    root, lead, firm = world.root, world.lead, world.firm("supplier-02")

    def lead_says(*arguments: object) -> tuple[int, dict[str, Any]]:
        return run("greylag-server", *arguments, "--dir", lead)

    def release(out: str, *more: object) -> tuple[int, dict[str, Any]]:
        return lead_says("release", run_id, "--out", root / out, *more)

    def verify(out: str, *more: object) -> tuple[int, dict[str, Any]]:
        return run("greylag-client", "verify-release", root / out, *more)

    agents = world.start_agent(*world.tables)
    world.set_pace(rounds=8, reply_offset_s=0.5)
    run_id = world.start_training()
    world.wait_for_rounds(1)
    code, facts = release("early")
    assert (code, names(facts)) == (1, {"run": False})
    assert world.wait_for_end()["status"] == "done"

    own = world.tables["lead"]
    code, facts = release("one", "--holdout", own)
    assert code == 0, facts
    assert names(facts) == dict.fromkeys(
        ("run", "holdout", "log", "caps", "replay", "cosigned"), True
    )
    assert facts["version"] == 1
    code, facts = verify("one", "--dir", firm)
    assert (code, facts["verified"]) == (0, True), facts
    key = ["--public_key", root / "one/model.pub", "--signature", root / "one/model.sig"]
    command = [program("model_signing"), "verify", "key", root / "one", *key]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    predict = [program("greylag-client"), "predict", root / "one", own, "--dir", firm]
    assert subprocess.run(predict, capture_output=True, check=False).returncode == 0

    # It is one release, however often it is written.
    size = world.status()["log_size"]
    code, facts = release("one-again")
    assert (code, facts["version"]) == (0, 1)
    assert world.status()["log_size"] == size
    assert (root / "one/release.dsse.json").read_bytes() == (
        root / "one-again/release.dsse.json"
    ).read_bytes()
    code, _ = verify("one-again", "--dir", firm)
    assert code == 0

    # An auditor accepts a log with releases, withdrawals and versions in it.
    code, facts = release("two", "--again", "--holdout", own, "--expires", 7)
    assert (code, facts["version"]) == (0, 2)
    code, facts = lead_says("rollback", "plastics", "--to", "v1")
    assert code == 0
    code, facts = lead_says("withdraw", run_id, "--because", "a wrong unit", "--out", root / "w")
    assert (code, facts["versions"]) == (0, [1, 2])
    code, facts = lead_says("releases")
    assert [
        (item["version"], item["current"], item["withdrawn"]) for item in facts["releases"]
    ] == [
        (1, False, "a wrong unit"),
        (2, False, "a wrong unit"),
    ]
    assert run("greylag-server", "bundle", run_id, root / "bundle", "--dir", lead)[0] == 0
    run("greylag-client", "export-trust", firm, "--out", root / "trust.json")
    trust = ["--trust", root / "trust.json"]
    code, facts = run("greylag-audit", "verify", root / "bundle", *trust)
    assert (code, facts["broken"]) == (0, 0), facts
    assert run("greylag-audit", "replay", root / "bundle")[0] == 0

    code, facts = verify("two", *trust)
    assert code == 0  # nobody told this firm yet
    code, facts = verify("two", "--dir", firm, "--withdrawal", root / "w")
    assert code == 1
    assert "withdrawn" in facts["checks"][-1]["text"]
    code, facts = verify("one", "--dir", firm)
    assert code == 1, "the firm remembers what it was shown"
    done = subprocess.run(predict, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a wrong unit" in done.stderr
    code, facts = release("three")
    assert (code, names(facts)["run"]) == (1, False)

    # Firms that are away cosign nothing; without a server nobody even asks them.
    agents.send_signal(signal.SIGTERM)
    agents.wait()
    more = ["--again", "--holdout", own, "--wait-s", 1]
    code, facts = release("three", *more)
    assert (code, names(facts)["cosigned"]) == (1, False)
    assert "let more firms start their agents" in facts["checks"][-1]["text"]
    world.server.send_signal(signal.SIGTERM)
    world.server.wait()
    code, facts = release("three", "--wait-s", 1)
    assert (code, names(facts)["cosigned"]) == (1, False)
    assert "start greylag-server serve" in facts["checks"][-1]["text"]

    # What the lead's database lost or changed, its auditor finds.
    with sqlite3.connect(lead / "log.sqlite") as db:
        sums = [
            (digest,)
            for (digest, content) in db.execute("SELECT * FROM artefacts")
            if log.sum_digest(content) == digest
        ]
        db.executemany(
            "UPDATE artefacts SET content = zeroblob(length(content)) WHERE digest = ?", sums
        )
    code, facts = release("three", "--wait-s", 1)
    assert code == 1
    assert (names(facts)["log"], names(facts)["replay"]) == (False, False)
    assert "cosigned" not in names(facts)
    assert {path.name for path in root.glob("*") if (path / "model.sig").exists()} == {
        "one",
        "one-again",
        "two",
    }
    assert not list(root.glob(".*"))


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return make_evidence(tmp_path_factory.mktemp("evidence"))


def raise_a_charge(evidence: Evidence) -> None:
    at = evidence.find(log.RECEIPT_KIND, firm="firm-b", nth=5)
    evidence.sign(at, charged=50)
    evidence.rechain("firm-b")


def drop_an_entry(evidence: Evidence) -> None:
    del evidence.entries[evidence.find(log.RECEIPT_KIND, firm="firm-a", nth=2)]


def change_a_state(evidence: Evidence) -> None:
    at = evidence.find(log.ROUND_KIND, round=3)
    evidence.sign(at, state_out=bytes(32).hex())


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (lambda _: None, set()),
        (raise_a_charge, {"caps"}),
        (drop_an_entry, {"log", "caps"}),
        (change_a_state, {"replay"}),
    ],
    ids=["nothing", "a charge", "an entry", "a state"],
)
def test_each_part_of_the_log_is_judged_by_the_auditor(
    evidence: Evidence, tmp_path: Path, change: Callable[[Evidence], None], failing: set[str]
) -> None:
    forged = evidence.copy()
    change(forged)
    store = Store(tmp_path / "log.sqlite", origin=NAME)
    with store.transaction():
        store.append(forged.entries)
        for digest, content in forged.artefacts.items():
            store.keep(digest, content)
    told: list[str] = []
    checks = Checks(lambda check: told.append(check.line()))
    check_log(checks, store, forged.record, consortium=NAME, signer=forged.lead)
    assert {item.name for item in checks.kept if not item.ok} == failing, told
    assert [item.name for item in checks.kept] == ["log", "caps", "replay"]
    assert checks.hold == (not failing)
