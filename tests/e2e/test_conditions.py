"""What goes wrong at real firms: what their people read, what was charged, how the agent ends.

More of this kind: removed firms and broken directories in ``test_agent_life``, expired
certificates in ``test_admission``, stolen identities in ``test_revocation``; leads that lie about
members in ``client/test_participant``, ``attacks/test_members``; invites in ``client/test_join``.
"""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from consortium_of_processes import World
from greylag_lab.processes import background, call_json, free_ports, program, wait_for_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]


class Agent:
    """One agent's process, what it says, and how it ends."""

    def __init__(
        self,
        world: World,
        directory: Path,
        *,
        approve: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        world_log = world.root / f"agent-{len(list(world.root.glob('agent-*')))}.log"
        command = [program("greylag-client"), "run", str(directory)]
        command += ["--approve-members", world.digest] if approve else []
        self._log = world_log
        with world_log.open("wb") as sink:
            self.process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)
        world.stack.callback(self.end)

    @property
    def said(self) -> str:
        return " ".join(self._log.read_text(errors="replace").split())

    def wait_for(self, text: str) -> str:
        return wait_until(lambda: (found := re.search(text, self.said)) and found[0], self._log)

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def wait_until(look: Callable[[], object], log: Path, seconds: float = 60) -> str:
    until_s = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until_s, log.read_text(errors="replace")[-3000:]
        time.sleep(0.1)
    return str(found)


def budget(directory: Path) -> dict[str, object]:
    (account,) = call_json("greylag-client", ["budget", str(directory), "--format", "json"])[
        "datasets"
    ]
    return dict(account)


def charged(directory: Path) -> list[int]:
    return [run["charged"] for run in budget(directory)["runs"]]  # type: ignore[attr-defined]


def test_a_plan_over_the_limit_and_a_list_that_nobody_approved(world: World) -> None:
    strict, unasked = [world.firm(name) for name in list(world.tables)[:2]]
    policy = strict / "policy.toml"
    policy.write_text(
        re.sub("max_epsilon_per_run = .*", "max_epsilon_per_run = 0.1", policy.read_text())
    )
    careful, new = Agent(world, strict), Agent(world, unasked, approve=False)
    world.start_training()
    said = careful.wait_for(r"refused \(policy\): policy.toml: max_epsilon_per_run = 0.1, .*")
    assert "change policy.toml" in said
    said = new.wait_for(r"membership epoch \d+ is not approved here.*--approve [0-9a-f]{64}")
    assert "greylag-client members" in said
    assert charged(strict) == charged(unasked) == []
    assert (careful.end(), new.end()) == (0, 0)


def test_a_copied_machine_and_a_lost_ledger(world: World) -> None:
    """Each is caught up from the log, one after the other; neither is spent anew."""
    name, *others = world.tables
    original, copy = world.firm(name), world.root / "copy"
    shutil.copytree(original, copy)  # on the day it joined
    world.start_agent(*others)
    first = Agent(world, original)
    world.start_training()
    world.wait_for_end()
    (before,) = charged(original)
    assert before == 60
    assert first.end() == 0
    second = Agent(world, copy)
    world.start_training()
    said = second.wait_for(r"62 entries behind the lead's log and was rebuilt.*?put it back")
    assert "it had been restored from an old copy, or was lost" in said
    wait_until(lambda: sum(charged(copy)) > before, world.root / "server.log")
    assert second.end() == 0
    spent = charged(copy)
    assert spent[0] == before
    for path in original.glob("ledger.sqlite*"):
        path.unlink()
    again = Agent(world, original)
    world.start_training()
    wait_until(lambda: "was rebuilt from them" in again.said, world.root / "server.log", 120)
    assert charged(original)[:2] == spent
    assert again.end() == 0


@pytest.mark.parametrize("shift", ["-1y", "+1y"])
def test_a_clock_that_is_a_year_off(world: World, shift: str) -> None:
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    directory = world.firm(next(iter(world.tables)))
    # Its own process would stand between the agent and signals.
    seen = subprocess.run(
        ["faketime", "-f", shift, "env", "-0"], capture_output=True, text=True, check=True
    )
    moved = dict(line.split("=", 1) for line in seen.stdout.split("\0") if line)
    agent = Agent(world, directory, environment=moved)
    world.start_training()
    said = agent.wait_for(r"(not connected to|does not show a certificate)[^;.]*.*")
    assert "clock" in said or "`greylag-client doctor`" in said
    looked = subprocess.run(
        [program("greylag-client"), "doctor", str(directory)],
        env=moved,
        capture_output=True,
        text=True,
        check=False,
    )
    assert looked.returncode == 1
    assert re.search("clock", looked.stdout)
    assert charged(directory) == []
    assert agent.end() == 0


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A disk of 4 MB at ``directory``."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(directory)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("this user may not mount a disk")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_full_disk_and_one_that_cannot_be_written(world: World) -> None:
    name, *others = world.tables
    with small_disk(world.root / "disk") as disk:
        directory = disk / name
        shutil.copytree(world.firm(name), directory)
        world.set_pace(reply_offset_s=0.1)
        world.start_agent(*others)
        agent = Agent(world, directory)
        world.start_training()
        world.wait_for_rounds(3)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):  # until the disk is full
            while file.write(bytes(4096)):
                pass
        said = agent.wait_for(r"the ledger could not be written.*?start the agent again")
        assert "nothing was sent" in said
        assert "disk space" in said
        filler.unlink()
        (paid,) = charged(directory)
        assert paid >= 3
        assert agent.end() == 0
        again = Agent(world, directory)
        again.wait_for("connected to the lead")
        run = world.wait_for_end()
        assert (run["status"], run["rounds"]) == ("done", 60)
        world.start_training()
        again.wait_for("accepted on main")
        wait_until(lambda: sum(charged(directory)) > paid + 3, world.root / "server.log")
        assert again.end() == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        stuck = Agent(world, directory)
        assert stuck.process.wait(60) == 2
        assert "Read-only file system" in stuck.said
        seen = budget(directory)  # it can be looked at all the same
        assert sum(charged(directory)) > paid + 3
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert budget(directory) == seen


def test_the_budget_of_a_read_only_disk_has_the_last_debits(world: World) -> None:
    """Whatever an agent that was killed, or a backup, left beside the ledger."""
    name, *others = world.tables
    with small_disk(world.root / "disk") as disk:
        directory = disk / name
        shutil.copytree(world.firm(name), directory)
        world.set_pace(reply_offset_s=0.1)
        world.start_agent(*others)
        agent = Agent(world, directory)
        world.start_training()
        world.wait_for_rounds(3)
        wait_until(lambda: sum(charged(directory)) >= 3, world.root / "server.log")
        maps = Path(f"/proc/{agent.process.pid}/maps").read_text()
        assert "libtorch" in maps
        # It trains, and holds in memory nothing that training does without.
        assert not re.search("/(scipy|sklearn|openpyxl|pint)/", maps)
        agent.process.kill()
        agent.process.wait(60)
        log = directory / "ledger.sqlite-wal"
        assert log.stat().st_size > 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        seen = charged(directory)
        assert sum(seen) >= 3
        # Without the log's index the log cannot be read there, and what lacks it is not shown.
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        log.with_name("ledger.sqlite-shm").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        looked = subprocess.run(
            [program("greylag-client"), "budget", str(directory)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert looked.returncode == 2
        assert "read-only or full disk" in " ".join(looked.stderr.split())
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert charged(directory) == seen


def test_another_consortiums_lead(world: World) -> None:
    other, (port, enrol_port) = world.root / "other", free_ports(2)
    ports = ["--port", str(port), "--enrol-port", str(enrol_port)]
    call_json("greylag-server", ["init", str(other), "--name", "other", *ports, "--format", "json"])
    log = world.root / "other.log"
    world.stack.enter_context(background("greylag-server", ["serve", "--dir", str(other)], log))
    wait_for_port(enrol_port, log)
    directory = world.firm(next(iter(world.tables)))
    settings = directory / "firm.toml"
    settings.write_text(
        settings.read_text()
        .replace(f"port = {world.port}", f"port = {port}")
        .replace(f"enrol_port = {world.enrol_port}", f"enrol_port = {enrol_port}")
    )
    agent = Agent(world, directory)
    said = agent.wait_for("does not show a certificate of this consortium; .*")
    assert "greylag-client doctor" in said
    assert charged(directory) == []
    assert agent.end() == 0
