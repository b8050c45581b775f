"""What a run would cost this firm: budget, rules, and epsilon in words that can be pictured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from greylag_protocols.accounting import (
    MIN_NOISE_MULTIPLIER,
    advantage_of,
    epsilon_of,
    epsilon_of_copies,
)
from greylag_protocols.errors import BudgetExceededError, ConfigError
from greylag_protocols.terms import Terms

from greylag_client.datasets import Content
from greylag_client.ledger import Ledger
from greylag_client.policy import Policy
from greylag_client.spending import Account, accounts_of

COPIES = (2, 5, 10)
MOST_COPIES = 40  # beyond, the number would be of no use and long to compute


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the terms alone say.

    Attributes:
        odds: of 100 guesses whether one unit took part, the most that can be right; even odds and
            all other knowledge are granted.
        copies: epsilon by number of equal rows, for unit ``record``; None: it promises nothing.
        largest_group: rows of the largest group in the table.
        lone: epsilon if all others colluded, so that this firm's own noise alone counted; None: it
            promises nothing.
    """

    unit: str
    epsilon: float
    delta: float
    odds: float
    copies: tuple[tuple[int, float | None], ...]
    largest_group: int | None
    lone: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of policy.toml beside what the run asks."""

    name: str
    yours: str
    asked: str
    allowed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """One data set's budget before and after the reservation."""

    name: str
    limit: float
    held: float
    after: float

    @property
    def left(self) -> float:
        return self.limit - self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What this firm's own policy and ledger say. ``refused`` names what stands against it."""

    rules: tuple[Rule, ...]
    budgets: tuple[Reserved, ...]
    reads: tuple[str, ...]
    refused: tuple[str, ...]


def cost_of(terms: Terms, *, firms: int, largest_group: int | None) -> Cost:
    """The cost by the terms alone, for a roster of ``firms``."""
    privacy, mechanism = terms.privacy, terms.mechanism
    wanted = set(COPIES) | ({largest_group} if largest_group else set())
    alone = mechanism.scaled(max(1, firms - privacy.max_colluding) ** -0.5)
    lone: float | None = None
    try:
        if alone.noise_multiplier >= MIN_NOISE_MULTIPLIER:
            lone = epsilon_of(alone, releases=privacy.max_attempts, delta=privacy.delta)
    except ConfigError:  # beyond what is worth a number
        pass
    return Cost(
        unit=privacy.unit,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        odds=50.0 * (1.0 + advantage_of(mechanism, releases=privacy.max_attempts)),
        copies=tuple((count, _for_copies(terms, count)) for count in sorted(wanted) if count > 1)
        if privacy.unit == "record"
        else (),
        largest_group=largest_group,
        lone=lone,
    )


def _for_copies(terms: Terms, copies: int) -> float | None:
    if copies > MOST_COPIES:
        return None
    privacy = terms.privacy
    epsilon = epsilon_of_copies(
        terms.mechanism, copies=copies, releases=privacy.max_attempts, delta=privacy.delta
    )
    return epsilon if math.isfinite(epsilon) else None


def bill_of(
    terms: Terms,
    policy: Policy,
    ledger: Ledger,
    contents: Mapping[str, Content],
    *,
    refused: tuple[str, ...] = (),
    now: datetime,
) -> Bill:
    """What the agent would do, done on a copy of the ledger by the agent's own functions.

    Args:
        ledger: a copy; the reservation is written into it.
        contents: the data sets that the run would read.
        refused: what was found before.
        now: local time.
    """
    now_s, problems = now.timestamp(), list(refused)
    broken = policy.rules_broken(terms, now)
    before = {item.name: item for item in accounts_of(ledger, policy, contents, now_s=now_s)}
    account = ledger.account(terms.run_id)
    if account is not None and account.closed:
        problems.append(f"run {terms.run_id} was closed here for ever")
    elif account is None and contents:
        try:
            ledger.accept(
                terms,
                terms.encode(),
                contents=contents,
                policy=policy,
                now_s=now_s,
                sign=lambda tip: b"rehearsal",  # in the copy alone
            )
        except BudgetExceededError as error:
            problems.append(str(error))
    after = {item.name: item for item in accounts_of(ledger, policy, contents, now_s=now_s)}
    return Bill(
        rules=_rules(terms, policy, broken, now),
        budgets=tuple(_reserved(item, before.get(name)) for name, item in after.items()),
        reads=tuple(contents),
        refused=(*(f"policy.toml: {rule}" for rule in broken), *problems),
    )


def _reserved(account: Account, before: Account | None) -> Reserved:
    return Reserved(
        name=account.name,
        limit=account.limits.lifetime_epsilon,
        held=before.held if before else 0.0,
        after=account.held,
    )


def _rules(terms: Terms, policy: Policy, broken: list[str], now: datetime) -> tuple[Rule, ...]:
    privacy = terms.privacy
    pairs: list[tuple[str, object, object]] = [
        ("paused", policy.paused, "to take part"),
        ("max_epsilon_per_run", policy.max_epsilon_per_run, f"{privacy.epsilon:g}"),
        ("max_delta", policy.max_delta, f"{privacy.delta:g}"),
        ("units", ", ".join(policy.units), privacy.unit),
        ("min_firms", policy.min_firms, privacy.min_firms),
        ("min_colluding", policy.min_colluding, privacy.max_colluding),
        ("families", ", ".join(policy.families), terms.model.family),
        ("max_parameters", policy.max_parameters, terms.dimension),
        ("purposes", ", ".join(policy.purposes), terms.run.purpose),
        ("hours", ", ".join(policy.hours) or "at any time", f"now, {now:%a %H:%M}"),
    ]
    return tuple(
        Rule(
            name=name,
            yours=str(yours),
            asked=str(asked),
            allowed=not any(rule.startswith(name) for rule in broken),
        )
        for name, yours, asked in pairs
    )
