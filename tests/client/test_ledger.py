"""The ledger on a real disk file: what it holds after each call, and what it refuses."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from consortium_in_memory import make_terms
from greylag_client.datasets import Content
from greylag_client.ledger import Debit, Ledger, copied_ledger
from greylag_client.policy import Policy
from greylag_client.witness import Sight
from greylag_protocols import log
from greylag_protocols.accounting import POISSON_GAUSSIAN
from greylag_protocols.errors import BudgetExceededError, ConfigError, RefusedError
from greylag_protocols.log import ChainTip
from greylag_protocols.signing import Ed25519Signer, parse_statement
from greylag_protocols.terms import Terms, terms_digest

SIGNER = Ed25519Signer(b"\x05" * 32)
TERMS = make_terms(run="small-1", max_attempts=4)
EPSILON = TERMS.privacy.epsilon
GENEROUS = Policy(lifetime_epsilon=1e3)
ROSTER = ("firm-a", "firm-b", "firm-c")


@pytest.fixture
def path(memory_path: Path) -> Path:
    return memory_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(path)
    yield ledger
    ledger.close_file()


def accept(
    ledger: Ledger, terms: Terms = TERMS, policy: Policy = GENEROUS, dataset: str = "main"
) -> None:
    encoded = terms.encode()

    def sign(tip: ChainTip) -> bytes:
        return log.sign_acceptance(
            SIGNER, tip, firm="firm-a", run=terms.run_id, terms=terms_digest(encoded), epoch=1
        )

    contents = {dataset: Content(commitment=bytes(32))}
    ledger.accept(terms, encoded, contents=contents, policy=policy, now_s=0, sign=sign)


def debit(
    ledger: Ledger, attempt: int, *, run: str = "small-1", roster: tuple[str, ...] = ROSTER
) -> None:
    def sign(tip: ChainTip) -> bytes:
        return log.sign_receipt(
            SIGNER, tip, firm="firm-a", run=run, round_number=attempt, attempt=attempt,
            context=bytes(32), roster_size=len(roster),
            event_type=POISSON_GAUSSIAN, charged=attempt,
        )  # fmt: skip

    ledger.debit(
        Debit(run=run, round_number=attempt, attempt=attempt, roster=roster, sight=Sight()),
        policy=GENEROUS,
        now_s=0,
        sign=sign,
    )


def close(ledger: Ledger, run: str = "small-1") -> None:
    def sign(tip: ChainTip) -> bytes:
        return log.sign_closed(SIGNER, tip, firm="firm-a", run=run, terms=bytes(32), charged=0)

    ledger.close_run(run, sign)


def follow_chain(entries: tuple[bytes, ...]) -> ChainTip:
    tip = ChainTip()
    for envelope in entries:
        tip = tip.follow(envelope, firm="firm-a", identity_key=SIGNER.public_key)
    return tip


def snapshot(ledger: Ledger) -> tuple[object, ...]:
    return ledger.tip(), ledger.entries_after(0), ledger.accounts()


def test_a_debit_is_on_disk_when_it_returns(ledger: Ledger, path: Path) -> None:
    accept(ledger)
    debit(ledger, 1)
    # Another connection, opened while the first still is: only what was committed is visible.
    other = Ledger(path)
    account = other.account("small-1")
    assert account is not None
    assert (account.charged, account.last_attempt, account.roster) == (1, 1, ROSTER)
    assert [parse_statement(item).kind for item in other.entries_after(0)] == [
        "acceptance/v1",
        "receipt/v1",
    ]
    other.close_file()


def test_commits_wait_for_the_disk(ledger: Ledger) -> None:
    """FULL (2): a power cut after the debit does not undo it."""
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_entries_form_one_chain_over_runs_and_restarts(ledger: Ledger, path: Path) -> None:
    accept(ledger)
    debit(ledger, 1)
    again = Ledger(path)
    accept(again, make_terms(run="small-2", max_attempts=4))
    debit(again, 1, run="small-2")
    close(again)
    assert follow_chain(again.entries_after(0)) == again.tip()
    assert again.tip().seq == 5
    assert ledger.entries_after(3) == again.entries_after(0)[3:]
    again.close_file()


def test_a_reservation_beyond_the_limit_is_refused_before_anything_is_written(
    ledger: Ledger,
) -> None:
    policy = Policy(lifetime_epsilon=1.9 * EPSILON)
    accept(ledger, policy=policy)
    before = snapshot(ledger)
    with pytest.raises(BudgetExceededError, match="lifetime_epsilon") as caught:
        accept(ledger, make_terms(run="small-2", max_attempts=4), policy)
    assert caught.value.refusal_class == "policy"
    assert snapshot(ledger) == before


def test_the_limit_itself_may_be_reached(ledger: Ledger) -> None:
    policy = Policy(lifetime_epsilon=3 * EPSILON)
    for number in (1, 2, 3):
        accept(ledger, make_terms(run=f"small-{number}", max_attempts=4), policy)
    assert len(ledger.accounts()) == 3


def test_delta_has_its_own_limit(ledger: Ledger) -> None:
    policy = Policy(lifetime_epsilon=1e3, lifetime_delta=1.5e-6)
    accept(ledger, policy=policy)
    with pytest.raises(BudgetExceededError, match="lifetime_delta"):
        accept(ledger, make_terms(run="small-2", max_attempts=4), policy)


def test_another_data_set_has_another_budget(ledger: Ledger) -> None:
    policy = Policy(lifetime_epsilon=1.5 * EPSILON)
    accept(ledger, policy=policy)
    accept(ledger, make_terms(run="small-2", max_attempts=4), policy, dataset="other")
    assert [item.datasets for item in ledger.accounts()] == [("main",), ("other",)]


def test_closing_frees_a_reservation_that_was_never_used(ledger: Ledger) -> None:
    policy = Policy(lifetime_epsilon=1.5 * EPSILON)
    accept(ledger, policy=policy)
    close(ledger)
    accept(ledger, make_terms(run="small-2", max_attempts=4), policy)
    assert [item.holds for item in ledger.accounts()] == [False, True]


def test_closing_gives_nothing_back_of_a_run_that_was_charged(ledger: Ledger) -> None:
    policy = Policy(lifetime_epsilon=1.5 * EPSILON)
    accept(ledger, policy=policy)
    debit(ledger, 1)
    close(ledger)
    with pytest.raises(BudgetExceededError):
        accept(ledger, make_terms(run="small-2", max_attempts=4), policy)


def test_attempts_end_at_the_terms_cap(ledger: Ledger) -> None:
    accept(ledger)
    for attempt in range(1, 5):
        debit(ledger, attempt)
    before = snapshot(ledger)
    with pytest.raises(BudgetExceededError, match="all 4 attempts"):
        debit(ledger, 5)
    assert snapshot(ledger) == before


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_attempt_number_is_charged_once(ledger: Ledger, attempt: int) -> None:
    accept(ledger)
    debit(ledger, 2)
    before = snapshot(ledger)
    with pytest.raises(RefusedError, match="answered before"):
        debit(ledger, attempt)
    assert snapshot(ledger) == before


def test_a_run_that_was_never_accepted_cannot_be_charged(ledger: Ledger) -> None:
    with pytest.raises(RefusedError, match="not open"):
        debit(ledger, 1)
    assert ledger.tip() == ChainTip()


def test_a_closed_run_is_refused_for_ever(ledger: Ledger, path: Path) -> None:
    accept(ledger)
    close(ledger)
    ledger.close_file()
    again = Ledger(path)
    before = snapshot(again)
    with pytest.raises(RefusedError, match="not open"):
        debit(again, 1)
    with pytest.raises(sqlite3.IntegrityError):
        accept(again)
    close(again)  # closing twice says nothing twice
    assert snapshot(again) == before
    again.close_file()


def test_a_failing_signer_leaves_nothing(ledger: Ledger) -> None:
    accept(ledger)
    before = snapshot(ledger)

    def fail(tip: ChainTip) -> bytes:
        raise RefusedError("no key", refusal_class="protocol")

    with pytest.raises(RefusedError, match="no key"):
        ledger.debit(
            Debit(run="small-1", round_number=1, attempt=1, roster=ROSTER, sight=Sight()),
            policy=GENEROUS,
            now_s=0,
            sign=fail,
        )
    assert snapshot(ledger) == before


def test_roster_changes_are_counted(ledger: Ledger) -> None:
    accept(ledger)
    for attempt, roster in enumerate([ROSTER, ROSTER, ROSTER[:2], ROSTER], start=1):
        debit(ledger, attempt, roster=roster)
    account = ledger.account("small-1")
    assert account is not None
    assert account.roster_changes == 2


@pytest.mark.parametrize("change", ["UPDATE entries SET run = 'x'", "DELETE FROM entries"])
def test_entries_cannot_be_changed(ledger: Ledger, path: Path, change: str) -> None:
    accept(ledger)
    before = snapshot(ledger)
    other = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute(change)
    other.close()
    assert snapshot(ledger) == before


def test_a_full_disk_refuses_and_changes_nothing(ledger: Ledger) -> None:
    accept(ledger)
    debit(ledger, 1)
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    before = snapshot(ledger)
    large = tuple(f"firm-{number}" for number in range(2000))  # needs pages that are not there
    with pytest.raises(RefusedError, match=r"could not be written.*full.*Free disk") as caught:
        debit(ledger, 2, roster=large)
    assert caught.value.refusal_class == "protocol"
    assert snapshot(ledger) == before
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    debit(ledger, 2, roster=large)  # with room again, the same attempt goes through
    assert follow_chain(ledger.entries_after(0)) == ledger.tip()


def test_a_ledger_that_another_program_holds_refuses(ledger: Ledger, path: Path) -> None:
    accept(ledger)
    ledger._db.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    before = snapshot(ledger)
    with pytest.raises(RefusedError, match="locked"):
        debit(ledger, 1)
    other.execute("ROLLBACK")
    other.close()
    assert snapshot(ledger) == before


def test_two_runs_at_once_cannot_overspend(path: Path) -> None:
    """Eight connections race for a budget that has room for three runs."""
    policy = Policy(lifetime_epsilon=3.5 * EPSILON)
    runs = [make_terms(run=f"small-{number}", max_attempts=4) for number in range(8)]
    ledgers = [Ledger(path) for _ in runs]
    gate, refused = threading.Barrier(len(runs)), []

    def reserve(ledger: Ledger, terms: Terms) -> None:
        gate.wait()
        try:
            accept(ledger, terms, policy)
        except BudgetExceededError:
            refused.append(terms.run_id)

    threads = [
        threading.Thread(target=reserve, args=pair) for pair in zip(ledgers, runs, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
    assert len(ledgers[0].accounts()) == 3
    assert follow_chain(ledgers[0].entries_after(0)).seq == 3
    for ledger in ledgers:
        ledger.close_file()


def test_a_peer_that_goes_back_is_refused(ledger: Ledger, path: Path) -> None:
    def tip(seq: int, branch: int = 0) -> ChainTip:
        return ChainTip(seq=seq, head=bytes([branch, seq]) * 16)

    ledger.peers.note({"firm-b": tip(7)})
    ledger.peers.note({"firm-b": tip(7)})
    ledger.close_file()
    again = Ledger(path)
    assert again.peers.tip("firm-b") == tip(7)
    with pytest.raises(RefusedError, match="firm-b shows ledger entry 6, where 7 was seen"):
        again.peers.note({"firm-b": tip(6)})
    with pytest.raises(RefusedError, match="set back or copied"):  # a fork at the same place
        again.peers.note({"firm-b": tip(7, branch=1)})
    again.peers.note({"firm-c": tip(1)})  # another firm has its own count
    again.peers.note({"firm-b": tip(8)})
    with pytest.raises(RefusedError, match="where 8 was seen"):
        again.peers.note({"firm-b": tip(7)})
    assert again.peers.tip("firm-d") == ChainTip()
    again.close_file()


# -- units -----------------------------------------------------------------------------------------


def test_the_limit_is_for_the_unit_that_comes_off_worst(ledger: Ledger) -> None:
    record, group = make_terms(run="r-1"), make_terms(run="g-1", unit="group")
    both = record.privacy.epsilon + 2 * group.privacy.epsilon
    accept(ledger, record, policy=Policy(lifetime_epsilon=both, lifetime_delta=9e-3))
    for limit, fits in ((both * 0.999, False), (both, True)):
        policy = Policy(lifetime_epsilon=limit, lifetime_delta=9e-3)
        if fits:
            accept(ledger, group, policy=policy)
        else:
            with pytest.raises(BudgetExceededError, match="lifetime_epsilon"):
                accept(ledger, group, policy=policy)
    assert [account.unit for account in ledger.accounts()] == ["record", "group"]


def test_a_copy_has_all_that_was_committed_and_changes_nothing(path: Path, ledger: Ledger) -> None:
    accept(ledger, TERMS)
    debit(ledger, 1)  # it stands in the write-ahead log alone
    with copied_ledger(path) as copy:
        assert copy.accounts() == ledger.accounts()
        debit(copy, 2)
        assert copy.tip().seq == 3
    assert ledger.tip().seq == 2
    ledger.close_file()
    files = {item.name: item.read_bytes() for item in path.parent.iterdir()}
    with copied_ledger(path) as copy:
        assert copy.tip().seq == 2
        assert {item.name: item.read_bytes() for item in path.parent.iterdir()} == files
    with copied_ledger(path.with_name("none.sqlite")) as copy:
        assert copy.accounts() == []
    assert not path.with_name("none.sqlite").exists()


def test_a_copy_of_what_is_no_ledger_is_refused(path: Path) -> None:
    path.write_bytes(b"no database, but long enough to be looked at as one" * 99)
    with pytest.raises(ConfigError, match="the ledger cannot be used"), copied_ledger(path):
        pass
