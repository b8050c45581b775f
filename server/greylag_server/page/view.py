"""What each part of the page shows, as frozen values made from facts, without any I/O.

Two views of the same state are equal, so a part is sent again only if it changed. Sentences are not
made here: a value names a text (``texts``) and what goes into it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from greylag_server.page.facts import Asked, Facts, FirmFacts
from greylag_server.page.findings import Finding, find
from greylag_server.page.run_view import (
    RunRow,
    charge_rows,
    run_row,
    view_charges,
    view_pace,
    view_run,
    view_voids,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmRow:
    """A member. ``online`` is None where nobody knows."""

    name: str
    operator: str
    online: bool | None
    version: str
    joined_s: int
    expires_s: int
    expiry: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmsView:
    rows: tuple[FirmRow, ...]
    all: int
    online: int | None
    versions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignerRow:
    firm: str
    size: int
    time_s: int
    behind: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignersView:
    rows: tuple[CosignerRow, ...]
    all: int
    newest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadView:
    size: int
    root: str
    read: int
    checkpoints: tuple[tuple[int, int, int], ...]  # size, cosigners, time of the last


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRow:
    name: str
    version: int
    run: str
    model: str
    entry: int
    state: str
    issued_s: int
    expires_s: int
    because: str


def _status(facts: Facts, _: Asked) -> tuple[Finding, ...]:
    return tuple(find(facts))


def _now(facts: Facts, _: Asked) -> tuple[RunRow, ...]:
    return tuple(run_row(item) for item in reversed(facts.runs) if not item.over)


def _refusals(facts: Facts, _: Asked) -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
    return tuple(
        (item.run, tuple(sorted(item.seen.refusals.items())))
        for item in facts.runs
        if item.seen.refusals
    )


def _firms(facts: Facts, asked: Asked) -> FirmsView:
    current = next((item for item in reversed(facts.runs) if not item.over), None)
    states = {} if current is None else {row.firm: row.state for row in charge_rows(current)}
    online = facts.online
    rows = [
        FirmRow(
            name=item.name,
            operator=item.operator,
            online=None if online is None else item.name in online,
            version="" if online is None else online.get(item.name, ""),
            joined_s=item.joined_s,
            expires_s=item.expires_s,
            expiry=expiry_of(item, facts.now_s),
            state=states.get(item.name, ""),
        )
        for item in facts.firms
    ]
    known = Counter(row.version for row in rows if row.version)
    return FirmsView(
        rows=tuple(
            row
            for row in rows
            if asked.fits(row.name, row.operator, row.version, _presence(row.online), row.state)
        ),
        all=len(rows),
        online=None if online is None else sum(bool(row.online) for row in rows),
        versions=tuple(sorted(known.items())),
    )


def _presence(online: bool | None) -> str:
    return {None: "", True: "online 在线", False: "away 离线"}[online]


def expiry_of(firm: FirmFacts, now_s: float) -> str:
    """How a certificate stands: good, soon, expired, or unknown."""
    if not firm.expires_s:
        return "unknown"
    left_s = firm.expires_s - now_s
    return "expired" if left_s <= 0 else "soon" if left_s < 14 * 86_400 else "good"


def _head(facts: Facts, _: Asked) -> HeadView:
    return HeadView(
        size=facts.log_size,
        root=facts.log_root,
        read=facts.log_read,
        checkpoints=tuple(
            (item.size, len(item.times), max(item.times.values())) for item in facts.cosigned
        ),
    )


def _cosigners(facts: Facts, asked: Asked) -> CosignersView:
    newest: dict[str, CosignerRow] = {}
    for item in facts.cosigned:  # newest first
        for firm, time_s in item.times.items():
            behind = facts.log_size - item.size
            row = CosignerRow(firm=firm, size=item.size, time_s=time_s, behind=behind)
            newest.setdefault(firm, row)
    rows = [
        newest.get(item.name, CosignerRow(firm=item.name, size=0, time_s=0, behind=facts.log_size))
        for item in facts.firms
    ]
    return CosignersView(
        rows=tuple(row for row in rows if asked.fits(row.firm)),
        all=len(rows),
        newest=facts.cosigned[0].size if facts.cosigned else 0,
    )


def _releases(facts: Facts, _: Asked) -> tuple[ReleaseRow, ...]:
    rows = []
    for item in facts.versions:
        told = item.facts
        state = "current" if facts.current.get(item.name) == item.version else "older"
        if told is not None and told.expires_s <= facts.now_s:
            state = "expired"
        rows.append(
            ReleaseRow(
                name=item.name,
                version=item.version,
                run=item.run,
                model=item.model.hex(),
                entry=item.position,
                state="withdrawn" if item.withdrawn is not None else state,
                issued_s=0 if told is None else told.issued_s,
                expires_s=0 if told is None else told.expires_s,
                because="" if item.withdrawn is None else item.withdrawn.because,
            )
        )
    return tuple(rows)


MAKERS: Mapping[str, Callable[[Facts, Asked], object]] = {
    "status": _status,
    "now": _now,
    "refusals": _refusals,
    "invites": lambda facts, _: facts.invites,
    "firms": _firms,
    "runs": lambda facts, _: tuple(run_row(item) for item in facts.runs),
    "run": view_run,
    "pace": view_pace,
    "charges": view_charges,
    "voids": view_voids,
    "head": _head,
    "cosigners": _cosigners,
    "releases": _releases,
    "deeds": lambda facts, _: facts.deeds,
    "accounts": lambda facts, _: facts.accounts,
}
PAGES: Mapping[str, tuple[str, ...]] = {
    "overview": ("status", "now", "refusals"),
    "firms": ("invites", "firms"),
    "runs": ("runs",),
    "run": ("run", "pace", "charges", "voids"),
    "log": ("head", "cosigners"),
    "releases": ("releases",),
    "journal": ("deeds", "accounts"),
}


def make_parts(page: str, facts: Facts, asked: Asked) -> dict[str, object]:
    """The parts of a page."""
    return {part: MAKERS[part](facts, asked) for part in PAGES[page]}
