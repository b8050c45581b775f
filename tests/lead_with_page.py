"""A lead whose firms have joined and whose runs have left their traces, for the tests of the
operator's page. Files, keys and entries are real; nobody is connected."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from consortium_in_memory import make_terms
from greylag_client.enrolment_client import make_csr, make_tls_key
from greylag_protocols import log
from greylag_protocols.accounting import POISSON_GAUSSIAN
from greylag_protocols.invite import EnrolmentRequest, parse_invite
from greylag_protocols.log import AttemptRecord, ChainTip
from greylag_protocols.notes import cosign
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Terms, terms_digest
from greylag_server import steering
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.page.accounts import Accounts
from greylag_server.page.actions import Steering
from greylag_server.page.facts import Live
from greylag_server.page.serve import OperatorPage
from greylag_server.store import Store

RUN = "small-1"
PACE = steering.PaceNote(round_s=2.5, phases={"firms": 1.5, "stragglers": 0.75, "lead": 0.25})
PASSWORD = "four words of grey"  # noqa: S105 - of accounts that live as long as a test


class LeadHouse:
    """The lead's directory and what happens in it.

    Attributes:
        online: who is connected, with the agents' versions; tests may change it.
    """

    def __init__(self, root: Path, *, firms: int = 4) -> None:
        self.now_s = time.time()
        self.consortium = Consortium.create(
            root, name="glass", operator="acme", host="127.0.0.1", port=7001, enrol_port=7002
        )
        self.log_path = root / "log.sqlite"
        self.store = Store(self.log_path, origin=self.consortium.settings.id)
        self.enrolment = Enrolment(self.consortium)
        self.accounts = Accounts(root)
        self.signers: dict[str, Ed25519Signer] = {}
        for number in range(1, firms + 1):
            self.admit(f"firm-{number:03d}")
        self.names = list(self.signers)
        self.online = dict.fromkeys(self.names[1:], "0.1.0")
        self.terms: dict[str, Terms] = {}
        self.charged: Counter[tuple[str, str]] = Counter()

    def admit(self, name: str) -> None:
        """A firm joins by an invite."""
        invite = parse_invite(self.enrolment.invite(name, now_s=self.now_s))
        seed = int(name[-3:])
        self.signers[name] = Ed25519Signer(seed.to_bytes(32, "big"))
        request = EnrolmentRequest.prove(
            invite,
            csr=make_csr(make_tls_key(), name),
            signer=self.signers[name],
            recovery_key=Ed25519Signer((seed + 10**6).to_bytes(32, "big")).public_key,
        )
        self.enrolment.enrol(request, now_s=self.now_s)

    # -- runs --------------------------------------------------------------------------------------

    def queue(self, run: str = RUN, *, rounds: int = 40) -> None:
        """A run that waits."""
        terms = make_terms(
            name=self.consortium.settings.id, run=run, rounds=rounds, max_attempts=2 * rounds
        )
        self.terms[run] = terms
        with self.store.transaction():
            self.store.queue_run(run, terms.encode(), firms=len(self.names))

    def begin(self, run: str = RUN) -> None:
        """All firms accept; training begins."""
        signed = self.enrolment.current_membership(self.now_s)
        digest = terms_digest(self.terms[run].encode())
        with self.store.transaction():
            self.store.open_run(run, signed)
            for name, signer in self.signers.items():
                tip = self.store.tip(name)
                entry = log.sign_acceptance(signer, tip, firm=name, run=run, terms=digest, epoch=1)
                self._chain(name, tip, entry)
                self.store.add_participant(run, name, entry)
            self.store.set_status(run, "training")

    def attempt(
        self, run: str = RUN, *, missing: Sequence[str] = (), cosigners: Sequence[str] = ()
    ) -> None:
        """One attempt; void if firms are missing."""
        record = self.store.run(run)
        number, void = record.attempts + 1, bool(missing)
        done = record.rounds_done + (not void)
        present = [name for name in self.names if name not in missing]
        with self.store.transaction():
            checkpoint = self.store.checkpoint()
            self.store.save_attempt(run, number, self.names, b"frame")
            for name in present:
                tip = self.store.tip(name)
                self._chain(
                    name,
                    tip,
                    log.sign_receipt(
                        self.signers[name],
                        tip,
                        firm=name,
                        run=run,
                        round_number=done,
                        attempt=number,
                        context=bytes(32),
                        roster_size=len(self.names),
                        event_type=POISSON_GAUSSIAN,
                        charged=self.charge(run, name),
                    ),
                )
            attempt = AttemptRecord(
                run=run,
                round_number=done,
                attempt=number,
                context=bytes(32),
                roster=self.names,
                tips=[self.store.tip(name) for name in self.names],
            )
            lead = self.consortium.signer
            if void:
                self.store.append([log.sign_void(lead, attempt, missing=missing)])
                for name in missing:
                    self.store.count_void(run, name)
            else:
                self.store.append([self._round_entry(attempt)])
                self.store._db.execute("UPDATE runs SET rounds_done = ? WHERE run = ?", (done, run))
            self.store.end_attempt(run, present, retrying=void)
            self.store.keep_pace(run, PACE.encode())
            words = {
                name: cosign(self.signers[name], checkpoint, time_s=int(self.now_s))
                for name in cosigners
            }
            self.store.keep_cosignatures(checkpoint, words)

    def charge(self, run: str, name: str) -> int:
        """One release more; how many that makes."""
        self.charged[run, name] += 1
        return self.charged[run, name]

    def _round_entry(self, attempt: AttemptRecord) -> bytes:
        return log.sign_round(
            self.consortium.signer,
            attempt,
            model_in=bytes(32),
            state_out=bytes(32),
            sum_digest=bytes(32),
            grid_step=(0.5).hex(),
            event_type=POISSON_GAUSSIAN,
        )

    def _chain(self, name: str, tip: ChainTip, entry: bytes) -> None:
        self.store.append([entry])
        self.store.set_tip(name, ChainTip(seq=tip.seq + 1, head=log.entry_head(entry)))

    def refuse(self, name: str, refusal_class: str, run: str = RUN) -> None:
        """A firm declines."""
        word = log.sign_refusal(self.signers[name], firm=name, run=run, refusal_class=refusal_class)
        with self.store.transaction():
            self.store.append([word])

    def release(self, run: str = RUN) -> None:
        """A model comes out of a run."""
        predicate = {"terms": "00" * 32, "rounds": 4, "attempts": 5, "state": "00" * 32}
        entry = self.consortium.signer.sign(log.RELEASE_KIND, run, b"\x07" * 32, predicate)
        with self.store.transaction():
            self.store.append([entry])

    def end(self, status: str, run: str = RUN, reason: str = "") -> None:
        """A run is over."""
        with self.store.transaction():
            self.store.set_status(run, status, reason)  # type: ignore[arg-type]

    # -- the page ----------------------------------------------------------------------------------

    @property
    def live(self) -> Live:
        return Live(
            online=lambda: dict(self.online),
            phases=lambda run: steering.phases(self.store, run),
            paused=lambda: steering.paused_runs(self.store),
        )

    @property
    def steering(self) -> Steering:
        store, now_s = self.store, self.now_s
        return Steering(
            pause=lambda run, because, by: steering.pause(store, run, by, now_s),
            resume=lambda run, because, by: steering.resume(store, run, by, now_s),
            cancel=lambda run, because, by: steering.cancel(store, run, because, by, now_s),
        )

    def obey(self, run: str = RUN) -> None:
        """What a serving process does about a run that was cancelled."""
        wished = self.store.last_wish(run)
        assert wished is not None
        assert wished.wish == "cancel"
        self.end("failed", run, steering.cancel_reason(wished))

    def add_accounts(self) -> None:
        """One of each role."""
        self.accounts.add("olga", "operator", PASSWORD)
        self.accounts.add("victor", "viewer", PASSWORD)

    @contextmanager
    def page(self, **changes: object) -> Iterator[OperatorPage]:
        """The page; nobody serves it yet."""
        page = OperatorPage(
            self.consortium,
            log_path=self.log_path,
            enrolment=self.enrolment,
            **({"live": self.live, "steering": self.steering} | changes),  # type: ignore[arg-type]
        )
        try:
            yield page
        finally:
            page.stop()

    @contextmanager
    def serving(self) -> Iterator[OperatorPage]:
        """The page, served."""
        with self.page() as page:
            page.start()
            yield page


def with_history(house: LeadHouse, *, attempts: int = 12) -> LeadHouse:
    """A run in its midst, with what can happen to one."""
    house.queue()
    house.begin()
    for number in range(attempts):
        missing = house.names[:1] if number % 6 == 4 else ()
        house.attempt(missing=missing, cosigners=house.names[: -1 - number % 2])
    house.refuse(house.names[2], "policy")
    house.refuse(house.names[3], "protocol")
    house.release()
    house.queue("later-2")
    return house
