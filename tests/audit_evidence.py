"""A real small run with its bundle, and a forger's hand on it.

The forger holds every key: what it does not sign anew is what nobody could. ``world`` says whose
keys a case takes for granted by whose signatures it uses.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from consortium_in_memory import NAME, NOW_S, Consortium, make_terms, run_on
from flwr.app import Error, Message
from greylag_audit.bundle_files import open_bundle
from greylag_audit.ledger_export import LedgerExport
from greylag_audit.verify import Verdict, verify
from greylag_protocols import log
from greylag_protocols.endorsement import sign_endorsement
from greylag_protocols.notes import cosign
from greylag_protocols.optimiser import model_digest
from greylag_protocols.signing import Ed25519Signer, Statement, parse_statement
from greylag_protocols.terms import terms_digest
from greylag_protocols.trust import Trust, parse_trust
from greylag_server.bundle import write_bundle
from greylag_server.service import log_endorsement, log_epoch
from greylag_server.store import RunRecord, Store

FIRMS = 5
ROUNDS = 6
STRANGER = Ed25519Signer(b"\x66" * 32)


@dataclass(kw_only=True)
class Evidence:
    """What a lead's store held after a run, and all keys."""

    entries: list[bytes]
    artefacts: dict[bytes, bytes]
    record: RunRecord
    lead: Ed25519Signer
    firms: dict[str, Ed25519Signer]
    operators: dict[str, str]
    ledgers: dict[str, tuple[bytes, ...]]
    card: bytes = b"# a card\n"
    cosigned_at: dict[int, int] = field(default_factory=dict)  # size: Unix seconds, by all firms

    def copy(self) -> "Evidence":
        return replace(
            self,
            entries=list(self.entries),
            artefacts=dict(self.artefacts),
            firms=dict(self.firms),
            operators=dict(self.operators),
            cosigned_at=dict(self.cosigned_at),
        )

    @property
    def run(self) -> str:
        return self.record.run

    # -- finding entries -------------------------------------------------------------------------

    def statement(self, at: int) -> Statement:
        return parse_statement(self.entries[at])

    def find(self, kind: str, *, firm: str = "", nth: int = 0, **facts: Any) -> int:
        """The position of the nth entry of a kind with these facts."""
        found = [
            at
            for at, envelope in enumerate(self.entries)
            if (item := parse_statement(envelope)).kind == kind
            and (not firm or item.predicate.get("firm") == firm)
            and all(item.predicate.get(key) == value for key, value in facts.items())
        ]
        return found[nth]

    # -- forging ---------------------------------------------------------------------------------

    def signer_of(self, at: int) -> Ed25519Signer:
        statement = self.statement(at)
        return self.firms.get(str(statement.predicate.get("firm")), self.lead)

    def sign(
        self,
        at: int,
        *,
        signer: Ed25519Signer | None = None,
        digest: bytes | None = None,
        subject: str | None = None,
        **changes: Any,
    ) -> None:
        """Say something else at ``at``, with the author's own key (or another)."""
        item = self.statement(at)
        self.entries[at] = (signer or self.signer_of(at)).sign(
            item.kind,
            item.subject if subject is None else subject,
            item.digest if digest is None else digest,
            {**item.predicate, **changes},
        )

    def rechain(self, *firms: str) -> None:
        """The firms number and link their entries anew, and the lead follows in its records."""
        tips = dict.fromkeys(self.firms, log.ChainTip())
        for at in range(len(self.entries)):
            item = self.statement(at)
            if item.kind in log.CHAINED_KINDS:
                firm = item.predicate["firm"]
                if firm in firms:
                    self.sign(at, **tips[firm].link(firm))
                head = log.entry_head(self.entries[at])
                tips[firm] = log.ChainTip(seq=tips[firm].seq + 1, head=head)
        self.restate()

    def restate(self) -> None:
        """The lead's records follow the chains as they are."""
        tips: dict[str, tuple[int, str]] = dict.fromkeys(self.firms, (0, bytes(32).hex()))
        acceptances: list[bytes] = []
        for at in range(len(self.entries)):
            item = self.statement(at)
            if item.kind in log.CHAINED_KINDS:
                head = log.entry_head(self.entries[at]).hex()
                tips[item.predicate["firm"]] = item.predicate["seq"], head
                if item.kind == log.ACCEPTANCE_KIND:
                    acceptances.append(self.entries[at])
            elif item.kind == log.START_KIND:
                heads = sorted(log.entry_head(envelope).hex() for envelope in acceptances)
                self.sign(at, acceptances=heads)
            elif item.kind in (log.ROUND_KIND, log.VOID_KIND):
                roster = [
                    {"firm": firm, "seq": tips[firm][0], "head": tips[firm][1]}
                    for firm in (entry["firm"] for entry in item.predicate["roster"])
                    if firm in tips
                ]
                self.sign(at, roster=roster)

    # -- the bundle ------------------------------------------------------------------------------

    def write(self, out: Path) -> Path:
        """The lead's own program writes the bundle of this log."""
        store = Store(":memory:", origin=NAME)
        with store.transaction():
            for at, envelope in enumerate(self.entries):
                self._cosign(store, at)
                store.append([envelope])
            self._cosign(store, len(self.entries))
            for digest, content in self.artefacts.items():
                store.keep(digest, content)
        write_bundle(store, self.record, out, signer=self.lead, card=self.card)
        store.close()
        return out

    def _cosign(self, store: Store, size: int) -> None:
        if (time_s := self.cosigned_at.get(size)) is not None:
            checkpoint = store.checkpoint()
            words = {
                firm: cosign(signer, checkpoint, time_s=time_s)
                for firm, signer in self.firms.items()
            }
            store.keep_cosignatures(checkpoint, words)

    def trust(self) -> Trust:
        firms = {
            name: {"identity": signer.public_key.hex(), "operator": self.operators[name]}
            for name, signer in self.firms.items()
        }
        facts = {
            "version": "trust/v1",
            "consortium": NAME,
            "lead": self.lead.public_key.hex(),
            "firms": firms,
            "bodies": {"guild": STRANGER.public_key.hex()},
        }
        return parse_trust(json.dumps(facts).encode())


def make_evidence(root: Path) -> Evidence:
    """A run of six rounds in which firm-e is silent once, with all that a lead logs."""
    terms = make_terms(rounds=ROUNDS, max_attempts=10)
    consortium = Consortium(root, terms=terms, firms=FIRMS)
    store = Store(root / "log.sqlite", origin=NAME)
    with store.transaction():
        store.queue_run(terms.run_id, consortium.encoded, firms=FIRMS)
    log_epoch(store, consortium.signed)
    word = sign_endorsement(consortium.firms["firm-a"].signer, consortium.membership, by="firm-a")
    log_endorsement(store, word, consortium.membership.digest())
    word = sign_endorsement(STRANGER, consortium.membership, by="guild")
    log_endorsement(store, word, consortium.membership.digest())
    named = terms_digest(consortium.encoded)
    with store.transaction():
        word = consortium.lead.sign(log.TERMS_KIND, terms.run_id, named, {"run": terms.run_id})
        store.append([word])
        store.keep(named, consortium.encoded)
        store.open_run(terms.run_id, consortium.signed)
    run_on(
        consortium.local_grid(firm_e=_silent_once(consortium.firms["firm-e"].answer)),
        consortium.coordinator(store),
    )
    record = store.run(terms.run_id)
    assert record.state is not None
    predicate = {
        "terms": named.hex(),
        "rounds": record.rounds_done,
        "attempts": record.attempts,
        "state": record.state.digest().hex(),
    }
    digest = model_digest(record.state.released())
    with store.transaction():
        store.append([consortium.lead.sign(log.RELEASE_KIND, terms.run_id, digest, predicate)])
    entries = list(store.entries())
    evidence = Evidence(
        entries=entries,
        artefacts={},
        record=record,
        lead=consortium.lead,
        firms={name: firm.signer for name, firm in consortium.firms.items()},
        operators={item.name: item.operator for item in consortium.membership.members},
        ledgers={name: firm.ledger.entries_after(0) for name, firm in consortium.firms.items()},
    )
    rows = store._db.execute("SELECT digest, content FROM artefacts").fetchall()
    evidence.artefacts = {row[0]: row[1] for row in rows}
    middle = evidence.find(log.ROUND_KIND, nth=2) + 1
    last = evidence.find(log.ROUND_KIND, nth=ROUNDS - 2) + 1
    evidence.cosigned_at = {middle: int(NOW_S) + 60, last: int(NOW_S) + 120}
    store.close()
    return evidence


def _silent_once(answer: Callable[[Message], Message]) -> Callable[[Message], Message]:
    """The firm's answer to its third round is lost on the way, after it has paid for it."""
    rounds = 0

    def flaky(message: Message) -> Message:
        nonlocal rounds
        reply = answer(message)
        rounds += message.metadata.message_type == "train"
        if rounds == 3 and message.metadata.message_type == "train":
            return Message(Error(code=0, reason="lost"), reply_to=message)
        return reply

    return flaky


def audit(
    bundle: Path,
    trust: Trust | None,
    *,
    quick: bool = False,
    ledger: LedgerExport | None = None,
) -> Verdict:
    """The verdict on a bundle."""
    with open_bundle(bundle) as opened:
        return verify(opened, trust=trust, quick=quick, ledger=ledger)


def broken(verdict: Verdict) -> list[tuple[str, int | None, str | None]]:
    """What is broken: message, entry, firm."""
    return [
        (item.message, item.entry, item.firm) for item in verdict.findings if item.state == "broken"
    ]
