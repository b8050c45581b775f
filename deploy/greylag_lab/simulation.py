"""A whole consortium in one process, on a LocalGrid: real coordinator, real participants, real
signatures, ledgers (in memory) and noise. Masks can be left out, here and nowhere else: they cancel
in the sum, so a model comes out the same, several times faster.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from greylag_client.app import make_client_app, make_context
from greylag_client.engine import make_engine
from greylag_client.ledger import Ledger
from greylag_client.masks import ApplyMasks, Masker, PairwiseMasks
from greylag_client.participant import Participant
from greylag_client.policy import Policy
from greylag_client.prediction import Predictor
from greylag_client.session import Identity, OneTable
from greylag_client.table import Table
from greylag_client.trainer import SharedModel, TrainedModel
from greylag_protocols.errors import GreylagError
from greylag_protocols.membership import LIFETIME_S, Member, Membership, SignedMembership
from greylag_protocols.optimiser import ModelState
from greylag_protocols.parameters import split
from greylag_protocols.plan import settle_terms
from greylag_protocols.round import RosterKey
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Plan, Terms
from greylag_server.app import Patience, make_server_app
from greylag_server.coordinator import Coordinator
from greylag_server.grid_local import LocalGrid
from greylag_server.store import Store
from numpy.typing import NDArray

CONSORTIUM = "simulation-00000000"

Progress = Callable[[int, int], None]


class NoMasks:
    """What the unmasked simulation puts in the place of ``PairwiseMasks``."""

    def agree(
        self, private_key: bytes, roster: Sequence[RosterKey], own: int, context: bytes
    ) -> ApplyMasks:
        def leave(vector: NDArray[np.uint32]) -> None:
            return None

        return leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What a simulated run gave."""

    terms: Terms
    state: ModelState
    attempts: int
    log_size: int
    wall_s: float

    def predictor(self) -> Predictor:
        """The released model."""
        return make_predictor(self.terms, self.state)


def make_predictor(terms: Terms, state: ModelState) -> Predictor:
    """A predictor from a training state, without writing a release."""
    tensors = [
        tensor.astype(np.float64) for tensor in split(state.released(), terms.parameters).values()
    ]
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return Predictor(terms=terms, layers=tuple(pairs))


class _Everybody:
    """A firm of the simulation approves whomever it is shown."""

    def __init__(self, lead_key: bytes) -> None:
        self._lead_key = lead_key
        self._seen: dict[str, Membership] = {}

    def approved(self) -> dict[str, Membership]:
        return self._seen

    def store_seen(self, signed: SignedMembership, *, now_s: float) -> Membership:
        membership = signed.verify(self._lead_key, consortium=CONSORTIUM, now_s=now_s)
        self._seen[membership.digest().hex()] = membership
        return membership

    def revocations(self) -> tuple[bytes, ...]:
        return ()

    def store_revocation(self, envelope: bytes, membership: Membership) -> None:
        return None


def simulate(
    plan: Plan, tables: Mapping[str, Table], *, masked: bool, progress: Progress
) -> Simulated:
    """Train ``plan`` on the firms' tables.

    Args:
        progress: called with (rounds done, rounds).

    Raises:
        ConfigError: the plan does not fit the firms.
        GreylagError: the run ended without a model; the message says why.
    """
    torch.set_num_threads(1)
    started_s = time.monotonic()
    names = sorted(tables)
    terms = settle_terms(plan, consortium=CONSORTIUM, run_id=f"{plan.run.name[:28]}-simulated")
    terms.grid(max(len(names), plan.privacy.min_firms))
    lead = Ed25519Signer(os.urandom(32))
    signers = {name: Ed25519Signer(os.urandom(32)) for name in names}
    membership = Membership(
        consortium=CONSORTIUM,
        lead="lead",
        epoch=1,
        issued_s=int(time.time()),
        expires_s=int(time.time()) + LIFETIME_S,
        members=tuple(
            Member(
                name=name,
                operator=name,
                identity=signers[name].public_key.hex(),
                recovery=os.urandom(32).hex(),
            )
            for name in names
        ),
    )
    store = Store(":memory:", origin=CONSORTIUM)
    with store.transaction():
        store.queue_run(terms.run_id, terms.encode(), firms=len(names))
        store.open_run(terms.run_id, SignedMembership.sign(membership, lead))
    coordinator = Coordinator(
        store.run(terms.run_id), terms=terms, membership=membership, signer=lead, store=store
    )
    masker: Masker = PairwiseMasks() if masked else NoMasks()
    model = None if terms.privacy.unit == "firm" else SharedModel(terms)
    grid = LocalGrid(
        {
            name: _answer(name, signers[name], lead.public_key, tables[name], terms, masker, model)
            for name in names
        }
    )

    def watch(current: Coordinator) -> None:
        progress(current.rounds_done, terms.training.rounds)

    app = make_server_app(coordinator, Patience(), watch, threading.Event())
    app(grid, Context(1, 1, {}, RecordDict(), {}))
    record = store.run(terms.run_id)
    if record.state is None or record.status != "done":
        raise GreylagError(f"the simulated run ended without a model: {record.reason}")
    return Simulated(
        terms=terms,
        state=record.state,
        attempts=record.attempts,
        log_size=store.checkpoint().size,
        wall_s=time.monotonic() - started_s,
    )


def _answer(
    name: str,
    signer: Ed25519Signer,
    lead_key: bytes,
    table: Table,
    terms: Terms,
    masker: Masker,
    model: TrainedModel | None,
) -> Callable[[Message], Message]:
    """One firm as the grid calls it. Its policy allows this run and no more."""
    privacy = terms.privacy
    policy = Policy(
        lifetime_epsilon=privacy.epsilon,
        lifetime_delta=privacy.delta,
        max_epsilon_per_run=privacy.epsilon,
        max_delta=privacy.delta,
        families=(terms.model.family,),
        max_parameters=terms.dimension,
    )
    participant = Participant(
        identity=Identity(firm=name, consortium=CONSORTIUM, signer=signer, lead_key=lead_key),
        policy=lambda: policy,
        ledger=Ledger(":memory:"),
        memberships=_Everybody(lead_key),
        data=OneTable(
            lambda _: make_engine(terms, table.records(table.train), pad=False, model=model)
        ),
        masker=masker,
        entropy=os.urandom,
        clock=time.time,
    )
    app, context = make_client_app(participant), make_context()
    return lambda message: app(message, context)
