"""The agent's process: the firms that it runs, their threads, and how it starts and ends.

Firms in one process do not depend on each other. The main thread looks after all of them: a firm
that cannot start, or whose threads ended by an error, is started again after a growing wait.
"""

import logging
import os
import queue
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType

import torch
from greylag_protocols.accounting import leave_sums_to
from greylag_protocols.errors import ConfigError, GreylagError

from greylag_client.accounting_child import AccountingChild
from greylag_client.composition import make_participant
from greylag_client.firm import FirmDirectory
from greylag_client.gate import Gate
from greylag_client.identity import identity_of
from greylag_client.link import FAREWELL_S, FINISH_S, keep_connected
from greylag_client.local_door import AGENT_BYTES, LocalDoor, door_path
from greylag_client.page.connection import LinkWatch
from greylag_client.page.view import Connection
from greylag_client.participant import Participant
from greylag_client.pause import current_policy
from greylag_client.proxy import join_address
from greylag_client.renewal import keep_renewed
from greylag_client.service_manager import notify, watchdog_wait_s

logger = logging.getLogger(__name__)

LOOK_S = 0.5
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 60.0
END_S = FINISH_S + FAREWELL_S + 5.0


def run_agents(
    roots: Sequence[Path], *, approve: str | None = None, page_port: int | None = None
) -> None:
    """Run the agents of some firms in this process, until it is told to stop.

    On the first SIGTERM or SIGINT answers under way are finished, on the second nothing is.

    Args:
        approve: digest (hex) of a membership that the security officer approves beforehand, even
            if the lead shows it only later.
        page_port: where the firms' page is served (0: at any free port), if it is wanted.

    Raises:
        GreylagError: no firm could be started, or one did not end in time.
        ConfigError: the page cannot be served.
    """
    torch.set_num_threads(1)  # small models: more threads cost more than they give
    leave_sums_to(AccountingChild())
    signals = _catch_signals()
    agents = [FirmAgent(root, approve=approve) for root in dict.fromkeys(roots)]
    if len(agents) == 1:
        agents[0].start()
    for agent in agents:
        agent.look()
    running = sum(agent.runs for agent in agents)
    if not running:
        raise GreylagError("no firm could be started; see above why")
    try:
        close_page = _open_page(agents, page_port) if page_port is not None else None
    except ConfigError:
        _end(agents)
        raise
    notify(f"READY=1\nSTATUS={running} of {len(agents)} firms started")
    wait_s = min(LOOK_S, watchdog_wait_s() or LOOK_S)
    while not _signalled(signals, wait_s):
        for agent in agents:
            agent.look()
        notify("WATCHDOG=1")
    logger.info("ending; an answer under way is finished first (a second signal ends at once)")
    notify("STOPPING=1")
    if close_page is not None:
        close_page()
    _end(agents)


def _open_page(agents: Sequence["FirmAgent"], port: int) -> Callable[[], None]:
    """Serve the page of those firms whose directories can be read; returns what ends it."""
    from greylag_client.page.serve import PageServer
    from greylag_client.page.source import House

    houses = []
    for agent in agents:
        try:
            firm = FirmDirectory.open(agent.root)
        except ConfigError as error:
            logger.warning("%s: not on the page: %s", agent.root, error)
        else:
            houses.append(House(firm=firm, connection=agent.connection))
    server = PageServer(houses, port=port)
    server.start()
    return server.stop


def _end(agents: Sequence["FirmAgent"]) -> None:
    for agent in agents:
        agent.tell_to_end()
    until_s = time.monotonic() + END_S
    while late := [agent for agent in agents if not agent.has_ended()]:
        if time.monotonic() > until_s:
            names = ", ".join(str(agent.root) for agent in late)
            raise GreylagError(
                f"an answer took too long and was given up: {names}; the ledger is in "
                "order, and the agent can be started again"
            )
        notify("WATCHDOG=1")
        time.sleep(0.05)


def _catch_signals() -> "queue.SimpleQueue[int]":
    """Where the first signal to end arrives; the second ends the process there and then."""
    # A signal's handler runs between any two steps of the main thread, in the midst of a lock's
    # too; putting something on this kind of queue is safe there, setting an event is not.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    caught: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if caught:
            os._exit(1)  # the ledger is written before anything leaves, so nothing is lost
        caught.append(number)
        signals.put(number)

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last is what Windows' services get
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, note)
    return signals


def _signalled(signals: "queue.SimpleQueue[int]", wait_s: float) -> bool:
    try:
        signals.get(timeout=wait_s)
    except queue.Empty:
        return False
    return True


class FirmAgent:
    """One firm's agent, which is started again whatever happens to it.

    Not safe to be used by several threads, but for ``connection``.

    Attributes:
        root: the firm's directory.
        error: why it does not run, if it does not.
    """

    def __init__(self, root: Path, *, approve: str | None = None) -> None:
        self.root = root
        self.error: Exception | None = None
        self._approve = approve
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._held = ExitStack()
        self._started_s: float | None = None  # on the steady clock, as the next
        self._look_again_s = 0.0
        self._wait_s = FIRST_WAIT_S
        self._said = ""
        self._watch = LinkWatch()

    @property
    def runs(self) -> bool:
        """Whether all its threads are at work."""
        return bool(self._threads) and all(item.is_alive() for item in self._threads)

    def connection(self) -> Connection:
        """How it stands to the lead, for the firm's page."""
        return self._watch.connection(runs=self.runs, error=self.error)

    def look(self) -> None:
        """Start what does not run, if it is time; end what runs in part only. Waits for nothing."""
        if self.runs:
            return
        if self._threads:
            self._stop.set()
            if self.has_ended():
                self._fail(self.error or GreylagError("a part of the agent ended by itself"))
        elif time.monotonic() >= self._look_again_s:
            try:
                self.start()
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one, others go on
                self._fail(error)

    def start(self) -> None:
        """Start its threads.

        Raises:
            ConfigError: the directory or its policy is at fault, or an agent runs there already.
        """
        self._stop, self.error = threading.Event(), None
        with ExitStack() as held:
            firm = FirmDirectory.open(self.root)
            held.enter_context(firm.hold())
            participant = make_participant(firm, approve=self._approve)
            self._watch = LinkWatch()
            threads = make_threads(firm, participant, self._stop, self._watch)
            self._held = held.pop_all()
        self._started_s = time.monotonic()
        self._threads = [
            threading.Thread(target=self._guard, args=(item.run,), name=item.name, daemon=True)
            for item in threads
        ]
        for thread in self._threads:
            thread.start()

    def tell_to_end(self) -> None:
        """End the threads soon."""
        self._stop.set()

    def has_ended(self) -> bool:
        """Whether no thread is left; if so the directory is free for another agent."""
        if any(item.is_alive() for item in self._threads):
            return False
        self._threads = []
        self._held.close()
        return True

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told and tried again by ``look``
            self.error = error

    def _fail(self, error: Exception) -> None:
        now_s = time.monotonic()
        if self._started_s is not None and now_s - self._started_s > LONGEST_WAIT_S:
            self._wait_s, self._said = FIRST_WAIT_S, ""  # it did run: this is not the same again
        self._started_s = None
        self.error, self._look_again_s = error, now_s + self._wait_s
        self._wait_s = min(LONGEST_WAIT_S, 2 * self._wait_s)
        expected = isinstance(error, GreylagError | OSError | sqlite3.Error)
        text = str(error) if expected else f"an error in greylag itself ({error!r})"
        if text != self._said:
            self._said = text
            logger.error(
                "%s: does not run and is tried again: %s",
                self.root,
                text,
                exc_info=None if expected else error,
            )


def make_threads(
    firm: FirmDirectory,
    participant: Participant,
    stop: threading.Event,
    watch: LinkWatch | None = None,
) -> list[threading.Thread]:
    """What one firm's agent has to do until ``stop`` is set, not yet started.

    An engine that policy does not allow is never dialled. The local door stands open all the same:
    who knocks there is told that policy refuses, and not left to think that nobody is at home.

    Raises:
        ConfigError: the policy is at fault, or no socket can be made although policy allows it.
    """
    settings, policy, watch = firm.settings, current_policy(firm), watch or LinkWatch()
    gate = Gate(identity_of(firm), partial(current_policy, firm), participant)
    renew = partial(keep_renewed, firm, stop)
    threads = [threading.Thread(target=renew, name=f"{settings.firm} (certificate)")]
    if "grpc" in policy.engines:
        address, answer = join_address(settings.host, settings.port), gate.answer_over("grpc")
        tls, answer = watch.dialling(firm.read_tls), watch.hearing(answer)
        dial = partial(keep_connected, address, tls, answer, stop, name=settings.firm)
        threads.append(threading.Thread(target=dial, name=settings.firm))
    try:
        answer, agent = gate.answer_over("flower"), os.urandom(AGENT_BYTES)
        door = LocalDoor(door_path(firm.root), answer, agent=agent)
        serve = partial(door.serve, stop)
        threads.append(threading.Thread(target=serve, name=f"{settings.firm} (local door)"))
    except ConfigError as error:
        if "flower" in policy.engines:
            raise
        logger.info("%s: no local door: %s", settings.firm, error)
    engines = ", ".join(policy.engines)
    logger.info(
        "%s: agent for consortium %s started (%s)", settings.firm, settings.consortium, engines
    )
    return threads
