"""An audit with the real programs: a run of processes, the lead's bundle, a firm's keys."""

import json
import subprocess
from pathlib import Path

import pytest
from consortium_of_processes import World
from greylag_lab.processes import call_json, program

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(480)]


def audit(*arguments: object) -> tuple[int, dict[str, object]]:
    command = [program("greylag-audit"), *(str(item) for item in arguments), "--format", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def test_a_stranger_audits_a_real_run(world: World) -> None:
    world.set_pace(rounds=8)
    for name in world.tables:  # nobody goes on without all the others
        demand_cosignatures(world.firm(name) / "policy.toml", count=len(world.tables) - 1)
    world.start_agent(*world.tables)
    run = world.start_training()
    assert world.wait_for_end()["status"] == "done"
    release = ["release", run, "--dir", str(world.lead), "--out", str(world.root / "release")]
    call_json("greylag-server", [*release, "--format", "json"])

    directory, archive = world.root / "bundle", world.root / "bundle.tar.zst"
    for out in (directory, archive):
        bundle = ["bundle", run, str(out), "--release", str(world.root / "release")]
        call_json("greylag-server", [*bundle, "--dir", str(world.lead), "--format", "json"])
    trust, ledger = world.root / "trust.json", world.root / "ledger.jsonl"
    export = ["export-trust", str(world.firm("supplier-02")), "--out", str(trust)]
    call_json("greylag-client", [*export, "--ledger", str(ledger), "--format", "json"])

    for bundle_path in (directory, archive):
        code, facts = audit("verify", bundle_path, "--trust", trust, "--ledger", ledger)
        assert (code, facts["holds"], facts["broken"]) == (0, True, 0), facts
        states = {item["check"]: item["state"] for item in facts["findings"]}  # type: ignore[attr-defined]
        assert states["ledger.agrees"] == "holds"
        assert states["log.quorum"] == "holds"
        code, facts = audit("replay", bundle_path)
        assert (code, facts["message"]) == (0, "replay.follows:holds")
    assert (directory / "card.md").read_text().startswith(f"# {run}")

    code, facts = audit("verify", directory)
    assert (code, facts["broken"], facts["trusted"]) == (1, 0, False)

    change_a_byte(next((directory / "tile/entries").rglob("*.p/*")))
    code, facts = audit("verify", directory, "--trust", trust, "--quick")
    assert code == 1
    told = [item for item in facts["findings"] if item["check"] == "log.tree"]  # type: ignore[attr-defined]
    assert [item["state"] for item in told] == ["broken", "broken"]
    assert told[0]["entry"] is not None


def demand_cosignatures(policy: Path, *, count: int) -> None:
    text = policy.read_text(encoding="utf-8")
    changed = text.replace("min_cosignatures = 0 ", f"min_cosignatures = {count} ")
    changed = changed.replace("cosignature_patience = 2 ", "cosignature_patience = 1 ")
    assert changed.count("patience = 1 ") == 1 != text.count("patience = 1 ")
    policy.write_text(changed, encoding="utf-8")


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
