"""Attacks on what one attempt gives: two stories in it, one key twice, one model again and again.

"Without" is the same attack with one rule taken out. Noise is in sigma C: 1 is promised.

- **Two rosters in one attempt**: half of the firms are told of one that is not asked by the others.
  Masks do not cancel, the sum is uniform. Without contexts in the mask keys: the sum, to the
  integer.
- **Two models for one firm in one attempt**: refused, the key is gone. Without: two vectors whose
  difference is uniform. Without contexts in the mask keys either: the difference of the two
  updates, with the firm's own noise twice, 0.82. Without contexts in the seeds either: the
  difference of the two updates, to the integer.
- **The same model many times**: not refused. The mean of k sums has ``1 / sqrt(k)`` of the noise;
  every one is charged, and the epsilon of the terms covers all: 1.16 for one, 2.54 for eight.
  Without the debit: the same mean, and the ledger says that nothing was spent.
- **The void attempt completed late**: not refused. The lead gets two sums that differ by one firm
  and pays twice (epsilon 1.47, not 1.16); their difference has 1.68 of noise. Without seeds of key
  and context (the firm repeats sample and noise with an attempt): 0.62, little more than that one
  firm's own share.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attacks.adversary import (
    Integers,
    data_of,
    distance,
    looks_uniform,
    put_in,
    total_of,
    unmask,
)
from attacks.machines import answered, sums_of, watched_lead, wide
from consortium_in_memory import make_terms
from greylag_client import contribution, sampling
from greylag_client.ledger import Ledger
from greylag_client.session import Session
from greylag_protocols import masking
from lying_lead import ALL, Lead

NO_CONTEXT = bytes(32)


def forget_masks_context(change: pytest.MonkeyPatch) -> None:
    """Masks that know the pair of keys alone."""
    agree = masking.pair_keys
    change.setattr(masking, "pair_keys", lambda own, peers, _: agree(own, peers, NO_CONTEXT))


def forget_seeds_context(change: pytest.MonkeyPatch) -> None:
    """Sample and noise that know the secret alone."""
    change.setattr(
        contribution,
        "draw_normals",
        lambda secret, _, size: sampling.draw_normals(secret, NO_CONTEXT, size),
    )
    change.setattr(
        contribution,
        "sample_units",
        lambda secret, _, **rest: sampling.sample_units(secret, NO_CONTEXT, **rest),
    )


# -- two stories -----------------------------------------------------------------------------------


def test_two_rosters_in_one_attempt(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """firm-d is the lead's own: its masks come off. firm-a hears of it, the others do not."""

    def told() -> tuple[Integers, Integers]:
        lead = watched_lead(memory_path, wide(make_terms())).enter()
        firms = lead.consortium.firms
        key = firms["firm-d"].participant._sessions[lead.run].keys[1]
        private = {"firm-d": bytes(key.private)}
        whole, less = lead.round(1), lead.round(1, roster=ALL[:3])
        stories = {"firm-a": whole, "firm-b": less, "firm-c": less}
        # Only firm-a has a mask with firm-d.
        found = total_of(
            unmask(lead, name, story, answered(firms[name].participant, story).vector, private)
            for name, story in stories.items()
        )
        return found, total_of(put_in(lead, name, story) for name, story in stories.items())

    found, truth = told()
    assert looks_uniform(found)
    forget_masks_context(monkeypatch)
    found, truth = told()
    assert np.array_equal(found, truth)


def keep_keys(change: pytest.MonkeyPatch) -> None:
    """A key that was taken is still there, and the ledger takes an attempt twice."""

    def take(session: Session, attempt: int) -> tuple[bytes, bytes]:
        key = session.keys[attempt]
        return bytes(key.private), bytes(key.secret)

    change.setattr(Session, "take_key", take)
    change.setattr(Ledger, "debit", lambda *_, **__: None)


def asked_twice(root: Path) -> tuple[Integers, Integers, float]:
    """Two models in one attempt: the difference of the answers, that of the updates, and how far
    they are apart in sigma C."""
    lead = watched_lead(root, wide(make_terms())).enter()
    first = lead.round(1)
    second = replace(lead.round(1, round_number=2), weights=first.weights + np.float32(0.5))
    answers = [lead.answered(message).vector for message in (first, second)]
    found = total_of([answers[0], -answers[1]])
    earlier, later = (data_of(lead, "firm-a", firms=4, at=at) for at in (-2, -1))
    truth = total_of([earlier, -later])
    assert np.count_nonzero(truth) > len(truth) / 2
    return found, truth, distance(lead, found, truth, firms=4)


def test_two_models_for_one_firm_in_one_attempt(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    lead.answered(lead.round(1))
    again = replace(lead.round(1, round_number=2), weights=lead.weights + np.float32(0.5))
    lead.refused(again, "no one-time key for attempt 1 is left")
    keep_keys(monkeypatch)
    found, _, _ = asked_twice(memory_path)
    assert looks_uniform(found)
    forget_masks_context(monkeypatch)
    _, _, apart = asked_twice(memory_path)
    assert apart == pytest.approx((2 / 3) ** 0.5, rel=0.05)
    forget_seeds_context(monkeypatch)
    found, truth, _ = asked_twice(memory_path)
    assert np.array_equal(found, truth)


# -- again and again -------------------------------------------------------------------------------


def sum_of_round(lead: Lead, attempt: int) -> tuple[Integers, Integers]:
    """What an attempt gives, and the clipped sums in it."""
    message, firms = lead.round(attempt), lead.consortium.firms
    found = total_of(answered(firms[name].participant, message).vector for name in ALL)
    return found, total_of(data_of(lead, name, firms=4) for name in ALL)


def averaged(root: Path, times: int) -> tuple[float, int]:
    """The noise of the mean of some rounds with one model, and how many were charged."""
    lead = watched_lead(root, wide(make_terms(rounds=8))).enter()
    pairs = [sum_of_round(lead, attempt) for attempt in range(1, times + 1)]
    found, truth = (total_of(pair[at] for pair in pairs) for at in (0, 1))
    (account,) = lead.victim.ledger.accounts()
    return distance(lead, found, truth, firms=4) / times, account.charged


def test_the_same_model_many_times(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terms, whole = make_terms(rounds=8), (4 / 3) ** 0.5
    noise, charged = averaged(memory_path, 8)
    assert noise == pytest.approx(whole / 8**0.5, rel=0.05)
    assert charged == 8
    spent = [terms.epsilon_after(count) for count in (1, 8)]
    assert spent == pytest.approx([1.16, 2.54], rel=0.01)
    assert spent[1] <= terms.privacy.epsilon
    monkeypatch.setattr(Ledger, "debit", lambda *_, **__: None)
    noise, charged = averaged(memory_path, 8)
    assert noise == pytest.approx(whole / 8**0.5, rel=0.05)
    assert charged == 0


# -- late ------------------------------------------------------------------------------------------


def completed_late(root: Path) -> float:
    """firm-d keeps silent, the others go on without it; then it answers, and the first sum is
    whole as well.

    Returns: what hides firm-d's data in the difference of the two sums, in sigma C.
    """
    lead = watched_lead(root, wide(make_terms())).enter()
    firms, terms = lead.consortium.firms, lead.consortium.terms
    whole = lead.round(1)
    less = lead.round(2, round_number=1, roster=ALL[:3])
    early = [answered(firms[name].participant, whole).vector for name in ALL[:3]]
    second = [answered(firms[name].participant, less).vector for name in ALL[:3]]
    late = answered(firms["firm-d"].participant, whole).vector
    found = total_of([*early, late]) * terms.grid(4).step - total_of(second) * terms.grid(3).step
    data = sums_of(firms["firm-d"].participant, lead.run)[-1]
    for name in ALL[:3]:
        with_it, without_it = sums_of(firms[name].participant, lead.run)
        data = data + with_it - without_it
        account = firms[name].ledger.account(lead.run)
        assert account is not None
        assert account.charged == 2
    privacy = terms.privacy
    return float(np.std(found - data)) / (privacy.noise_multiplier * privacy.clip_norm)


def test_a_void_attempt_that_is_completed_late(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = make_terms()
    assert completed_late(memory_path) == pytest.approx((4 / 3 + 3 / 2) ** 0.5, rel=0.05)
    spent = [terms.epsilon_after(count) for count in (1, 2)]
    assert spent == pytest.approx([1.16, 1.47], rel=0.01)
    secrets: dict[bytes, bytes] = {}
    honest = Session.take_key

    def take(session: Session, attempt: int) -> tuple[bytes, bytes]:
        private, secret = honest(session, attempt)
        return private, secrets.setdefault(id(session).to_bytes(8, "big"), secret)

    monkeypatch.setattr(Session, "take_key", take)
    forget_seeds_context(monkeypatch)
    # firm-d's share, and what differs since a smaller roster asks more of each.
    left = (1 / 3 + 3 * (2**-0.5 - 3**-0.5) ** 2) ** 0.5
    assert completed_late(memory_path) == pytest.approx(left, rel=0.05)
