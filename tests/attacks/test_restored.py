"""Attacks with a ledger from before: restored backups, copies that run, and what peers say of them.

``firm-a`` is the victim, the lead the attacker. "Without" is the same attack with one rule taken
out.

- **A ledger put back from an old copy**: peers' words on start and the lead's own count catch it,
  and only what the log holds of its chain lets it go on, with everything spent that was (lies about
  that: ``client/test_rebuild``). Without: everything is spent twice under one name. What no honest
  firm saw, none can tell.
- **A copy of the firm that runs beside it**: the chain forks, and peers see the fork.
- **Peers' words withheld, replayed, or from liars alone**: no keys. Also not when a smaller run, or
  one operator with many members, would have been enough. Without: the old ledger gets by.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from attacks.machines import (
    answered,
    copy_of,
    keep_copy,
    put_back,
    show_keys,
    spend,
    watched_lead,
    words,
)
from consortium_in_memory import NAME, Consortium, make_terms
from greylag_client import peer_words
from greylag_client.participant import Participant
from greylag_client.peer_notes import PeerNotes
from greylag_protocols.errors import VerificationError
from greylag_protocols.log import ChainTip
from greylag_protocols.membership import Membership
from greylag_protocols.messages import Accepted, Asking, FirmMessage, Refusal, Seen
from greylag_protocols.peers import Seen as SeenStatement
from greylag_server.vouching import Vouching

# -- a ledger from an old copy ---------------------------------------------------------------------


def test_a_restored_ledger_is_caught_by_peers_and_by_the_leads_own_count(
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lead = watched_lead(memory_path, make_terms(rounds=8)).enter()
    backup = keep_copy(lead.victim)
    spend(lead, range(1, 5))
    show_keys(lead, 5)
    put_back(lead.victim, backup)
    lead.refused(lead.offer(), "it was restored from an old copy")
    # Without the peers an honest lead's count stops it, once it has given out keys.
    monkeypatch.setattr(peer_words, "count_peers", lambda *_, **__: 99)
    lead.enter("firm-a")
    lead.refused(replace(lead.round(5), seen=(5, 0, 0, 0)), "restored from an old copy")
    # Without either everything is spent again: twice the releases under the price of one run.
    spend(lead, range(5, 9))
    assert [item["charged"] for item in lead.victim.receipts()] == [1, 2, 3, 4]
    released, terms = 8, lead.consortium.terms
    assert len(lead.victim.masks.put_in) == released
    assert terms.epsilon_after(released) > 1.3 * terms.epsilon_after(released // 2)


def test_a_rebuilt_ledger_spends_nothing_twice(memory_path: Path) -> None:
    lead = watched_lead(memory_path, make_terms(rounds=8)).enter()
    backup = keep_copy(lead.victim)
    spend(lead, range(1, 5))
    show_keys(lead, 5)
    chain = lead.victim.ledger.entries_after(0)
    lead.write(*chain)
    put_back(lead.victim, backup)
    for _ in range(2):  # the second time on the very copy that was rebuilt before
        lead.enter_with(lead.handing_over(*chain[1:], seen=5))
        for attempt in range(5):
            message = replace(lead.round(5), attempt=attempt, round_number=5, seen=(5, 0, 0, 0))
            lead.refused(message, f"no one-time key for attempt {attempt}")
        put_back(lead.victim, backup)
    lead.enter_with(lead.handing_over(*chain[1:], seen=5))
    lead.answered(replace(lead.round(5), seen=(5, 0, 0, 0)))
    assert [item["charged"] for item in lead.victim.receipts()] == [1, 2, 3, 4, 5]
    assert len(lead.victim.masks.put_in) == 5


def test_what_no_honest_firm_saw_none_can_tell(memory_path: Path) -> None:
    """The limit: a ledger set back to where its last batch was signed passes for as long as that
    batch would have lasted (64 attempts). The next one shows it, and so does an honest log. What
    is sent in that time is good for something only with other firms than before: each of them
    answers an attempt once."""
    lead = watched_lead(memory_path, make_terms()).enter()
    backup = keep_copy(lead.victim)
    spend(lead, range(1, 3))
    put_back(lead.victim, backup)
    lead.enter("firm-a")
    spend(lead, range(1, 3))
    assert len(lead.victim.masks.put_in) == 4
    assert [item["charged"] for item in lead.victim.receipts()] == [1, 2]


# -- a copy that runs beside it --------------------------------------------------------------------


def test_a_copy_that_runs_beside_the_firm_forks_its_chain(
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lead = watched_lead(memory_path, make_terms(rounds=8)).enter()
    copy, late = copy_of(lead.victim, memory=False), copy_of(lead.victim, memory=False)

    def offered(to: Participant, attempt: int) -> FirmMessage:
        asking = to.handle(lead.offer(next_attempt=attempt))
        assert isinstance(asking, Asking)
        peers = words(lead, asking.nonce, "firm-b", "firm-c")
        return to.handle(lead.offer(next_attempt=attempt, peers=peers))

    started = offered(copy, 1)  # both directories are alike: nobody has seen more
    assert isinstance(started, Accepted)
    first = lead.answered(lead.round(1))
    show_keys(lead, 2)
    lead.take_batch("firm-a", started.batch)
    second = answered(copy, lead.round(1, 2))  # one attempt, two contexts, two keys
    # Whoever holds both answers holds two entries that follow entry 1.
    key = lead.victim.signer.public_key
    tip = ChainTip()
    for envelope in first.entries:
        tip = tip.follow(envelope, firm="firm-a", identity_key=key)
    with pytest.raises(VerificationError, match="restored or copied"):
        tip.follow(second.entries[-1], firm="firm-a", identity_key=key)
    # The other firms know another entry 2 than the one that the copy's next keys name.
    renewed = copy.handle(lead.offer(next_attempt=3))
    assert isinstance(renewed, Accepted)
    lead.take_batch("firm-a", renewed.batch)
    peer = lead.consortium.firms["firm-b"].participant
    caplog.clear()
    assert isinstance(peer.handle(lead.round(3)), Refusal)
    assert "firm-a shows ledger entry 2, where 2 was seen before" in caplog.text
    assert isinstance(offered(late, 3), Refusal)  # and one that starts only now gives no keys
    assert "a copy of this firm runs elsewhere" in caplog.text
    monkeypatch.setattr(PeerNotes, "note", lambda *_: None)
    for both in (peer, copy):  # hidden among the same firms: twice the budget
        answered(both, lead.with_words(lead.round(3), both))


# -- peers' words ----------------------------------------------------------------------------------


def test_words_withheld_replayed_or_of_liars_alone_get_no_keys(
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """``firm-d`` is the liar: of max_colluding = 1 there is one."""
    lead = watched_lead(memory_path, make_terms(rounds=8)).enter()
    old_nonce = lead.victim.participant._peers.nonce
    old = words(lead, old_nonce, "firm-b", "firm-c")
    backup = keep_copy(lead.victim)
    spend(lead, range(1, 3))
    show_keys(lead, 3)
    put_back(lead.victim, backup)
    victim = lead.victim.participant
    liar = lead.consortium.firms["firm-d"]
    facts = {"firm": "firm-d", "consortium": NAME, "about": "firm-a", "nonce": victim._peers.nonce}
    lie = SeenStatement(**facts, seq=0).sign(liar.signer, bytes(32))
    for peers in ((), (lie,), (lie, lie)):
        assert isinstance(victim.handle(lead.offer(peers=peers)), Asking)
    for peers, reason in (
        (old, "an answer to another question"),
        ((lie, *words(lead, victim._peers.nonce, "firm-b")), "restored from an old copy"),
    ):
        caplog.clear()
        assert isinstance(victim.handle(lead.offer(peers=peers)), Refusal)
        assert reason in caplog.text
    assert victim._sessions == {}
    # Without a nonce of this start old words count; without one word more than there are liars,
    # theirs are enough. Either way the restored ledger goes to work.
    victim._peers.nonce = old_nonce
    assert isinstance(victim.handle(lead.offer(peers=old)), Accepted)
    put_back(lead.victim, backup)
    victim = lead.victim.participant
    count = peer_words.count_peers
    monkeypatch.setattr(peer_words, "count_peers", lambda *at, **rest: count(*at, **rest) + 1)
    lie = SeenStatement(**{**facts, "nonce": victim._peers.nonce}, seq=0).sign(
        liar.signer, bytes(32)
    )
    assert isinstance(victim.handle(lead.offer(peers=(lie,))), Accepted)


def test_words_that_were_enough_for_a_smaller_run_are_not_for_a_larger_one(
    memory_path: Path,
) -> None:
    """Two liars vouch for a run whose noise is to survive one, then open the run that is to
    survive them both."""
    terms = make_terms(min_firms=5)
    terms = replace(terms, privacy=replace(terms.privacy, max_colluding=2))
    small = make_terms(run="small-2").encode()
    lead = watched_lead(memory_path, terms, firms=5)
    victim = lead.victim.participant

    def lies() -> tuple[bytes, ...]:
        return words(lead, victim._peers.nonce, "firm-d", "firm-e")

    assert isinstance(victim.handle(lead.offer(peers=lies())), Asking)
    assert isinstance(victim.handle(lead.offer(run="small-2", terms=small, peers=lies())), Accepted)
    assert isinstance(victim.handle(lead.offer()), Asking)
    victim._peers.vouched_for = 2  # without: vouched is vouched
    assert isinstance(victim.handle(lead.offer()), Accepted)


def test_one_operators_many_members_do_not_vouch_for_each_other(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host has more members than could ever stand in one roster; so may the lead."""
    operators = {"firm-d": "host", "firm-e": "host", "firm-f": "acme"}
    lead = watched_lead(memory_path, make_terms(), firms=6, operators=operators)
    victim = lead.victim.participant
    for liars in (("firm-d", "firm-e"), ("firm-d", "firm-f")):
        peers = words(lead, victim._peers.nonce, *liars)
        assert isinstance(victim.handle(lead.offer(peers=peers)), Asking)
        with monkeypatch.context() as change:
            change.setattr(Membership, "independent", lambda _, firms, __: len(set(firms)))
            assert isinstance(victim.handle(lead.offer(peers=peers)), Accepted)
        victim._peers.vouched_for = 0
    peers = words(lead, victim._peers.nonce, "firm-b", "firm-d")
    assert isinstance(victim.handle(lead.offer(peers=peers)), Accepted)


def test_the_coordinator_asks_until_the_words_are_enough(memory_path: Path) -> None:
    """It counts as the firm does, or it would bring the same words for ever."""
    names = [f"firm-{letter}" for letter in "bcdefg"]
    operators = dict.fromkeys(names, "host") | {"firm-g": "firm-g", "firm-h": "acme"}
    consortium = Consortium(memory_path, terms=make_terms(), firms=8, operators=operators)
    vouching = Vouching("small-1", membership=consortium.membership, needed=2)
    nonce = "ab" * 32
    vouching.open("firm-a", nonce)
    asks = dict(vouching.asks([*names, "firm-h"]))
    assert {"firm-g"} < set(asks) < {*names, "firm-h"}
    for name in sorted(asks):
        assert vouching.ready() == {}
        reply = consortium.firms[name].participant.handle(asks[name])
        assert isinstance(reply, Seen)
        vouching.take(name, reply.statements)
    assert len(vouching.ready()["firm-a"]) == len(asks)
