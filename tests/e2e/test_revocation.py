"""A stolen identity and a run that nobody closes, by the commands that people type."""

import json
import subprocess

import pytest
from consortium_of_processes import World
from greylag_lab.processes import call_json, program

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def revoke(world: World, name: str, key: str) -> "subprocess.CompletedProcess[str]":
    out = world.root / f"{name}.revocation"
    command = [program("greylag-client"), "revoke", str(world.firm(name)), "--out", str(out)]
    return subprocess.run(
        [*command, "--format", "json"],
        input=f"{key}\n",
        text=True,
        capture_output=True,
        check=False,
    )


def test_a_revoked_identity_is_out_everywhere(world: World) -> None:
    thief, *others = world.tables
    wrong = revoke(world, thief, world.recovery_keys[others[0]])
    assert (wrong.returncode, list(world.root.glob("*.revocation"))) == (2, [])
    assert "not the recovery key" in wrong.stderr
    made = revoke(world, thief, world.recovery_keys[thief])
    assert made.returncode == 0
    assert world.recovery_keys[thief] not in made.stdout + made.stderr
    file = json.loads(made.stdout)["revocation"]

    said = call_json(
        "greylag-server", ["revoke", file, "--dir", str(world.lead), "--format", "json"]
    )
    assert said["firm"] == thief
    names = [item["name"] for item in world.status()["members"]]  # type: ignore[attr-defined]
    assert names == sorted(others)
    members = ["members", str(world.firm(others[0])), "--revocation", file, "--format", "json"]
    # This firm's list is that of the day it joined: the thief, who joined first, stands in it.
    assert call_json("greylag-client", members)["revoked"] == [thief]


@pytest.mark.slow
def test_a_firm_leaves_a_run_that_nobody_closes(world: World) -> None:
    world.set_pace(reply_offset_s=0.15)  # else the run is over before the command has started
    world.start_agent(*world.tables)
    run = world.start_training()
    world.wait_for_rounds(3)
    name = next(iter(world.tables))
    closed = call_json("greylag-client", ["close", str(world.firm(name)), run, "--format", "json"])
    assert closed["charged"] >= 3  # type: ignore[operator]
    ended = world.wait_for_end()
    assert ended["status"] == "done"  # the other four go on
    assert name not in ended["roster"]  # type: ignore[operator]
    (account,) = world.ledger(name).accounts()
    assert account.closed
