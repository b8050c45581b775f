"""A consortium of the real programs on this machine, for figures of whole runs."""

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from greylag_client.join import join
from greylag_lab.processes import background, call_json, free_ports, wait_for_port
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment


class Founded:
    """A consortium that is served; ``stack`` ends its processes.

    Args:
        root: an empty directory.
        plan: the text of the plan to be trained.
        through: a script that runs a program in its own way, ``python SCRIPT OUT PROGRAM ...``;
            each process has an ``OUT`` of its own (see ``outs``).
    """

    def __init__(
        self, root: Path, stack: ExitStack, *, plan: str, through: Path | None = None
    ) -> None:
        self.root, self.lead, self._stack, self._through = root, root / "lead", stack, through
        self.outs: list[Path] = []
        self.plan = root / "plan.toml"
        self.plan.write_text(plan, encoding="utf-8")
        port, enrol_port = free_ports(2)
        ports = ["--port", str(port), "--enrol-port", str(enrol_port)]
        init = ["init", str(self.lead), "--name", "bench", *ports, "--format", "json"]
        call_json("greylag-server", init)
        serve = ["serve", "--dir", str(self.lead), "--round-wait-s", "240"]
        self.server = self._start("greylag-server", serve, "server")
        wait_for_port(enrol_port, root / "server.log")
        self._enrolment = Enrolment(Consortium.open(self.lead))
        self._firms: list[Path] = []

    def join(self, name: str, table: Path) -> None:
        """A firm joins with its table, and approves the member list that it is shown."""
        invite = self._enrolment.invite(name, None, now_s=time.time())
        join(invite, self.root / name, data=table, approve_members="shown", now_s=time.time())
        self._firms.append(self.root / name)

    def start_agents(self, processes: int) -> "list[subprocess.Popen[bytes]]":
        """Agents of all firms, shared out over ``processes``."""
        digest = str(self._status()["membership"])
        return [
            self._start(
                "greylag-client",
                ["run", *map(str, self._firms[at::processes]), "--approve-members", digest],
                f"agents-{at}",
            )
            for at in range(processes)
        ]

    def train(self) -> None:
        """Queue the plan."""
        train = ["train", str(self.plan), "--dir", str(self.lead), "--no-wait"]
        call_json("greylag-server", [*train, "--format", "json"])

    def wait_for_end(self, *, rounds: int, timeout_s: float) -> dict[str, Any]:
        """The run, when it has gone through.

        Raises:
            RuntimeError: it has not.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            (run,) = self._status()["runs"]
            if run["status"] == "done" and run["rounds"] == rounds:
                return dict(run)
            if run["status"] in ("done", "failed") or time.monotonic() > until_s:
                raise RuntimeError(f"the run did not go through: {run}\n{self._last_words()}")
            time.sleep(0.5)

    def _status(self) -> dict[str, Any]:
        status = ["status", "--dir", str(self.lead), "--format", "json"]
        return dict(call_json("greylag-server", status))

    def _start(
        self, program: str, arguments: Sequence[str], name: str
    ) -> "subprocess.Popen[bytes]":
        log = self.root / f"{name}.log"
        if self._through is None:
            return self._stack.enter_context(background(program, arguments, log))
        out = self.root / f"{name}.json"
        self.outs.append(out)
        command = [sys.executable, str(self._through), str(out), program, *arguments]
        return self._stack.enter_context(background(command[0], command[1:], log))

    def _last_words(self) -> str:
        logs = sorted(self.root.glob("*.log"))
        return "\n".join(path.read_text(errors="replace")[-1500:] for path in logs)
