"""A backup made while real processes train is put back: the lead goes on where it may, and stops
where going on would be a second history of the log."""

import shutil
import sqlite3
import time
from contextlib import closing

import pytest
from consortium_of_processes import World
from greylag_lab.processes import background, call_json

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]


def size(world: World) -> int:
    with closing(sqlite3.connect(world.lead / "log.sqlite")) as db:
        (found,) = db.execute("SELECT count(*) FROM entries").fetchone()
    return int(found)


def put_back(world: World, backup: str) -> None:
    """The lead's machine is lost; a backup takes its place."""
    shutil.rmtree(world.lead)
    words = [str(world.root / backup), str(world.lead), "--format", "json"]
    call_json("greylag-server", ["restore", *words])


def copy(world: World, name: str) -> int:
    words = [str(world.root / name), "--dir", str(world.lead), "--format", "json"]
    return int(call_json("greylag-server", ["backup", *words])["log_size"])


def test_an_old_copy_stops_and_a_full_one_goes_on(world: World) -> None:
    world.set_pace(rounds=12, reply_offset_s=0.2)
    world.start_agent(*world.tables)
    run = world.start_training()
    world.wait_for_rounds(2)
    early = copy(world, "early")  # while it trains
    world.wait_for_end()
    deadline_s = time.monotonic() + 60
    while not all(world.ledger(name).accounts()[0].closed for name in world.tables):
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    world.server.terminate()
    world.server.wait(60)
    full = copy(world, "full")
    assert early < full == size(world)

    put_back(world, "early")
    log_file = world.root / "restored.log"
    with background("greylag-server", ["serve", "--dir", str(world.lead)], log_file) as server:
        assert server.wait(90) != 0  # a firm connected and said what it saw
    said = " ".join(log_file.read_text().split())
    assert "second history" in said
    assert "greylag-server restore" in said
    assert size(world) == early  # nothing was added, so nothing was signed
    with background("greylag-server", ["serve", "--dir", str(world.lead)], log_file) as server:
        assert server.wait(90) != 0  # nor at the next start

    put_back(world, "full")
    world.start_server()
    second = world.start_training()
    deadline_s = time.monotonic() + 120
    while {item["run"]: item["status"] for item in world.status()["runs"]} != {  # type: ignore[attr-defined]
        run: "done",
        second: "done",
    }:
        assert time.monotonic() < deadline_s, (world.root / "server.log").read_text()[-2000:]
        time.sleep(0.3)
    world.check_books()
