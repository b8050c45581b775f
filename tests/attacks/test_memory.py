"""Attacks on a firm's memory: processes that die, machines that are set back, copies that both run.

Everywhere ``firm-a`` is the victim and the lead is the attacker. "Without" is the same attack with
one rule taken out.

- **Killed between debit and sending**: the keys are gone and the attempt stays paid. Without: two
  contributions for one charge.
- **Rewound memory**, the same one-time key asked in two contexts: masks and seeds belong to the
  context, the difference of the two vectors is noise over the whole ring. Without: the difference
  is that of the two clipped sums, to the integer.
- **The same, and the lead owns all other firms**, so that no mask hides the victim: its two noises
  are independent, and add up to sqrt(2) of one. Without seeds of the context they cancel.
- **Rewound memory, the same context again**: the same bytes. Without: each copy adds fresh noise,
  and k answers leave the victim's noise divided by sqrt(k).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks.machines import answered, copy_of, sums_of, watched_lead, wide
from consortium_in_memory import make_terms
from greylag_client import contribution, participant, sampling
from greylag_client.ledger import Ledger
from greylag_client.participant import Participant
from greylag_protocols import masking
from greylag_protocols.messages import Refusal
from lying_lead import ALL, Lead
from numpy.typing import NDArray

NO_CONTEXT = bytes(32)


# -- killed ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """What ends a process."""


def kill(*args: Any, **options: Any) -> Any:
    raise Killed


def test_a_firm_killed_between_debit_and_sending_never_answers_that_attempt(
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lead = watched_lead(memory_path, make_terms()).enter()
    message, victim = lead.round(1), lead.victim
    with monkeypatch.context() as change:
        change.setattr(participant, "make_vector", kill)
        with pytest.raises(Killed):
            victim.participant.handle(message)
    assert [item["attempt"] for item in victim.receipts()] == [1]
    victim.restart()
    lead.refused(message, "an offer is needed")
    lead.enter("firm-a")
    assert lead.batches["firm-a"][1] == 2  # no key any more for the attempt that was paid
    lead.refused(message, "no one-time key for attempt 1")
    # Without: a firm that pays after it has sent, and is killed before it does.
    monkeypatch.setattr(Participant, "_debit", lambda *_: None)
    answers = []
    for scale in (1, 2):
        victim.restart()
        lead.enter("firm-a")
        asked = lead.round(2)
        asked = replace(asked, weights=asked.weights + np.float32(scale))
        answers.append(lead.answered(asked).vector)
    assert not np.array_equal(*answers)
    assert len(victim.receipts()) == 1  # two more releases, and nothing was paid


# -- rewound memory --------------------------------------------------------------------------------


def asked_twice(lead: Lead, copy: Participant) -> tuple[NDArray[np.int32], float]:
    """The same attempt, one key, two models, at a machine and at a copy of it from before.

    Returns: the difference of what they sent, and the fraction of its coordinates that are, to the
    integer, the difference of the two clipped sums.
    """
    terms, message = lead.consortium.terms, lead.round(1)
    other = replace(message, weights=message.weights + np.float32(0.5))
    first, second = lead.answered(message), answered(copy, other)
    sums = sums_of(lead.victim.participant, lead.run)
    step = terms.grid(len(ALL)).step
    wanted = np.rint(sums[-2] / step) - np.rint(sums[-1] / step)
    assert np.count_nonzero(wanted) > terms.dimension / 2
    found = (first.vector - second.vector).view(np.int32)
    return found, float(np.mean(found == wanted))


def forget_masks_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks that know the key alone, as with keys of a session."""
    agree = masking.pair_keys
    monkeypatch.setattr(masking, "pair_keys", lambda own, peers, _: agree(own, peers, NO_CONTEXT))


def forget_seeds_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample and noise that know the key alone."""
    normals, sample = sampling.draw_normals, sampling.sample_units
    monkeypatch.setattr(
        contribution, "draw_normals", lambda secret, _, size: normals(secret, NO_CONTEXT, size)
    )
    monkeypatch.setattr(
        contribution, "sample_units", lambda secret, _, **rest: sample(secret, NO_CONTEXT, **rest)
    )


def test_a_rewound_machine_gives_no_difference_of_two_updates(
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    found, exact = asked_twice(lead, copy_of(lead.victim, memory=True))
    assert exact < 0.005
    # As wide as the ring: uniform, whatever the updates were.
    assert abs(found.astype(np.float64).std() / (2**32 / np.sqrt(12)) - 1) < 0.05
    forget_masks_context(monkeypatch)
    forget_seeds_context(monkeypatch)
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    _, exact = asked_twice(lead, copy_of(lead.victim, memory=True))
    assert exact == 1.0  # no mask and no noise is left


def noise_of_the_difference(lead: Lead) -> float:
    """What hides the difference of two updates once the masks are known, in one firm's noise."""
    grid, copy = lead.consortium.terms.grid(len(ALL)), copy_of(lead.victim, memory=True)
    asked_twice(lead, copy)
    sums, (first, second) = sums_of(copy, lead.run), lead.victim.masks.put_in.values()
    data = np.rint(sums[-2] / grid.step) - np.rint(sums[-1] / grid.step)
    return float((first - second - data).std() * grid.step / grid.noise_std)


def test_a_rewound_machine_draws_other_noise_in_another_context(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = noise_of_the_difference(watched_lead(memory_path, wide(make_terms())).enter())
    assert found == pytest.approx(np.sqrt(2), rel=0.05)
    forget_seeds_context(monkeypatch)
    found = noise_of_the_difference(watched_lead(memory_path, wide(make_terms())).enter())
    assert found == 0.0


def test_a_rewound_machine_on_the_same_ledger_does_not_even_answer(
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lead = watched_lead(memory_path, make_terms()).enter()
    copies = [copy_of(lead.victim, memory=True, own_ledger=False) for _ in range(2)]
    lead.answered(lead.round(1))
    assert isinstance(copies[0].handle(lead.round(1, 2)), Refusal)
    assert "attempt 1 of small-1 was answered before" in caplog.text
    assert len(lead.victim.receipts()) == 1
    monkeypatch.setattr(Ledger, "debit", lambda *_, **__: None)
    answered(copies[1], lead.round(1, 2))
    assert len(lead.victim.receipts()) == 1  # a second release, unpaid


def noises(lead: Lead, copies: list[Participant]) -> tuple[list[bytes], NDArray[np.float64]]:
    """What copies send in one context, and the noise that they put in, in its own deviations."""
    message, grid = lead.round(1), lead.consortium.terms.grid(len(ALL))
    masks, found, sent = lead.victim.masks, [], []
    for copy in copies:
        sent.append(answered(copy, message).vector.tobytes())
        (context,) = masks.put_in
        data = np.rint(sums_of(copy, lead.run)[-1] / grid.step)
        found.append((masks.put_in.pop(context) - data) * grid.step / grid.noise_std)
    return sent, np.stack(found)


def test_copies_in_one_context_repeat_themselves(
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever owns all other firms of the roster sees what the victim put in; asking again must
    not let its noise be averaged away."""
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    sent, noise = noises(lead, [copy_of(lead.victim, memory=True) for _ in range(9)])
    assert len(set(sent)) == 1
    assert noise.mean(axis=0).std() == pytest.approx(1.0, abs=0.1)
    rng = np.random.default_rng(1)
    monkeypatch.setattr(
        contribution, "draw_normals", lambda secret, context, size: rng.standard_normal(size)
    )
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    sent, noise = noises(lead, [copy_of(lead.victim, memory=True) for _ in range(9)])
    assert len(set(sent)) == 9
    assert noise.mean(axis=0).std() == pytest.approx(1 / 3, abs=0.04)  # nine answers, one charge
