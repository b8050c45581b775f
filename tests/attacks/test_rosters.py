"""A lead that chooses rosters to single a firm out.

"Without" is the same attack with one rule taken out. Noise is in sigma C: 1 is promised.

- **A roster of one**: refused. Without the rule the firm pays and sends nothing, since no grid
  exists for fewer than two honest firms. Without both: its vector in the clear, 0.58.
- **Two rosters that divide the firms, in one attempt**: not refused, and each firm pays once. Each
  half hides among itself: its noise is whole. Without (noise shared among all members, not among
  the roster): 0.76.
- **Two rosters, again and again**: the same model m times with a firm and m times without it shows
  the firm's sum to ``sqrt(2 / m)`` of sigma C. ``max_roster_changes`` does not bound how well; for
  sixty rows that agree the signal to noise is 6 at m = 1 and 13 at m = 4. This is the residual of
  ``unit = "record"``. For ``"firm"`` it is 0.35 and 0.71, and epsilon covers all of the rounds.
- **One firm after another**: ``max_roster_changes`` bounds how many are singled out. Without: all
  that ``min_firms`` can spare, here five where two are allowed.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attacks.adversary import Integers, data_of, distance, put_in, total_of
from attacks.machines import Watched, answered, sums_of, watched_lead, wide
from consortium_in_memory import make_terms
from greylag_client import participant
from greylag_client.engine import make_engine
from greylag_client.policy import Policy
from greylag_protocols.features import Records
from greylag_protocols.messages import Contribution
from greylag_protocols.terms import Terms
from lying_lead import ALL, Lead

EIGHT = tuple(f"firm-{letter}" for letter in "abcdefgh")


def test_a_roster_of_one(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    message, victim = lead.round(1, roster=("firm-a",)), lead.victim
    lead.refused(message, "a roster of 1 firms is too small")
    # Without: there is no noise to hide in, and nothing leaves.
    monkeypatch.setattr(participant, "check_roster", lambda *_, **__: None)
    assert not isinstance(victim.participant.handle(message), Contribution)
    assert "fewer than 2 honest firms to hide among" in caplog.text
    assert [account.charged for account in victim.ledger.accounts()] == [1]
    # Without both: there is no peer to have a mask with.
    honest = Terms.grid
    monkeypatch.setattr(Terms, "grid", lambda terms, firms: honest(terms, max(firms, 4)))
    message = lead.round(2, roster=("firm-a",))
    vector = lead.answered(message).vector.view(np.int32)
    assert np.array_equal(vector, put_in(lead, "firm-a", message))
    left = distance(lead, vector, data_of(lead, "firm-a", firms=4), firms=4)
    assert left == pytest.approx(3**-0.5, rel=0.05)


def sum_over(lead: Lead, attempt: int, roster: tuple[str, ...]) -> Integers:
    """What an attempt gives the lead."""
    message = lead.round(attempt, roster=roster)
    firms = lead.consortium.firms
    return total_of(answered(firms[name].participant, message).vector for name in roster)


def noise_of_halves(root: Path, *, firms: int) -> list[float]:
    """The noise of each half less what ``max_colluding`` of it could take out, in sigma C."""
    lead = watched_lead(root, wide(make_terms()), firms=8).enter()
    found = []
    for roster in (EIGHT[:4], EIGHT[4:]):
        total = sum_over(lead, 1, roster)
        data = total_of(data_of(lead, name, firms=firms) for name in roster)
        found.append(distance(lead, total, data, firms=firms) * (3 / 4) ** 0.5)
    accounts = [firm.ledger.account(lead.run) for firm in lead.consortium.firms.values()]
    assert [item.charged for item in accounts if item is not None] == [1] * 8
    return found


def test_two_rosters_that_divide_the_firms(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert noise_of_halves(memory_path, firms=4) == pytest.approx([1.0, 1.0], rel=0.05)
    honest = Terms.grid
    monkeypatch.setattr(Terms, "grid", lambda terms, _: honest(terms, 8))
    left = (3 / 7) ** 0.5
    assert noise_of_halves(memory_path, firms=8) == pytest.approx([left, left], rel=0.05)


# -- differences -----------------------------------------------------------------------------------


def agreeing(terms: Terms, rows: int) -> Records:
    """Rows whose gradients point the same way."""
    return Records(inputs=np.tile([[1.0, -1.0, 0.5]], (rows, 1)), targets=np.ones((rows, 2)))


def signal_and_noise(root: Path, unit: str, repeats: int) -> tuple[float, float]:
    """firm-d's sum as ``repeats`` rounds with it and as many without it show it.

    Returns: its length, and the noise on it, in sigma C.
    """
    terms = wide(make_terms(rounds=8, unit=unit))
    lead = watched_lead(root, terms)
    target = lead.consortium.firms["firm-d"]
    engine = Watched(make_engine(terms, agreeing(terms, 60)))
    target.load_engine = lambda _: engine
    target.restart()
    for at, firm in enumerate(lead.consortium.firms.values()):
        firm.participant._entropy = np.random.default_rng(at).bytes  # the same draws every time
    lead.enter()
    lead.weights = np.full(terms.dimension, 0.01, np.float32)
    difference = np.zeros(terms.dimension)
    for attempt in range(1, 2 * repeats + 1):
        roster, sign = (ALL, 1) if attempt <= repeats else (ALL[:3], -1)
        difference += sign * sum_over(lead, attempt, roster) * terms.grid(len(roster)).step
        for name in ALL[:3]:
            participant = lead.consortium.firms[name].participant
            difference -= sign * sums_of(participant, lead.run)[-1]
    (account,) = lead.victim.ledger.accounts()
    assert account.charged == 2 * repeats
    truth = np.mean(engine.sums, axis=0)
    unit_noise = terms.privacy.noise_multiplier * terms.privacy.clip_norm
    noise = np.std(difference / repeats - truth)
    return float(np.linalg.norm(truth) / unit_noise), float(noise / unit_noise)


@pytest.mark.parametrize("repeats", [1, 4])
def test_two_rosters_again_and_again(memory_path: Path, repeats: int) -> None:
    sigma, promised = make_terms().privacy.noise_multiplier, (2 / repeats) ** 0.5
    for unit in ("record", "firm"):
        length, noise = signal_and_noise(memory_path, unit, repeats)
        # A little more noise than is promised, since max_colluding firms add theirs as well.
        assert noise == pytest.approx(((4 / 3 + 3 / 2) / repeats) ** 0.5, rel=0.05)
        if unit == "record":  # 18 rows are sampled on average, with a deviation of 3.5
            assert length / promised == pytest.approx(18 / sigma / promised, rel=0.8 / repeats**0.5)
        else:
            assert length / promised <= 1 / sigma / promised
    firm = make_terms(rounds=8, unit="firm")
    assert firm.epsilon_after(1) < firm.epsilon_after(2 * repeats) <= firm.privacy.epsilon


def singled_out(root: Path) -> int:
    """How many firms leave the roster, one a round, before the victim has enough of it."""
    policy = Policy(lifetime_epsilon=1e3, max_epsilon_per_run=1e3, max_roster_changes=2)
    terms = make_terms(rounds=8)
    lead = watched_lead(root, terms, firms=8, policies={"firm-a": policy}).enter()
    answered(lead.victim.participant, lead.round(1, roster=EIGHT))
    for out in range(1, 6):
        message = lead.round(1 + out, roster=EIGHT[: 8 - out])
        if not isinstance(lead.victim.participant.handle(message), Contribution):
            return out - 1
    return 5


def test_one_firm_after_another(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert singled_out(memory_path) == 2
    assert "max_roster_changes = 2 is used up" in caplog.text
    check = participant.check_roster

    def with_any_change(*args: object, policy: Policy, **rest: object) -> None:
        check(*args, policy=replace(policy, max_roster_changes=10**6), **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(participant, "check_roster", with_any_change)
    assert singled_out(memory_path) == 5
