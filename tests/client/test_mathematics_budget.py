"""Runs together: whole prices are added up, however early a run ended.

Why a part-price is no bound is shown in numbers by the tests of the accounting; here is that the
ledger does not take one.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from consortium_in_memory import make_terms
from greylag_client.datasets import Content
from greylag_client.ledger import Debit, Ledger, RunAccount
from greylag_client.policy import Policy
from greylag_client.witness import Sight
from greylag_protocols import log
from greylag_protocols.accounting import POISSON_GAUSSIAN
from greylag_protocols.errors import BudgetExceededError
from greylag_protocols.log import ChainTip
from greylag_protocols.plan import parse_terms
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Terms, terms_digest

SIGNER = Ed25519Signer(b"\x05" * 32)
RUNS = [make_terms(run=f"small-{number}") for number in range(1, 9)]
WHOLE = RUNS[0].privacy.epsilon
LIFETIME = 2.5 * WHOLE


class PartPrice(Ledger):
    """Wrong: a run that was closed is charged for the releases it made, not for the whole."""

    def accounts(self) -> list[RunAccount]:
        return [
            replace(item, epsilon=parse_terms(item.terms).epsilon_after(item.charged))
            if item.closed
            else item
            for item in super().accounts()
        ]


class Refund(Ledger):
    """Wrong: a closed run gives back all that it held."""

    def accounts(self) -> list[RunAccount]:
        return [replace(item, epsilon=0.0) if item.closed else item for item in super().accounts()]


class QuadraticSum(Ledger):
    """Wrong: epsilons of runs are added like standard deviations."""

    def accounts(self) -> list[RunAccount]:
        held = super().accounts()
        total = sum(item.epsilon**2 for item in held) ** 0.5
        return [replace(item, epsilon=total / len(held)) for item in held]


def take_part(ledger: Ledger, terms: Terms, releases: int) -> None:
    """Accept a run, answer some attempts, and see it closed."""
    encoded, run = terms.encode(), terms.run_id
    digest, policy = terms_digest(encoded), Policy(lifetime_epsilon=LIFETIME)

    def accept(tip: ChainTip) -> bytes:
        return log.sign_acceptance(SIGNER, tip, firm="a", run=run, terms=digest, epoch=1)

    def close(tip: ChainTip) -> bytes:
        return log.sign_closed(SIGNER, tip, firm="a", run=run, terms=digest, charged=releases)

    contents = {"main": Content(commitment=bytes(32))}
    ledger.accept(terms, encoded, contents=contents, policy=policy, now_s=0, sign=accept)
    for attempt in range(1, releases + 1):

        def receipt(tip: ChainTip, attempt: int = attempt) -> bytes:
            return log.sign_receipt(
                SIGNER,
                tip,
                firm="a",
                run=run,
                round_number=attempt,
                attempt=attempt,
                context=bytes(32),
                roster_size=3,
                event_type=POISSON_GAUSSIAN,
                charged=attempt,
            )

        ledger.debit(
            Debit(
                run=run,
                round_number=attempt,
                attempt=attempt,
                roster=("a", "b", "c"),
                sight=Sight(),
            ),
            policy=policy,
            now_s=0,
            sign=receipt,
        )
    ledger.close_run(run, sign=close)


def runs_answered(build: Callable[[str], Ledger], releases: int) -> int:
    """In how many runs the firm takes part before its ledger refuses."""
    ledger = build(":memory:")
    answered = 0
    for terms in RUNS:
        try:
            take_part(ledger, terms, releases)
        except BudgetExceededError:
            break
        answered += 1
    ledger.close_file()
    return answered


def keeps_the_limit(build: Callable[[str], Ledger], releases: int) -> bool:
    """Whole prices of all runs in which anything was released stay within the lifetime limit."""
    return runs_answered(build, releases) * WHOLE <= LIFETIME


@pytest.mark.parametrize("releases", [1, 3, 8])
def test_runs_are_paid_for_in_full_however_early_they_end(releases: int) -> None:
    assert keeps_the_limit(Ledger, releases)
    assert runs_answered(Ledger, releases) == 2  # and no run is paid for twice


@pytest.mark.parametrize("releases", [1, 3])
def test_a_ledger_that_takes_a_part_price_is_caught(releases: int) -> None:
    assert RUNS[0].epsilon_after(releases) < 0.8 * WHOLE
    assert not keeps_the_limit(PartPrice, releases)


@pytest.mark.parametrize("wrong", [Refund, QuadraticSum])
def test_refunds_and_quadratic_sums_are_caught(wrong: type[Ledger]) -> None:
    assert not keeps_the_limit(wrong, 8)


def test_a_run_that_released_nothing_costs_nothing() -> None:
    assert runs_answered(Ledger, 0) == len(RUNS)
