"""A ledger put back from an old copy is rebuilt from the lead's log, and never refunded."""

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from attacks.machines import keep_copy, put_back, show_keys, spend
from consortium_in_memory import LEAD, NAME, NOW_S, Consortium, make_terms, run_on
from greylag_client.budget import total_charge
from greylag_client.closing import close_run
from greylag_client.datasets import ANY, MAIN, Content, Dataset
from greylag_client.ledger import Debit, Ledger
from greylag_client.policy import Policy
from greylag_client.rebuild import fold
from greylag_client.spending import accounts_of
from greylag_client.witness import Sight
from greylag_protocols import log
from greylag_protocols.errors import VerificationError
from greylag_protocols.log import ChainTip
from greylag_protocols.messages import Accepted, Asking, Close, Cosigned, Offer, Refusal, Show
from greylag_protocols.peers import Seen
from greylag_protocols.signing import Ed25519Signer, parse_statement
from greylag_protocols.terms import Terms, terms_digest
from greylag_server import history
from lying_lead import ALL, Lead

SECOND = make_terms(run="small-2")


@pytest.fixture
def lead(memory_path: Path) -> Lead:
    return Lead(Consortium(memory_path, terms=make_terms(rounds=8))).enter()


def set_back(lead: Lead, backup: Path | None = None) -> tuple[bytes, ...]:
    """The victim answers four attempts, its peers see its next keys, all of it is logged; then its
    ledger is put back, or lost. Returns its chain."""
    backup = backup or keep_copy(lead.victim)
    spend(lead, range(1, 5))
    show_keys(lead, 5)
    chain = lead.victim.ledger.entries_after(0)
    lead.write(*chain)
    put_back(lead.victim, backup)
    return chain


def test_a_restored_ledger_is_rebuilt_and_the_run_goes_on(
    lead: Lead, caplog: pytest.LogCaptureFixture
) -> None:
    chain, victim = set_back(lead), lead.victim
    asking = victim.participant.handle(lead.offer(seen=5, next_attempt=5))
    assert isinstance(asking, Asking)
    assert (asking.seq, asking.log_size) == (1, 0)
    caplog.set_level(logging.WARNING)
    reply = lead.enter_with(lead.handing_over(*chain[1:], seen=5, next_attempt=5))
    assert reply.entries == ()
    assert victim.ledger.entries_after(0) == chain
    account = victim.ledger.accounts()[0]
    assert (account.charged, account.last_attempt, account.last_round) == (4, 4, 4)
    assert (account.roster, account.roster_changes) == ((), 1)
    assert account.datasets == (ANY, MAIN)
    assert parse_statement(reply.batch.statement).predicate["first"] == 5
    told = victim.ledger.refusals.newest(1)[0].reason
    assert "4 entries behind the lead's log and was rebuilt from them (small-1)" in told
    assert told in caplog.text
    lead.answered(replace(lead.round(5), seen=(5, 0, 0, 0)))
    assert [item["charged"] for item in victim.receipts()] == [1, 2, 3, 4, 5]
    # The next start finds nothing missing.
    lead.victim.restart()
    assert isinstance(lead.accepted("firm-a", next_attempt=6, seen=5), Accepted)


def test_a_log_that_was_shown_before_the_offer_changes_nothing(lead: Lead) -> None:
    """The sight has moved past the entries before the firm learns that it lacks them."""
    chain = set_back(lead)
    show = Show(run=lead.run, log=lead.view(lead.log_size))
    assert isinstance(lead.victim.participant.handle(show), Cosigned)
    lead.enter_with(lead.handing_over(*chain[1:], seen=5))
    assert lead.victim.ledger.witness.sight().own == 5


def test_keys_of_attempts_that_were_answered_are_never_offered_again(lead: Lead) -> None:
    chain = set_back(lead)
    reply = lead.enter_with(lead.handing_over(*chain[1:], seen=5, next_attempt=1))
    assert parse_statement(reply.batch.statement).predicate["first"] == 5
    lead.refused(replace(lead.round(5), round_number=4), "strictly smaller roster")


def lies_about(lead: Lead, chain: tuple[bytes, ...]) -> dict[str, tuple[Offer, str]]:
    """Offers of a lead that hands over something else than the chain behind its first entry."""
    one, two, three, four = chain[1:]
    facts = parse_statement(four)
    forged = lead.consortium.firms["firm-b"].signer.sign(
        log.RECEIPT_KIND, facts.subject, facts.digest, facts.predicate
    )
    peer = lead.consortium.firms["firm-b"].ledger.entries_after(0)
    refusal = log.sign_refusal(lead.victim.signer, firm="firm-a", run=lead.run, refusal_class="x")
    lead.write(forged, *peer)
    other, over = lead.view(10, last="x"), lead.handing_over
    return {
        "forged": (over(one, two, three, forged, seen=5), "not signed by"),
        "missing": (over(one, three, four, seen=5), "does not follow entry 2"),
        "first missing": (over(two, three, four, seen=5), "does not follow entry 1"),
        "another firm's": (over(one, peer[1], seen=5), "not signed by"),
        "reordered": (over(two, one, three, four, seen=5), "does not follow"),
        "repeated": (over(one, one, two, three, seen=5), "does not follow"),
        "of no chain": (over(one, refusal, seen=5), "not an entry of a firm's chain"),
        "junk": (over(one, b"{}", seen=5), "cannot be rebuilt"),
        "altered": (over(one, two, three, four + b" ", seen=5), "cannot be rebuilt"),
        "more than said": (over(one, two, three, four, seen=4), "more entries than it says"),
        "not logged": (over(one, two, three, four, seen=5, log=lead.view(18)), "lacks entry 4"),
        "another log": (over(one, two, three, four, seen=5, log=other), "what it held before"),
    }


LIES = (
    *("forged", "missing", "first missing", "another firm's", "reordered", "repeated"),
    *("of no chain", "junk", "altered", "more than said", "not logged", "another log"),
)


@pytest.mark.parametrize("lie", LIES)
def test_what_is_not_the_firms_own_chain_in_the_log_changes_nothing(lead: Lead, lie: str) -> None:
    chain = set_back(lead)
    lies = lies_about(lead, chain)
    assert set(lies) == set(LIES)
    lead.refused(*lies[lie])
    assert lead.victim.ledger.tip().seq == 1
    assert lead.victim.participant._sessions == {}


@pytest.mark.parametrize("past", [(), (SECOND.encode(),), (b"{}",), (b"junk",)])
def test_terms_that_the_firm_did_not_accept_change_nothing(
    lead: Lead, past: tuple[bytes, ...]
) -> None:
    chain = set_back(lead)
    lead.victim.lose_ledger()
    lead.refused(lead.handing_over(*chain, seen=5, past=past), "keeps back the terms of")


def test_the_newest_entries_cannot_be_withheld_from_a_firm_with_peers(lead: Lead) -> None:
    chain = set_back(lead)
    # It says so itself: then the firm asks on.
    asking = lead.victim.participant.handle(lead.handing_over(*chain[1:3], seen=5))
    assert isinstance(asking, Asking)
    assert asking.seq == 3
    # It hides them: honest firms saw them.
    lead.refused(lead.offer(seen=3), "saw entry 5 of this firm's ledger")
    nonce = lead.victim.participant._peers.nonce
    facts = {"firm": "firm-d", "consortium": NAME, "about": "firm-a", "nonce": nonce}
    lie = Seen(**facts, seq=0).sign(lead.consortium.firms["firm-d"].signer, bytes(32))
    assert isinstance(lead.victim.participant.handle(lead.offer(seen=3, peers=(lie,))), Asking)
    assert lead.victim.participant._sessions == {}
    # Sixty-four receipts that nobody saw can go missing, as ever; what is open counts in full.
    assert lead.victim.ledger.accounts()[0].charged == 2
    lead.enter_with(lead.handing_over(*chain[3:], seen=5))
    assert lead.victim.ledger.entries_after(0) == chain


def test_words_of_before_do_not_vouch_for_what_was_rebuilt(lead: Lead) -> None:
    """A lead that first hides what it holds, then hands it over in part, needs new words."""
    spend(lead, range(1, 3))
    chain = lead.victim.ledger.entries_after(0)
    lead.write(*chain)
    lead.victim.lose_ledger()
    victim = lead.victim.participant
    victim._peers.vouched_for = 1  # liars' words for a run that was to survive none
    asking = victim.handle(lead.handing_over(*chain, seen=3))
    assert isinstance(asking, Asking)
    assert victim._peers.vouched_for == 0


def test_a_fork_stays_refused(lead: Lead) -> None:
    """Somebody closed the run on the old copy: its chain goes on otherwise than the log's."""
    chain = set_back(lead)
    close_run(lead.victim.ledger, lead.victim.identity, lead.run)
    for _ in range(2):
        reason = "A copy of this firm ran elsewhere, its machine was set back or copied"
        lead.refused(lead.handing_over(*chain[2:], seen=5), reason)
        lead.refused(lead.handing_over(*chain[1:], seen=5), reason)
        lead.refused(lead.handing_over(*chain[1:], seen=2), "was closed here")
        lead.victim.restart()
    other = lead.offer(run="small-2", terms=SECOND.encode(), seen=2)
    lead.refused(other, "it was restored from an old copy, or a copy of this firm runs elsewhere")


def test_a_close_never_forks_a_ledger_that_lacks_entries(lead: Lead) -> None:
    chain = set_back(lead)
    lead.refused(Close(run=lead.run, seen=5), "its ledger lacks")
    lead.victim.participant.handle(lead.handing_over(*chain[1:], seen=5))
    assert not isinstance(lead.victim.participant.handle(Close(run=lead.run, seen=5)), Refusal)
    assert lead.victim.ledger.accounts()[0].closed


def test_a_ledger_that_was_lost_is_rebuilt_for_every_data_set(lead: Lead) -> None:
    chain = set_back(lead)
    victim = lead.victim
    victim.lose_ledger()
    lead.enter_with(lead.handing_over(*chain, seen=5, next_attempt=5))
    assert victim.ledger.entries_after(0) == chain
    account = victim.ledger.accounts()[0]
    assert (account.charged, account.last_attempt) == (4, 4)
    assert (account.accepted_s, account.last_s) == (NOW_S, NOW_S)
    # The file under another name is not fresh: nobody knows any more what the run read.
    victim.ledger.datasets.open(Dataset(name="fresh", path="x", standard="", opened_s=0))
    terms, strict = lead.consortium.terms, Policy(lifetime_epsilon=1e3, max_epsilon_per_run=1e3)
    for item in accounts_of(victim.ledger, strict, [MAIN, "fresh"], now_s=NOW_S):
        assert (item.spent, item.held) == (terms.privacy.epsilon, terms.privacy.epsilon)
        assert item.shares_with == ()
    lead.answered(replace(lead.round(5), seen=(5, 0, 0, 0)))


def test_closed_runs_and_two_runs(lead: Lead) -> None:
    backup = keep_copy(lead.victim)
    spend(lead, range(1, 3))
    lead.victim.participant.handle(Close(run=lead.run, seen=0))
    second = {"run": "small-2", "terms": SECOND.encode()}
    lead.accepted("firm-a", **second)
    chain = lead.victim.ledger.entries_after(0)
    lead.write(*chain)
    for lost in (False, True):
        put_back(lead.victim, backup)
        if lost:
            lead.victim.lose_ledger()
        held = lead.victim.ledger.tip().seq
        past = (lead.consortium.encoded, SECOND.encode())
        reply = lead.enter_with(lead.handing_over(*chain[held:], seen=5, past=past, **second))
        assert reply.entries == ()  # no second acceptance
        first, other = lead.victim.ledger.accounts()
        assert (first.charged, first.closed, first.holds) == (2, True, True)
        assert (other.run, other.charged, other.closed) == ("small-2", 0, False)
        lead.refused(lead.offer(seen=5), "closed here for ever")
        lead.victim.ledger = Ledger(lead.victim.root / "ledger.sqlite")


def test_a_run_without_logged_receipts_may_have_lost_them(lead: Lead) -> None:
    """Its acceptance is logged, its receipts reached nobody: closing it frees nothing."""
    chain = lead.victim.ledger.entries_after(0)
    lead.write(*chain)
    spend(lead, range(1, 2))
    lead.victim.lose_ledger()
    lead.enter_with(lead.handing_over(*chain, seen=1, next_attempt=2))
    close_run(lead.victim.ledger, lead.victim.identity, lead.run)
    (account,) = lead.victim.ledger.accounts()
    assert (account.charged, account.closed, account.holds) == (0, True, True)


def test_an_open_run_is_no_worse_off_for_an_unused_one_that_was_closed(lead: Lead) -> None:
    close_run(lead.victim.ledger, lead.victim.identity, lead.run)
    chain = lead.victim.ledger.entries_after(0)
    lead.write(*chain)
    lead.victim.lose_ledger()
    other = {"run": "small-2", "terms": SECOND.encode()}
    lead.enter_with(lead.handing_over(*chain, seen=2, **other))
    first, second = lead.victim.ledger.accounts()
    assert not first.holds  # its whole chain is there: nothing was ever released
    assert second.holds


# -- what receipts tell of rosters ---------------------------------------------------------------


def receipts_of(*facts: tuple[int, int]) -> list[bytes]:
    """An acceptance, and receipts by round and size of the roster."""
    signer, terms = Ed25519Signer(b"\x05" * 32), make_terms(rounds=200, max_attempts=220)
    digest = terms_digest(terms.encode())
    kept = [log.sign_acceptance(signer, ChainTip(), firm="f", run="small-1", terms=digest, epoch=1)]
    for attempt, (round_number, size) in enumerate(facts, start=1):
        tip = ChainTip(seq=attempt, head=log.entry_head(kept[-1]))
        context = bytes([attempt]) * 32
        numbers = {"round_number": round_number, "attempt": attempt, "charged": attempt}
        kept.append(
            log.sign_receipt(
                signer,
                tip,
                firm="f",
                run="small-1",
                context=context,
                roster_size=size,
                event_type="gaussian/v1",  # type: ignore[arg-type]
                **numbers,
            )
        )
    return kept


@pytest.mark.parametrize(
    ("facts", "changes"),
    [
        ([(1, 5), (2, 5), (3, 5)], 0),
        ([(1, 5), (1, 4), (2, 4)], 1),  # a retry is smaller
        ([(1, 5), (1, 4), (51, 5), (52, 5)], 2),
        ([(1, 5), (50, 5), (51, 5), (101, 5)], 2),  # as many, perhaps others: only then
    ],
)
def test_changes_of_the_roster_are_counted_at_their_most(
    facts: Sequence[tuple[int, int]], changes: int
) -> None:
    terms = make_terms(rounds=200, max_attempts=220).encode()
    entries = [parse_statement(entry) for entry in receipts_of(*facts)]
    known = {"past": {terms_digest(terms): terms}, "consortium": NAME, "now_s": NOW_S}
    (account,) = fold(entries, {}, **known)  # type: ignore[arg-type]
    assert account.roster_changes == changes + 1  # the next roster counts as one more
    with pytest.raises(VerificationError, match="of no run ever accepted"):
        fold(entries[1:], {}, **known)  # type: ignore[arg-type]


# -- never a refund --------------------------------------------------------------------------------


def live(ledger: Ledger, signer: Ed25519Signer, rng: random.Random, runs: Sequence[Terms]) -> None:
    """One thing happens at a firm: it accepts, answers, or closes."""
    terms = rng.choice(runs)
    run, policy = terms.run_id, Policy(lifetime_epsilon=1e6, max_epsilon_per_run=1e6)
    facts = {"firm": "firm-a", "run": run}
    account = ledger.account(run)
    if account is None:
        names = rng.sample([MAIN, "other", "third"], rng.randint(1, 2))
        contents = {name: Content(commitment=bytes(32)) for name in names}
        digest = terms_digest(terms.encode())
        sign = lambda tip: log.sign_acceptance(signer, tip, terms=digest, epoch=1, **facts)  # noqa: E731
        given = {"contents": contents, "policy": policy, "now_s": NOW_S, "sign": sign}
        ledger.accept(terms, terms.encode(), **given)  # type: ignore[arg-type]
    elif account.closed:
        return
    elif rng.random() < 0.15 or account.charged == account.max_attempts:
        digest = terms_digest(account.terms)
        ledger.close_run(
            run,
            lambda tip: log.sign_closed(
                signer, tip, terms=digest, charged=account.charged, **facts
            ),
        )
    else:
        attempt = account.last_attempt + rng.randint(1, 2)
        roster = tuple(ALL[: rng.randint(3, 4)])
        debit = Debit(run=run, round_number=attempt, attempt=attempt, roster=roster, sight=Sight())
        sign = lambda tip: log.sign_receipt(  # noqa: E731
            signer,
            tip,
            round_number=attempt,
            attempt=attempt,
            context=bytes(32),
            roster_size=len(roster),
            event_type=terms.mechanism.event_type,
            charged=account.charged + 1,
            **facts,
        )
        ledger.debit(debit, policy=policy, now_s=NOW_S, sign=sign)


def rebuilt(ledger: Ledger, entries: Sequence[bytes], runs: Sequence[Terms]) -> Ledger:
    past = {terms_digest(item.encode()): item.encode() for item in runs}
    accounts = {item.run: item for item in ledger.accounts()}
    statements = [parse_statement(entry) for entry in entries]
    after = fold(statements, accounts, past=past, consortium=NAME, now_s=NOW_S)
    ledger.rebuild(entries, after, after=ledger.tip(), sight=Sight(), complete=True)
    return ledger


def check_no_less(now: Ledger, before: Ledger, *, logged: Ledger) -> None:
    """``now`` holds against every data set, and in every run, what ``before`` held, or more; but
    for reservations that the logged chain itself ended."""
    ended = {item.run for item in logged.accounts() if not item.holds}
    for old in before.accounts():
        new = now.account(old.run)
        assert new is not None
        assert new.spent >= old.spent
        assert new.holds >= (old.holds and old.run not in ended)
        assert (new.epsilon, new.delta, new.max_attempts) == (
            old.epsilon,
            old.delta,
            old.max_attempts,
        )
        for name in ("charged", "last_attempt", "last_round", "last_s", "accepted_s", "closed"):
            assert getattr(new, name) >= getattr(old, name), name
        assert new.roster_changes + 1 > old.roster_changes
    for name in (MAIN, "other", "third"):
        totals = []
        for ledger in (now, before):
            held = [item for item in ledger.accounts() if item.holds and item.run not in ended]
            charges = [item.charge(NOW_S) for item in held]
            totals.append(total_charge(charges, ledger.datasets.overlap(name)))
        assert totals[0][0] >= totals[1][0]
        assert totals[0][1] >= totals[1][1]


@pytest.mark.parametrize("seed", range(12))
def test_no_restore_refunds_anything(memory_path: Path, seed: int) -> None:
    """Wherever the ledger was cut off, and however far the log goes."""
    rng, signer = random.Random(seed), Ed25519Signer(b"\x07" * 32)
    runs = [make_terms(run=f"small-{number}", rounds=8) for number in range(1, 5)]
    ledger, copies = Ledger(memory_path / "ledger.sqlite"), list[Path]()
    for step in range(14):
        copies.append(memory_path / f"copy-{step}")
        target = Ledger(copies[-1])
        ledger._db.backup(target._db)
        target.close_file()
        live(ledger, signer, rng, runs)
    for cut in range(0, 14, 2):
        for reach in range(cut, 14, 3):
            old, logged = (Ledger(copies[at], copied=True) for at in (cut, reach))
            at, lost = Ledger(copies[cut], copied=True), Ledger(":memory:")
            lacking = logged.entries_after(old.tip().seq)
            if lacking:
                new = rebuilt(at, lacking, runs)
                assert new.tip() == logged.tip()
                check_no_less(new, logged, logged=logged)
                check_no_less(new, old, logged=logged)
                whole = rebuilt(lost, logged.entries_after(0), runs)
                check_no_less(whole, logged, logged=logged)
            for item in (old, logged, at, lost):
                item.close_file()
    ledger.close_file()


# -- an honest lead --------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [2, history.MAX_HISTORY])
def test_an_honest_lead_hands_over_what_a_firm_lacks(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(history, "MAX_HISTORY", at_once)
    consortium = Consortium(memory_path, terms=make_terms())
    store, backup = consortium.open_store(), keep_copy(consortium.firms["firm-b"])
    first = consortium.coordinator(store)
    run_on(consortium.local_grid(), first)
    assert first.status == "done"
    consortium.terms, consortium.encoded = SECOND, SECOND.encode()
    with store.transaction():
        store.queue_run("small-2", consortium.encoded, firms=4)
        store.append([LEAD.sign(log.TERMS_KIND, "small-2", terms_digest(consortium.encoded), {})])
        store.keep(terms_digest(consortium.encoded), consortium.encoded)
        store.open_run("small-2", consortium.signed)
    consortium.firms["firm-a"].lose_ledger()
    put_back(consortium.firms["firm-b"], backup)
    second = consortium.coordinator(store)
    run_on(consortium.local_grid(), second)
    assert (second.status, second.rounds_done, len(second.roster)) == ("done", 4, 4)
    for name, firm in consortium.firms.items():
        assert firm.ledger.tip() == store.tip(name)
        assert [(item.charged, item.closed) for item in firm.ledger.accounts()] == [(4, True)] * 2
