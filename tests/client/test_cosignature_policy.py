"""A firm whose policy wants other firms' cosignatures on the log before it goes on."""

from dataclasses import replace
from pathlib import Path

import pytest
from consortium_in_memory import NAME, NOW_S, Consortium, make_terms, run_on
from flwr.app import Error, Message
from greylag_client.log_watch import count_cosigners
from greylag_client.policy import Policy, read_policy
from greylag_client.witness import PAST_KEPT, Past
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.errors import ConfigError
from greylag_protocols.log_view import LogView, show_log
from greylag_protocols.merkle import Frontier, hash_leaf, root_of
from greylag_protocols.messages import Round
from greylag_protocols.notes import cosign
from greylag_protocols.signing import Ed25519Signer
from greylag_server.store import Store
from lying_lead import ALL, Lead

LEAD = Ed25519Signer(b"\x01" * 32)
LEAVES = [hash_leaf(str(at).encode()) for at in range(3 * PAST_KEPT)]


@pytest.fixture
def lead(memory_path: Path) -> Lead:
    lead = Lead(Consortium(memory_path, terms=make_terms())).enter()
    want(lead.consortium, "firm-a", min_cosignatures=3, cosignature_patience=1)
    return lead


def want(consortium: Consortium, name: str, **rules: int) -> None:
    firm = consortium.firms[name]
    firm.policy = replace(firm.policy, **rules)


def evading(lead: Lead, attempt: int) -> Round:
    """A round in a session that the lead opened for it, so that nothing need be shown."""
    lead.enter("firm-a", next_attempt=attempt)
    message = lead.round(attempt)
    assert message.cosignatures == ()
    return message


def with_words(lead: Lead, message: Round, state: Checkpoint, *names: str) -> Round:
    words = (cosign(lead.consortium.firms[name].signer, state, time_s=int(NOW_S)) for name in names)
    return replace(message, cosigned=state.size, cosignatures=tuple(words))


def test_a_lead_that_shows_no_cosignatures_is_left_after_the_patience(lead: Lead) -> None:
    first = lead.round(1)
    lead.answered(first)  # nothing can be shown yet
    message = evading(lead, 2)
    reason = "min_cosignatures = 3, but 0 other firms countersigned the lead's log"
    assert lead.refused(message, reason).refusal_class == "policy"
    state = first.log.checkpoint(NAME)
    lead.refused(with_words(lead, message, state, "firm-b", "firm-c"), "but 2 other firms")
    lead.refused(with_words(lead, message, state, "firm-a", "firm-b", "firm-c"), "but 2 other")
    other = Checkpoint(origin=NAME, size=state.size, root=bytes(32))
    lead.refused(with_words(lead, message, other, *ALL), "but 0 other firms")
    never = replace(state, size=10**6)
    lead.refused(with_words(lead, message, never, *ALL), "but 0 other firms")
    lead.answered(with_words(lead, message, state, *ALL))
    lead.answered(evading(lead, 3))  # patience begins anew


def test_repeating_a_round_costs_no_more_patience(lead: Lead) -> None:
    lead.answered(lead.round(1))
    message = lead.round(2, round_number=1, roster=ALL[:3])
    lead.answered(replace(message, cosigned=0, cosignatures=()))
    third = lead.round(3, round_number=2, roster=ALL[:3])
    lead.refused(third, "a roster of 2 others can never give more")


def test_without_the_rule_a_firm_goes_on_by_its_own_look(lead: Lead) -> None:
    want(lead.consortium, "firm-a", min_cosignatures=0)
    lead.answered(lead.round(1))
    for attempt in (2, 3, 4):
        lead.answered(evading(lead, attempt))


def test_a_restart_begins_with_all_patience(lead: Lead) -> None:
    lead.answered(lead.round(1))
    lead.refused(evading(lead, 2), "min_cosignatures")
    lead.victim.restart()
    lead.answered(evading(lead, 3))


def test_an_honest_run_loses_nobody_to_the_rule(memory_path: Path) -> None:
    terms = make_terms(rounds=5, max_attempts=8)
    consortium = Consortium(memory_path, terms=terms, firms=5)
    for name in consortium.firms:
        want(consortium, name, min_cosignatures=3, cosignature_patience=1)
    store = Store(memory_path / "log.sqlite", origin=NAME)
    with store.transaction():
        store.queue_run(terms.run_id, consortium.encoded, firms=5)
        store.open_run(terms.run_id, consortium.signed)
    answer, seen = consortium.firms["firm-e"].answer, 0

    def lost_once(message: Message) -> Message:
        nonlocal seen
        reply = answer(message)
        seen += message.metadata.message_type == "train"
        if seen == 3 and message.metadata.message_type == "train":
            return Message(Error(code=0, reason="lost"), reply_to=message)
        return reply

    run_on(consortium.local_grid(firm_e=lost_once), consortium.coordinator(store))
    record = store.run(terms.run_id)
    store.close()
    assert (record.rounds_done, record.attempts) == (5, 6)
    for firm in consortium.firms.values():
        assert firm.ledger.refusals.newest(1) == []


def test_words_behind_a_strangers_do_not_count(lead: Lead) -> None:
    state = Checkpoint(origin=NAME, size=11, root=bytes(32))
    membership = lead.consortium.membership
    message = with_words(lead, lead.round(1), state, "firm-b", "firm-c", "firm-d")
    assert count_cosigners(message, state, membership, own="firm-a") == 3
    first, *rest = message.cosignatures
    spoiled = replace(message, cosignatures=(first, bytes(72), *rest))
    assert count_cosigners(spoiled, state, membership, own="firm-a") == 1
    twice = replace(message, cosignatures=(first, first))
    assert count_cosigners(twice, state, membership, own="firm-a") == 1


def shown(first: int, size: int) -> LogView:
    checkpoint = Checkpoint(origin=NAME, size=size, root=root_of(LEAVES[:size]))
    return show_log(LEAD, checkpoint, LEAVES[first:size])


def test_the_states_that_a_firm_can_still_tell() -> None:
    edge, past = Frontier(), Past()
    for size in (1, 7, 40):
        past = past.grown(edge, shown(max(0, edge.size - 2), size))
        edge = shown(0, size).extend(edge, origin=NAME, lead_key=LEAD.public_key)
    for size in range(41):
        assert past.at(size, origin=NAME) == shown(0, size).checkpoint(NAME)
    assert past.at(41, origin=NAME) is None
    late = Past().grown(edge, shown(40, 50))  # after a start
    assert late.at(39, origin=NAME) is None
    assert late.at(40, origin=NAME) == shown(0, 40).checkpoint(NAME)
    long = past.grown(edge, shown(40, len(LEAVES)))
    assert long.at(len(LEAVES), origin=NAME) == shown(0, len(LEAVES)).checkpoint(NAME)
    assert long.at(len(LEAVES) - PAST_KEPT - 1, origin=NAME) is None


@pytest.mark.parametrize(
    "line", ["min_cosignatures = 16", "min_cosignatures = -1", "cosignature_patience = 0"]
)
def test_what_no_lead_could_ever_do_is_no_rule(tmp_path: Path, line: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(f"lifetime_epsilon = 1.0\n{line}\n")
    with pytest.raises(ConfigError, match=line.split()[0]):
        read_policy(path)
    assert Policy(lifetime_epsilon=1.0).min_cosignatures == 0
