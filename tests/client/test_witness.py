"""What a firm does with what it is shown of the lead's log."""

from dataclasses import replace
from pathlib import Path

import pytest
from consortium_in_memory import LEAD, NAME, NOW_S, Consortium, make_terms
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.log_view import LogView, choose_cosigners, show_log
from greylag_protocols.merkle import hash_leaf, root_of
from greylag_protocols.messages import (
    Accepted,
    Asking,
    Contribution,
    Cosigned,
    Refusal,
    Round,
    Show,
)
from greylag_protocols.notes import cosign, verify_cosignature
from greylag_protocols.round import roster_keys_digest
from lying_lead import ALL, Lead


@pytest.fixture
def lead(memory_path: Path) -> Lead:
    return Lead(Consortium(memory_path, terms=make_terms())).enter()


def view_of(leaves: list[bytes], first: int = 0) -> LogView:
    checkpoint = Checkpoint(origin=NAME, size=len(leaves), root=root_of(leaves))
    return show_log(LEAD, checkpoint, leaves[first:])


def log_with(lead: Lead, *entries: bytes) -> list[bytes]:
    """The lead's log, and these entries at its end."""
    return [*lead.view(lead.log_size).leaves, *(hash_leaf(entry) for entry in entries)]


def holding(lead: Lead, message: Round, held: int, leaves: list[bytes]) -> Round:
    """The message of a lead whose log is ``leaves``, with ``held`` entries of the victim's."""
    return replace(message, seen=(held, 0, 0, 0), log=view_of(leaves))


def test_an_answer_cosigns_what_was_shown(lead: Lead) -> None:
    message = lead.round(1)
    reply = lead.answered(message)
    key, checkpoint = lead.victim.signer.public_key, message.log.checkpoint(NAME)
    assert verify_cosignature(checkpoint, reply.cosignature, key) == int(NOW_S)
    assert lead.victim.ledger.witness.sight().checkpoint(NAME) == checkpoint


def test_a_log_that_was_rewritten_is_refused_for_ever(lead: Lead) -> None:
    lead.answered(lead.round(1))
    lead.round(2)  # the log grows
    leaves = log_with(lead)
    other = [hash_leaf(b"another"), *leaves[1:]]
    lead.refused(replace(lead.round(2), log=view_of(other)), "does not hold what it held")
    lead.victim.restart()
    lead.refused(lead.offer(log=view_of(other)), "does not hold what it held")
    lead.refused(lead.offer(log=view_of(leaves[:5])), "log shrank from 11 entries to 5")
    forged = replace(view_of(leaves), signature=bytes(64))
    lead.refused(lead.offer(log=forged), "not signed by")


def test_own_entries_have_to_be_there(lead: Lead) -> None:
    acceptance, receipt = lead.answered(lead.round(1)).entries
    message, leaves = lead.round(2), log_with(lead, acceptance, receipt)
    altered = log_with(lead, acceptance, receipt + b" ")
    lead.refused(holding(lead, message, 2, altered), "lacks entry 2 of this firm")
    lead.refused(holding(lead, message, 2, leaves[:-1]), "lacks entry 2 of this firm")
    lead.refused(holding(lead, message, 2, leaves[:-2]), "lacks entry 1 of this firm")
    lead.refused(holding(lead, message, 3, leaves), "its ledger lacks")
    lead.answered(holding(lead, message, 2, leaves))
    assert lead.victim.ledger.witness.sight().own == 2
    again = holding(lead, lead.round(3), 1, [*leaves, hash_leaf(b"more")])
    lead.refused(again, "holds 1 entries of this firm; it held 2")


def test_a_firm_that_was_away_asks_for_what_it_missed(lead: Lead) -> None:
    lead.answered(lead.round(1))
    leaves = [*log_with(lead), *(hash_leaf(bytes([number])) for number in range(9))]
    late = lead.victim.participant.handle(lead.offer(log=view_of(leaves, first=15)))
    assert isinstance(late, Asking)
    assert late.log_size == 11
    lead.refused(replace(lead.round(2), log=view_of(leaves, first=15)), "only those after 15")
    peers = lead.answers("firm-a", late.nonce)
    reply = lead.victim.participant.handle(
        lead.offer(peers=peers, log=view_of(leaves, first=11), next_attempt=2)
    )
    assert isinstance(reply, Accepted)
    assert lead.victim.ledger.witness.sight().edge.size == 20


def test_a_log_that_is_only_shown(lead: Lead) -> None:
    lead.answered(lead.round(1))
    leaves = [*log_with(lead), hash_leaf(b"release")]
    far = lead.victim.participant.handle(Show(run=lead.run, log=view_of(leaves, first=12)))
    assert far == Cosigned(run=lead.run, log_size=11, cosignature=b"")
    reply = lead.victim.participant.handle(Show(run=lead.run, log=view_of(leaves, first=11)))
    assert isinstance(reply, Cosigned)
    checkpoint = Checkpoint(origin=NAME, size=12, root=root_of(leaves))
    verify_cosignature(checkpoint, reply.cosignature, lead.victim.signer.public_key)
    fork = view_of([*leaves[:-1], hash_leaf(b"another")])
    refusal = lead.victim.participant.handle(Show(run=lead.run, log=fork))
    assert isinstance(refusal, Refusal)


def words_on(lead: Lead, message: Round, shown: dict[str, Checkpoint]) -> Round:
    """The message with the words of firms that were shown so different logs."""
    chosen = choose_cosigners(ALL, context=roster_keys_digest(message.keys))
    words = [
        cosign(lead.consortium.firms[name].signer, shown[name], time_s=int(NOW_S))
        for name in chosen
    ]
    return replace(message, cosignatures=tuple(words))


def test_two_firms_that_are_shown_different_logs_notice_one_round_later(lead: Lead) -> None:
    first = lead.round(1)
    other = replace(first, log=lead.view(first.log.size, last="another"))
    told = {name: other if name == "firm-b" else first for name in ALL}
    for name in ALL:  # each log grew out of what its reader knew
        reply = lead.consortium.firms[name].participant.handle(told[name])
        assert isinstance(reply, Contribution)
    shown = {name: message.log.checkpoint(NAME) for name, message in told.items()}
    second, firm_b = lead.round(2), lead.consortium.firms["firm-b"]
    lead.refused(words_on(lead, second, shown), "firm-b has not cosigned the log")
    tail = [*other.log.leaves, hash_leaf(b"more")]
    reply = firm_b.participant.handle(words_on(lead, replace(second, log=view_of(tail)), shown))
    assert isinstance(reply, Refusal)
    assert "has not cosigned the log" in firm_b.ledger.refusals.newest(1)[0].reason


def test_words_that_are_left_out_are_missed(lead: Lead) -> None:
    lead.answered(lead.round(1))
    message = lead.round(2)
    missing = replace(message, cosignatures=message.cosignatures[1:])
    lead.refused(missing, "cosignatures of other firms on the lead's log are missing")
    older = replace(message, cosigned=0, cosignatures=())
    lead.refused(older, "cosignatures on another state")
    lead.answered(message)
    # Others answered this round without firm-a's knowing of it: the roster is another one.
    lead.answered(replace(lead.round(3, roster=ALL[:3]), cosigned=0, cosignatures=()))
