"""What the page shows of one run, as frozen values made from facts (see ``view``)."""

from collections import Counter
from dataclasses import dataclass, replace

from greylag_server.page.facts import Asked, Facts, RunFacts
from greylag_server.roster import MAX_VOIDS

PACE_ATTEMPTS = 30
VOIDS_SHOWN = 50
CHART_POINTS = 600
CAN = {
    "queued": ("pause", "cancel"),
    "offering": ("pause", "cancel"),
    "training": ("pause", "cancel"),
    "paused": ("resume", "cancel"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run in one line. ``left_s``: how long it will still take, if that can be told."""

    run: str
    purpose: str
    status: str
    reason: str
    done: int
    rounds: int
    attempts: int
    max_attempts: int
    firms: int
    wanted: int
    left_s: float | None
    can: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetail:
    row: RunRow
    unit: str
    epsilon: float
    delta: float
    noise_multiplier: float
    min_firms: int
    max_colluding: int
    roster: int
    voids: int
    restarts: int
    refusals: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceView:
    """Where the seconds go. ``points``: attempt, seconds, whether it came to nothing."""

    points: tuple[tuple[int, float, bool], ...]
    mean_s: float | None
    phases: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeRow:
    """What a firm was charged under one run; nothing else of its ledger is known here."""

    firm: str
    state: str
    charged: int
    voids: int
    epsilon: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargesView:
    rows: tuple[ChargeRow, ...]
    all: int
    max_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VoidsView:
    """Attempts that came to nothing, newest first; and how often each firm was missing."""

    rows: tuple[tuple[int, int, int, tuple[str, ...]], ...]
    all: int
    missing: tuple[tuple[str, int], ...]


def run_row(item: RunFacts) -> RunRow:
    """A run in one line."""
    terms = item.terms
    return RunRow(
        run=item.run,
        purpose=terms.run.purpose,
        status=item.status,
        reason=item.reason,
        done=item.rounds_done,
        rounds=terms.training.rounds,
        attempts=item.attempts,
        max_attempts=terms.privacy.max_attempts,
        firms=len(item.parts),
        wanted=item.wanted,
        left_s=seconds_left(item),
        can=CAN.get(item.status, ()),
    )


def seconds_left(item: RunFacts) -> float | None:
    """From how long a round took lately."""
    if item.status != "training" or item.round_s is None:
        return None
    left_s = item.round_s * (item.terms.training.rounds - item.rounds_done)
    return float(f"{left_s:.2g}")  # so that the page is not another one with every round


def view_run(_: Facts, asked: Asked) -> RunDetail | None:
    """One run."""
    item = asked.run
    if item is None:
        return None
    privacy = item.terms.privacy
    return RunDetail(
        row=run_row(item),
        unit=privacy.unit,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        noise_multiplier=privacy.noise_multiplier,
        min_firms=privacy.min_firms,
        max_colluding=privacy.max_colluding,
        roster=len(item.roster),
        voids=sum(one.void for one in item.seen.attempts),
        restarts=item.seen.restarts,
        refusals=tuple(sorted(item.seen.refusals.items())),
    )


def view_pace(_: Facts, asked: Asked) -> PaceView:
    """How long its attempts took."""
    timed = [one for one in asked.run.seen.attempts if one.seconds] if asked.run else []
    last = timed[-PACE_ATTEMPTS:]
    return PaceView(
        points=tuple(
            (one.number, round(one.seconds, 3), one.void) for one in timed[-CHART_POINTS:]
        ),
        mean_s=sum(one.seconds for one in last) / len(last) if last else None,
        phases=asked.phases,
    )


def charge_rows(item: RunFacts) -> list[ChargeRow]:
    """Every firm that accepted or refused a run."""
    seen, roster = item.seen, set(item.roster)
    rows = []
    for part in item.parts:
        state = "closed" if part.closed else "out" if part.voids >= MAX_VOIDS else "waiting"
        if state == "waiting" and part.firm in roster:
            state = "roster"
        elif state == "waiting" and part.firm in seen.refused:
            state = "refused"
        rows.append(
            ChargeRow(
                firm=part.firm,
                state=state,
                charged=seen.charged.get(part.firm, 0),
                voids=part.voids,
                epsilon=None,
            )
        )
    accepted = {part.firm for part in item.parts}
    rows += [
        ChargeRow(firm=firm, state="refused", charged=0, voids=0, epsilon=None)
        for firm in seen.refused
        if firm not in accepted
    ]
    return sorted(rows, key=lambda row: row.firm)


def view_charges(_: Facts, asked: Asked) -> ChargesView | None:
    """What firms were charged under it."""
    item = asked.run
    if item is None:
        return None
    rows = charge_rows(item)
    cost = {count: asked.epsilon(item, count) for count in {row.charged for row in rows}}
    return ChargesView(
        rows=tuple(
            replace(row, epsilon=cost[row.charged])
            for row in rows
            if asked.fits(row.firm, row.state)
        ),
        all=len(rows),
        max_attempts=item.terms.privacy.max_attempts,
    )


def view_voids(_: Facts, asked: Asked) -> VoidsView:
    """Its attempts that came to nothing."""
    void = [one for one in asked.run.seen.attempts if one.void] if asked.run else []
    often = Counter(name for one in void for name in one.missing)
    return VoidsView(
        rows=tuple(
            (one.number, one.round_number, one.roster, one.missing)
            for one in reversed(void[-VOIDS_SHOWN:])
        ),
        all=len(void),
        missing=tuple(often.most_common(VOIDS_SHOWN)),
    )
