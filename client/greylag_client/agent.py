"""The agent's composition: the real masks, signatures, ledger, noise. There is no option to leave
any of them out; the lab's unmasked simulation composes its own participants.
"""

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import torch
from greylag_protocols.errors import ConfigError
from greylag_protocols.membership import Membership, SignedMembership
from greylag_protocols.terms import Terms

from greylag_client.engine import make_engine
from greylag_client.firm import FirmDirectory
from greylag_client.gate import Gate
from greylag_client.ledger import Ledger
from greylag_client.link import keep_connected
from greylag_client.local_door import AGENT_BYTES, LocalDoor, door_path
from greylag_client.masks import PairwiseMasks
from greylag_client.participant import Participant
from greylag_client.policy import read_policy
from greylag_client.session import ClippedSums, Identity
from greylag_client.table import load_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Approvals:
    """The firm's approvals, and one digest that was approved on the command line."""

    firm: FirmDirectory
    beforehand: str | None

    def approved(self) -> dict[str, Membership]:
        return self.firm.approved()

    def store_seen(self, signed: SignedMembership, *, now_s: float) -> Membership:
        membership = self.firm.store_seen(signed, now_s=now_s)
        if membership.digest().hex() == self.beforehand:
            self.firm.approve(self.beforehand)
        return membership

    def revocations(self) -> tuple[bytes, ...]:
        return self.firm.memberships.revocations()

    def store_revocation(self, envelope: bytes, membership: Membership) -> None:
        self.firm.memberships.store_revocation(envelope, membership)


def identity_of(firm: FirmDirectory) -> Identity:
    """Who speaks for a firm's directory."""
    settings = firm.settings
    return Identity(firm=settings.firm, consortium=settings.consortium, signer=firm.signer)


def make_participant(firm: FirmDirectory, *, approve: str | None = None) -> Participant:
    """One firm's participant, from its directory.

    Raises:
        ConfigError: the directory or its policy is at fault.
    """
    return Participant(
        identity=identity_of(firm),
        policy=read_policy(firm.policy_path),
        ledger=Ledger(firm.ledger_path),
        memberships=_Approvals(firm, approve),
        load_engine=_engine_loader(firm),
        masker=PairwiseMasks(),
        entropy=os.urandom,
        clock=time.time,
    )


def _engine_loader(firm: FirmDirectory) -> Callable[[Terms], ClippedSums]:
    def load(terms: Terms) -> ClippedSums:
        if firm.data_path is None:
            raise ConfigError("no table yet: set `data` in firm.toml to a CSV file")
        table = load_table(firm.data_path, terms.data)
        return make_engine(terms, table.records(table.train))

    return load


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
    gate = Gate(identity_of(firm), policy, participant)
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
