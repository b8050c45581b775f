"""The coordinator as a Flower ServerApp: it speaks to a Grid in Messages, and to nothing else.

The loop turns what the Grid says into the coordinator's events, and the coordinator's sends into
Messages. Time lives here: how long to wait for offers, rounds and goodbyes.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp
from greylag_protocols.errors import GreylagError, VerificationError
from greylag_protocols.messages import Cosigned, Show
from greylag_protocols.notes import verify_cosignature
from greylag_protocols.parsing import parse_firm_message
from greylag_protocols.signing import Signer

from greylag_server.coordinator import Coordinator
from greylag_server.deadlines import Pace, attempt_deadline_s, may_drop
from greylag_server.flight import Send
from greylag_server.grid_messages import firm_part, node_id, unwrap, wrap
from greylag_server.store import Store
from greylag_server.witnesses import make_view

logger = logging.getLogger(__name__)

TRAIN, QUERY = "train", "query"
RECONSIDER_S = 1.0  # how often wishes and new endorsements of the member list are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the coordinator waits.

    Attributes:
        least_round_s: for an attempt, however fast the rounds before were answered.
        known_s: after a start, for firms to say what they have seen of the log.
    """

    offer_s: float = 60.0
    round_s: float = 60.0
    close_s: float = 10.0
    least_round_s: float = 20.0
    known_s: float = 10.0

    def for_status(self, status: str) -> float:
        """The wait that a status deserves."""
        return {"offering": self.offer_s, "closing": self.close_s}.get(status, self.round_s)


Watch = Callable[[Coordinator], None]


class Meter(Protocol):
    """Whoever counts along."""

    def looked(self, coordinator: Coordinator, pace: Pace) -> None:
        """Something changed."""

    def completed(self, parts: Mapping[str, float]) -> None:
        """A round was completed; the seconds of its parts."""


def make_server_app(
    coordinator: Coordinator,
    patience: Patience,
    watch: Watch,
    stop: threading.Event,
    meter: Meter | None = None,
) -> ServerApp:
    """A ServerApp that runs ``coordinator`` to its end, or until ``stop`` is set.

    ``watch`` is called after every change of state.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        _Loop(grid, coordinator, patience, watch, meter).run(stop)

    return app


def say_goodbye(grid: Grid, coordinator: Coordinator, patience: Patience) -> None:
    """Let the connected firms close a run that is over."""
    _Loop(grid, coordinator, patience, lambda _: None).finish()


def collect_cosignatures(
    grid: Grid,
    store: Store,
    signer: Signer,
    *,
    run: str,
    identities: Mapping[str, bytes],
    wait_s: float,
) -> int:
    """Show the connected firms the log as it is now, and keep what they cosign.

    Args:
        run: the last run; the firms' answers name it.
        identities: the firms' identity keys by name.

    Returns:
        The number of firms that cosigned.
    """
    checkpoint, words = store.checkpoint(), dict[str, bytes]()
    names = {firm_part(node_id(name)): name for name in identities}
    sizes = {node: checkpoint.size for node in grid.get_node_ids() if firm_part(node) in names}
    for _ in range(2):  # who has seen less says so, and is shown more
        messages = [
            wrap(Show(run=run, log=make_view(store, signer, [size])).encode(), node, QUERY)
            for node, size in sizes.items()
        ]
        sizes = {}
        for reply in grid.send_and_receive(messages, timeout=wait_s) if messages else ():
            node = reply.metadata.src_node_id
            name = names.get(firm_part(node), "")
            try:
                said = parse_firm_message(unwrap(reply))
                if not isinstance(said, Cosigned):
                    raise VerificationError("does not go on with this log; ask the firm why")
                if said.cosignature:
                    verify_cosignature(checkpoint, said.cosignature, identities[name])
                    words[name] = said.cosignature
                else:
                    sizes[node] = said.log_size
            except GreylagError as error:
                logger.warning("%s: the log was not cosigned: %s", name, error)
    if words:
        with store.transaction():
            store.keep_cosignatures(checkpoint, words)
    return len(words)


class _Loop:
    """One run on one grid."""

    def __init__(
        self,
        grid: Grid,
        coordinator: Coordinator,
        patience: Patience,
        watch: Watch,
        meter: Meter | None = None,
    ) -> None:
        self._grid = grid
        self._coordinator = coordinator
        self._patience = patience
        self._watch = watch
        self._meter = meter
        self._pace = Pace()
        self._names = {firm_part(node_id(name)): name for name in coordinator.members}
        self._connected: set[int] = set()
        self._online: dict[int, str] = {}
        self._pending: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Work until the run is over."""
        coordinator = self._coordinator
        self._pace.begin(coordinator.rounds_done)
        mark, since_s, look_s = None, 0.0, 0.0
        while not coordinator.over and not stop.is_set():
            now_s = time.monotonic()
            held = coordinator.held
            state = (coordinator.status, coordinator.attempts, coordinator.accepted, held)
            if state != mark:
                mark, since_s = state, now_s
                self._changed()
            self._send(self._look())
            if now_s > look_s:
                look_s = now_s + RECONSIDER_S
                self._send([*coordinator.obey(), *coordinator.reconsider()])
            if self._pending:
                self._take(self._grid.pull_messages(list(self._pending)))
            else:
                time.sleep(0.02)
            if not held and self._late(now_s - since_s):
                mark = None
                self._send(coordinator.deadline())
        self._changed()

    def _changed(self) -> None:
        if self._coordinator.held:
            self._pace.interrupted()
        self._watch(self._coordinator)
        if self._meter is not None:
            self._meter.looked(self._coordinator, self._pace)

    def _late(self, waited_s: float) -> bool:
        """Whether what is being waited for has had its time."""
        coordinator, most_s = self._coordinator, self._patience.for_status(self._coordinator.status)
        dispensable = may_drop(
            waiting=coordinator.waiting,
            roster=len(coordinator.roster),
            min_firms=coordinator.terms.privacy.min_firms,
            voids=coordinator.voids,
        )
        if not dispensable:
            return waited_s > most_s
        least_s = min(most_s, self._patience.least_round_s)
        return waited_s > attempt_deadline_s(self._pace.answered_s, least_s=least_s, most_s=most_s)

    def finish(self) -> None:
        """Greet who is here, and wait for the answers."""
        self._send(self._look())
        until_s = time.monotonic() + self._patience.close_s
        while self._pending and time.monotonic() < until_s:
            self._take(self._grid.pull_messages(list(self._pending)))

    def _look(self) -> list[Send]:
        """Agents that came or went since the last look."""
        if (connected := set(self._grid.get_node_ids())) == self._connected:
            return []
        self._connected = connected
        nodes = ((node, self._names.get(firm_part(node))) for node in connected)
        present = {node: name for node, name in nodes if name is not None}
        sends: list[Send] = []
        gone = self._online.keys() - present.keys()
        came = present.keys() - self._online.keys()
        lost = [self._online[node] for node in gone]
        self._online = present
        for name in lost:
            sends += self._coordinator.lost(name)
        for node in came:
            sends += self._coordinator.appeared(present[node])
        return sends

    def _send(self, sends: list[Send]) -> None:
        if not sends:
            return
        nodes = {name: node for node, name in self._online.items()}
        messages = []
        for send in sends:
            node = nodes.get(send.firm)
            if node is None:
                continue  # it left in this very moment; the next look tells the coordinator
            kind = TRAIN if send.is_round else QUERY
            message = wrap(send.frame, node, kind)
            self._pending[message.metadata.message_id] = send.firm
            messages.append(message)
        if messages:
            list(self._grid.push_messages(messages))
        if any(send.is_round for send in sends):
            self._pace.sent(self._coordinator.attempts, time.monotonic())

    def _take(self, replies: Iterable[Message]) -> None:
        for reply in replies:
            name = self._pending.pop(reply.metadata.reply_to_message_id, None)
            if name is None:
                continue
            if reply.has_error():
                self._online = {n: f for n, f in self._online.items() if f != name}
                self._connected = set()
                self._send(self._coordinator.lost(name))
            else:
                self._receive(name, unwrap(reply))

    def _receive(self, name: str, frame: bytes) -> None:
        coordinator, arrived_s = self._coordinator, time.monotonic()
        waiting = coordinator.waiting
        sends = coordinator.receive(name, frame)
        parts = self._pace.took(
            arrived_s=arrived_s,
            handled_s=time.monotonic(),
            rounds_done=coordinator.rounds_done,
            first=coordinator.waiting < waiting == len(coordinator.roster),
        )
        if parts is not None and self._meter is not None:
            self._meter.completed(parts)
        self._send(sends)
