"""The long-lived agent as a real process: proxies, outages, signals, firms that are broken."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from connect_proxy import connect_proxy
from consortium_of_processes import World
from greylag_lab.processes import call, call_json, program

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]


def wait_until(true: Callable[[], object], log: Path, seconds: float = 60) -> None:
    until_s = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until_s, log.read_text()[-3000:]
        time.sleep(0.05)


def log_of(world: World, *names: str) -> Path:
    return world.root / f"{'-'.join(names)}.log"


def connections(log: Path) -> list[str]:
    """The firms whose agents said that they are connected, as often as they said it."""
    return re.findall(r"(\S+): connected to the lead", log.read_text())


def end(process: "subprocess.Popen[bytes]") -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(60)


def test_a_whole_run_through_a_proxy_while_the_lead_is_killed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_proxy(account="anna:hush-hush") as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("GREYLAG_PROXY_USER", "anna")
        monkeypatch.setenv("GREYLAG_PROXY_PASSWORD", "hush-hush")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        agent, log = world.start_agent(*world.tables), log_of(world, *world.tables)
        world.start_training()
        world.wait_for_rounds(10)
        assert sorted(proxy.opened) == [f"localhost:{world.port}"] * len(world.tables)
        world.server.send_signal(signal.SIGKILL)
        world.server.wait()
        world.server = world.start_server()
        run = world.wait_for_end()
        assert (run["status"], run["rounds"]) == ("done", 60)
        # The lead's second process saw every firm once, and each of them by the proxy.
        seen = (world.root / "server.log").read_text().count(" connected")
        assert seen >= len(world.tables)
        assert len(proxy.opened) >= len(world.tables) + seen
        assert set(proxy.opened) == {f"localhost:{world.port}"}
        assert end(agent) == 0
    assert "hush-hush" not in log.read_text()
    world.check_books()


def test_a_frozen_agent_comes_back(world: World) -> None:
    world.set_pace(rounds=80, reply_offset_s=0.2)
    frozen_name, *others = world.tables
    frozen = world.start_agent(frozen_name)
    world.start_agent(*others)
    world.start_training()
    world.wait_for_rounds(5)
    frozen.send_signal(signal.SIGSTOP)
    try:
        # The lead gives it up, and goes on with the others.
        world.wait_for_rounds(world.rounds_done() + 5)
    finally:
        frozen.send_signal(signal.SIGCONT)
    run = world.wait_for_end()
    assert (run["status"], run["rounds"]) == ("done", 80)
    assert run["roster"] == sorted(world.tables), "it came back at the 50th round"
    world.check_books()


def test_sigterm_finishes_the_answer_under_way(world: World) -> None:
    # An offset of two seconds: whenever the signal comes, an answer is under way.
    world.set_pace(rounds=8, reply_offset_s=2.0)
    told, *others = world.tables
    agent = world.start_agent(told)
    world.start_agent(*others)
    world.start_training()
    world.wait_for_rounds(2)
    time.sleep(0.5)
    before = world.ledger(told).accounts()[0].charged
    assert end(agent) == 0
    assert world.ledger(told).accounts()[0].charged == before, "a new answer was begun"
    world.wait_for_rounds(3)  # with the answer that was finished: no attempt was lost
    again = world.start_agent(told)
    world.wait_for_end()
    world.check_books()
    # Told to end while it is frozen, it ends as soon as it wakes up.
    again.send_signal(signal.SIGSTOP)
    again.send_signal(signal.SIGTERM)
    again.send_signal(signal.SIGCONT)
    assert again.wait(60) == 0


def test_a_second_signal_ends_at_once(world: World) -> None:
    world.set_pace(rounds=3, reply_offset_s=25.0)
    agent, log = world.start_agent(*world.tables), log_of(world, *world.tables)
    world.start_training()
    name = next(iter(world.tables))
    wait_until(lambda: any(item.charged for item in world.ledger(name).accounts()), log)
    agent.send_signal(signal.SIGTERM)
    wait_until(lambda: "a second signal ends at once" in log.read_text(), log)
    assert agent.poll() is None
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(10) == 1


def test_a_broken_firm_neither_stops_nor_hides_the_others(world: World) -> None:
    sound, broken = list(world.tables)[:2]
    policy = world.firm(broken) / "policy.toml"
    right = policy.read_text()
    policy.write_text("lifetime_epsilon = 'much'\n")
    agent, log = world.start_agent(sound, broken), log_of(world, sound, broken)
    wait_until(lambda: connections(log) == [sound], log)
    time.sleep(3)  # it is looked at again meanwhile
    said = [line for line in log.read_text().splitlines() if "does not run" in line]
    assert len(said) == 1
    assert str(world.firm(broken)) in said[0]
    # A look at the firm does not take the running agent's place.
    looked = call_json("greylag-client", ["doctor", str(world.firm(sound)), "--format", "json"])
    assert looked["ok"], looked
    policy.write_text(right)
    wait_until(lambda: connections(log) == [sound, broken], log)
    refused = subprocess.run(
        [program("greylag-client"), "run", str(world.firm(sound))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "agent is running" in " ".join(refused.stderr.split())
    assert end(agent) == 0
    assert connections(log) == [sound, broken]


def test_nothing_to_run(world: World) -> None:
    first, second = [world.firm(name) for name in list(world.tables)[:2]]
    (first / "policy.toml").write_text("")
    (second / "keys" / "identity.key").write_bytes(b"")

    def run(*directories: Path, cwd: Path) -> tuple[int, str]:
        ended = subprocess.run(
            [program("greylag-client"), "run", *map(str, directories)],
            capture_output=True, text=True, check=False, cwd=cwd, timeout=60,
        )  # fmt: skip
        return ended.returncode, " ".join(ended.stderr.split())

    code, said = run(first, second, cwd=world.root)
    assert code == 1
    assert "policy.toml" in said
    assert "identity.key" in said
    code, said = run(cwd=world.root)
    assert code == 2
    assert "not a firm's directory" in said
    code, said = run(cwd=first)
    assert code == 2
    assert "policy.toml" in said


def test_systemd_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(world.tables))
    with ExitStack() as stack:
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        manager.settimeout(60)
        address = f"@greylag-test-{os.getpid()}"
        manager.bind("\0" + address[1:])
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        agent = world.start_agent(name)
        assert manager.recv(1000).startswith(b"READY=1\n")
        assert manager.recv(1000) == b"WATCHDOG=1"
        agent.send_signal(signal.SIGTERM)
        states = []
        while b"STOPPING=1" not in states:
            states.append(manager.recv(1000))
        assert set(states) <= {b"WATCHDOG=1", b"STOPPING=1"}
        assert agent.wait(60) == 0


def test_a_firm_that_was_removed_is_told_so_once(world: World) -> None:
    gone, *others = list(world.tables)[:2]
    call("greylag-server", ["remove", gone, "--dir", str(world.lead)])
    agent, log = world.start_agent(gone, *others), log_of(world, gone, *others)
    wait_until(lambda: "refuses this firm" in log.read_text(), log)
    wait_until(lambda: connections(log) == others, log)
    time.sleep(4)  # it dials again meanwhile
    assert log.read_text().count("refuses this firm") == 1
    assert connections(log) == others
    assert end(agent) == 0
