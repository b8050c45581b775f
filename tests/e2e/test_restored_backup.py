"""An older copy of the ledger is put back while real processes train: it is rebuilt, the run goes
on, and nothing was refunded."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from consortium_of_processes import World
from greylag_client.ledger import Ledger, RunAccount, copied_ledger
from greylag_client.refusals import Refused

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]


def look(world: World, name: str) -> tuple[RunAccount, list[Refused]]:
    with copied_ledger(world.firm(name) / "ledger.sqlite") as ledger:
        (account,) = ledger.accounts()
        return account, ledger.refusals.newest()


def copy_ledger(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def test_an_agent_on_an_older_copy_of_its_ledger_is_caught_up(world: World) -> None:
    name, *others = world.tables
    world.set_pace(reply_offset_s=0.4)  # 60 rounds: time enough to start again before the 51st
    world.start_agent(*others)
    agent = world.start_agent(name)
    world.start_training()
    world.wait_for_rounds(2)
    ledger, backup = world.firm(name) / "ledger.sqlite", world.root / "backup.sqlite"
    copy_ledger(ledger, backup)
    world.wait_for_rounds(6)
    agent.terminate()
    assert agent.wait(60) == 0
    before, _ = look(world, name)
    for path in ledger.parent.glob("ledger.sqlite*"):
        path.unlink()
    copy_ledger(backup, ledger)
    assert look(world, name)[0].charged < before.charged
    world.start_agent(name)
    run = world.wait_for_end()
    assert (run["status"], run["rounds"]) == ("done", 60)
    account, notes = look(world, name)
    assert account.charged >= before.charged + 5  # it came back at the next rejoining round
    assert account.closed
    assert any("was rebuilt from them" in note.reason for note in notes)
    world.check_books()
    assert "was rebuilt from them" in " ".join((world.root / f"{name}.log").read_text().split())
    with closing(sqlite3.connect(world.lead / "log.sqlite")) as db:
        (tip,) = db.execute("SELECT seq FROM tips WHERE firm = ?", (name,)).fetchone()
    kept = Ledger(ledger)
    assert kept.tip().seq == tip
    kept.close_file()
