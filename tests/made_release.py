"""A release as its lead writes it, from a model of random weights: for those who read it."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from greylag_protocols.membership import LIFETIME_S, Member, Membership
from greylag_protocols.notes import cosign
from greylag_protocols.optimiser import ModelState
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.releases import Withdrawal, sign_release, sign_withdrawal
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Terms
from greylag_server.release.artefacts import Draft, Licence, make_draft, make_model, write_release
from greylag_server.release.cosigned import find_cosigned, make_proofs
from greylag_server.release.signing import signing_key
from greylag_server.store import RunRecord, Store

NAME = "metals"
LEAD = Ed25519Signer(b"\x01" * 32)
FIRMS = {f"firm-{letter}": Ed25519Signer(letter.encode() * 32) for letter in "abcd"}
PLAN = """
[run]
name = "alloys"
purpose = "strength of new alloys"
[data]
standard = "alloys@1.0"
task = "regression"
targets = [ { name = "strength", unit = "MPa", range = [100, 900] } ]
features = [ { names = ["copper", "nickel"], range = [0, 100], scale = "sqrt", multiplier = 4 },
             { names = ["furnace"], categories = ["arc", "gas"], missing = "zero-and-flag" } ]
expected_records = 1000
max_records_per_firm = 400
expected_firms = 4
[model]
hidden = [7]
[privacy]
unit = "firm"
noise_multiplier = 2.0
delta = 1e-5
max_colluding = 1
min_firms = 3
[training]
rounds = 2
sampling_rate = 1.0
"""
CLASSES = PLAN.replace(
    'targets = [ { name = "strength", unit = "MPa", range = [100, 900] } ]',
    'targets = [ { name = "fault", classes = ["no", "yes"] } ]',
).replace('"regression"', '"classification"')


def make_terms(plan: str = PLAN, *, run: str = "alloys-1") -> Terms:
    return settle_terms(parse_plan(plan), consortium=NAME, run_id=run)


def make_record(terms: Terms, *, seed: int = 3, **changed: Any) -> RunRecord:
    """A finished run whose weights are random."""
    weights = np.random.default_rng(seed).normal(0, 0.2, terms.dimension)
    state = replace(ModelState.start(weights), average=weights, rounds_done=2)
    facts = {
        "run": terms.run_id,
        "terms": terms.encode(),
        "firms": len(FIRMS),
        "status": "done",
        "reason": "",
        "membership": None,
        "rounds_done": 2,
        "attempts": 2,
        "roster": tuple(FIRMS),
        "retrying": False,
        "state": state,
        "frame": None,
    }
    return RunRecord(**facts | changed)


def make_membership(now_s: float) -> Membership:
    members = tuple(
        Member(
            name=name,
            operator=name,
            identity=signer.public_key.hex(),
            recovery=signer.public_key[::-1].hex(),
        )
        for name, signer in FIRMS.items()
    )
    return Membership(
        consortium=NAME,
        lead="acme",
        epoch=1,
        issued_s=int(now_s),
        expires_s=int(now_s) + LIFETIME_S,
        members=members,
    )


def make_lead(root: Path) -> Any:
    """As much of the lead's directory as releasing a model looks at."""
    (root / "keys").mkdir(parents=True, exist_ok=True)
    settings = SimpleNamespace(id=NAME, host="localhost", enrol_port=1)
    return SimpleNamespace(root=root, settings=settings, signer=LEAD)


@dataclass(frozen=True)
class Made:
    """A release's directory, and what it was made of."""

    path: Path
    draft: Draft
    store: Store
    trust: Path

    def withdrawal(self, because: str = "a wrong unit", *, lead: Ed25519Signer = LEAD) -> bytes:
        facts = self.draft.facts
        word = Withdrawal(
            consortium=NAME,
            name=facts.name,
            versions=(facts.version,),
            because=because,
            withdrawn_s=facts.issued_s,
        )
        return sign_withdrawal(lead, self.draft.run, self.draft.model, word)


def make_release(
    root: Path,
    *,
    terms: Terms | None = None,
    lead: Ed25519Signer = LEAD,
    cosigners: int = len(FIRMS),
    age_days: float = 0.0,
    days: int = 30,
) -> Made:
    """A release below ``root``, cosigned by so many firms, and a trust file for it."""
    root.mkdir(parents=True, exist_ok=True)
    terms = terms or make_terms()
    now_s = time.time() - 86_400 * age_days
    record = make_record(terms)
    key_path, public_key = signing_key(make_lead(root / "lead").root / "keys")
    assert record.state is not None
    licence = Licence(
        text="for members",
        permitted_uses=("predictions",),
        issued_s=int(now_s),
        expires_s=int(now_s) + days * 86_400,
    )
    draft = make_draft(
        record,
        make_model(record, record.state),
        consortium=NAME,
        version=1,
        firms=len(FIRMS),
        licence=licence,
        public_key=public_key,
        cosigners=2,
        holdout=None,
        because="",
    )
    entry = sign_release(lead, record.run, draft.model, draft.facts)
    store = Store(root / "log.sqlite", origin=NAME)
    with store.transaction():
        store.append([b"one entry", b"another", entry, b"a later one"])
        checkpoint = store.checkpoint()
        words = {
            name: cosign(signer, checkpoint, time_s=int(now_s))
            for name, signer in list(FIRMS.items())[:cosigners]
        }
        store.keep_cosignatures(checkpoint, words)
    membership = make_membership(now_s)
    found = find_cosigned(store, membership, position=2)
    (proof,) = make_proofs(store, lead, membership, found[0], positions=[2])
    write_release(root / "release", draft, entry=entry, proof=proof, private_key=key_path)
    trust = root / "trust.json"
    firms = {
        name: {"identity": signer.public_key.hex(), "operator": name}
        for name, signer in FIRMS.items()
    }
    facts = {"version": "trust/v1", "consortium": NAME, "lead": LEAD.public_key.hex()}
    trust.write_text(json.dumps(facts | {"firms": firms}))
    return Made(path=root / "release", draft=draft, store=store, trust=trust)
