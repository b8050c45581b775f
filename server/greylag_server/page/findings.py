"""The overview's answer to "is all well?": one line each, the worst first."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from greylag_server.page.facts import Facts, RunFacts

Level = Literal["act", "look", "good"]
ORDER: tuple[Level, ...] = ("act", "look", "good")
DAY_S = 86_400
SOON_S = 14 * DAY_S
LAST_ATTEMPTS = 20
MANY_VOIDS = 4  # of these


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``key`` and ``values`` of a text; ``detail`` in a program's own words; ``href`` says more."""

    level: Level
    key: str
    values: tuple[tuple[str, str | int], ...] = ()
    detail: str = ""
    href: str = ""


def _found(
    level: Level, key: str, *, href: str = "", detail: str = "", **values: str | int
) -> Finding:
    return Finding(level=level, key=key, values=tuple(values.items()), detail=detail, href=href)


def find(facts: Facts) -> list[Finding]:
    """Everything that there is to say."""
    every = [*_firms(facts), *_runs(facts), *_certificates(facts), *_log(facts)]
    return sorted(every, key=lambda item: ORDER.index(item.level))


def _firms(facts: Facts) -> Iterator[Finding]:
    count = len(facts.firms)
    if not count:
        yield _found("look", "firms_none", href="/firms")
    elif facts.online is not None:
        online = sum(item.name in facts.online for item in facts.firms)
        if online == count:
            yield _found("good", "online_all", n=count, href="/firms")
        else:
            yield _found("look", "online_some", n=online, all=count, href="/firms?q=away")
    if facts.invites:
        yield _found("good", "invites_open", n=len(facts.invites), href="/firms")


def _runs(facts: Facts) -> Iterator[Finding]:
    open_runs = [item for item in reversed(facts.runs) if not item.over]
    last = facts.runs[0] if facts.runs else None
    if last is not None and last.status == "failed":
        yield _found(
            "act", "run_failed", run=last.run, detail=last.reason, href=f"/runs/{last.run}"
        )
    if not open_runs:
        yield _found("good", "run_none", href="/runs")
        return
    yield _first(open_runs[0])
    recent = open_runs[0].seen.attempts[-LAST_ATTEMPTS:]
    void = sum(item.void for item in recent)
    if void >= MANY_VOIDS:
        yield _found(
            "look", "voids_many", n=void, of=len(recent), href=f"/runs/{open_runs[0].run}#voids"
        )
    if len(open_runs) > 1:
        yield _found("good", "run_waiting", n=len(open_runs) - 1, href="/runs")


def _first(item: RunFacts) -> Finding:
    """The run that is at work."""
    level: Level = "look" if item.status == "paused" else "good"
    return _found(
        level,
        f"run_{item.status}",
        run=item.run,
        done=item.rounds_done,
        rounds=item.terms.training.rounds,
        firms=len(item.parts),
        wanted=item.wanted,
        href=f"/runs/{item.run}",
    )


def _certificates(facts: Facts) -> Iterator[Finding]:
    server_s = facts.server_until_s - facts.now_s
    if server_s < SOON_S:
        level: Level = "act" if server_s <= 0 else "look"
        yield _found(level, "server_soon", days=max(0, int(server_s // DAY_S)))
    ends = [item.expires_s - facts.now_s for item in facts.firms if item.expires_s]
    if not ends:
        return
    expired, soon = sum(end <= 0 for end in ends), sum(0 < end < SOON_S for end in ends)
    if expired:
        yield _found("act", "certificates_expired", n=expired, href="/firms")
    if soon:
        yield _found("look", "certificates_soon", n=soon, href="/firms")
    if not expired and not soon:
        yield _found("good", "certificates_good", days=int(min(ends) // DAY_S), href="/firms")


def _log(facts: Facts) -> Iterator[Finding]:
    if facts.log_problem:
        yield _found("act", "log_problem", detail=facts.log_problem, href="/releases")
    if facts.log_read < facts.log_size:
        percent = 100 * facts.log_read // facts.log_size
        if percent < 99:
            yield _found("good", "log_reading", percent=percent, href="/log")
    if not facts.cosigned:
        if facts.runs:
            yield _found("look", "cosigned_none", href="/log")
        return
    newest = facts.cosigned[0]
    yield _found("good", "cosigned", n=len(newest.times), size=newest.size, href="/log")
