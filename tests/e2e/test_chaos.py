"""Everything goes wrong, by a seed: and at the end models, budgets and log tell one story.

Agents are killed, frozen, cut off, and started with clocks that are wrong; the coordinator is
killed ten times. ``GREYLAG_CHAOS_S`` says how long (default 240 seconds, 1,800 at most),
``GREYLAG_CHAOS_SEED`` which chaos. Runs may fail under it, since a firm that voids two attempts is
out; what they did must hold all the same, and a last run, left in peace, must go through.
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from consortium_of_processes import PLAN, World
from greylag_lab.processes import background, call_json, program

SECONDS = min(1800.0, float(os.environ.get("GREYLAG_CHAOS_S", "240")))
SEED = int(os.environ.get("GREYLAG_CHAOS_SEED", "7"))
FIRMS = 8
KILLS_OF_LEAD = 10
WRONG_CLOCKS = ("+40d", "-40d", "+20m")
LONGEST_S = 6.0  # of a firm's outage
TROUBLED = 0.25  # of the looks, one or so a second: a firm that voids two attempts is out

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600 + 2 * SECONDS)]


class Cable:
    """A firm's line to the lead, which can be cut."""

    def __init__(self, to: int) -> None:
        self._to, self._ends = to, list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._whole = threading.Event()
        self._whole.set()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def cut(self) -> None:
        self._whole.clear()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits for a caller
        self.cut()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    if not self._whole.is_set():
                        raise ConnectionError
                    far = socket.create_connection(("127.0.0.1", self._to), timeout=5)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self._ends += [near, far]
                for source, sink in ((near, far), (far, near)):
                    self._begin(_pump, source, sink)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with source:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Chaos:
    """Troubles, drawn by a seed, and what they are done to."""

    def __init__(self, world: World) -> None:
        self.world, self.dice = world, random.Random(SEED)
        self.cables: dict[str, Cable] = {}
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self.server = world.server
        self.done: list[str] = []
        self._mends: list[tuple[float, str]] = []
        for name in world.tables:
            self.cables[name] = Cable(world.port)
            settings = world.firm(name) / "firm.toml"
            text, count = re.subn(
                rf"(?m)^port = {world.port}$",
                f"port = {self.cables[name].port}",
                settings.read_text(),
            )
            assert count == 1
            settings.write_text(text)
            policy = world.firm(name) / "policy.toml"
            text = policy.read_text()
            for key, value in (("lifetime_epsilon", "10.0"), ("lifetime_delta", "1e-4")):
                assert f"{key} = {value}" in text
                text = text.replace(f"{key} = {value}", f"{key} = {float(value) * 99}", 1)
            policy.write_text(text.replace("max_roster_changes = 8", "max_roster_changes = 90"))
            self.start(name)

    def start(self, name: str, clock: str | None = None) -> None:
        """An agent, by a clock that is so far off."""
        arguments = ["run", str(self.world.firm(name)), "--approve-members", self.world.digest]
        log = self.world.root / f"{name}-{len(self.done)}.log"
        command = "greylag-client"
        if clock is not None:
            command = str(shutil.which("env"))  # faketime itself would stay between us and it
            arguments = [*_wrong_clock(clock), program("greylag-client"), *arguments]
        self.agents[name] = self.world.stack.enter_context(background(command, arguments, log))

    def kill(self, name: str) -> None:
        agent = self.agents[name]
        agent.send_signal(signal.SIGCONT)
        agent.kill()
        agent.wait()

    def trouble(self) -> None:
        """One more."""
        busy = {name for _, name in self._mends}
        free = sorted(set(self.agents) - busy)
        kinds = ["kill", "freeze", "cut"] + (["clock"] if shutil.which("faketime") else [])
        if len(busy) > 2 or not free:
            return
        name, kind = self.dice.choice(free), self.dice.choice(kinds)
        if kind == "kill":
            self.kill(name)
        elif kind == "freeze":
            self.agents[name].send_signal(signal.SIGSTOP)
        elif kind == "cut":
            self.cables[name].cut()
        else:
            self.kill(name)
            self.start(name, self.dice.choice(WRONG_CLOCKS))
        self.done.append(kind)
        self._mends.append((time.monotonic() + self.dice.uniform(0.5, LONGEST_S), name))

    def mend(self, *, everything: bool = False) -> None:
        """End the troubles whose time is over."""
        now_s = time.monotonic()
        for item in list(self._mends):
            if everything or item[0] <= now_s:
                self._mends.remove(item)
                name = item[1]
                self.cables[name].mend()
                self.agents[name].send_signal(signal.SIGCONT)
                if self.agents[name].poll() is not None or "FAKETIME=" in str(
                    self.agents[name].args
                ):
                    self.kill(name)
                    self.start(name)

    def kill_lead(self) -> None:
        self.server.kill()
        self.server.wait()
        self.server = self.world.start_server()
        self.done.append("lead")


def test_one_story_after_chaos(tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = World(tmp_path, stack, firms=FIRMS, round_wait_s=3)
        chaos = Chaos(world)
        for cable in chaos.cables.values():
            stack.callback(cable.close)
        world.plan.write_text(
            PLAN.replace("rounds = 60", "rounds = 100\nreply_offset_s = 0.1").replace(
                "min_firms = 4", "min_firms = 4\nmax_attempts = 200"
            )
        )
        runs = [_train(world)]
        _wait_for(world, runs[0], "training")
        started_s, kills = time.monotonic(), 0
        while (elapsed_s := time.monotonic() - started_s) < SECONDS:
            chaos.mend()
            if chaos.dice.random() < TROUBLED:
                chaos.trouble()
            if kills < KILLS_OF_LEAD * elapsed_s / SECONDS:
                kills += 1
                chaos.kill_lead()
            if _status(world, runs[-1])[0] in ("done", "failed"):
                runs.append(_train(world))
            time.sleep(chaos.dice.uniform(0.2, 1.5))
        while kills < KILLS_OF_LEAD:
            kills += 1
            chaos.kill_lead()
        chaos.mend(everything=True)
        runs.append(_train(world))
        last = _wait_for(world, runs[-1], "done", "failed")
        told = {kind: chaos.done.count(kind) for kind in sorted(set(chaos.done))}
        outcomes = [_status(world, run) for run in runs]
        sys.stderr.write(f"troubles: {told}; runs (status, rounds, attempts): {outcomes}\n")
        assert last == "done", (world.root / "server.log").read_text()[-3000:]
        assert told["lead"] == KILLS_OF_LEAD
        assert told.keys() >= {"kill", "freeze", "cut"}
        world.check_books()
        _agree_on_statements(world)
        _audit(world, [run for run, item in zip(runs, outcomes, strict=True) if item[1]])


def _wrong_clock(shift: str) -> list[str]:
    """What faketime sets in a program's environment."""
    shown = subprocess.run(
        ["faketime", "-f", shift, "env", "-0"], capture_output=True, text=True, check=True
    )
    return [item for item in shown.stdout.split("\0") if item.startswith(("FAKETIME", "LD_PREL"))]


def _status(world: World, run: str) -> tuple[str, int, int]:
    """Status, rounds and attempts, from the lead's database: a program would take a second."""
    with closing(sqlite3.connect(world.lead / "log.sqlite", timeout=10)) as db:
        query = "SELECT status, rounds_done, attempts FROM runs WHERE run = ?"
        status, rounds, attempts = db.execute(query, (run,)).fetchone()
    return str(status), int(rounds), int(attempts)


def _train(world: World) -> str:
    """A run that begins without the last two firms, who may be in trouble just then."""
    train = ["train", str(world.plan), "--dir", str(world.lead), "--firms", str(FIRMS - 2)]
    return str(call_json("greylag-server", [*train, "--no-wait", "--format", "json"])["run"])


def _wait_for(world: World, run: str, *wanted: str) -> str:
    until_s = time.monotonic() + 300
    while (status := _status(world, run)[0]) not in wanted:
        assert time.monotonic() < until_s, (world.root / "server.log").read_text()[-3000:]
        time.sleep(0.5)
    return status


def _agree_on_statements(world: World) -> None:
    """The lead's statement of each firm counts what the firm's own ledger does."""
    out = world.root / "statements"
    close = ["statement", "--close", "2026-11", "--out", str(out), "--dir", str(world.lead)]
    call_json("greylag-server", [*close, "--format", "json"])
    for name in world.tables:
        path = out / f"{name}-2026-11.json"
        shown = ["statement", str(path), str(world.firm(name)), "--format", "json"]
        facts = call_json("greylag-client", shown)
        charged = sum(account.charged for account in world.ledger(name).accounts())
        assert sum(item["attempts"] for item in facts["statement"]["runs"]) == charged
        assert facts["agrees"] is True


def _audit(world: World, runs: list[str]) -> None:
    """A stranger finds every run's promises kept, and its model to follow from the logged sums."""
    trust, ledger = world.root / "trust.json", world.root / "ledger.jsonl"
    firm = next(iter(world.tables))
    export = ["export-trust", str(world.firm(firm)), "--out", str(trust), "--ledger", str(ledger)]
    call_json("greylag-client", [*export, "--format", "json"])
    for run in runs:
        bundle = world.root / f"bundle-{run}"
        call_json(
            "greylag-server",
            ["bundle", run, str(bundle), "--dir", str(world.lead), "--format", "json"],
        )
        for command in (
            ["verify", str(bundle), "--trust", str(trust), "--ledger", str(ledger)],
            ["replay", str(bundle)],
        ):
            ended = subprocess.run(
                [program("greylag-audit"), *command, "--format", "json"],
                capture_output=True,
                text=True,
                check=False,
            )
            facts = json.loads(ended.stdout or "{}")
            assert ended.returncode == 0, (run, command[0], facts, ended.stderr[-2000:])
