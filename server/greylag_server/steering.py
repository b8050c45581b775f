"""What an operator may ask of a run, and what is to be seen of it.

A wish is in the database before its command returns. The process that serves obeys it between two
rounds, or, if it is killed meanwhile, the next one does. Runs go one after the other in the order
in which they were queued; a paused one keeps its place, and those behind it wait.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from greylag_protocols import log
from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_terms
from greylag_protocols.signing import parse_statement
from greylag_protocols.terms import STRICT

from greylag_server.roster import MAX_VOIDS
from greylag_server.store import RunRecord, Store, Wish, Wished

MOST_BECAUSE = 200
MAX_PACE_BYTES = 4096
OVER = ("done", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceNote:
    """How fast a run went lately.

    Attributes:
        round_s: median seconds from one round's end to the next.
        phases: mean seconds of a round's parts.
    """

    __pydantic_config__ = STRICT
    round_s: float
    phases: dict[str, float]

    def encode(self) -> str:
        return json.dumps({"round_s": self.round_s, "phases": self.phases})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as its operator sees it.

    Attributes:
        status: the stored one, or ``paused`` or ``cancelled``.
        place: 1 for the run that is next or under way; 0 once it is over.
        expected_end_s: Unix seconds; None where nothing is known.
        charges: receipts by firm in this run alone.
    """

    run: str
    status: str
    place: int
    reason: str
    rounds: int
    of_rounds: int
    attempts: int
    max_attempts: int
    roster: tuple[str, ...]
    out: tuple[str, ...]
    round_s: float | None = None
    expected_end_s: float | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    charges: Mapping[str, int] = field(default_factory=dict)


def pause(store: Store, run: str, by: str, now_s: float) -> None:
    """Hold a run after the attempt under way; firms stay connected and are asked for nothing.

    Raises:
        ConfigError: there is no such run, or it is over.
    """
    _ask(store, run, "pause", by=by, now_s=now_s)


def resume(store: Store, run: str, by: str, now_s: float) -> None:
    """Let a paused run go on.

    Raises:
        ConfigError: there is no such run, or it is over.
    """
    _ask(store, run, "resume", by=by, now_s=now_s)


def cancel(store: Store, run: str, because: str, by: str, now_s: float) -> None:
    """End a run early and for good: its firms close it, and what they spent stays spent.

    Raises:
        ConfigError: there is no such run, it is over, or no reason is given.
    """
    because = " ".join(because.split())
    if not because or len(because) > MOST_BECAUSE or not because.isprintable():
        raise ConfigError(
            f"say in at most {MOST_BECAUSE} characters why the run is cancelled: its firms' people "
            "will ask"
        )
    _ask(store, run, "cancel", because=because, by=by, now_s=now_s)


def _ask(store: Store, run: str, wish: Wish, *, by: str, now_s: float, because: str = "") -> None:
    with store.transaction():
        record = store.run(run)
        last = store.last_wish(record.run)
        if record.status in OVER or (last is not None and last.wish == "cancel"):
            raise ConfigError(f"run {record.run} is over or cancelled; queue another with `train`")
        before = "resume" if last is None else last.wish
        if wish != before:  # asked twice is asked once
            wished = Wished(wish=wish, because=because, who=by, at_s=int(now_s))
            store.add_wish(record.run, wished)


def cancel_reason(wished: Wished) -> str:
    """What a cancelled run's record says."""
    return f"cancelled by {wished.who}: {wished.because}"


def is_paused(store: Store, run: str) -> bool:
    """Whether a run is to be held."""
    last = store.last_wish(run)
    return last is not None and last.wish == "pause"


def paused_runs(store: Store) -> frozenset[str]:
    """All runs that are held."""
    return frozenset(run for run in store.open_runs() if is_paused(store, run))


def overview(store: Store, run: str, *, now_s: float, count_charges: bool = True) -> RunView:
    """Everything to be seen of a run. Counting charges reads the whole log.

    Raises:
        ConfigError: there is no such run.
    """
    record = store.run(run)
    terms = parse_terms(record.terms)
    status, waiting = _status(store, record), store.open_runs()
    note = _pace(store, record.run)
    left = terms.training.rounds - record.rounds_done
    end_s = None
    if note is not None and status == "training":
        end_s = now_s + left * note.round_s
    return RunView(
        run=record.run,
        status=status,
        place=waiting.index(record.run) + 1 if record.run in waiting else 0,
        reason=record.reason,
        rounds=record.rounds_done,
        of_rounds=terms.training.rounds,
        attempts=record.attempts,
        max_attempts=terms.privacy.max_attempts,
        roster=record.roster,
        out=tuple(item.firm for item in store.participants(record.run) if item.voids >= MAX_VOIDS),
        round_s=None if note is None else note.round_s,
        expected_end_s=end_s,
        phases={} if note is None else note.phases,
        charges=_charges(store, record.run) if count_charges else {},
    )


def phases(store: Store, run: str) -> tuple[tuple[str, float], ...]:
    """Where a run's seconds went lately: mean seconds by phase."""
    note = _pace(store, run)
    return () if note is None else tuple(note.phases.items())


def _pace(store: Store, run: str) -> PaceNote | None:
    text = store.pace(run)
    if text is None:
        return None
    value = parse_json(text.encode(), max_bytes=MAX_PACE_BYTES)
    return parse_as(PaceNote, value, what="stored pace")


def _status(store: Store, record: RunRecord) -> str:
    last = store.last_wish(record.run)
    if last is None:
        return record.status
    if record.status in OVER:  # it may have come to its end before the wish was seen
        cancelled = last.wish == "cancel" and record.reason == cancel_reason(last)
        return "cancelled" if cancelled else record.status
    return "paused" if last.wish == "pause" else record.status


def _charges(store: Store, run: str) -> dict[str, int]:
    found: Counter[str] = Counter()
    for envelope in store.entries():
        statement = parse_statement(envelope)
        if statement.kind == log.RECEIPT_KIND and statement.predicate.get("run") == run:
            found[str(statement.predicate["firm"])] += 1
    return dict(sorted(found.items()))
