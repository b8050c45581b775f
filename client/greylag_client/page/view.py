"""What the page shows, as frozen values: from ledger, policy and memberships, without any I/O.

Two views of the same state are equal, so a part of the page is sent again only if it changed.
Sentences are not made here: a value names a text (``texts``) and what goes into it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from greylag_protocols.accounting import advantage_of
from greylag_protocols.membership import Member, Membership
from greylag_protocols.plan import parse_terms
from greylag_protocols.signing import fingerprint
from greylag_protocols.terms import Terms, Unit

from greylag_client.ledger import RunAccount
from greylag_client.page.advice import advice_for
from greylag_client.refusals import Refused
from greylag_client.spending import Account

Level = Literal["good", "look", "act"]

DAY_S = 86_400
FEW_DAYS = 14
LITTLE_LEFT = 0.1  # of a budget
PREFIX_CHARS = 8  # of a list's digest, to be typed by whoever approves it


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """The key of a text, and the values that stand in it."""

    key: str
    values: tuple[tuple[str, str | int | float], ...] = ()

    @classmethod
    def of(cls, key: str, **values: str | int | float) -> "Text":
        return cls(key=key, values=tuple(values.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the answer to "is all well?"; ``detail`` is a program's own words, in English.
    ``part`` names the part of the page that says more."""

    level: Level
    text: Text
    detail: str = ""
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How the agent stands to the lead.

    Attributes:
        state: ``dialling`` at first, ``trying`` once a dial has failed; ``away`` if the agent does
            not run, ``direct`` if it never dials (policy allows only an engine that comes to it).
        reason: why it does not run, if it does not.
    """

    state: Literal["connected", "dialling", "trying", "away", "direct"]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """How participation is paused: by the page, by policy.toml, or by both."""

    by_page: bool = False
    by_policy: bool = False
    since_s: int = 0

    def __bool__(self) -> bool:
        return self.by_page or self.by_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The first part: the verdict, and what may be done about it."""

    paused: Paused
    findings: tuple[Finding, ...]
    left: bool

    @property
    def verdict(self) -> str:
        """The key of the verdict's text."""
        if self.left:
            return "verdict_left"
        if self.paused:
            return "verdict_paused_act" if self.level == "act" else "verdict_paused"
        if self.level == "act":
            return "verdict_act"
        return "verdict_look" if self.level == "look" else "verdict_good"

    @property
    def level(self) -> Level:
        levels = {item.level for item in self.findings}
        return "act" if "act" in levels else "look" if "look" in levels else "good"


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Columns that share a unit and bounds."""

    names: tuple[str, ...]
    unit: str
    low: float | None = None
    high: float | None = None
    classes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One run: what it asked, what was given. ``odds`` are of 100, once all is used."""

    run: str
    state: str
    purpose: str
    standard: str
    unit: Unit
    epsilon: float
    delta: float
    odds: float
    features: tuple[Columns, ...]
    targets: tuple[Columns, ...]
    group: str
    family: str
    parameters: int
    rounds_done: int
    rounds: int
    charged: int
    max_attempts: int
    min_firms: int
    max_colluding: int
    roster: tuple[str, ...]
    roster_changes: int
    datasets: tuple[str, ...]
    accepted_s: int
    last_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalView:
    """A refusal, in people's words, and what to do next."""

    run: str
    refusal_class: str
    cause: str
    next_step: str
    reason: str
    first_s: int
    last_s: int
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """A member of the newest list, against the list that was approved last."""

    name: str
    operator: str
    fingerprint: str
    change: Literal["same", "new", "new_key", "new_operator"]
    own: bool
    revoked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersView:
    """The newest list. ``first``: no list was ever approved here, so nothing can be compared."""

    epoch: int
    digest: str
    expires_s: int
    expired: bool
    approved: bool
    approved_epoch: int
    lead: str
    members: tuple[MemberView, ...]
    gone: tuple[str, ...]

    @property
    def first(self) -> bool:
        return self.approved_epoch == 0

    @property
    def changed(self) -> tuple[MemberView, ...]:
        return tuple(item for item in self.members if item.change != "same")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksView:
    """What was checked of the log.

    Attributes:
        checked, entries: so many of the firm's own entries were followed.
        broken: why the chain does not hold, if it does not.
        peers: members whose ledgers this firm has seen, and their last entry's number.
    """

    checked: int
    entries: int
    broken: str
    peers: tuple[tuple[str, int], ...]
    members: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseView:
    """A model that lies in the firm's directory."""

    path: str
    run: str
    purpose: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmView:
    """The whole page of one firm; the parts are redrawn one by one."""

    name: str
    consortium: str
    status: Status
    budgets: tuple[Account, ...]
    runs: tuple[RunView, ...]
    refusals: tuple[RefusalView, ...]
    members: MembersView | None
    checks: ChecksView | None
    releases: tuple[ReleaseView, ...]


def view_run(account: RunAccount) -> RunView:
    """A run as it is shown."""
    terms = parse_terms(account.terms)
    state = "closed" if account.charged else "released"
    advantage = advantage_of(terms.mechanism, releases=account.max_attempts)
    return RunView(
        run=account.run,
        state=state if account.closed else "open",
        purpose=terms.run.purpose,
        standard=terms.data.standard,
        unit=account.unit,
        epsilon=account.epsilon,
        delta=account.delta,
        odds=50.0 * (1.0 + advantage),
        features=_features(terms),
        targets=_targets(terms),
        group=terms.data.group or "",
        family=terms.model.family,
        parameters=terms.dimension,
        rounds_done=account.last_round,
        rounds=terms.training.rounds,
        charged=account.charged,
        max_attempts=account.max_attempts,
        min_firms=terms.privacy.min_firms,
        max_colluding=terms.privacy.max_colluding,
        roster=account.roster,
        roster_changes=account.roster_changes,
        datasets=account.datasets,
        accepted_s=account.accepted_s,
        last_s=account.last_s,
    )


def _features(terms: Terms) -> tuple[Columns, ...]:
    return tuple(
        Columns(
            names=item.names,
            unit=item.unit,
            low=item.range[0] if item.range else None,
            high=item.range[1] if item.range else None,
            classes=item.categories or (),
        )
        for item in terms.data.features
    )


def _targets(terms: Terms) -> tuple[Columns, ...]:
    return tuple(
        Columns(
            names=(item.name,),
            unit=item.unit,
            low=item.range[0] if item.range else None,
            high=item.range[1] if item.range else None,
            classes=item.classes or (),
        )
        for item in terms.data.targets
    )


def view_refusal(refused: Refused) -> RefusalView:
    """A refusal as it is shown."""
    advice = advice_for(refused.reason, refused.refusal_class)
    return RefusalView(
        run=refused.run,
        refusal_class=refused.refusal_class,
        cause=f"cause_{advice}",
        next_step=f"next_{advice}",
        reason=refused.reason,
        first_s=refused.first_s,
        last_s=refused.last_s,
        times=refused.times,
    )


def view_members(
    latest: Membership,
    approved: Mapping[str, Membership],
    *,
    own: str,
    revoked: frozenset[str],
    now_s: float,
) -> MembersView:
    """The newest list against the last approved one before it.

    Args:
        approved: by digest (hex).
    """
    digest = latest.digest().hex()
    before = max(
        (item for key, item in approved.items() if key != digest),
        key=lambda item: item.epoch,
        default=None,
    )
    is_approved = digest in approved
    known = {item.name: item for item in before.members} if before is not None else {}
    compared = latest if is_approved else before
    return MembersView(
        epoch=latest.epoch,
        digest=digest,
        expires_s=latest.expires_s,
        expired=latest.expires_s <= now_s,
        approved=is_approved,
        approved_epoch=compared.epoch if compared is not None else 0,
        lead=latest.lead,
        members=tuple(
            MemberView(
                name=item.name,
                operator=item.operator,
                fingerprint=fingerprint(item.identity_key),
                change="same" if is_approved else _change(item, known.get(item.name)),
                own=item.name == own,
                revoked=item.name in revoked,
            )
            for item in latest.members
        ),
        gone=()
        if is_approved
        else tuple(sorted(known.keys() - {item.name for item in latest.members})),
    )


def _change(
    member: Member, before: Member | None
) -> Literal["same", "new", "new_key", "new_operator"]:
    if before is None:
        return "new"
    if (before.identity, before.recovery) != (member.identity, member.recovery):
        return "new_key"
    return "same" if before.operator == member.operator else "new_operator"
