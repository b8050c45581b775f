"""What every firm promised and spent, recomputed from its own receipts."""

from collections.abc import Iterable
from dataclasses import dataclass

from greylag_protocols.errors import GreylagError

from greylag_audit.runs import RunBook


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmBudget:
    """One firm in one run.

    Attributes:
        charged: releases that its receipts count, of ``max_attempts`` that are accounted for.
        spent: epsilon of the whole run, from the first release on; 0 before.
        reserved: epsilon that an open run still holds back without a release.
        used: epsilon of the releases that took place, a fact and no bound on a budget: when a run
            ends is decided after seeing its results. None where the terms allow no accounting.
    """

    run: str
    firm: str
    operator: str
    unit: str
    charged: int
    max_attempts: int
    epsilon: float
    delta: float
    spent: float
    reserved: float
    used: float | None
    closed: bool


def budgets(runs: Iterable[RunBook]) -> list[FirmBudget]:
    """All accounts of runs whose terms are known, by run and firm."""
    found = []
    for book in runs:
        if book.terms is None:
            continue
        privacy, costs = book.terms.privacy, _Costs(book)
        for account in sorted(book.firms.values(), key=lambda item: item.firm):
            closed = account.closed is not None
            found.append(
                FirmBudget(
                    run=book.run,
                    firm=account.firm,
                    operator=account.operator,
                    unit=privacy.unit,
                    charged=account.charged,
                    max_attempts=privacy.max_attempts,
                    epsilon=privacy.epsilon,
                    delta=privacy.delta,
                    spent=privacy.epsilon if account.charged else 0.0,
                    reserved=privacy.epsilon if not (account.charged or closed) else 0.0,
                    used=costs.of(account.charged),
                    closed=closed,
                )
            )
    return found


class _Costs:
    """Epsilon of so many releases; few different numbers are worked out, the rest go without."""

    MOST = 16

    def __init__(self, book: RunBook) -> None:
        self._terms = book.terms
        self._known: dict[int, float | None] = {}

    def of(self, releases: int) -> float | None:
        if releases not in self._known and self._terms is not None and len(self._known) < self.MOST:
            try:
                most = self._terms.privacy.max_attempts
                self._known[releases] = (
                    self._terms.epsilon_after(releases) if releases <= most else None
                )
            except GreylagError:
                self._known[releases] = None
        return self._known.get(releases)
