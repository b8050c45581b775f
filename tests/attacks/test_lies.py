"""A lead that tells firms different stories, or shows them company that is none.

Everywhere ``firm-a`` is the victim. "Without" is the same attack with one rule taken out. What a
vector shows is measured in ``sigma C``: the noise of a whole roster is 1.

- **A roster below the firm's minimum**, with the others in the lead's hand: refused. Without: the
  victim's data with its own share of the noise alone, 1 / sqrt(|R| - t).
- **One host as many firms**: refused. Without: 14 shares of noise are gone, epsilon 2 becomes 9.
- **Members approved under two lists**: their keys do not meet in one roster.
- **Two models, or two logs, in one attempt**: the sum is uniform. Without contexts in the mask
  keys: the sum, to the integer.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attacks.adversary import Integers, data_of, distance, glass_epsilon, put_in, total_of
from attacks.machines import answered, watched_lead, wide
from consortium_in_memory import make_terms
from greylag_client import participant
from greylag_client.policy import Policy
from greylag_protocols import masking
from greylag_protocols.membership import Membership, SignedMembership
from greylag_protocols.messages import Round
from lying_lead import ALL, Lead


def noise_in(lead: Lead, vector: Integers, *, firms: int) -> float:
    """The noise on the victim's data in what was found, in sigma C."""
    return distance(lead, vector, data_of(lead, "firm-a", firms=firms), firms=firms)


def test_a_roster_below_the_firms_minimum(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = {"firm-a": Policy(lifetime_epsilon=1e3, max_epsilon_per_run=1e3, min_firms=4)}
    lead = watched_lead(memory_path, wide(make_terms(min_firms=4)), policies=policies).enter()
    small = lead.round(1, roster=ALL[:3])
    lead.refused(small, "too small")
    lead.refused(lead.round(1, roster=ALL[:1]), "too small")
    # Without: the lead, which runs the other two, takes out what they put in.
    monkeypatch.setattr(participant, "check_roster", lambda *_, **__: None)
    for firm in lead.consortium.firms.values():
        firm.policy = policies["firm-a"]
    firms = lead.consortium.firms
    parts = [answered(firms[name].participant, small).vector for name in ALL[:3]]
    parts += [-put_in(lead, name, small).view(np.uint32) for name in ALL[1:3]]
    assert noise_in(lead, total_of(parts), firms=3) == pytest.approx(2**-0.5, rel=0.05)


def test_one_host_as_many_firms(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operators = dict.fromkeys(ALL[1:], "host")
    lead = watched_lead(memory_path, wide(make_terms()), operators=operators)
    lead.victim.participant._peers.vouched_for = 9  # the host would vouch for it, of course
    for name in ALL[1:]:
        lead.consortium.firms[name].participant._peers.vouched_for = 9
    lead.enter()
    message = lead.round(1)
    lead.refused(message, "one operator run 3 firms")
    # Without: three of four shares of noise are the host's to take out.
    monkeypatch.setattr(Membership, "coalition", lambda *_: 1)
    lead.answered(message)
    vector = put_in(lead, "firm-a", message)
    assert noise_in(lead, vector, firms=4) == pytest.approx(3**-0.5, rel=0.05)
    # The glass recipes' run: 20 firms, t = 6, and 19 of them under one roof.
    assert glass_epsilon(14) == pytest.approx(2.0, rel=0.01)
    assert glass_epsilon(1) == pytest.approx(9.4, rel=0.03)


def test_firms_that_approved_different_lists_do_not_meet(memory_path: Path) -> None:
    lead = watched_lead(memory_path, make_terms()).enter()
    second = replace(lead.consortium.membership, epoch=2)
    signed = SignedMembership.sign(second, lead.consortium.lead)
    other = lead.consortium.firms["firm-b"]
    other.memberships.store_seen(signed, now_s=lead.consortium.now_s)
    other.memberships.approve(other.memberships.latest().digest().hex())
    lead.take_batch("firm-b", lead.accepted("firm-b", membership=signed).batch)
    lead.refused(lead.round(1), "its keys are for another run or membership")


Change = Callable[[Lead, Round], Round]


def other_model(_: Lead, message: Round) -> Round:
    return replace(message, weights=message.weights + np.float32(0.25))


def other_log(lead: Lead, message: Round) -> Round:
    return replace(message, log=lead.view(message.log.size, last="another"))


@pytest.mark.parametrize("change", [other_model, other_log])
def test_two_stories_in_one_attempt(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    """Half of the roster is told one thing, half another."""

    def matching() -> float:
        lead = watched_lead(memory_path, wide(make_terms())).enter()
        message = lead.round(1)
        told = {name: message if name < "firm-c" else change(lead, message) for name in ALL}
        firms = lead.consortium.firms
        total = total_of(answered(firms[name].participant, told[name]).vector for name in ALL)
        truth = total_of(put_in(lead, name, told[name]) for name in ALL)
        return float(np.mean(total == truth))

    assert matching() < 0.002  # 2^-32 a coordinate
    agree = masking.pair_keys
    monkeypatch.setattr(masking, "pair_keys", lambda own, peers, _: agree(own, peers, bytes(32)))
    assert matching() == 1.0
