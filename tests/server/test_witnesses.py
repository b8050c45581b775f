"""The firms as witnesses of the lead's log, over a whole run."""

import threading
from pathlib import Path

import pytest
from consortium_in_memory import NAME, PATIENCE, Consortium, make_terms, run_on
from greylag_protocols import log
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.merkle import root_of
from greylag_protocols.notes import verify_cosignature
from greylag_protocols.signing import parse_statement
from greylag_server import store as stores
from greylag_server.app import collect_cosignatures
from greylag_server.store import Store


@pytest.fixture
def consortium(memory_path: Path) -> Consortium:
    return Consortium(memory_path, terms=make_terms())


def identities(consortium: Consortium) -> dict[str, bytes]:
    return {name: firm.signer.public_key for name, firm in consortium.firms.items()}


def check(consortium: Consortium, store: Store) -> list[Checkpoint]:
    """The cosigned checkpoints, newest first: true beginnings of the log, signed by the firms."""
    leaves = store.leaf_hashes(0)
    for checkpoint, words in store.cosigned():
        assert checkpoint.root == root_of(leaves[: checkpoint.size])
        assert words
        for firm, word in words.items():
            verify_cosignature(checkpoint, word, identities(consortium)[firm])
    return [checkpoint for checkpoint, _ in store.cosigned()]


def show(consortium: Consortium, store: Store) -> int:
    return collect_cosignatures(
        consortium.local_grid(),
        store,
        consortium.lead,
        run=consortium.terms.run_id,
        identities=identities(consortium),
        wait_s=PATIENCE.close_s,
    )


def test_every_round_is_cosigned_by_its_roster(consortium: Consortium) -> None:
    store = consortium.open_store()
    run_on(consortium.local_grid(), consortium.coordinator(store))
    assert store.run(consortium.terms.run_id).status == "done"
    checkpoints = check(consortium, store)
    rounds = [
        position
        for position, entry in enumerate(store.entries())
        if parse_statement(entry).kind == log.ROUND_KIND
    ]
    # A round is bound to the log as it was after the round before; so the last one is not in.
    assert [item.size for item in checkpoints[:-1]] == [at + 1 for at in rounds[:-1]][::-1]
    assert all(len(words) == len(consortium.firms) for _, words in store.cosigned())
    assert show(consortium, store) == len(consortium.firms)
    assert check(consortium, store)[0] == store.checkpoint()


def test_of_old_cosignatures_only_some_are_kept(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "COSIGNED_KEPT", 2)
    store = consortium.open_store()
    run_on(consortium.local_grid(), consortium.coordinator(store))
    assert len(check(consortium, store)) == 2


def test_a_second_run_after_the_log_was_shown(memory_path: Path) -> None:
    consortium = Consortium(memory_path, terms=make_terms())
    store = consortium.open_store()
    run_on(consortium.local_grid(), consortium.coordinator(store))
    assert show(consortium, store) == len(consortium.firms)  # with entries that no round showed
    consortium.terms = make_terms(run="small-2")
    consortium.encoded = consortium.terms.encode()
    with store.transaction():
        store.queue_run("small-2", consortium.encoded, firms=len(consortium.firms))
        store.open_run("small-2", consortium.signed)
    run_on(consortium.local_grid(), consortium.coordinator(store))
    assert store.run("small-2").status == "done"
    assert [firm.ledger.refusals.newest(1) for firm in consortium.firms.values()] == [[]] * 4


def test_who_was_away_is_shown_what_it_missed(consortium: Consortium) -> None:
    store = consortium.open_store()
    run_on(consortium.local_grid(), consortium.coordinator(store))
    with store.transaction():
        store.append([next(iter(store.entries()))] * 3)
    assert show(consortium, store) == len(consortium.firms)
    assert check(consortium, store)[0].size == store.checkpoint().size


def test_a_lead_that_was_restored_is_found_out(consortium: Consortium) -> None:
    """Its log is shorter than what its firms saw, or grows into another one."""
    store = consortium.open_store()
    stop = threading.Event()

    def stop_early(coordinator: object) -> None:
        if store.run(consortium.terms.run_id).rounds_done == 2:
            stop.set()

    run_on(consortium.local_grid(), consortium.coordinator(store), watch=stop_early, stop=stop)
    backup = list(store.entries())
    coordinator = consortium.coordinator(store)
    run_on(consortium.local_grid(), coordinator)
    assert show(consortium, store) == len(consortium.firms)

    restored = Store(":memory:", origin=NAME)
    with restored.transaction():
        restored.append(backup)
    assert show(consortium, restored) == 0
    with restored.transaction():
        restored.append([backup[0]] * 100)
    assert show(consortium, restored) == 0
    told = {firm.ledger.refusals.newest(1)[0].reason for firm in consortium.firms.values()}
    assert len(told) == 1
    assert "does not hold what it held before" in told.pop()
