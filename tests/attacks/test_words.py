"""Attacks that read a firm's data off its words: what a refusal says, and what a log keeps.

- **A refusal** is the same bytes whatever the reason, but for its class. Without: the frame names
  the rule, what is left of a budget, or the row that does not fit.
- **Logs** hold no key, no secret and no value of a record, although they name every reason.
  Without: a session that is printed shows the keys of all attempts to come.
"""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from consortium_in_memory import Consortium, make_records, make_terms
from greylag_client import participant
from greylag_client.ledger import Ledger
from greylag_client.session import ClippedSums
from greylag_protocols.errors import ConfigError, GreylagError
from greylag_protocols.messages import Refusal
from greylag_protocols.parsing import parse_firm_message
from greylag_protocols.signing import parse_statement
from greylag_protocols.terms import Terms
from lying_lead import ALL, Lead
from numpy.typing import NDArray


def lead_of(root: Path) -> Lead:
    root.mkdir()
    return Lead(Consortium(root, terms=make_terms())).enter()


class Broken:
    """An engine that fails on every sample."""

    def __len__(self) -> int:
        return 40

    def clipped_sum(self, weights: Any, units: Any) -> Any:
        raise RuntimeError("no convergence")


def refusals(lead: Lead, attempt: int = 1) -> dict[str, set[bytes]]:
    """Frames of refusals for many reasons, by class."""
    terms, victim = lead.consortium.terms, lead.victim
    load, policy = victim.load_engine, victim.policy

    def unfit(_: Terms) -> ClippedSums:
        raise ConfigError("column 'SiO2': 7 values outside its range, first in row 12")

    frames: dict[str, set[bytes]] = {"policy": set(), "protocol": set()}

    def refused(message: Any) -> None:
        reply = victim.participant.handle(message)
        assert isinstance(reply, Refusal)
        frames[reply.refusal_class].add(reply.encode())

    refused(lead.round(attempt, roster=ALL[:2]))
    refused(replace(lead.round(attempt), weights=np.full(50, np.nan, dtype=np.float32)))
    refused(replace(lead.round(attempt), seen=(9, 0, 0, 0)))
    refused(lead.round(attempt, 99))
    for change in (
        {"max_epsilon_per_run": 1e-3},
        {"min_firms": 9},
        {"lifetime_epsilon": 1e-3},
        {"paused": True},
    ):
        fresh = Ledger(":memory:")
        victim.participant._ledger = fresh
        victim.policy = replace(policy, **change)
        refused(lead.offer())
    victim.policy, victim.load_engine = policy, unfit
    refused(lead.offer(terms=terms.encode()))
    victim.load_engine = load
    return frames


def test_refusals_of_one_class_are_the_same_bytes(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = refusals(lead_of(memory_path / "with"))
    assert {name: len(frames) for name, frames in found.items()} == {"policy": 1, "protocol": 1}
    reasons: list[str] = []
    classify, sign = participant._refusal_class, participant.log.sign_refusal

    def listen(error: GreylagError) -> Any:
        reasons.append(str(error))
        return classify(error)

    def talk(signer: Any, *, refusal_class: str, **rest: Any) -> bytes:
        return sign(signer, refusal_class=f"{refusal_class}: {reasons[-1]}", **rest)

    monkeypatch.setattr(participant, "_refusal_class", listen)
    monkeypatch.setattr(participant.log, "sign_refusal", talk)
    found = refusals(lead_of(memory_path / "without"))
    assert {name: len(frames) for name, frames in found.items()} == {"policy": 5, "protocol": 4}
    told = [parse_firm_message(frame) for frame in found["policy"]]
    words = [
        parse_statement(x.statement).predicate["class"] for x in told if isinstance(x, Refusal)
    ]
    assert any("row 12" in item for item in words)


def test_logs_hold_no_key_no_secret_and_no_value(
    memory_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    lead, drawn = Lead(Consortium(memory_path, terms=make_terms())), []
    draw = lead.victim.participant._entropy

    def remember(size: int) -> bytes:
        drawn.append(draw(size))
        return drawn[-1]

    lead.victim.participant._entropy = remember
    lead.enter()
    lead.answered(lead.round(1))
    session = lead.victim.participant._sessions[lead.run]
    session.engine = Broken()
    lead.answered(lead.round(2))
    refusals(lead, attempt=3)
    assert "the gradient failed" in caplog.text
    assert "max_epsilon_per_run" in caplog.text  # the firm's own log says why
    values = make_records(lead.consortium.terms, seed=0).inputs
    said = "\n".join([caplog.text, *(str(item.__dict__) for item in caplog.records)])
    secrets = [*drawn, bytes([10]) * 32]  # the last is the identity key
    assert len(secrets) > 16
    assert leaked(said, secrets, values) == 0
    assert leaked(repr(session), secrets, values) == 0
    keys = [(bytes(key.private), bytes(key.secret)) for key in session.keys.values()]
    assert leaked(repr(keys), secrets, values) == 2 * len(keys)


def leaked(text: str, secrets: list[bytes], values: NDArray[np.float64]) -> int:
    """How many secrets and values stand in a text, in any of the forms that a log writes."""
    forms = [
        form
        for item in secrets
        for form in (item.hex(), repr(item), base64.b64encode(item).decode(), str(list(item)))
    ]
    forms += [repr(float(value))[:9] for value in values.flatten()]
    return sum(form in text for form in forms)
