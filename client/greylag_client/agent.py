"""The agent's composition: the real masks, signatures, ledger, noise. There is no option to leave
any of them out; the lab's unmasked simulation composes its own participants.
"""

import fcntl
import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from greylag_protocols.errors import ConfigError, RefusedError
from greylag_protocols.membership import Membership, SignedMembership
from greylag_protocols.messages import Round, parse_coordinator_message
from greylag_protocols.terms import Terms

from greylag_client.app import answer_frame, make_client_app, make_context
from greylag_client.engine import make_engine
from greylag_client.firm import FirmDirectory
from greylag_client.ledger import Ledger
from greylag_client.link import keep_connected
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


def make_participant(firm: FirmDirectory, *, approve: str | None = None) -> Participant:
    """One firm's participant, from its directory.

    Raises:
        ConfigError: the directory or its policy is at fault.
    """
    settings = firm.settings
    return Participant(
        identity=Identity(firm=settings.firm, consortium=settings.consortium, signer=firm.signer),
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
            participant = make_participant(firm, approve=approve)
            thread = threading.Thread(
                target=_serve, args=(firm, participant, stop), name=firm.settings.firm
            )
            threads.append(thread)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _serve(firm: FirmDirectory, participant: Participant, stop: threading.Event) -> None:
    app, context = make_client_app(participant), make_context()

    def answer(frame: bytes) -> bytes:
        train = isinstance(parse_coordinator_message(frame), Round)
        try:
            return answer_frame(app, context, frame, train=train)
        except sqlite3.Error as error:  # a damaged or locked file must not end the agent silently
            raise RefusedError(
                f"the ledger could not be read ({error})", refusal_class="protocol"
            ) from None

    settings = firm.settings
    logger.info("%s: agent for consortium %s started", settings.firm, settings.consortium)
    keep_connected(f"{settings.host}:{settings.port}", firm.tls, answer, stop)


@contextmanager
def _only_agent(root: Path) -> Iterator[IO[str]]:
    """Two agents on one ledger would look to the peers like a copied machine."""
    with (root / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another agent is running for {root}; end it first") from None
        yield lock
