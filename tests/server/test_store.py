"""The lead's database: all or nothing, append-only, and as it was after a restart."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from greylag_protocols.errors import ConfigError
from greylag_protocols.log import ChainTip
from greylag_protocols.membership import SignedMembership
from greylag_protocols.merkle import EMPTY_ROOT, hash_leaf, root_of
from greylag_protocols.optimiser import ModelState
from greylag_server.store import Store


@pytest.fixture
def path(memory_path: Path) -> Path:
    return memory_path / "log.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path, origin="glass")
    yield store
    store.close()


def make_state(rounds_done: int = 3) -> ModelState:
    rng = np.random.default_rng(rounds_done)
    return ModelState(
        rounds_done=rounds_done,
        weights=rng.normal(size=7),
        first=rng.normal(size=7),
        second=rng.normal(size=7),
        average=rng.normal(size=7),
        bias_first=0.9**rounds_done,
        bias_second=0.999**rounds_done,
    )


def test_the_log_is_the_tree_over_its_entries(store: Store, path: Path) -> None:
    assert store.checkpoint().root == EMPTY_ROOT
    leaves: list[bytes] = []
    for batch in ([b"one"], [b"two", b"three"], [], [b"four", b"five"]):
        with store.transaction():
            store.append(batch)
        leaves += batch
        again = Store(path, origin="glass")
        checkpoint = again.checkpoint()
        assert checkpoint == store.checkpoint()
        assert (checkpoint.origin, checkpoint.size) == ("glass", len(leaves))
        assert checkpoint.root == root_of([hash_leaf(leaf) for leaf in leaves])
        assert list(again.entries()) == leaves
        again.close()
    assert list(store.entries(3)) == [b"four", b"five"]


def write_much_and_fail(store: Store) -> None:
    with store.transaction():
        store.append([b"two"])
        store.keep(b"d" * 32, b"content")
        store.set_tip("firm-a", ChainTip(seq=2, head=b"i" * 32))
        store.save_state("run-1", make_state(2))
        store.save_attempt("run-1", 7, ["firm-a"], b"frame")
        store.count_void("run-1", "firm-a")
        store.set_status("run-1", "failed", "why")
        raise ZeroDivisionError


def test_an_exception_inside_leaves_log_and_state_as_they_were(store: Store) -> None:
    with store.transaction():
        store.queue_run("run-1", b"terms", firms=3)
        store.save_state("run-1", make_state(1))
        store.append([b"one"])
        store.set_tip("firm-a", ChainTip(seq=1, head=b"h" * 32))
        store.add_participant("run-1", "firm-a", b"acceptance")
    before = store.checkpoint()
    with pytest.raises(ZeroDivisionError):
        write_much_and_fail(store)
    assert store.checkpoint() == before
    assert list(store.entries()) == [b"one"]
    assert store.artefact(b"d" * 32) is None
    assert store.tip("firm-a") == ChainTip(seq=1, head=b"h" * 32)
    run = store.run("run-1")
    assert run.state is not None
    assert run.state.digest() == make_state(1).digest()
    assert (run.attempts, run.frame, run.status, run.reason) == (0, None, "queued", "")
    assert store.participants("run-1")[0].voids == 0
    with store.transaction():  # and the next one works
        store.append([b"two"])
    assert list(store.entries()) == [b"one", b"two"]


def test_a_process_that_dies_inside_leaves_nothing(store: Store, path: Path) -> None:
    """What another connection sees before the end of a transaction is what a crash would leave."""
    with store.transaction():
        store.append([b"one"])
    with store.transaction():
        store.append([b"two"])
        other = Store(path, origin="glass")
        assert list(other.entries()) == [b"one"]
        assert other.checkpoint().size == 1
        other.close()
    assert store.checkpoint().size == 2


def test_commits_wait_for_the_disk(store: Store) -> None:
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("change", ["UPDATE entries SET envelope = x'00'", "DELETE FROM entries"])
def test_entries_cannot_be_changed(store: Store, path: Path, change: str) -> None:
    with store.transaction():
        store.append([b"one"])
    other = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute(change)
    other.close()
    assert list(store.entries()) == [b"one"]


def test_an_artefact_stays_as_it_was_first_kept(store: Store) -> None:
    with store.transaction():
        store.keep(b"d" * 32, b"first")
        store.keep(b"d" * 32, b"second")
    assert store.artefact(b"d" * 32) == b"first"


def test_a_run_comes_back_as_it_was_left(store: Store, path: Path) -> None:
    signed = SignedMembership(document=b"document", statement=b"statement")
    with store.transaction():
        store.queue_run("glass-tg-1", b"terms", firms=4)
        store.open_run("glass-tg-1", signed)
        store.save_state("glass-tg-1", make_state())
        store.set_status("glass-tg-1", "training")
        store.save_attempt("glass-tg-1", 5, ["firm-a", "firm-b"], b"frame")
    again = Store(path, origin="glass")
    run = again.run("glass-tg-1")
    assert (run.status, run.firms, run.attempts) == ("training", 4, 5)
    assert (run.roster, run.frame, run.retrying) == (("firm-a", "firm-b"), b"frame", False)
    assert run.membership == signed
    assert run.state is not None
    assert run.state.digest() == make_state().digest()
    assert run.rounds_done == 3
    with again.transaction():
        again.end_attempt("glass-tg-1", ["firm-a"], retrying=True)
    run = store.run("glass-tg")  # by its plan's name, from the first connection
    assert (run.roster, run.frame, run.retrying) == (("firm-a",), None, True)
    again.close()


def test_a_reason_survives_a_later_status(store: Store) -> None:
    with store.transaction():
        store.queue_run("run-1", b"terms", firms=3)
        store.set_status("run-1", "closing", "max_attempts used up")
        store.set_status("run-1", "done")
    assert store.run("run-1").reason == "max_attempts used up"


def test_runs_are_taken_up_oldest_first_until_they_are_over(store: Store) -> None:
    with store.transaction():
        for name in ("one-1", "two-1"):
            store.queue_run(name, b"terms", firms=3)
    order = []
    for status in ("done", "failed"):
        run = store.next_run()
        assert run is not None
        order.append(run.run)
        with store.transaction():
            store.set_status(run.run, status)
    assert order == ["one-1", "two-1"]
    assert store.next_run() is None


def test_an_unknown_or_ambiguous_run_lists_the_known_ones(store: Store) -> None:
    with pytest.raises(ConfigError, match="none yet"):
        store.run("one")
    with store.transaction():
        for name in ("one-1", "one-2"):
            store.queue_run(name, b"terms", firms=3)
    with pytest.raises(ConfigError, match="one-1, one-2"):
        store.run("one")


def test_participants_keep_their_voids_and_goodbyes(store: Store) -> None:
    with store.transaction():
        store.add_participant("run-1", "firm-b", b"b")
        store.add_participant("run-1", "firm-a", b"a")
        store.add_participant("run-1", "firm-a", b"another")  # the first acceptance counts
        store.count_void("run-1", "firm-a")
        store.set_closed("run-1", "firm-b")
    first, second = store.participants("run-1")
    assert (first.firm, first.acceptance, first.voids, first.closed) == ("firm-a", b"a", 1, False)
    assert (second.firm, second.voids, second.closed) == ("firm-b", 0, True)
    assert store.participants("run-2") == []


def test_threads_that_write_at_once_wait_for_each_other(store: Store) -> None:
    inside, told = threading.Event(), []

    def other() -> None:
        inside.wait(10)
        with store.transaction():
            store.append([b"second"])
            told.append(store.checkpoint().size)

    thread = threading.Thread(target=other)
    thread.start()
    with store.transaction():
        inside.set()
        time.sleep(0.05)  # long enough for the other to try
        store.append([b"first"])
    thread.join(10)
    assert told == [2]
    assert list(store.entries()) == [b"first", b"second"]
