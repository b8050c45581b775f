"""What was promised and spent of each data set, for the people of the firm."""

from collections.abc import Iterable
from dataclasses import dataclass

from greylag_protocols.accounting import advantage_of
from greylag_protocols.plan import parse_terms
from greylag_protocols.terms import Unit

from greylag_client.budget import UNITS, Overlap, total_charge
from greylag_client.datasets import ANY, MAIN
from greylag_client.ledger import Ledger, RunAccount
from greylag_client.policy import Limits, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """One run's part in a data set's account. Times are Unix seconds."""

    run: str
    purpose: str
    unit: Unit
    epsilon: float
    delta: float
    charged: int
    max_attempts: int
    closed: bool
    accepted_s: int
    datasets: tuple[str, ...]

    @property
    def state(self) -> str:
        """``open``, ``closed``, or ``released`` (closed before anything was charged)."""
        if not self.closed:
            return "open"
        return "closed" if self.charged else "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One data set's account.

    Attributes:
        spent, held: epsilon of the runs that released something, and of all that still count.
        delta_spent, delta_held: the same of delta.
        yearly: epsilon held for the last 365 days.
        odds_spent, odds_held: how often, of 100 times, somebody who knows all but whether one given
            unit took part can be right at most, if he starts from even odds.
        shares_with: data sets that share records or groups with this one.
    """

    name: str
    limits: Limits
    spent: float
    held: float
    delta_spent: float
    delta_held: float
    yearly: float
    odds_spent: float
    odds_held: float
    runs: tuple[RunLine, ...]
    shares_with: tuple[str, ...]

    @property
    def reserved(self) -> float:
        return self.held - self.spent

    @property
    def left(self) -> float:
        return max(0.0, self.limits.lifetime_epsilon - self.held)


def accounts_of(
    ledger: Ledger, policy: Policy, names: Iterable[str], *, now_s: float
) -> list[Account]:
    """The accounts of all data sets: ``names`` (those with files) and any that a run ever read."""
    known = {*names, *ledger.datasets.names()} or {MAIN}
    ordered = sorted(known, key=lambda name: (name != MAIN, name))
    return [_account(ledger, policy, name, now_s) for name in ordered]


def _account(ledger: Ledger, policy: Policy, name: str, now_s: float) -> Account:
    overlap = ledger.datasets.overlap(name)
    runs = [
        item
        for item in ledger.accounts()
        if frozenset(item.datasets) & overlap["firm" if item.unit == "firm" else "group"]
    ]
    holding = [item for item in runs if item.holds]
    released = [item for item in holding if item.spent]
    held, delta_held = total_charge([item.charge(now_s) for item in holding], overlap)
    spent, delta_spent = total_charge([item.charge(now_s) for item in released], overlap)
    recent = [charge for item in holding if (charge := item.charge(now_s)).recent]
    return Account(
        name=name,
        limits=policy.limits(name),
        spent=spent,
        held=held,
        delta_spent=delta_spent,
        delta_held=delta_held,
        yearly=total_charge(recent, overlap)[0],
        odds_spent=_odds(released, overlap),
        odds_held=_odds(holding, overlap),
        runs=tuple(_line(item) for item in runs),
        shares_with=tuple(sorted(overlap["group"] - {name, ANY})),
    )


def _odds(runs: Iterable[RunAccount], overlap: Overlap) -> float:
    """Best guess of 100, for the unit that comes off worst.

    Runs may follow one another's results: outcomes with and without a unit can be coupled step by
    step, and agree throughout with probability ``prod (1 - advantage)`` at least.
    """
    worst = 0.0
    for unit in UNITS:
        agree = 1.0
        for item in runs:
            if UNITS.index(item.unit) >= UNITS.index(unit) and overlap[unit] & set(item.datasets):
                steps = 1 if item.unit == unit else 2  # a group loses a row: one out, one in
                agree *= (1.0 - _advantage(item)) ** steps
        worst = max(worst, 1.0 - agree)
    return 50.0 * (1.0 + worst)


def _advantage(account: RunAccount) -> float:
    return advantage_of(parse_terms(account.terms).mechanism, releases=account.max_attempts)


def _line(account: RunAccount) -> RunLine:
    return RunLine(
        run=account.run,
        purpose=parse_terms(account.terms).run.purpose,
        unit=account.unit,
        epsilon=account.epsilon,
        delta=account.delta,
        charged=account.charged,
        max_attempts=account.max_attempts,
        closed=account.closed,
        accepted_s=account.accepted_s,
        datasets=account.datasets,
    )
