"""Attacks on a firm's budget: burn it, lock it, spend it twice, or have it counted too low.

``firm-a`` is the victim, the lead the attacker. "Without" is the same attack with one rule taken
out.

- **Every attempt voided**: each is paid, none is refunded, and at ``max_attempts`` it ends. What
  was promised covers all of them. Without: epsilon goes on growing past what the terms say.
- **A reservation locked for ever**: the firm closes the run by itself, and what was not spent is
  free again. Without: one run that never starts keeps the firm out of every other.
- **A run that is closed and offered again**: its id is refused for ever. Without: the same price
  buys the releases twice.
- **Runs that end early, at part of the price**: a run costs its whole price from its first release
  on. Without: 13 runs fit where the limit has room for 2, each
  at less than half of what its one release costs.
- **A coarser unit's run counted as one of the finer**: a row of a group is removed and added.
  Without: twice as much is spent on it as the ledger says.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attacks.machines import spend
from consortium_in_memory import NOW_S, Consortium, make_terms
from greylag_client import budget
from greylag_client.closing import close_run
from greylag_client.engine import make_engine
from greylag_client.ledger import Debit, Ledger, RunAccount
from greylag_client.policy import Policy
from greylag_client.witness import Sight
from greylag_protocols import log
from greylag_protocols.accounting import POISSON_GAUSSIAN
from greylag_protocols.features import Records
from greylag_protocols.log import ChainTip
from greylag_protocols.messages import Accepted, Close, Closed, Contribution, FirmMessage, Refusal
from greylag_protocols.terms import Terms
from lying_lead import ALL, Lead

TERMS = make_terms(rounds=8)
EPSILON = TERMS.privacy.epsilon
MOST = TERMS.privacy.max_attempts


def make_lead(root: Path, *, epsilon: float) -> Lead:
    """A lead over firms of which the victim has a lifetime limit of ``epsilon``."""
    policy = Policy(lifetime_epsilon=epsilon, lifetime_delta=9e-3, max_epsilon_per_run=1e3)
    return Lead(Consortium(root, terms=TERMS, policies={"firm-a": policy}))


def offered(lead: Lead, terms: Terms) -> bool:
    """Whether the victim accepts a run."""
    offer = lead.offer(run=terms.run_id, terms=terms.encode())
    if nonce := lead.asked("firm-a", run=offer.run, terms=offer.terms):
        offer = replace(offer, peers=lead.answers("firm-a", nonce))
    return isinstance(lead.victim.participant.handle(offer), Accepted)


def charge(lead: Lead, run: str) -> None:
    """One release of a run, as the victim's ledger sees it."""

    def sign(tip: ChainTip) -> bytes:
        return log.sign_receipt(
            lead.victim.signer, tip, firm="firm-a", run=run, round_number=1, attempt=1,
            context=bytes(32), roster_size=len(ALL), event_type=POISSON_GAUSSIAN, charged=1,
        )  # fmt: skip

    lead.victim.ledger.debit(
        Debit(run=run, round_number=1, attempt=1, roster=ALL, sight=Sight()),
        policy=lead.victim.policy,
        now_s=NOW_S,
        sign=sign,
    )


def charged(lead: Lead) -> int:
    account = lead.victim.ledger.account(lead.run)
    return 0 if account is None else account.charged


def test_voided_attempts_end_at_what_the_terms_promise(memory_path: Path) -> None:
    lead = make_lead(memory_path, epsilon=1.5 * EPSILON).enter()
    lead.answered(lead.round(1, 1))
    lead.answered(lead.round(2, 1, ALL[:3]))  # "nobody got anything": paid twice all the same
    for attempt in range(3, MOST + 1):
        lead.answered(lead.round(attempt, attempt - 1, ALL[:3]))
    last = MOST + 1

    def one_more() -> FirmMessage:
        lead.enter(next_attempt=last)
        return lead.victim.participant.handle(lead.round(last, 8, ALL[:3]))

    assert isinstance(one_more(), Refusal)
    assert charged(lead) == MOST
    assert TERMS.epsilon_after(MOST) <= EPSILON * (1 + 1e-6)
    # Without the limit the next void is paid for with a promise.
    lead.victim.ledger._db.execute("UPDATE runs SET max_attempts = max_attempts + 1")
    assert isinstance(one_more(), Contribution)
    assert charged(lead) == last
    assert TERMS.epsilon_after(last) > EPSILON * 1.02
    # Nothing ever comes back.
    assert isinstance(lead.victim.participant.handle(Close(run=lead.run, seen=0)), Closed)
    assert not offered(lead, make_terms(run="small-2"))


def test_a_reservation_that_the_lead_never_ends_is_ended_by_the_firm(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = make_lead(memory_path, epsilon=2.5 * EPSILON)
    assert offered(lead, TERMS)  # and then nothing more is heard of it
    assert offered(lead, make_terms(run="spent"))
    charge(lead, "spent")
    wanted = make_terms(run="wanted")
    assert not offered(lead, wanted)
    identity = lead.victim.identity
    close_run(lead.victim.ledger, identity, "spent")
    assert not offered(lead, wanted)  # what was released stays released
    close_run(lead.victim.ledger, identity, lead.run)
    with monkeypatch.context() as change:
        change.setattr(RunAccount, "holds", property(lambda _: True))
        assert not offered(lead, wanted)  # without: out of every run, for nothing
    assert offered(lead, wanted)
    assert not offered(lead, TERMS)  # for ever
    lead.victim.restart()
    assert not offered(lead, TERMS)


def test_a_run_closed_and_offered_again_buys_nothing(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = make_lead(memory_path, epsilon=1.5 * EPSILON).enter()
    spend(lead, range(1, 5))
    close = Close(run=lead.run, seen=0)

    def forget(self: Ledger, run: str, **_: object) -> None:
        self._db.execute("DELETE FROM runs WHERE run = ?", (run,))

    with monkeypatch.context() as change:
        change.setattr(Ledger, "close_run", forget)  # without: what is over needs no record
        assert isinstance(lead.victim.participant.handle(close), Closed)
    lead.enter("firm-a")
    spend(lead, range(1, 9))
    assert charged(lead) == MOST
    assert len(lead.victim.receipts()) == MOST + 4  # 12 releases at the price of 8
    assert isinstance(lead.victim.participant.handle(close), Closed)
    assert not offered(lead, TERMS)
    assert len(lead.victim.receipts()) == MOST + 4


def runs_that_fit(lead: Lead, most: int) -> int:
    """How many runs the victim takes part in if each ends after one release."""
    for number in range(most):
        run = f"early-{number}"
        if not offered(lead, make_terms(rounds=8, run=run)):
            return number
        charge(lead, run)
    return most


def test_ending_runs_early_does_not_make_them_cheaper(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (memory_path / "part").mkdir()
    lead = make_lead(memory_path, epsilon=2.5 * EPSILON)
    assert runs_that_fit(lead, 20) == 2
    accounts = Ledger.accounts

    def in_parts(self: Ledger) -> list[RunAccount]:
        return [
            replace(item, epsilon=item.epsilon * item.charged / item.max_attempts)
            for item in accounts(self)
        ]

    monkeypatch.setattr(Ledger, "accounts", in_parts)
    lead = make_lead(memory_path / "part", epsilon=2.5 * EPSILON)
    assert runs_that_fit(lead, 20) == 13
    assert TERMS.epsilon_after(1) > 2 * EPSILON / MOST  # what one release costs, and was charged


def test_a_row_pays_twice_for_a_run_that_protects_groups(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = make_terms(unit="group", run="small-2")
    price = groups.privacy.epsilon
    lead = make_lead(memory_path, epsilon=EPSILON + 1.5 * price)
    assert offered(lead, TERMS)
    assert not offered(lead, groups)
    with monkeypatch.context() as change:
        change.setattr(budget, "cost_in_finer_unit", lambda epsilon, delta: (epsilon, delta))
        assert offered(lead, groups)
    # What is behind it: one row turns its group's gradient round, and moves the sum by 2 C.
    small = replace(groups, privacy=replace(groups.privacy, clip_norm=0.1))
    rows = Records(
        inputs=np.zeros((2, 3)), targets=np.array([[0.3, 0.3], [-0.9, -0.9]]), groups=np.zeros(2)
    )
    fewer = replace(rows, inputs=rows.inputs[:1], targets=rows.targets[:1], groups=np.zeros(1))
    weights, unit = np.zeros(small.dimension, dtype=np.float32), np.arange(1)
    sums = [make_engine(small, held).clipped_sum(weights, unit) for held in (rows, fewer)]
    moved = float(np.linalg.norm(sums[0] - sums[1])) / small.privacy.clip_norm
    assert moved == pytest.approx(2.0, abs=1e-3)
