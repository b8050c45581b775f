"""The agent's process: the firms that it runs, their threads, and how it starts and ends."""

import fcntl
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import torch
from greylag_protocols.errors import ConfigError

from greylag_client.composition import identity_of, make_participant
from greylag_client.firm import FirmDirectory
from greylag_client.gate import Gate
from greylag_client.link import keep_connected
from greylag_client.local_door import AGENT_BYTES, LocalDoor, door_path
from greylag_client.participant import Participant
from greylag_client.policy import read_policy

logger = logging.getLogger(__name__)


def run_agents(roots: Sequence[Path], *, approve: str | None = None) -> None:
    """Run the agents of some firms in this process, until it is told to stop.

    Args:
        approve: digest (hex) of a membership that the security officer approves beforehand, even
            if the lead shows it only later.

    Raises:
        ConfigError: a directory, policy or digest is at fault, or an agent runs there already.
    """
    torch.set_num_threads(1)  # small models: more threads cost more than they give
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as locks:
        threads = []
        for root in roots:
            firm = FirmDirectory.open(root)
            locks.enter_context(_only_agent(root))
            threads += make_threads(firm, make_participant(firm, approve=approve), stop)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def make_threads(
    firm: FirmDirectory, participant: Participant, stop: threading.Event
) -> list[threading.Thread]:
    """What one firm's agent has to do until ``stop`` is set, not yet started.

    An engine that policy does not allow is never dialled. The local door stands open all the same:
    who knocks there is told that policy refuses, and not left to think that nobody is at home.

    Raises:
        ConfigError: the policy is at fault, or no socket can be made although policy allows it.
    """
    settings, policy = firm.settings, read_policy(firm.policy_path)
    gate = Gate(identity_of(firm), partial(read_policy, firm.policy_path), participant)
    threads = []
    if "grpc" in policy.engines:
        address, answer = f"{settings.host}:{settings.port}", gate.answer_over("grpc")
        dial = partial(keep_connected, address, firm.tls, answer, stop)
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


@contextmanager
def _only_agent(root: Path) -> Iterator[IO[str]]:
    """Two agents on one ledger would look to the peers like a copied machine."""
    with (root / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another agent is running for {root}; end it first") from None
        yield lock
