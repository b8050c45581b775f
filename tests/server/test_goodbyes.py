"""Whom the lead still waits for when a run is over."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from consortium_in_memory import make_terms
from enrolling_lead import DAY_S, Lead, serving
from greylag_server import service as served
from greylag_server.app import Patience
from greylag_server.coordinator import Coordinator
from greylag_server.service import Service, open_run, open_store

RUN = "over-1"


@pytest.fixture
def lead(tmp_path: Path) -> Iterator[Lead]:
    with serving(tmp_path / "lead", time.time() - 40 * DAY_S) as lead:
        yield lead


def end_run(lead: Lead, *firms: str) -> None:
    """A run of 40 days ago that these firms have not closed."""
    store, terms = open_store(lead.consortium), make_terms()
    with store.transaction():
        store.queue_run(RUN, terms.encode(), firms=3)
    signed = lead.enrolment.current_membership(lead.now_s)
    open_run(store, lead.consortium, RUN, signed)
    with store.transaction():
        for firm in firms:
            store.add_participant(RUN, firm, b"acceptance")
        store.set_status(RUN, "done")
    store.close()


def asked(lead: Lead, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The members of the runs for which the lead greets its firms."""
    greeted: list[tuple[str, ...]] = []

    def note(_: object, coordinator: Coordinator, __: Patience) -> None:
        greeted.append(tuple(coordinator.members))

    monkeypatch.setattr(served, "say_goodbye", note)
    path = lead.consortium.root / "consortium.toml"
    path.write_text(path.read_text().replace("7001", "0"))
    service = Service(lead.consortium.root, patience=Patience())
    try:
        service._say_goodbye()
    finally:
        service.close()
    return greeted


def test_a_member_is_waited_for_after_its_epoch_expired(
    lead: Lead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("north", "south", "west"):
        lead.join(name, tmp_path / name)
    end_run(lead, "north")
    assert asked(lead, monkeypatch) == [("north", "south", "west")]


def test_a_firm_that_left_is_not_waited_for(
    lead: Lead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("north", "south", "west"):
        lead.join(name, tmp_path / name)
    end_run(lead, "north")
    lead.enrolment.remove("north", now_s=lead.now_s, how="left")
    lead.join("north", tmp_path / "again")  # another identity, which knows nothing of that run
    assert asked(lead, monkeypatch) == []
