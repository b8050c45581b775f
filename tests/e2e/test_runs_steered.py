"""Real processes: a run is paused, its lead killed, resumed and cancelled; metrics are scraped."""

import json
import time
import urllib.request
from collections.abc import Callable

import pytest
from consortium_of_processes import World
from greylag_lab.processes import call_json, free_ports
from prometheus_client.parser import text_string_to_metric_families

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def ask(world: World, *words: str) -> dict[str, object]:
    return call_json("greylag-server", [*words, "--dir", str(world.lead), "--format", "json"])


def wait_until(true: Callable[[], bool], world: World) -> None:
    until_s = time.monotonic() + 90
    while not true():
        assert time.monotonic() < until_s, (world.root / "server.log").read_text()[-2000:]
        time.sleep(0.1)


def between_rounds(world: World) -> bool:
    """No round came in a while in which several would have."""
    before = world.rounds_done()
    time.sleep(1.5)
    return world.rounds_done() == before


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        sample.name + "".join(sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_a_run_is_steered_and_what_was_asked_survives_a_kill(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("GREYLAG_SERVER_METRICS_PORT", str(port))
    monkeypatch.setenv("GREYLAG_SERVER_LOG_FORMAT", "json")
    world.server.terminate()
    world.server.wait(60)
    server = world.start_server()
    world.set_pace(rounds=60, reply_offset_s=0.2)
    world.start_agent(*world.tables)
    run = world.start_training()
    world.wait_for_rounds(3)
    assert ask(world, "pause", run)["status"] == "paused"
    wait_until(lambda: between_rounds(world), world)
    done = world.rounds_done()
    seen = scrape(port)
    assert seen["greylag_rounds_total"] == done
    assert seen["greylag_attempts_totalcomplete"] == done
    assert seen["greylag_attempts_totalvoid"] == 0
    assert seen["greylag_connected_firms"] == len(world.tables)
    assert seen["greylag_log_entries"] == world.status()["log_size"]
    assert seen["greylag_bytes_received_total"] > 0
    assert seen["greylag_round_seconds_countfirms"] == done
    assert seen["greylag_round_seconds_sumfirms"] > 0.2 * done  # the terms' reply offset

    server.kill()
    server.wait(60)
    for line in (world.root / "server.log").read_text().splitlines():
        assert {"event", "level", "logger", "timestamp"} <= json.loads(line).keys()
    server = world.start_server()
    wait_until(lambda: between_rounds(world), world)
    assert world.rounds_done() == done
    view = ask(world, "status", run)
    assert (view["status"], view["place"]) == ("paused", 1)
    assert view["charges"] == dict.fromkeys(world.tables, done)

    ask(world, "resume", run)
    world.wait_for_rounds(done + 3)
    ask(world, "cancel", run, "--because", "the plan was wrong")
    server.kill()  # perhaps before it looked
    server.wait(60)
    world.start_server()
    wait_until(lambda: ask(world, "status", run)["status"] == "cancelled", world)
    wait_until(lambda: all(world.ledger(name).accounts()[0].closed for name in world.tables), world)
    view = ask(world, "status", run)
    assert "the plan was wrong" in str(view["reason"])
    assert done + 3 <= int(str(view["rounds"])) < 60
    world.check_books()


@pytest.mark.slow
def test_queued_runs_go_one_after_the_other(world: World) -> None:
    world.set_pace(rounds=5)
    first, second, third = (world.start_training() for _ in range(3))
    ask(world, "cancel", second, "--because", "not needed")
    world.start_agent(*world.tables)
    wait_until(
        lambda: (
            {item["run"]: item["status"] for item in world.status()["runs"]}  # type: ignore[attr-defined]
            == {first: "done", second: "cancelled", third: "done"}
        ),
        world,
    )
    assert ask(world, "status", second)["charges"] == {}
