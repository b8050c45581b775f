"""``serve``: enrolment, the firms' port and the runs, in one process."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from flwr.app import Context, RecordDict
from greylag_protocols import log
from greylag_protocols.encoding import parse_json
from greylag_protocols.errors import ConfigError
from greylag_protocols.membership import MAX_DOCUMENT_BYTES, Membership, SignedMembership
from greylag_protocols.plan import parse_terms, run_id_for, settle_terms
from greylag_protocols.signing import parse_statement
from greylag_protocols.terms import Plan, Terms, terms_digest

from greylag_server.app import Patience, collect_cosignatures, make_server_app, say_goodbye
from greylag_server.consortium import Consortium
from greylag_server.coordinator import Coordinator
from greylag_server.enrolment import Enrolment
from greylag_server.enrolment_http import EnrolmentServer
from greylag_server.grid_grpc import GrpcGrid
from greylag_server.known_grid import KnownGrid, check_ahead
from greylag_server.operator_ports import OperatorPorts
from greylag_server.serving_lock import lock_directory
from greylag_server.settings import ServerSettings
from greylag_server.steering import cancel_reason
from greylag_server.store import LOG_FILE, RunRecord, Store

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES = 256 << 20
POLL_S = 0.5


def open_store(consortium: Consortium) -> Store:
    """The lead's database."""
    return Store(consortium.root / LOG_FILE, origin=consortium.settings.id)


def queue_plan(
    store: Store, consortium: Consortium, plan: Plan, *, members: int, firms: int | None, nonce: str
) -> tuple[str, Terms]:
    """Settle a plan's terms and queue the run.

    Raises:
        ConfigError: fewer firms are enrolled than the plan needs.
    """
    wanted = members if firms is None else firms
    if members < max(wanted, plan.privacy.min_firms):
        raise ConfigError(
            f"{members} firms are enrolled, the plan needs {max(wanted, plan.privacy.min_firms)}: "
            "invite more with `greylag-server invite`, or lower privacy.min_firms"
        )
    run = run_id_for(plan.run.name, nonce)
    terms = settle_terms(plan, consortium=consortium.settings.id, run_id=run)
    terms.grid(wanted)  # the grid coarsens with the roster; fail now rather than in mid-run
    with store.transaction():
        store.queue_run(run, terms.encode(), firms=wanted)
    return run, terms


def open_run(store: Store, consortium: Consortium, run: str, signed: SignedMembership) -> None:
    """Log the terms and bind the run to a membership epoch."""
    record = store.run(run)
    digest = terms_digest(record.terms)
    entry = consortium.signer.sign(log.TERMS_KIND, run, digest, {"run": run})
    with store.transaction():
        store.append([entry])
        store.keep(digest, record.terms)
        store.open_run(run, signed)


def read_membership(consortium: Consortium, signed: SignedMembership) -> Membership:
    """An epoch that a run was bound to.

    Whether it has expired meanwhile is not asked: firms refuse to go on under such a one, while
    their goodbyes under it must stay possible for good.
    """
    issued_s = parse_json(signed.document, max_bytes=MAX_DOCUMENT_BYTES)["issued_s"]
    return signed.verify(
        consortium.signer.public_key, consortium=consortium.settings.id, now_s=issued_s
    )


def make_coordinator(store: Store, consortium: Consortium, record: RunRecord) -> Coordinator:
    """The coordinator of an opened run."""
    if record.membership is None:
        raise ConfigError(f"run {record.run} has no membership")
    membership = read_membership(consortium, record.membership)
    return Coordinator(
        record,
        terms=parse_terms(record.terms),
        membership=membership,
        signer=consortium.signer,
        store=store,
    )


def log_epoch(store: Store, signed: SignedMembership) -> None:
    """Every membership epoch is in the log, once."""
    digest = parse_statement(signed.statement).digest
    with store.transaction():
        if store.artefact(digest) is None:
            store.append([signed.statement])
            store.keep(digest, signed.document)


def log_restart(store: Store, consortium: Consortium, record: RunRecord) -> None:
    """A half-done run is taken up again by a new process: that is in the log too."""
    predicate = {"run": record.run, "rounds": record.rounds_done, "attempts": record.attempts}
    digest = terms_digest(record.terms)
    with store.transaction():
        store.append([consortium.signer.sign(log.RESTART_KIND, record.run, digest, predicate)])


def log_departure(store: Store, envelope: bytes) -> None:
    """Every statement by which a firm left is in the log, once."""
    digest = log.entry_head(envelope)
    with store.transaction():
        if store.artefact(digest) is None:
            store.append([envelope])
            store.keep(digest, envelope)


def log_endorsement(store: Store, envelope: bytes, membership: bytes) -> None:
    """Every endorsement of a member list is in the log, once, and shown to firms that ask."""
    with store.transaction():
        if store.add_endorsement(envelope, membership):
            store.append([envelope])


def bind_address(host: str, bind: str) -> str:
    """Where the firms' ports listen: as the settings say, or as fits the name they dial."""
    if bind:
        return bind
    return "127.0.0.1" if host in ("127.0.0.1", "localhost") else "0.0.0.0"  # noqa: S104 - firms dial in


class Service:
    """The lead's server. ``start`` binds the ports; ``run_forever`` works until ``stop`` is set.

    Args:
        settings: how to serve; without them neither page nor metrics are served.

    Raises:
        ConfigError: a port is in use, another process serves this directory, or firms have seen
            more of the log than there is.
    """

    def __init__(
        self, root: Path, *, patience: Patience, settings: ServerSettings | None = None
    ) -> None:
        self._consortium = Consortium.open(root)
        self._patience = patience
        with ExitStack() as held:
            held.callback(lock_directory(root).close)
            self._store = open_store(self._consortium)
            held.callback(self._store.close)
            self._enrolment = Enrolment(
                self._consortium,
                on_epoch=lambda signed: log_epoch(self._store, signed),
                on_leave=lambda envelope: log_departure(self._store, envelope),
                on_endorse=lambda envelope, digest: log_endorsement(self._store, envelope, digest),
            )
            check_ahead(self._store, self._names())
            self._grid = self._open_grid("" if settings is None else settings.bind)
            held.callback(self._grid.stop)
            self._known = KnownGrid(self._grid, self._store, self._names)
            self._enrolment_server = EnrolmentServer(self._consortium, self._enrolment)
            self._operator: OperatorPorts | None = None
            if settings is not None:
                self._operator = OperatorPorts(
                    self._consortium, self._store, self._enrolment, self._grid, settings
                )
                held.callback(self._operator.stop)
            self._held = held.pop_all()
        self._shown: tuple[int, frozenset[int]] | None = None  # the log's size, and who saw it

    def _open_grid(self, bind: str) -> GrpcGrid:
        known = self._consortium.settings
        return GrpcGrid(
            f"{bind_address(known.host, bind)}:{known.port}",
            ca=self._consortium.ca_pem,
            key=self._consortium.server_key_pem,
            certificate=self._consortium.server_cert_pem,
            max_frame_bytes=MAX_FRAME_BYTES,
            refusals=self._enrolment.certificates.refusals,
        )

    def _names(self) -> list[str]:
        return [item.name for item in self._enrolment.members()]

    @property
    def consortium(self) -> Consortium:
        """The consortium that is served."""
        return self._consortium

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where the operator finds the page and the metrics."""
        return {} if self._operator is None else self._operator.addresses

    def start(self) -> None:
        """Open the enrolment port; the firms' port is open already."""
        try:
            self._enrolment_server.start()
        except ConfigError:
            self.close()
            raise
        if self._operator is not None:
            self._operator.start()

    def run_forever(self, stop: threading.Event, watch: Callable[[Coordinator], None]) -> None:
        """Take up queued and half-done runs, one after the other."""
        try:
            self._wait_for_witnesses(stop)
            self._enrolment.deliver_epochs()
            while not stop.is_set():
                record = self._store.next_run()
                if record is not None and self._is_ready(record):
                    self._run_one(record, stop, watch)
                    continue
                self._say_goodbye()
                self._show_log()
                stop.wait(POLL_S)
        finally:
            self._enrolment_server.stop()
            self.close()

    def close(self) -> None:
        """Give back all that the constructor took."""
        self._held.close()

    def _wait_for_witnesses(self, stop: threading.Event) -> None:
        """Before anything is added to the log, those who saw it last may say how much they saw."""
        cosigned = self._store.cosigned()
        if cosigned:
            last = set(cosigned[0][1]) & set(self._names())
            self._known.wait_for(last, wait_s=self._patience.known_s, stop=stop)

    def _is_ready(self, record: RunRecord) -> bool:
        """Whether a run may be taken up; one that waits in the queue can be paused or cancelled."""
        last = self._store.last_wish(record.run)
        if record.status != "queued" or last is None or last.wish == "resume":
            return True
        if last.wish == "cancel":
            with self._store.transaction():
                self._store.set_status(record.run, "failed", cancel_reason(last))
        return False

    def _run_one(
        self, record: RunRecord, stop: threading.Event, watch: Callable[[Coordinator], None]
    ) -> None:
        if record.status == "queued":
            signed = self._enrolment.current_membership(time.time())
            open_run(self._store, self._consortium, record.run, signed)
            record = self._store.run(record.run)
        else:
            log_restart(self._store, self._consortium, record)
        coordinator = make_coordinator(self._store, self._consortium, record)
        meter = None if self._operator is None else self._operator.metrics
        app = make_server_app(coordinator, self._patience, watch, stop, meter)
        app(self._known, Context(1, 1, {}, RecordDict(), {}))

    def _show_log(self) -> None:
        """What came last into the log (goodbyes, releases) is cosigned too, by all who are here."""
        now = self._store.checkpoint().size, frozenset(self._known.get_node_ids())
        runs = self._store.runs()
        if not runs or now == self._shown:
            return
        self._shown = now
        collect_cosignatures(
            self._known,
            self._store,
            self._consortium.signer,
            run=runs[-1].run,
            identities={
                item.name: bytes.fromhex(item.identity) for item in self._enrolment.members()
            },
            wait_s=self._patience.close_s,
        )

    def _say_goodbye(self) -> None:
        """Firms that were away when their run ended still hold a reservation: close it now. Those
        that are no longer members closed theirs when they left, or cannot be reached."""
        present = {(item.name, item.identity) for item in self._enrolment.members()}
        for record in self._store.runs():
            if record.status not in ("done", "failed") or record.membership is None:
                continue
            participants = self._store.participants(record.run)
            waiting = {item.firm for item in participants if not item.closed}
            if not waiting:
                continue
            members = read_membership(self._consortium, record.membership).members
            asked = {(item.name, item.identity) for item in members if item.name in waiting}
            if asked & present:
                coordinator = make_coordinator(self._store, self._consortium, record)
                say_goodbye(self._known, coordinator, self._patience)
