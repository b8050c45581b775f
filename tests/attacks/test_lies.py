"""A lead that lies about rosters, members, keys and models to read one firm's vector.

Everywhere ``firm-a`` is the victim. "Without" is the same attack with one rule taken out. What a
vector shows is measured in ``sigma C``: the noise of a whole roster is 1.

- **Keys of its own** under all peers' names: refused. Without: the victim's vector to the integer,
  with its own share of the noise alone, 1 / sqrt(|R| - t).
- **Invented members**, on a list that the lead signed and nobody approved: refused. Without: the
  same; the roster has four names and one firm.
- **A roster below the firm's minimum**, with the others in the lead's hand: refused. Without: the
  same.
- **One host as many firms**: refused. Without: 14 shares of noise are gone, epsilon 2 becomes 9.
- **Members approved under two lists**: their keys do not meet in one roster.
- **Two models, or two rosters, in one attempt**: the sum is uniform. Without contexts in the mask
  keys: the sum, to the integer.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attacks.machines import answered, sums_of, watched_lead, wide
from consortium_in_memory import NAME, make_terms
from greylag_client import participant
from greylag_client.policy import Policy
from greylag_protocols import masking
from greylag_protocols.accounting import epsilon_of, poisson_gaussian
from greylag_protocols.keys import batch_leaves, prove_key, sign_batch
from greylag_protocols.log import ChainTip
from greylag_protocols.masking import add_masks, pair_key, public_key
from greylag_protocols.membership import Member, Membership, SignedMembership
from greylag_protocols.messages import Round, SignedBatch
from greylag_protocols.round import Attempt
from greylag_protocols.signing import Ed25519Signer
from lying_lead import ALL, Lead
from numpy.typing import NDArray

Integers = NDArray[np.int32]
PRIVATE = {name: bytes([200 + at] * 32) for at, name in enumerate(ALL[1:])}


def context_of(lead: Lead, message: Round) -> bytes:
    return attempt_of(lead, message).context()


def attempt_of(lead: Lead, message: Round) -> Attempt:
    session = lead.victim.participant._sessions[lead.run]
    return message.attempt_under(session.digest, origin=NAME)


def unmask(lead: Lead, message: Round, vector: NDArray[np.uint32]) -> Integers:
    """The victim's vector without its masks, by whoever knows the private keys of all others."""
    context = context_of(lead, message)
    own = message.roster.index("firm-a")
    pairs = [
        pair_key(PRIVATE[name], message.keys[own], context)
        for name in message.roster
        if name in PRIVATE
    ]
    bare = vector.copy()
    add_masks(bare, add=pairs[:own], subtract=pairs[own:])
    return bare.view(np.int32)


def noise_in(lead: Lead, vector: Integers, firms: int) -> float:
    """The noise in an unmasked vector of the victim's, in sigma C."""
    terms = lead.consortium.terms
    grid = terms.grid(firms)
    truth = np.rint(sums_of(lead.victim.participant, lead.run)[-1] / grid.step)
    noise = (vector - truth) * grid.step
    return float(np.std(noise)) / (terms.privacy.noise_multiplier * terms.privacy.clip_norm)


def with_own_keys(lead: Lead, message: Round) -> Round:
    """The lead's keys under all names but the victim's."""
    keys = tuple(
        public_key(PRIVATE[name]) if name in PRIVATE else key
        for name, key in zip(message.roster, message.keys, strict=True)
    )
    return replace(message, keys=keys)


def test_keys_of_the_leads_own(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    message = with_own_keys(lead, lead.round(1))
    lead.refused(message, "inclusion proof", caplog)
    # Without: nobody looks up whose keys these are.
    monkeypatch.setattr(participant, "check_keys", lambda *_, **__: None)
    vector = unmask(lead, message, lead.answered(message).vector)
    assert np.array_equal(vector, lead.victim.masks.put_in[context_of(lead, message)])
    assert noise_in(lead, vector, 4) == pytest.approx(3**-0.5, rel=0.05)


def lead_signs(lead: Lead, members: Sequence[Member]) -> SignedMembership:
    listed = replace(lead.consortium.membership, epoch=2, members=tuple(members))
    return SignedMembership.sign(listed, lead.consortium.lead)


def test_members_that_the_lead_invented(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    consortium = lead.consortium
    invented = {name: Ed25519Signer(PRIVATE[name]) for name in PRIVATE}
    members = [
        replace(item, identity=invented[item.name].public_key.hex())
        if item.name in invented
        else item
        for item in consortium.membership.members
    ]
    signed = lead_signs(lead, members)
    lead.refused(lead.offer(membership=signed, next_attempt=1), "is not approved here", caplog)

    # Without: the firm takes the lead's signature for an approval.
    memberships = lead.victim.memberships
    monkeypatch.setattr(type(memberships), "approved", type(memberships).seen)
    lead.victim.participant._vouched_for = 9  # the invented would vouch for it, of course
    lead.take_batch("firm-a", lead.accepted("firm-a", membership=signed).batch)
    listed = Membership(
        **{name: getattr(consortium.membership, name) for name in Membership.__dataclass_fields__}
        | {"epoch": 2, "members": tuple(members)}
    )
    for name, signer in invented.items():
        keys = (public_key(PRIVATE[name]),)
        statement = sign_batch(
            signer,
            keys,
            firm=name,
            consortium=NAME,
            epoch=listed.epoch,
            run=lead.run,
            terms=lead.victim.participant._sessions[lead.run].digest,
            first=1,
            tip=ChainTip(seq=9, head=bytes(32)),
        )
        assert prove_key(keys, 1, 1) == ()
        assert batch_leaves(keys, 1)
        lead.take_batch(name, SignedBatch(statement=statement, keys=keys))
    message = lead.round(1)
    vector = unmask(lead, message, lead.answered(message).vector)
    assert np.array_equal(vector, lead.victim.masks.put_in[context_of(lead, message)])
    assert noise_in(lead, vector, 4) == pytest.approx(3**-0.5, rel=0.05)


def test_a_roster_below_the_firms_minimum(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policies = {"firm-a": Policy(lifetime_epsilon=1e3, max_epsilon_per_run=1e3, min_firms=4)}
    lead = watched_lead(memory_path, wide(make_terms(min_firms=4)), policies=policies).enter()
    small = lead.round(1, roster=ALL[:3])
    lead.refused(small, "too small", caplog)
    lead.refused(lead.round(1, roster=ALL[:1]), "too small", caplog)
    # Without: the lead, which runs the other two, takes out what they put in.
    monkeypatch.setattr(participant, "check_roster", lambda *_, **__: None)
    for firm in lead.consortium.firms.values():
        firm.policy = policies["firm-a"]
    total = sum(answered(lead.consortium.firms[name].participant, small).vector for name in ALL[:3])
    context = context_of(lead, small)
    for name in ALL[1:3]:
        total = total - lead.consortium.firms[name].masks.put_in[context].view(np.uint32)
    vector = np.asarray(total, dtype=np.uint32).view(np.int32)
    assert noise_in(lead, vector, 3) == pytest.approx(2**-0.5, rel=0.05)


def test_one_host_as_many_firms(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    operators = dict.fromkeys(ALL[1:], "host")
    lead = watched_lead(memory_path, wide(make_terms()), operators=operators)
    lead.victim.participant._vouched_for = 9  # the host would vouch for it, of course
    for name in ALL[1:]:
        lead.consortium.firms[name].participant._vouched_for = 9
    lead.enter()
    message = lead.round(1)
    lead.refused(message, "one operator run 3 firms", caplog)
    # Without: three of four shares of noise are the host's to take out.
    monkeypatch.setattr(Membership, "coalition", lambda *_: 1)
    lead.answered(message)
    vector = lead.victim.masks.put_in[context_of(lead, message)]
    assert noise_in(lead, vector, 4) == pytest.approx(3**-0.5, rel=0.05)
    # The glass recipes' run: 20 firms, t = 6, and 19 of them under one roof.
    glass = poisson_gaussian(sampling_rate=0.2, noise_multiplier=10.07, records_cap=5000)
    assert epsilon_of(glass, releases=500, delta=1e-6) == pytest.approx(2.0, rel=0.01)
    alone = glass.scaled(14**-0.5)
    assert epsilon_of(alone, releases=500, delta=1e-6) == pytest.approx(9.4, rel=0.03)


def test_firms_that_approved_different_lists_do_not_meet(
    memory_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lead = watched_lead(memory_path, make_terms()).enter()
    signed = lead_signs(lead, lead.consortium.membership.members)
    other = lead.consortium.firms["firm-b"]
    other.memberships.store_seen(signed, now_s=lead.consortium.now_s)
    other.memberships.approve(other.memberships.latest().digest().hex())
    lead.take_batch("firm-b", lead.accepted("firm-b", membership=signed).batch)
    lead.refused(lead.round(1), "its keys are for another run or membership", caplog)


Change = Callable[[Round], Round]


def other_model(message: Round) -> Round:
    return replace(message, weights=message.weights + np.float32(0.25))


def other_log(message: Round) -> Round:
    return replace(message, log_root=bytes(32))


@pytest.mark.parametrize("change", [other_model, other_log])
def test_two_stories_in_one_attempt(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    """Half of the roster is told one thing, half another."""

    def matching() -> float:
        lead = watched_lead(memory_path, wide(make_terms())).enter()
        message = lead.round(1)
        told = {name: message if name < "firm-c" else change(message) for name in ALL}
        firms = lead.consortium.firms
        total = sum(answered(firms[name].participant, told[name]).vector for name in ALL)
        truth = sum(
            firms[name].masks.put_in[context_of(lead, told[name])].view(np.uint32) for name in ALL
        )
        return float(np.mean(np.asarray(total) == np.asarray(truth)))

    assert matching() < 0.002  # 2^-32 a coordinate
    agree = masking.pair_keys
    monkeypatch.setattr(masking, "pair_keys", lambda own, peers, _: agree(own, peers, bytes(32)))
    assert matching() == 1.0
