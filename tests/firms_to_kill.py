"""Firms' agents that die at given points: a process that forks one for each firm, and again.

    python firms_to_kill.py ROOT PORT SEED KILLS FIRM...

An agent is the real link, gate, participant, ledger and masks; only its gradient is made up, so
that starting one costs a fork and not seconds of imports. What is told on stdin: ``run`` (another
run begins), ``calm`` (no more kills); its end ends everything. Every kill is a line of kills.jsonl.
"""

import json
import logging
import os
import random
import select
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from greylag_client import link, participant
from greylag_client.firm import TlsCredentials
from greylag_client.firm_membership import MembershipStore
from greylag_client.gate import Gate
from greylag_client.ledger import Ledger
from greylag_client.masks import PairwiseMasks
from greylag_client.participant import Participant
from greylag_client.policy import Policy
from greylag_client.session import Identity, OneTable, Session
from greylag_protocols.plan import parse_terms
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

# What a firm can be doing when it dies, and the points that stand for it.
GAPS = {
    "offer": ("offer", "accepted"),
    "key batch": ("keys made", "keys sent"),
    "debit": ("before debit", "in debit"),
    "paid, not sent": ("paid", "vector made"),
    "sending": ("chunk sent", "sent"),
    "closing": ("close", "closed"),
}
VOIDING = frozenset((*GAPS["debit"], *GAPS["paid, not sent"], *GAPS["sending"], "time"))
EVERYWHERE = "time"  # at a random moment
EACH = 1 / 15  # of all kills at each of the points; the rest at random moments
POLICY = Policy(
    lifetime_epsilon=1e5,
    lifetime_delta=9e-3,
    max_epsilon_per_run=1e3,
    max_roster_changes=1000,
)
CHUNK_BYTES = 100  # so that a vector takes several
LOOK_S = 0.002


@dataclass(slots=True)
class Life:
    """One agent's process, and what it is to die of."""

    pid: int
    point: str
    until_s: float


class MadeUp:
    """An engine whose sums cost nothing."""

    def __init__(self, terms: Terms) -> None:
        self._dimension = terms.dimension

    def __len__(self) -> int:
        return 40

    def clipped_sum(
        self, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        return np.full(self._dimension, 0.01 * np.count_nonzero(units >= 0))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lay_trap(point: str, passes: int) -> None:
    """Die at ``point``, when it is reached after ``passes`` times."""
    count = Counter[str]()

    def reached(here: str) -> None:
        count[here] += here == point
        if count[point] > passes:
            die()

    def around(owner: Any, name: str, before: str, after: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def trapped(*arguments: Any, **options: Any) -> Any:
            reached(before)
            result = real(*arguments, **options)
            reached(after)
            return result

        setattr(owner, name, trapped)

    around(Participant, "_accept", "offer", "keys sent")  # made, and about to be sent
    around(Ledger, "accept", "", "accepted")
    around(Session, "renew_keys", "", "keys made")
    around(Ledger, "debit", "before debit", "paid")
    around(Ledger, "close_run", "close", "closed")
    around(participant, "make_vector", "", "vector made")
    around(participant.log, "sign_receipt", "", "in debit")  # the ledger's transaction is open
    send_parcels = link._outgoing

    def outgoing(outbox: Any) -> Any:
        several = 0
        for chunk in send_parcels(outbox):
            several += 1
            yield chunk  # gRPC has taken it when it asks for the next
            if several > 1:  # a contribution; other answers are told by the next flag alone
                reached("sent" if chunk[0] else "chunk sent")
            several = 0 if chunk[0] else several

    link._outgoing = outgoing


def run_agent(root: Path, port: int, firm: str, seed: bytes) -> None:
    """What one firm's process does."""
    link.CHUNK_BYTES = CHUNK_BYTES
    here = root / firm
    memberships = MembershipStore(
        here, lead_key=(root / "lead.key").read_bytes(), consortium=(root / "name").read_text()
    )
    identity = Identity(
        firm=firm,
        consortium=(root / "name").read_text(),
        signer=Ed25519Signer(seed),
        lead_key=(root / "lead.key").read_bytes(),
    )
    speaker = Participant(
        identity=identity,
        policy=lambda: POLICY,
        ledger=Ledger(here / "ledger.sqlite"),
        memberships=memberships,
        data=OneTable(MadeUp),
        masker=PairwiseMasks(),
        entropy=os.urandom,
        clock=partial(float, (root / "now").read_text()),
    )
    tls = TlsCredentials(
        ca=(root / "ca.pem").read_bytes(),
        key=(here / "tls.key.pem").read_bytes(),
        certificate=(here / "tls.pem").read_bytes(),
    )
    answer = Gate(identity, lambda: POLICY, speaker).answer_over("grpc")
    link.keep_connected(f"127.0.0.1:{port}", tls, answer, threading.Event(), name=firm)


class Reaper:
    """Keeps an agent of every firm alive, and kills them as often as it was told."""

    def __init__(self, root: Path, port: int, seed: int, kills: int, firms: list[str]) -> None:
        self._root, self._port = root, port
        self._random = random.Random(seed)
        points = [point for pair in GAPS.values() for point in pair]
        each = max(1, round(kills * EACH))
        self._left = Counter(dict.fromkeys(points, each))
        self._left[EVERYWHERE] = max(0, kills - each * len(points))
        self._most_voiding = max(1, len(firms) - 3)  # of a run that is to go on
        self._voiding = 0
        self._lives: dict[str, Life] = {}
        self._log = (root / "kills.jsonl").open("w", buffering=1)
        for firm in firms:
            self._start(firm)

    def work(self) -> None:
        """Until stdin ends."""
        while True:
            if select.select([sys.stdin], [], [], LOOK_S)[0]:
                word = sys.stdin.readline().strip()
                if not word:
                    break
                self._hear(word)
            now_s = time.monotonic()
            for firm, life in list(self._lives.items()):
                if life.until_s < now_s:
                    os.kill(life.pid, signal.SIGKILL)
                    life.until_s = float("inf")
                if os.waitpid(life.pid, os.WNOHANG)[0]:
                    self._bury(firm, life)
        for life in self._lives.values():
            os.kill(life.pid, signal.SIGKILL)
            os.waitpid(life.pid, 0)

    def _hear(self, word: str) -> None:
        """A new run's roster holds all firms again; in a calm one nobody dies."""
        self._voiding = sum(life.point in VOIDING for life in self._lives.values())
        if word == "calm":
            self._left.clear()
        for firm, life in list(self._lives.items()):
            if word == "calm" or (not life.point and self._left.total() > 0):
                os.kill(life.pid, signal.SIGKILL)
                os.waitpid(life.pid, 0)
                self._start(firm)

    def _bury(self, firm: str, life: Life) -> None:
        self._log.write(json.dumps({"firm": firm, "point": life.point}) + "\n")
        self._start(firm)

    def _start(self, firm: str) -> None:
        choice = [point for point, left in self._left.items() if left > 0]
        if self._voiding >= self._most_voiding:
            choice = [point for point in choice if point not in VOIDING]
        weights = [self._left[point] for point in choice]
        point = self._random.choices(choice, weights)[0] if choice else ""
        self._left[point] -= bool(point)
        self._voiding += point in VOIDING
        # A firm that closes dies once only in a run, so it must not have to pass anything.
        rare = point in (*GAPS["offer"], *GAPS["key batch"], *GAPS["closing"])
        passes = 0 if rare else self._random.randrange(12)
        until_s = float("inf")
        if point == EVERYWHERE:
            until_s = time.monotonic() + self._random.uniform(0.02, 2.0)
        pid = os.fork()
        if not pid:
            self._become(firm, point, passes)
        self._lives[firm] = Life(pid, point, until_s)

    def _become(self, firm: str, point: str, passes: int) -> None:
        try:
            os.close(0)
            if point:
                lay_trap(point, passes)
            run_agent(self._root, self._port, firm, (self._root / firm / "seed").read_bytes())
        except BaseException:
            logging.exception("an agent ended by itself")
        finally:
            os._exit(1)


def main() -> None:
    root, port, seed, kills, *firms = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    parse_terms((Path(root) / "terms.json").read_bytes())  # epsilon: solved once, before forks
    Reaper(Path(root), int(port), int(seed), int(kills), firms).work()


if __name__ == "__main__":
    main()
