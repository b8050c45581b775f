"""Runs that are paused, resumed and cancelled: in the database first, obeyed between rounds."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consortium_in_memory import NOW_S, RUN, Consortium, make_terms, run_on
from greylag_protocols import log
from greylag_protocols.errors import ConfigError
from greylag_protocols.signing import parse_statement
from greylag_server import steering
from greylag_server.coordinator import Coordinator
from greylag_server.steering import PaceNote, overview
from greylag_server.store import Store


@pytest.fixture
def make_consortium(memory_path: Path) -> Callable[..., Consortium]:
    def make(**options: Any) -> Consortium:
        terms = options.pop("terms", None) or make_terms(rounds=6, max_attempts=9)
        return Consortium(memory_path, terms=terms, **options)

    return make


def at_round(number: int, act: Callable[[], None]) -> Callable[[Coordinator], None]:
    """Do something once, when so many rounds are done."""
    done: list[int] = []

    def watch(coordinator: Coordinator) -> None:
        if coordinator.rounds_done >= number and not done:
            done.append(1)
            act()

    return watch


def closed(store: Store) -> int:
    return sum(parse_statement(item).kind == log.CLOSED_KIND for item in store.entries())


def stop_when_held(coordinator: Coordinator, stop: threading.Event) -> None:
    if coordinator.held:
        stop.set()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greylag_server.app.RECONSIDER_S", 0.0)


@pytest.mark.usefixtures("quick")
def test_a_paused_run_is_held_by_the_next_process_too_and_goes_on(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium()
    store, stop = consortium.open_store(), threading.Event()
    ask = at_round(2, lambda: steering.pause(store, RUN, "ann", NOW_S))

    def watch(coordinator: Coordinator) -> None:
        ask(coordinator)
        stop_when_held(coordinator, stop)

    run_on(consortium.local_grid(), consortium.coordinator(store), watch=watch, stop=stop)
    held = store.run(RUN)
    assert held.status == "training"
    assert held.frame is None  # between two rounds
    assert 2 <= held.rounds_done < 6
    assert overview(store, RUN, now_s=NOW_S).status == "paused"
    assert steering.paused_runs(store) == {RUN}

    again, stop = consortium.coordinator(store), threading.Event()
    assert again.held
    run_on(
        consortium.local_grid(),
        again,
        watch=lambda coordinator: stop_when_held(coordinator, stop),
        stop=stop,
    )
    assert store.run(RUN).attempts == held.attempts

    steering.resume(store, RUN, "ann", NOW_S)
    last = consortium.coordinator(store)
    run_on(consortium.local_grid(), last)
    assert (last.status, last.rounds_done) == ("done", 6)
    assert overview(store, RUN, now_s=NOW_S).status == "done"


@pytest.mark.usefixtures("quick")
def test_a_cancelled_run_ends_early_and_every_firm_closes_it(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    watch = at_round(2, lambda: steering.cancel(store, RUN, "wrong  plan", "ann", NOW_S))
    run_on(consortium.local_grid(), coordinator, watch=watch)
    assert coordinator.status == "done"  # its rounds' model can be released
    assert coordinator.settled
    assert closed(store) == len(consortium.firms)
    view = overview(store, RUN, now_s=NOW_S)
    assert (view.status, view.reason) == ("cancelled", "cancelled by ann: wrong plan")
    assert 2 <= view.rounds < 6
    assert view.place == 0
    assert view.charges == dict.fromkeys(consortium.firms, view.attempts)
    with pytest.raises(ConfigError, match="over or cancelled"):
        steering.resume(store, RUN, "ann", NOW_S)


@pytest.mark.usefixtures("quick")
def test_a_paused_run_can_be_cancelled(make_consortium: Callable[..., Consortium]) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    steering.pause(store, RUN, "ann", NOW_S)
    paused = store.last_wish(RUN)

    def watch(coordinator: Coordinator) -> None:
        last = store.last_wish(RUN)
        if coordinator.held and coordinator.status == "training" and last == paused:
            steering.cancel(store, RUN, "no time", "ben", NOW_S)

    ended = consortium.coordinator(store)
    run_on(consortium.local_grid(), ended, watch=watch)
    assert (ended.status, ended.rounds_done) == ("failed", 0)
    assert overview(store, RUN, now_s=NOW_S).status == "cancelled"
    assert closed(store) == len(consortium.firms)


def test_what_was_cancelled_before_a_start_is_not_begun(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    steering.cancel(store, RUN, "no time", "ann", NOW_S)
    ended = consortium.coordinator(store)
    assert ended.obey() == []  # nobody is here to be told
    assert (ended.status, ended.rounds_done) == ("failed", 0)


def test_a_wish_needs_a_run_and_a_cancellation_a_reason(
    make_consortium: Callable[..., Consortium],
) -> None:
    store = make_consortium().open_store()
    with pytest.raises(ConfigError, match="known runs"):
        steering.pause(store, "nothing-1", "ann", NOW_S)
    for because in ("", "  ", "x" * 201, "a\x1bb"):
        with pytest.raises(ConfigError, match="why"):
            steering.cancel(store, RUN, because, "ann", NOW_S)
    assert store.last_wish(RUN) is None
    steering.pause(store, RUN, "ann", NOW_S)
    steering.pause(store, RUN, "ben", NOW_S)  # asked twice is asked once
    last = store.last_wish(RUN)
    assert last is not None
    assert last.who == "ann"


def test_the_queue_has_an_order_and_an_end_is_expected_from_the_pace(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    with store.transaction():
        store.queue_run("small-2", consortium.encoded, firms=3)
        store.set_status(RUN, "training")
        store.keep_pace(RUN, PaceNote(round_s=2.0, phases={"firms": 1.5}).encode())
    first, second = (overview(store, run, now_s=NOW_S) for run in (RUN, "small-2"))
    assert (first.place, second.place) == (1, 2)
    assert (first.expected_end_s, second.expected_end_s) == (NOW_S + 12.0, None)
    assert first.phases == {"firms": 1.5}
    assert second.status == "queued"
