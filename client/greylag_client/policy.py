"""The firm's own law. It is read from ``policy.toml``, applied by the firm's agent, never sent.

A refusal names the rule in the firm's own log; the lead is told only that policy refused. The file
is read again for every message, so changes act at the next round; while it cannot be read or holds
a mistake, everything is refused.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from greylag_protocols.encoding import parse_as, parse_toml
from greylag_protocols.endorsement import endorsed_by_body, endorsing_operators
from greylag_protocols.errors import ConfigError, RefusedError
from greylag_protocols.log_view import COSIGNERS_SHOWN
from greylag_protocols.membership import Hex32, Membership, Name
from greylag_protocols.terms import STRICT, Terms, Text, Unit
from pydantic import Field

from greylag_client.hours import parse_window

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Delta = Annotated[float, Field(gt=0, lt=0.01)]
Engine = Literal["grpc", "flower"]

DEFAULT_POLICY = """\
# This firm's own law. The agent obeys it; it is never sent to anybody.
# Changes act at the next round. While this file holds a mistake, everything is refused.
# Units and terms: see docs/units.md.
# 本企业自己的规则：只在本机生效，不会发送给任何人；修改后下一轮生效。

# --- budget: what may ever be learned about one record of this firm  预算 -------------------------
lifetime_epsilon = 10.0       # over all runs, for ever; mandatory. Whole runs are added up.
lifetime_delta = 1e-4
# yearly_epsilon = 4.0        # over the last 365 days
max_epsilon_per_run = 4.0     # a run that asks for more is refused
max_delta = 1e-5              # a run with a larger delta is refused

# Limits of one data set (greylag-client data DIR lists them); what is left out is as above:
# [datasets.main]
# lifetime_epsilon = 6.0

# --- company: whom this firm hides among  同伴 ----------------------------------------------------
min_firms = 3                 # least number of firms in every roster
min_colluding = 1             # least number of firms that the noise must survive if they collude
max_roster_changes = 8        # per run: varying rosters let differences be estimated
excluded_operators = []       # no roster with a firm that one of these operators runs
min_cosignatures = 0          # go on only if so many other firms countersigned the lead's log as
                              # this firm saw it; 0: its own look at the log is enough
cosignature_patience = 2      # rounds answered without them before this firm refuses; the first
                              # round of a run, and after a restart, has none

# --- member lists: who may say yes besides this firm's own people  成员名单 -----------------------
approving_keys = []           # public keys (hex) of independent bodies whose word is enough
approve_by_peers = false      # true: enough when max_colluding + 1 firms under different operators,
                              # all approved here by hand before, approved the new list themselves

# --- what is allowed  允许的用途 ------------------------------------------------------------------
units = ["record", "group", "firm"]   # leave only "group" or "firm" to demand those
families = ["mlp"]            # kinds of models
max_parameters = 5_000_000    # size of models
purposes = ["*"]              # patterns for a plan's purpose, such as "*glass*"
hours = []                    # local time, such as ["mon-fri 18:00-06:00"]; none: at any time
engines = ["grpc"]            # ways to the lead; "flower" lets the lead's code run beside this
                              # firm's keys: read docs/flower.md before you add it
paused = false                # true: refuse everything  暂停
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be spent of one data set."""

    lifetime_epsilon: float
    lifetime_delta: float
    yearly_epsilon: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPolicy:
    """Limits of one data set that differ from the firm's."""

    __pydantic_config__ = STRICT
    lifetime_epsilon: Positive | None = None
    lifetime_delta: Delta | None = None
    yearly_epsilon: Positive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of ``policy.toml`` (their meaning stands in the file itself)."""

    __pydantic_config__ = STRICT
    lifetime_epsilon: Positive
    lifetime_delta: Delta = 1e-4
    yearly_epsilon: Positive | None = None
    max_epsilon_per_run: Positive = 4.0
    max_delta: Delta = 1e-5
    datasets: dict[Name, DatasetPolicy] = field(default_factory=dict)
    min_firms: Annotated[int, Field(ge=3)] = 3
    min_colluding: Annotated[int, Field(ge=1)] = 1
    max_roster_changes: Annotated[int, Field(ge=0)] = 8
    excluded_operators: tuple[Name, ...] = ()
    min_cosignatures: Annotated[int, Field(ge=0, lt=COSIGNERS_SHOWN)] = 0
    cosignature_patience: Annotated[int, Field(ge=1, le=100)] = 2
    approving_keys: tuple[Hex32, ...] = ()
    approve_by_peers: bool = False
    units: tuple[Unit, ...] = ("record", "group", "firm")
    families: tuple[Text, ...] = ("mlp",)
    max_parameters: Annotated[int, Field(ge=1)] = 5_000_000
    purposes: tuple[Text, ...] = ("*",)
    hours: tuple[Text, ...] = ()
    engines: Annotated[tuple[Engine, ...], Field(min_length=1)] = ("grpc",)
    paused: bool = False

    def __post_init__(self) -> None:
        for text in self.hours:
            parse_window(text)

    def limits(self, dataset: str) -> Limits:
        """The limits of a data set: its own where it has any, else the firm's."""
        own = self.datasets.get(dataset, DatasetPolicy())
        return Limits(
            lifetime_epsilon=own.lifetime_epsilon or self.lifetime_epsilon,
            lifetime_delta=own.lifetime_delta or self.lifetime_delta,
            yearly_epsilon=own.yearly_epsilon or self.yearly_epsilon,
        )

    def rules_broken(self, terms: Terms, moment: datetime) -> list[str]:
        """What of the terms this firm does not want; ``moment`` is in local time."""
        privacy, purpose, family = terms.privacy, terms.run.purpose, terms.model.family
        open_now = any(parse_window(text).holds(moment) for text in self.hours)
        rules = [
            (self.paused, "paused = true, here or on the firm's page"),
            (privacy.unit not in self.units, f"units does not allow {privacy.unit!r}"),
            (
                privacy.epsilon > self.max_epsilon_per_run,
                f"max_epsilon_per_run = {self.max_epsilon_per_run}, the run asks {privacy.epsilon}",
            ),
            (
                privacy.delta > self.max_delta,
                f"max_delta = {self.max_delta}, the run asks {privacy.delta}",
            ),
            (
                privacy.min_firms < self.min_firms,
                f"min_firms = {self.min_firms}, the run allows {privacy.min_firms}",
            ),
            (
                privacy.max_colluding < self.min_colluding,
                f"min_colluding = {self.min_colluding}, the run survives {privacy.max_colluding}",
            ),
            (family not in self.families, f"families does not allow {family!r}"),
            (
                terms.dimension > self.max_parameters,
                f"max_parameters = {self.max_parameters}, the model has {terms.dimension}",
            ),
            (
                not any(fnmatchcase(purpose.lower(), item.lower()) for item in self.purposes),
                f"purposes does not allow {purpose!r}",
            ),
            (bool(self.hours) and not open_now, f"hours: {moment:%a %H:%M} lies outside them"),
        ]
        return [rule for is_broken, rule in rules if is_broken]

    def check_terms(self, terms: Terms, moment: datetime) -> None:
        """Refuse terms that this firm does not want, or not now; ``moment`` is in local time.

        Raises:
            RefusedError: class ``policy``; names the rules.
        """
        _refuse(self.rules_broken(terms, moment))

    def check_membership(
        self,
        membership: Membership,
        endorsements: Sequence[bytes],
        *,
        trusted: Iterable[Membership],
        firm: str,
        revoked: Iterable[str],
        max_colluding: int,
    ) -> None:
        """Refuse a list that nobody here approved, unless a rule of this firm makes up for it.

        Args:
            trusted: the lists that this firm's people approved.

        Raises:
            RefusedError: class ``policy``; says how to approve it.
        """
        keys = [bytes.fromhex(key) for key in self.approving_keys]
        if endorsed_by_body(membership, endorsements, keys):
            return
        peers: frozenset[str] = frozenset()
        if self.approve_by_peers:
            peers = endorsing_operators(
                membership, endorsements, trusted=trusted, firm=firm, revoked=revoked
            )
        if len(peers) > max_colluding:
            return
        heard = f" ({len(peers)} of {max_colluding + 1} endorsements)" if peers else ""
        raise RefusedError(
            f"membership epoch {membership.epoch} is not approved here{heard}. Look at it with "
            f"`greylag-client members DIR` and approve it with --approve "
            f"{membership.digest().hex()}",
            refusal_class="policy",
        )

    def check_company(self, membership: Membership, roster: Iterable[str]) -> None:
        """Refuse a roster with a firm whose operator this firm will not sit with.

        Raises:
            RefusedError: class ``policy``; names the rule.
        """
        operators = set(membership.operators(roster))
        unwanted = sorted(operators & set(self.excluded_operators))
        _refuse([f"excluded_operators: {name} in the roster" for name in unwanted])

    def check_cosigned(self, count: int, *, waited: int, others: int) -> None:
        """Refuse to go on with a log that too few other firms vouch for.

        Args:
            count: other firms that countersigned the log as this firm saw it last.
            waited: rounds since they were enough, this one included.
            others: firms of the roster besides this one.

        Raises:
            RefusedError: class ``policy``; names the rule.
        """
        wanted = self.min_cosignatures
        if count >= wanted or waited <= self.cosignature_patience:
            return
        why = f"min_cosignatures = {wanted}, but {count} other firms countersigned the lead's log"
        if others < wanted:
            why += f" (a roster of {others} others can never give more)"
        why += (
            f", and cosignature_patience = {self.cosignature_patience} rounds are over. Ask other "
            "firms whether their log is this one"
        )
        _refuse([why])

    def check_engine(self, engine: Engine) -> None:
        """Refuse whatever comes by an engine that this firm does not want.

        Raises:
            RefusedError: class ``policy``; names the rule.
        """
        _refuse([] if engine in self.engines else [f"engines does not allow {engine!r}"])


ReadPolicy = Callable[[], Policy]


def _refuse(broken: Sequence[str]) -> None:
    if broken:
        raise RefusedError(
            f"policy.toml: {'; '.join(broken)}. Nothing was charged; if this firm wants it all the "
            "same, change policy.toml",
            refusal_class="policy",
        )


def read_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        ConfigError: the file is missing, not TOML, or holds unknown or wrong keys.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"no policy can be read at {path} ({error.strerror}); without one this firm takes part "
            "in nothing. Write one: at least `lifetime_epsilon = 10.0`"
        ) from None
    return _parse_policy(content, path.name)


@functools.lru_cache(maxsize=16)
def _parse_policy(content: bytes, name: str) -> Policy:
    """The file is read for every message, and seldom says anything new."""
    return parse_as(Policy, parse_toml(content, what=name), what=name)
