"""A lead that lies to a firm: every lie is refused, at no cost to the firm's budget.

The lead here builds its messages by hand from what real firms handed it; the firm under attack is
``firm-a``.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from consortium_in_memory import Consortium, make_terms
from greylag_client.ledger import Ledger
from greylag_client.policy import Policy
from greylag_protocols import log
from greylag_protocols.errors import ConfigError
from greylag_protocols.keys import sign_batch
from greylag_protocols.masking import public_key
from greylag_protocols.membership import LIFETIME_S, Membership, SignedMembership
from greylag_protocols.messages import (
    Accepted,
    Close,
    Closed,
    Contribution,
    Round,
    SignedBatch,
)
from greylag_protocols.signing import Ed25519Signer, parse_statement
from greylag_protocols.terms import Terms, terms_digest
from lying_lead import ALL, Lead

GENEROUS = Policy(lifetime_epsilon=1e3, max_epsilon_per_run=1e3)


@pytest.fixture
def make_lead(memory_path: Path) -> Callable[..., Lead]:
    def make(*, terms: Terms | None = None, **options: Any) -> Lead:
        return Lead(Consortium(memory_path, terms=terms or make_terms(), **options))

    return make


@pytest.fixture
def lead(make_lead: Callable[..., Lead]) -> Lead:
    return make_lead()


# -- offers ----------------------------------------------------------------------------------------


def test_an_offer_is_accepted_once_and_repeated_for_free(lead: Lead) -> None:
    lead.enter()
    tip = lead.victim.ledger.tip()
    assert tip.seq == 1
    before = lead.batches["firm-a"][0].keys
    lead.enter("firm-a")
    assert lead.victim.ledger.tip() == tip
    assert not set(before) & set(lead.batches["firm-a"][0].keys)  # never a key twice


def other_terms(lead: Lead, **changes: Any) -> bytes:
    return replace(lead.consortium.terms, **changes).encode()


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda lead: {"terms": other_terms(lead, consortium="tiles")}, "another consortium"),
        (lambda lead: {"terms": other_terms(lead, run_id="small-2")}, "another consortium or run"),
        (lambda lead: {"run": "small-2"}, "another consortium or run"),
        (lambda lead: {"terms": b"{}"}, "is missing"),
        (lambda lead: {"terms": lead.consortium.encoded[:-1]}, "not acceptable JSON"),
        (
            lambda lead: {"terms": understated(lead.consortium.terms)},
            "more than the",
        ),
    ],
)
def test_other_terms_are_refused(
    lead: Lead,
    forge: Callable[[Lead], dict[str, Any]],
    reason: str,
) -> None:
    lead.refused(lead.offer(**forge(lead)), reason)
    assert lead.victim.ledger.accounts() == []


def understated(terms: Terms) -> bytes:
    """Terms that promise half of the epsilon that they cost."""
    privacy = replace(terms.privacy, epsilon=terms.privacy.epsilon / 2)
    return replace(terms, privacy=privacy).encode()


def test_terms_cannot_change_under_a_run_id(lead: Lead) -> None:
    lead.enter()
    run = replace(lead.consortium.terms.run, purpose="another purpose")
    terms = other_terms(lead, run=run)
    lead.refused(lead.offer(terms=terms), "other terms were accepted")


def membership(by: Lead, /, **changes: Any) -> SignedMembership:
    changed = replace(by.consortium.membership, **changes)
    return SignedMembership.sign(changed, by.consortium.lead)


def swapped_own_key(lead: Lead) -> SignedMembership:
    members = lead.consortium.membership.members
    swapped = replace(members[0], identity=public_key(b"\x07" * 32).hex())
    return membership(lead, epoch=2, members=(swapped, *members[1:]))


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda lead: membership(lead, epoch=2), "is not approved here"),
        (lambda lead: membership(lead, lead="other"), "two different lists"),
        (lambda lead: membership(lead, consortium="tiles"), "is of consortium"),
        (swapped_own_key, "another key under this firm's name"),
        (
            lambda lead: membership(lead, members=lead.consortium.membership.members[1:], epoch=2),
            "no firm 'firm-a'",
        ),
        (
            lambda lead: SignedMembership.sign(
                lead.consortium.membership, Ed25519Signer(b"\x09" * 32)
            ),
            "is not signed by",
        ),
    ],
)
def test_another_membership_is_refused(
    lead: Lead,
    forge: Callable[[Lead], SignedMembership],
    reason: str,
) -> None:
    lead.refused(lead.offer(membership=forge(lead)), reason)
    assert lead.victim.ledger.accounts() == []


def test_an_unapproved_membership_is_a_matter_of_policy_until_it_is_approved(lead: Lead) -> None:
    offer = lead.offer(membership=membership(lead, epoch=2))
    refusal = lead.refused(offer, "is not approved here")
    assert refusal.refusal_class == "policy"
    seen: Membership = lead.victim.memberships.latest()
    lead.victim.memberships.approve(seen.digest().hex())
    assert lead.accepted("firm-a", membership=offer.membership)


def test_an_expired_membership_is_refused(lead: Lead) -> None:
    lead.consortium.now_s += LIFETIME_S
    lead.refused(lead.offer(), "is not valid now")


def test_a_membership_that_expires_in_mid_run_ends_it(lead: Lead) -> None:
    lead.enter()
    lead.answered(lead.round(1))
    lead.consortium.now_s += LIFETIME_S
    lead.refused(lead.round(2), "has expired")


def test_the_firms_budget_is_its_own(make_lead: Callable[..., Lead]) -> None:
    terms = make_terms()
    policy = Policy(lifetime_epsilon=terms.privacy.epsilon / 2, max_epsilon_per_run=1e3)
    lead = make_lead(terms=terms, policies={"firm-a": policy})
    assert lead.refused(lead.offer(), "lifetime_epsilon").refusal_class == "policy"


def test_a_table_that_does_not_fit_is_the_firms_own_affair(lead: Lead) -> None:
    def load(terms: Terms) -> Any:
        raise ConfigError("column 'SiO2' has values outside its range")

    lead.victim.load_engine = load
    lead.victim.restart()
    refusal = lead.refused(lead.offer(), "outside its range")
    assert refusal.refusal_class == "policy"
    assert lead.victim.ledger.accounts() == []


def test_a_firm_that_pauses_stops_in_mid_run(lead: Lead) -> None:
    lead.enter()
    lead.answered(lead.round(1))
    lead.victim.policy = replace(GENEROUS, paused=True)
    assert lead.refused(lead.round(2), "paused = true").refusal_class == "policy"
    assert lead.refused(lead.offer(), "paused = true").refusal_class == "policy"
    lead.victim.policy = GENEROUS
    lead.answered(lead.round(2))
    lead.victim.policy = replace(GENEROUS, paused=True)
    assert isinstance(lead.victim.participant.handle(Close(run=lead.run, seen=0)), Closed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hours": ("00:00-00:01",)}, "hours: "),
        ({"lifetime_epsilon": 1e-3}, "lifetime_epsilon = 0.001"),
        ({"min_firms": 5}, "min_firms = 5"),
        ({"excluded_operators": ("firm-c",)}, "excluded_operators: firm-c"),
        ({"families": ()}, "families does not allow"),
    ],
)
def test_a_changed_policy_acts_at_the_next_round(
    lead: Lead, change: dict[str, object], reason: str
) -> None:
    lead.enter()
    lead.answered(lead.round(1))
    lead.victim.policy = replace(GENEROUS, **change)  # type: ignore[arg-type]
    assert lead.refused(lead.round(2), reason).refusal_class == "policy"
    lead.victim.policy = GENEROUS
    lead.answered(lead.round(3, 2))


def test_a_policy_that_cannot_be_read_refuses_everything(lead: Lead) -> None:
    lead.enter()

    def broken() -> Policy:
        raise ConfigError("policy.toml: unknown key 'lifetime_epsilom'")

    lead.victim.participant._policy = broken
    assert lead.refused(lead.round(1), "unknown key").refusal_class == "policy"
    assert lead.refused(lead.offer(), "unknown key").refusal_class == "policy"


def test_a_repeated_refusal_is_counted_and_not_told_again(
    lead: Lead, caplog: pytest.LogCaptureFixture
) -> None:
    lead.victim.policy = replace(GENEROUS, paused=True)
    for _ in range(3):
        lead.refused(lead.offer(), "paused = true")
    assert caplog.text.count("paused = true") == 1
    (refused,) = lead.victim.ledger.refusals.newest()
    assert (refused.run, refused.times) == (lead.run, 3)


# -- rounds ----------------------------------------------------------------------------------------


def test_an_honest_round_is_answered_and_charged(lead: Lead) -> None:
    reply = lead.enter().answered(lead.round(1))
    assert reply.vector.shape == (lead.consortium.terms.dimension,)
    (receipt,) = lead.victim.receipts()
    assert (receipt["round"], receipt["attempt"], receipt["charged"]) == (1, 1, 1)
    assert receipt["roster_size"] == 4
    assert parse_statement(reply.entries[-1]).kind == log.RECEIPT_KIND


def test_what_leaves_is_masked(lead: Lead) -> None:
    """No single coordinate of what was put in shows in what is sent."""
    reply = lead.enter().answered(lead.round(1))
    (put_in,) = lead.victim.masks.put_in.values()
    assert not np.any(put_in == reply.vector.view(np.int32))
    spread = np.abs(reply.vector.view(np.int32).astype(np.float64))
    assert spread.max() > 2**28  # over the whole ring, not near what was put in


@pytest.mark.parametrize(
    ("roster", "reason"),
    [
        (("firm-a",), "a roster of 1 firms is too small"),
        (("firm-a", "firm-b"), "too small"),
        (("firm-b", "firm-c", "firm-d"), "not in the roster"),
        (("firm-b", "firm-a", "firm-c"), "not sorted"),
        (("firm-a", "firm-b", "firm-b", "firm-c"), "free of doubles"),
    ],
)
def test_a_wrong_roster_is_refused(lead: Lead, roster: tuple[str, ...], reason: str) -> None:
    lead.enter()
    lead.refused(lead.round(1, roster=roster), reason)
    lead.answered(lead.round(1))  # what was refused used nothing up


def test_a_roster_below_the_firms_own_minimum_is_refused(make_lead: Callable[..., Lead]) -> None:
    lead = make_lead(terms=make_terms(min_firms=4), policies={"firm-a": GENEROUS}).enter()
    lead.refused(lead.round(1, roster=ALL[:3]), "too small")


def test_a_stranger_in_the_roster_is_refused(lead: Lead) -> None:
    """A member of the lead's own making, with keys that verify under its own identity."""
    lead.enter()
    stranger, keys = Ed25519Signer(b"\x66" * 32), (public_key(b"\x67" * 32),)
    statement = sign_batch(
        stranger, keys, firm="firm-x", consortium="glass", epoch=1, run=lead.run,
        terms=terms_digest(lead.consortium.encoded), first=1, tip=log.ChainTip(),
    )  # fmt: skip
    lead.take_batch("firm-x", SignedBatch(statement=statement, keys=keys))
    lead.refused(lead.round(1, roster=(*ALL, "firm-x")), "no firm 'firm-x'")


def test_too_many_firms_of_one_operator_are_refused(make_lead: Callable[..., Lead]) -> None:
    """The lead's own agent and a host together are more than the noise survives."""
    lead = make_lead(operators={"firm-d": "acme"}).enter()
    lead.refused(lead.round(1), "run 2 firms of the roster")
    lead.answered(lead.round(1, roster=ALL[:3]))


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (np.zeros(49, dtype=np.float32), "another shape or are out of range"),
        (np.zeros(0, dtype=np.float32), "another shape"),
        (np.full(50, np.nan, dtype=np.float32), "out of range"),
        (np.full(50, np.inf, dtype=np.float32), "out of range"),
        (np.array([0] * 49 + [1.1e4], dtype=np.float32), "out of range"),
        (np.array([0] * 49 + [-1.1e4], dtype=np.float32), "out of range"),
    ],
)
def test_wrong_weights_are_refused(
    lead: Lead,
    weights: np.ndarray[Any, Any],
    reason: str,
) -> None:
    lead.enter()
    lead.refused(replace(lead.round(1), weights=weights), reason)


@pytest.mark.parametrize("round_number", [0, 5])
def test_a_round_outside_the_terms_is_refused(lead: Lead, round_number: int) -> None:
    lead.enter()
    lead.refused(lead.round(1, round_number), "outside the terms")


def test_a_run_that_goes_back_is_refused(lead: Lead) -> None:
    lead.enter()
    lead.answered(lead.round(2, 2))
    lead.refused(lead.round(3, 1), "goes backwards")
    shorter = replace(lead.round(3, 3), log=lead.view(11))
    lead.refused(shorter, "log shrank from 12 entries to 11")
    lead.answered(lead.round(3, 3))


def test_going_back_is_refused_after_a_restart_too(lead: Lead) -> None:
    lead.enter()
    lead.answered(lead.round(2, 2))
    lead.victim.restart()
    lead.enter("firm-a", next_attempt=1)
    assert lead.batches["firm-a"][1] == 3  # never a key for an attempt that was answered
    lead.refused(lead.round(3, 1), "goes backwards")


# -- replays ---------------------------------------------------------------------------------------


def test_the_same_context_gets_the_same_bytes_and_is_charged_once(lead: Lead) -> None:
    lead.enter()
    message = lead.round(1)
    first = lead.answered(message).encode()
    tip = lead.victim.ledger.tip()
    assert lead.answered(message).encode() == first
    assert lead.victim.ledger.tip() == tip
    assert len(lead.victim.receipts()) == 1


def other_weights(lead: Lead, message: Round) -> Round:
    return replace(message, weights=message.weights + np.float32(0.5))


@pytest.mark.parametrize(
    "change",
    [
        other_weights,
        lambda lead, message: replace(message, log=lead.view(20, last="other")),
        lambda lead, message: replace(message, log=lead.view(message.log.size + 1)),
        lambda lead, message: replace(message, round_number=2),
        lambda lead, message: lead.round(1, roster=ALL[:3]),
    ],
)
def test_an_attempt_number_is_good_for_one_context(
    lead: Lead, change: Callable[[Lead, Round], Round]
) -> None:
    lead.enter()
    lead.answered(lead.round(1))
    lead.refused(change(lead, lead.round(1)), "no one-time key for attempt 1")
    assert len(lead.victim.receipts()) == 1


def test_a_restarted_firm_does_not_answer_an_old_attempt(lead: Lead) -> None:
    lead.enter()
    message = lead.round(1)
    lead.answered(message)
    lead.victim.restart()
    lead.refused(message, "an offer is needed")
    lead.enter("firm-a")
    lead.refused(message, "no one-time key for attempt 1")


# -- keys ------------------------------------------------------------------------------------------


def with_key(message: Round, at: int, key: bytes, proof: tuple[bytes, ...] | None = None) -> Round:
    keys, proofs = list(message.keys), list(message.proofs)
    keys[at] = key
    proofs[at] = proofs[at] if proof is None else proof
    return replace(message, keys=tuple(keys), proofs=tuple(proofs))


@pytest.mark.parametrize("at", [0, 1])
def test_a_key_of_the_leads_own_is_refused(lead: Lead, at: int) -> None:
    """Its own key swapped, or a peer's: neither leads to the signed root."""
    lead.enter()
    lead.refused(with_key(lead.round(1), at, public_key(b"\x66" * 32)), "proof")


def test_an_older_key_of_this_firms_own_is_refused(lead: Lead) -> None:
    """Both batches are signed by the firm; it holds the private keys of the newer one only."""
    lead.enter()
    old = lead.round(1)
    lead.enter("firm-a")
    lead.refused(old, "another key under this firm's name")


def test_a_key_of_another_attempt_is_refused(lead: Lead) -> None:
    lead.enter()
    second = lead.round(2)
    message = with_key(lead.round(1), 1, second.keys[1], second.proofs[1])
    lead.refused(message, "proof")


def test_one_key_under_two_names_is_refused(lead: Lead) -> None:
    lead.enter()
    message = lead.round(1)
    lead.refused(with_key(message, 1, message.keys[2]), "stands twice")


def test_keys_of_another_run_are_refused(lead: Lead) -> None:
    lead.enter()
    other = make_terms(run="small-2")
    peer = lead.consortium.firms["firm-b"].participant
    reply = peer.handle(lead.offer(run="small-2", terms=other.encode()))
    assert isinstance(reply, Accepted)
    lead.take_batch("firm-b", reply.batch)
    lead.refused(lead.round(1), "for another run")


def test_a_missing_key_batch_is_refused(lead: Lead) -> None:
    lead.enter()
    message = lead.round(1)
    lead.refused(replace(message, batches=message.batches[:-1]), "batch was not sent")


def test_batches_need_to_be_sent_once_only(lead: Lead) -> None:
    lead.enter()
    lead.answered(lead.round(1))
    lead.answered(replace(lead.round(2), batches=()))


def test_a_batch_that_a_peer_did_not_sign_is_refused(lead: Lead) -> None:
    lead.enter()
    batch, first = lead.batches["firm-b"]
    facts = parse_statement(batch.statement).predicate
    forged = lead.consortium.lead.sign(
        "key-batch/v1", lead.run, parse_statement(batch.statement).digest, facts
    )
    lead.batches["firm-b"] = SignedBatch(statement=forged, keys=batch.keys), first
    lead.refused(lead.round(1), "is not signed by")


def test_a_peer_whose_ledger_went_back_is_refused(lead: Lead) -> None:
    """Its machine was restored from a backup: the same budget would be spent twice."""
    lead.enter()
    lead.answered(lead.round(1))
    peer = lead.consortium.firms["firm-b"]
    peer.participant.handle(lead.round(1))
    old = lead.batches["firm-b"]
    lead.enter("firm-b", next_attempt=2)
    lead.answered(lead.round(2))
    lead.batches["firm-b"] = old
    lead.refused(lead.round(3), "set back or copied")
    lead.victim.restart()  # the ledger remembers, not the process
    lead.enter("firm-a", next_attempt=3)
    lead.refused(lead.round(3), "set back or copied")


def test_a_firm_whose_own_ledger_went_back_stops(lead: Lead) -> None:
    lead.enter()
    message = replace(lead.round(1), seen=(2, 0, 0, 0))
    lead.refused(message, "restored from an old copy")


# -- rosters over time -----------------------------------------------------------------------------


def test_a_repeated_round_needs_a_smaller_roster(lead: Lead) -> None:
    lead.enter()
    lead.answered(lead.round(1, 1))
    lead.refused(lead.round(2, 1), "strictly smaller roster")
    lead.answered(lead.round(2, 1, ALL[:3]))
    other = lead.round(3, 1, ("firm-a", "firm-b", "firm-d"))  # as small, but another
    lead.refused(other, "strictly smaller roster")


def test_a_firm_may_rejoin_only_at_its_rounds(make_lead: Callable[..., Lead]) -> None:
    lead = make_lead(terms=make_terms(rounds=52, max_attempts=58)).enter()
    lead.answered(lead.round(1, 1, ALL[:3]))
    for attempt, round_number in ((2, 2), (49, 50), (51, 52)):
        lead.refused(lead.round(attempt, round_number), "may rejoin only")
    lead.answered(lead.round(52, 51))


def test_rosters_change_no_more_often_than_policy_allows(make_lead: Callable[..., Lead]) -> None:
    policy = replace(GENEROUS, max_roster_changes=1)
    lead = make_lead(firms=5, policies={"firm-a": policy}).enter()
    five = (*ALL, "firm-e")
    lead.answered(lead.round(1, 1, five))
    lead.answered(lead.round(2, 2, ALL))
    lead.answered(lead.round(3, 3, ALL))
    refusal = lead.refused(lead.round(4, 4, ALL[:3]), "max_roster_changes = 1")
    assert refusal.refusal_class == "policy"
    lead.answered(lead.round(4, 4, ALL))


# -- after the debit -------------------------------------------------------------------------------


class BrokenEngine:
    """An engine that fails on every sample."""

    def __len__(self) -> int:
        return 40

    def clipped_sum(self, weights: Any, rows: Any) -> Any:
        raise RuntimeError("CUDA error")


def test_arithmetic_that_breaks_looks_like_an_empty_sample(lead: Lead) -> None:
    terms = lead.consortium.terms
    lead.enter("firm-b", "firm-c", "firm-d")
    lead.victim.load_engine = lambda terms: BrokenEngine()
    lead.victim.restart()
    lead.enter("firm-a")
    message = lead.round(1)
    broken = lead.answered(message)
    whole = lead.consortium.firms["firm-b"].participant.handle(message)
    assert len(broken.encode()) == len(whole.encode())
    assert len(lead.victim.receipts()) == 1
    (put_in,) = lead.victim.masks.put_in.values()
    steps = terms.grid(4).noise_std / terms.grid(4).step
    # Noise alone, and all of it: 50 values, whose spread is within 8 of its own deviations.
    assert 0.5 < put_in.std() / steps < 1.8
    assert np.count_nonzero(put_in) == terms.dimension


def test_a_full_disk_sends_nothing(
    make_lead: Callable[..., Lead], caplog: pytest.LogCaptureFixture
) -> None:
    lead = make_lead(terms=make_terms(rounds=20, max_attempts=20)).enter()
    database = lead.victim.ledger._db
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    attempt = 1
    while isinstance(lead.victim.participant.handle(lead.round(attempt)), Contribution):
        attempt += 1
    assert "could not be written" in caplog.text
    assert len(lead.victim.receipts()) == attempt - 1
    assert len(lead.victim.masks.put_in) == attempt - 1  # nothing was even computed


def test_a_debit_comes_before_the_vector(lead: Lead) -> None:
    """When the vector is made, another reader of the disk file sees the receipt already."""
    lead.enter("firm-b", "firm-c", "firm-d")
    seen: list[int] = []
    victim = lead.victim

    class Watching(BrokenEngine):
        def clipped_sum(self, weights: Any, rows: Any) -> Any:
            other = Ledger(victim.root / "ledger.sqlite")
            seen.append(other.tip().seq)
            other.close_file()
            return np.zeros(50)

    victim.load_engine = lambda terms: Watching()
    victim.restart()
    lead.enter("firm-a")
    lead.answered(lead.round(1))
    assert seen == [2]


# -- the end ---------------------------------------------------------------------------------------


def test_a_closed_run_is_refused_for_ever(lead: Lead) -> None:
    lead.enter()
    lead.answered(lead.round(1))
    closed = lead.victim.participant.handle(Close(run=lead.run, seen=2))
    assert isinstance(closed, Closed)
    (entry,) = closed.entries
    assert parse_statement(entry).predicate["charged"] == 1
    lead.refused(lead.round(2), "no open session")
    lead.refused(lead.offer(), "closed here for ever")
    lead.victim.restart()
    lead.refused(lead.offer(next_attempt=3), "closed here for ever")
    again = lead.victim.participant.handle(Close(run=lead.run, seen=2))
    assert again == closed


def test_a_run_that_was_never_accepted_cannot_be_closed(lead: Lead) -> None:
    lead.refused(Close(run=lead.run, seen=0), "never accepted here")


def test_a_round_without_an_offer_is_refused(lead: Lead) -> None:
    lead.enter("firm-b", "firm-c", "firm-d")
    lead.batches["firm-a"] = lead.batches["firm-b"]
    message = lead.round(1)
    lead.refused(message, "an offer is needed")
