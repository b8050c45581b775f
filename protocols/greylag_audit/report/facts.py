"""All that a report tells, as numbers and names, before any sentence is made of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import Terms
from greylag_protocols.trust import Trust

from greylag_audit.budgets import FirmBudget, budgets
from greylag_audit.bundle_files import Bundle
from greylag_audit.findings import Finding, Findings
from greylag_audit.replay import replay_run
from greylag_audit.report.odds import Odds, cumulative_epsilon, odds_of
from greylag_audit.runs import RunBook
from greylag_audit.tree import LogTree
from greylag_audit.verify import Progress, Verdict
from greylag_audit.witnesses import Witnesses

Outcome = Literal["holds", "broken", "unsigned", "strangers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmRow:
    """One firm's privacy account, by its own receipts in this log; epsilons of the run's unit.

    Attributes:
        limit: most that this run may cost by its terms. A firm's own limits stay with the firm.
        before: of runs that it accepted earlier, as far as they are in this log.
        reserved: of this and other runs that are open and have released nothing.
        releases: its contributions to this run.
    """

    firm: str
    operator: str
    limit: float
    before: float
    spent: float
    reserved: float
    releases: int
    state: Literal["closed", "open", "reserved"]

    @property
    def after(self) -> float:
        """Spent in all, without what is only reserved."""
        return self.before + self.spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One attempt: the number of its firms, and whether it ended in a sum."""

    attempt: int
    round_number: int
    firms: int
    completed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """The run of a bundle, and what an audit of it found.

    Attributes:
        terms: None where the bundle does not hold them.
        released: digest of the released weights, hex; empty: none yet.
        witnessed_s: when a firm last countersigned the log (Unix seconds by its own clock).
        witnesses: how many firms countersigned that state.
        cumulative: epsilon after so many attempts.
    """

    origin: str
    run: str
    size: int
    outcome: Outcome
    holds: bool
    quick: bool
    findings: tuple[Finding, ...]
    terms: Terms | None
    terms_digest: str
    firms: tuple[FirmRow, ...]
    steps: tuple[Step, ...]
    released: str
    witnessed_s: int | None
    odds: Odds | None
    cumulative: tuple[tuple[int, float], ...]
    witnesses: int

    @property
    def rounds_done(self) -> int:
        """Attempts that ended in a sum."""
        return sum(item.completed for item in self.steps)

    def of(self, check: str) -> str:
        """What became of a promise: holds, broken or unknown; the worst that was found."""
        states = {item.state for item in self.findings if item.check == check}
        return next((state for state in ("broken", "unknown", "holds") if state in states), "")


def gather(
    bundle: Bundle,
    verdict: Verdict,
    *,
    trust: Trust | None,
    progress: Progress = lambda done, of: None,
) -> ReportFacts:
    """The facts on a bundle whose audit ended in ``verdict``; repeats its training.

    Raises:
        ConfigError: the log tells nothing of the run that the bundle is said to be about.
    """
    book = verdict.runs.get(verdict.run)
    if book is None:
        raise ConfigError(
            f"the bundle's log has no run {verdict.run!r:.60}, so there is nothing to report; "
            "greylag-audit verify tells what is wrong with it"
        )
    findings = (*verdict.findings, *_replayed(bundle, book, progress))
    steps = tuple(
        Step(
            attempt=item.attempt,
            round_number=item.round_number,
            firms=len(item.roster),
            completed=item.completed,
        )
        for item in book.attempts
    )
    largest = max((item.firms for item in steps), default=len(book.firms))
    times = _times(bundle, verdict, trust)
    broken = any(item.state == "broken" for item in findings)
    return ReportFacts(
        origin=verdict.origin,
        run=verdict.run,
        size=verdict.size,
        outcome=_outcome(verdict, broken=broken),
        holds=verdict.holds and not broken,
        quick=verdict.quick,
        findings=findings,
        terms=book.terms,
        terms_digest=book.terms_digest,
        firms=firm_rows(book, verdict.runs.values()),
        steps=steps,
        released="" if book.release is None else book.release.model,
        witnessed_s=max(times, default=None),
        odds=None if book.terms is None else odds_of(book.terms, largest_roster=largest),
        cumulative=() if book.terms is None else cumulative_epsilon(book.terms, len(steps)),
        witnesses=len(times),
    )


def firm_rows(book: RunBook, runs: Iterable[RunBook]) -> tuple[FirmRow, ...]:
    """What each firm of a run spent, and what it had spent before it."""
    books = {item.run: item for item in runs}
    accounts = budgets(books.values())
    rows = []
    for item in (account for account in accounts if account.run == book.run):
        mine = [one for one in accounts if (one.firm, one.unit) == (item.firm, item.unit)]
        since = _accepted(book, item.firm)
        earlier = [
            one
            for one in mine
            if one.run != book.run and _accepted(books[one.run], item.firm) < since
        ]
        rows.append(
            FirmRow(
                firm=item.firm,
                operator=item.operator,
                limit=item.epsilon,
                before=sum(one.spent for one in earlier),
                spent=item.spent,
                reserved=sum(one.reserved for one in mine),
                releases=item.charged,
                state=_state(item),
            )
        )
    return tuple(rows)


def _accepted(book: RunBook, firm: str) -> int:
    account = book.firms.get(firm)
    return -1 if account is None or account.accepted is None else account.accepted


def _state(item: FirmBudget) -> Literal["closed", "open", "reserved"]:
    if item.closed:
        return "closed"
    return "open" if item.charged else "reserved"


def _outcome(verdict: Verdict, *, broken: bool) -> Outcome:
    if broken:
        return "broken"
    if verdict.holds:
        return "holds"
    return "strangers" if verdict.trusted else "unsigned"


def _replayed(bundle: Bundle, book: RunBook, progress: Progress) -> list[Finding]:
    """Whether the released weights follow from the sums; nothing where the run never started."""
    if book.terms is None or book.started is None:
        return []
    return [replay_run(bundle, book, book.terms, progress=progress)]


def _times(bundle: Bundle, verdict: Verdict, trust: Trust | None) -> list[int]:
    """When firms countersigned the newest state of the log that anybody did, by their clocks."""
    unused = Findings()  # the audit has told of these signatures
    tree = LogTree(bundle, unused)
    witnesses = Witnesses(findings=unused, members=verdict.members, trust=trust)
    for note in (*tree.earlier.values(), tree.newest):
        witnesses.check_note(note)
    signed = [size for size, seen in witnesses.times.items() if seen]
    if not signed:
        return []
    by_firm = dict(witnesses.times[max(signed)])
    return list(by_firm.values())
