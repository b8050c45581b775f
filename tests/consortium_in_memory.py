"""A small consortium of real parts in one process, for the tests of client, server and whole.

Real: participants, ledgers, memberships, trainers, masks, signatures, coordinator, store. The model
has a few dozen weights, and time stands still unless a test moves it.
"""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from greylag_client.app import make_client_app, make_context
from greylag_client.engine import make_engine
from greylag_client.firm_membership import MembershipStore, found_store
from greylag_client.ledger import Ledger
from greylag_client.masks import ApplyMasks
from greylag_client.masks import PairwiseMasks as RealMasks
from greylag_client.participant import Participant
from greylag_client.policy import Policy
from greylag_client.session import ClippedSums, Identity, OneTable
from greylag_protocols import log
from greylag_protocols.features import Records
from greylag_protocols.membership import LIFETIME_S, Member, Membership, SignedMembership
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.round import RosterKey
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Terms, terms_digest
from greylag_server.app import Patience, Watch, make_server_app
from greylag_server.coordinator import Coordinator
from greylag_server.grid_local import LocalGrid
from greylag_server.store import Store
from numpy.typing import NDArray

torch.set_num_threads(1)  # as the agent does

NOW_S = 1_800_000_000.0
NAME = "glass"
RUN = "small-1"
LEAD = Ed25519Signer(b"\x01" * 32)
PATIENCE = Patience(offer_s=30.0, round_s=30.0, close_s=30.0)

PLAN = """
[run]
name = "small"
purpose = "a test"
[data]
standard = "test@1"
{data}
task = "regression"
targets = [ {{ name = "y", range = [-1, 1] }}, {{ name = "z", range = [-1, 1] }} ]
features = [ {{ names = ["a", "b", "c"], range = [-1, 1] }} ]
expected_records = 120
max_records_per_firm = 60
[model]
hidden = [8]
[privacy]
unit = "{unit}"
noise_multiplier = 2.0
delta = 1e-6
max_colluding = 1
min_firms = {min_firms}
max_attempts = {max_attempts}
[training]
rounds = {rounds}
sampling_rate = {rate}
"""
# What the units need besides, and their sampling rate.
UNITS = {
    "record": ("", 0.3),
    "group": (
        'group = "g"\nexpected_groups = 40\nmax_groups_per_firm = 20\nmax_records_per_group = 4',
        0.3,
    ),
    "firm": ("expected_firms = 4", 1.0),
}


def make_terms(
    *,
    rounds: int = 4,
    max_attempts: int = 8,
    min_firms: int = 3,
    run: str = RUN,
    name: str = NAME,
    unit: str = "record",
) -> Terms:
    """Terms of a run with 50 weights and two targets."""
    data, rate = UNITS[unit]
    text = PLAN.format(
        rounds=rounds,
        max_attempts=max_attempts,
        min_firms=min_firms,
        unit=unit,
        data=data,
        rate=rate,
    )
    return settle_terms(parse_plan(text), consortium=name, run_id=run)


def make_records(terms: Terms, *, seed: int, count: int = 40) -> Records:
    """Random records in groups of one to four and more; a few targets are missing."""
    rng = np.random.default_rng(seed)
    targets = rng.uniform(-1, 1, (count, len(terms.data.targets)))
    targets[rng.random(targets.shape) < 0.2] = np.nan
    return Records(
        inputs=rng.uniform(-1, 1, (count, len(terms.data.feature_names))),
        targets=targets,
        groups=rng.integers(0, 15, count),
    )


class RecordingMasks:
    """The real masks, which also write down what they cover; per context, before masking."""

    def __init__(self) -> None:
        self.put_in: dict[bytes, NDArray[np.int32]] = {}

    def agree(
        self, private_key: bytes, roster: Sequence[RosterKey], own: int, context: bytes
    ) -> ApplyMasks:
        apply_real = RealMasks().agree(private_key, roster, own, context)

        def apply(vector: NDArray[np.uint32]) -> None:
            self.put_in[context] = vector.copy().view(np.int32)
            apply_real(vector)

        return apply


@dataclass(kw_only=True)
class Firm:
    """One firm: keys, files and the agent's participant. ``restart`` loses what is in memory."""

    name: str
    root: Path
    signer: Ed25519Signer
    memberships: MembershipStore
    load_engine: Callable[[Terms], ClippedSums]
    policy: Policy
    clock: Callable[[], float]
    masks: RecordingMasks = field(default_factory=RecordingMasks)
    ledger: Ledger = field(init=False)
    participant: Participant = field(init=False)

    def __post_init__(self) -> None:
        self._open()

    @property
    def identity(self) -> Identity:
        return Identity(
            firm=self.name, consortium=NAME, signer=self.signer, lead_key=LEAD.public_key
        )

    def _open(self) -> None:
        self.ledger = Ledger(self.root / "ledger.sqlite")
        self.participant = Participant(
            identity=self.identity,
            policy=lambda: self.policy,
            ledger=self.ledger,
            memberships=self.memberships,
            data=OneTable(lambda terms: self.load_engine(terms)),
            masker=self.masks,
            entropy=os.urandom,
            clock=self.clock,
        )

    def restart(self) -> None:
        """Another process on the same files."""
        self.ledger.close_file()
        self._open()

    def lose_ledger(self) -> None:
        """The machine is set back to before its first entry, and started again."""
        self.ledger.close_file()
        for path in self.root.glob("ledger.sqlite*"):
            path.unlink()
        self._open()

    def answer(self, message: Message) -> Message:
        """What the firm's ClientApp answers."""
        return make_client_app(self.participant)(message, make_context())

    def receipts(self) -> list[dict[str, Any]]:
        """The predicates of the receipts in its ledger, in order."""
        statements = [log.parse_statement(item) for item in self.ledger.entries_after(0)]
        return [item.predicate for item in statements if item.kind == log.RECEIPT_KIND]


class Consortium:
    """A lead and some firms who approved the same membership.

    Args:
        operators: by firm, where it is not an operator of its own.
        policies: by firm, where it is not a generous one.
        recoveries: private recovery keys by firm, where a test needs to use them.
    """

    def __init__(
        self,
        root: Path,
        *,
        terms: Terms,
        firms: int = 4,
        operators: dict[str, str] | None = None,
        policies: dict[str, Policy] | None = None,
        recoveries: dict[str, bytes] | None = None,
    ) -> None:
        self.root = root
        self.terms = terms
        self.encoded = terms.encode()
        self.now_s = NOW_S
        self.lead = LEAD
        names = [f"firm-{letter}" for letter in "abcdefgh"[:firms]]
        signers = {name: Ed25519Signer(bytes([10 + at] * 32)) for at, name in enumerate(names)}
        recovery_keys = {name: signers[name].public_key[::-1] for name in names}
        for name, private in (recoveries or {}).items():
            recovery_keys[name] = Ed25519Signer(private).public_key
        self.membership = Membership(
            consortium=NAME,
            lead="acme",
            epoch=1,
            issued_s=int(NOW_S),
            expires_s=int(NOW_S) + LIFETIME_S,
            members=tuple(
                Member(
                    name=name,
                    operator=(operators or {}).get(name, name),
                    identity=signers[name].public_key.hex(),
                    recovery=recovery_keys[name].hex(),
                )
                for name in names
            ),
        )
        self.signed = SignedMembership.sign(self.membership, self.lead)
        self.firms = {
            name: self._found(
                name,
                signers[name],
                make_records(terms, seed=at),
                (policies or {}).get(name, Policy(lifetime_epsilon=1e3, max_epsilon_per_run=1e3)),
            )
            for at, name in enumerate(names)
        }

    def _found(self, name: str, signer: Ed25519Signer, records: Records, policy: Policy) -> Firm:
        root = self.root / name
        root.mkdir()
        found_store(root, seen=self.signed, approve=True)
        return Firm(
            name=name,
            root=root,
            signer=signer,
            memberships=MembershipStore(root, lead_key=self.lead.public_key, consortium=NAME),
            load_engine=lambda terms: make_engine(terms, records),
            policy=policy,
            clock=lambda: self.now_s,
        )

    # -- the lead's side -------------------------------------------------------------------------

    def open_store(self) -> Store:
        """The lead's store; the run is queued and opened the first time."""
        store = Store(self.root / "log.sqlite", origin=NAME)
        if not store.runs():
            digest = terms_digest(self.encoded)
            run = self.terms.run_id
            with store.transaction():
                store.queue_run(run, self.encoded, firms=len(self.firms))
                store.append([self.lead.sign(log.TERMS_KIND, run, digest, {"run": run})])
                store.keep(digest, self.encoded)
                store.open_run(run, self.signed)
        return store

    def coordinator(
        self, store: Store, *, watch_sum: Callable[[NDArray[np.int32]], None] = lambda _: None
    ) -> Coordinator:
        """The run's coordinator, as the store knows it."""
        return Coordinator(
            store.run(self.terms.run_id),
            terms=self.terms,
            membership=self.membership,
            signer=self.lead,
            store=store,
            watch_sum=watch_sum,
        )

    def local_grid(self, **answers: Callable[[Message], Message]) -> LocalGrid:
        """A grid of the firms' apps; ``answers`` (by name, ``_`` for ``-``) replace some."""
        changed = {name.replace("_", "-"): answer for name, answer in answers.items()}
        return LocalGrid({name: firm.answer for name, firm in self.firms.items()} | changed)


def run_on(
    grid: Grid,
    coordinator: Coordinator,
    *,
    watch: Watch = lambda _: None,
    stop: threading.Event | None = None,
    patience: Patience = PATIENCE,
) -> None:
    """Run to the end (or until ``stop``) through the ServerApp."""
    app = make_server_app(coordinator, patience, watch, stop or threading.Event())
    app(grid, Context(1, 1, {}, RecordDict(), {}))
