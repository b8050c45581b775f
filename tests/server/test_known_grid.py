"""A lead that lost the end of its log is stopped by the first firm that saw it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consortium_in_memory import Consortium, make_terms, run_on
from greylag_protocols.errors import ConfigError
from greylag_server.grid_messages import firm_part, node_id
from greylag_server.known_grid import KnownGrid, check_ahead
from greylag_server.store import Store


@pytest.fixture
def make_consortium(memory_path: Path) -> Callable[..., Consortium]:
    def make(**options: Any) -> Consortium:
        return Consortium(memory_path, terms=make_terms(), **options)

    return make


def known(consortium: Consortium, store: Store) -> KnownGrid:
    return KnownGrid(consortium.local_grid(), store, lambda: list(consortium.firms))


def shorter(store: Store, path: Path, entries: int) -> Store:
    """The lead as it was when its log was that short, with the newest keys."""
    old = Store(path, origin="glass")
    with old.transaction():
        old.append(list(store.entries())[:entries])
    return old


def test_firms_that_saw_no_more_than_there_is_are_let_in(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    run_on(known(consortium, store), coordinator)
    assert (coordinator.status, coordinator.rounds_done) == ("done", 4)
    grid = known(consortium, store)
    grid.wait_for(consortium.firms, wait_s=30, stop=threading.Event())
    assert {firm_part(node) for node in grid.get_node_ids()} == {
        firm_part(node_id(name)) for name in consortium.firms
    }
    check_ahead(store, consortium.firms)


def test_a_lead_put_back_from_a_copy_stops_before_it_signs(
    make_consortium: Callable[..., Consortium], tmp_path: Path
) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    run_on(consortium.local_grid(), consortium.coordinator(store))
    seen = max(firm.ledger.witness.sight().edge.size for firm in consortium.firms.values())
    old = shorter(store, tmp_path / "old.sqlite", seen - 1)
    before = {name: firm.ledger.witness.sight() for name, firm in consortium.firms.items()}
    with pytest.raises(ConfigError, match="second history"):
        known(consortium, old).wait_for(consortium.firms, wait_s=30, stop=threading.Event())
    assert old.checkpoint().size == seen - 1
    assert before == {name: firm.ledger.witness.sight() for name, firm in consortium.firms.items()}
    with pytest.raises(ConfigError, match="saw"):
        check_ahead(old, consortium.firms)  # also at the next start, with nobody connected
    check_ahead(old, [])  # whoever said so is no member any more


def test_the_lead_goes_on_once_it_has_the_rest(
    make_consortium: Callable[..., Consortium], tmp_path: Path
) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    run_on(consortium.local_grid(), consortium.coordinator(store))
    old = shorter(store, tmp_path / "old.sqlite", 3)
    with old.transaction():
        old.keep_ahead(next(iter(consortium.firms)), store.checkpoint().size)
    with pytest.raises(ConfigError, match=next(iter(consortium.firms))):
        check_ahead(old, consortium.firms)
    with old.transaction():
        old.append(list(store.entries())[3:])
    check_ahead(old, consortium.firms)
    known(consortium, old).wait_for(consortium.firms, wait_s=30, stop=threading.Event())
