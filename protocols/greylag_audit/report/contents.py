"""From facts to a report: which sentences, tables and drawings, in which order."""

from datetime import UTC, datetime
from typing import Any

from greylag_protocols.terms import Terms

from greylag_audit.findings import Finding
from greylag_audit.report import plots
from greylag_audit.report.appendices import appendices
from greylag_audit.report.blocks import (
    Block,
    Columns,
    Figures,
    Line,
    Pictures,
    Report,
    Section,
    Table,
    Tone,
    Words,
)
from greylag_audit.report.facts import ReportFacts
from greylag_audit.report.odds import Odds
from greylag_audit.report.plots import number
from greylag_audit.report.texts import Texts

TONES: dict[str, Tone] = {
    "holds": "good",
    "broken": "bad",
    "unsigned": "look",
    "strangers": "look",
}
CLASSES = (("proved", "proved"), ("signed claim", "claim"), ("cannot be checked", "beyond"))


def write_report(facts: ReportFacts, lang: str) -> Report:
    """The report on these facts in ``lang``."""
    say = Texts(lang)
    terms = facts.terms
    broken = sum(item.state == "broken" for item in facts.findings)
    sections = [_short(facts, say)]
    if terms is not None and facts.odds is not None:
        sections.append(_odds(terms, facts.odds, say))
    sections.append(_evidence(facts, say))
    if terms is not None:
        sections += [_firms(facts, terms, say), _course(facts, terms, say)]
        if facts.odds is not None:
            sections.append(_experts(facts, terms, facts.odds, say))
    sections += appendices(facts, say)
    return Report(
        lang=say.tag,
        title=say("title", run=facts.run),
        subtitle=say(
            "subtitle",
            run=facts.run,
            origin=facts.origin,
            purpose="?" if terms is None else terms.run.purpose,
        ),
        verdict=say(f"verdict.{facts.outcome}", count=broken),
        tone=TONES[facts.outcome],
        sections=tuple(sections),
        closing=say("closing", size=facts.size, time=_time(facts, say)),
        words={
            key: say(key) for key in ("skip", "contents", "holds", "broken", "unknown", "verdict")
        },
    )


def to_json(facts: ReportFacts, report: Report) -> dict[str, Any]:
    """For programs: the facts as numbers, and all that the report says."""
    odds = facts.odds
    privacy = None if facts.terms is None else facts.terms.privacy
    return {
        "run": facts.run,
        "origin": facts.origin,
        "lang": report.lang,
        "title": report.title,
        "subtitle": report.subtitle,
        "closing": report.closing,
        "verdict": report.verdict,
        "outcome": facts.outcome,
        "holds": facts.holds,
        "log_size": facts.size,
        "terms": facts.terms_digest,
        "released": facts.released,
        "witnessed_s": facts.witnessed_s,
        "rounds": facts.rounds_done,
        "attempts": len(facts.steps),
        "privacy": None
        if privacy is None
        else {
            "unit": privacy.unit,
            "epsilon": privacy.epsilon,
            "delta": privacy.delta,
            "noise_multiplier": privacy.noise_multiplier,
            "clip_norm": privacy.clip_norm,
            "max_colluding": privacy.max_colluding,
            "max_attempts": privacy.max_attempts,
        },
        "odds": None
        if odds is None
        else {
            "percent": odds.percent,
            "copies": [
                {"count": count, "epsilon": epsilon, "percent": percent}
                for count, epsilon, percent in odds.copies
            ],
            "all_others_collude": None
            if odds.lone is None
            else {"epsilon": odds.lone[0], "percent": odds.lone[1]},
        },
        "firms": [
            {
                "firm": row.firm,
                "operator": row.operator,
                "limit": row.limit,
                "before": row.before,
                "spent": row.spent,
                "reserved": row.reserved,
                "after": row.after,
                "releases": row.releases,
                "state": row.state,
            }
            for row in facts.firms
        ],
        "findings": [item.to_json() for item in facts.findings],
        "sections": report.to_json(),
    }


def _short(facts: ReportFacts, say: Texts) -> Section:
    blocks: list[Block] = []
    if facts.terms is None:
        blocks.append(Words(text=say("short.noterms"), tone="bad"))
    else:
        items = [
            (str(len(facts.firms)), say("short.firms")),
            (str(facts.rounds_done), say("short.rounds", of=facts.terms.training.rounds)),
        ]
        blocks.append(Words(text=say("short.1", firms=len(facts.firms))))
        if facts.odds is not None:
            items.insert(0, (f"{right_of(facts.odds.percent)} %", say("short.odds")))
            unit = say.unit(facts.terms)
            right = right_of(facts.odds.percent)
            blocks.append(Words(text=say("short.2", unit=unit, right=right)))
        items.append((number(facts.terms.privacy.epsilon), say("short.epsilon")))
        blocks.insert(0, Figures(items=tuple(items)))
    if facts.outcome != "holds":
        blocks.append(Words(text=say("short.doubt"), tone="bad"))
    released = say("short.released", digest=facts.released) if facts.released else ""
    blocks.append(Words(text=released or say("short.unreleased"), tone="soft"))
    blocks = [*_broken(facts, say), *blocks]
    return Section(id="short", title=say("short"), blocks=tuple(blocks))


def right_of(percent: float) -> int:
    """Right guesses of a hundred, rounded so that it stays a bound."""
    return int(-(-(percent - 1e-9) // 1))


def tenth(percent: float) -> str:
    """As ``right_of``, with one decimal."""
    return f"{right_of(10 * percent) / 10:.1f}"


def _evidence(facts: ReportFacts, say: Texts) -> Section:
    items = []
    for evidence, key in CLASSES:
        kept = tuple(
            _line(item, say)
            for item in facts.findings
            if item.evidence == evidence and item.state != "broken"
        )
        items.append((say(f"evidence.{key}"), say(f"evidence.{key}.means"), kept))
    blocks = (Words(text=say("evidence.intro")), Columns(items=tuple(items)))
    return Section(id="evidence", title=say("evidence"), blocks=blocks)


def _broken(facts: ReportFacts, say: Texts) -> list[Block]:
    broken = sorted(
        (item for item in facts.findings if item.state == "broken"),
        key=lambda item: (item.entry is None, item.entry or 0),
    )
    if not broken:
        return []
    lines = tuple(_line(item, say) for item in broken)
    return [Columns(items=((say("evidence.broken"), say("evidence.broken.intro"), lines),))]


def _line(item: Finding, say: Texts) -> Line:
    places = [] if item.entry is None else [say("place.entry", entry=item.entry)]
    places += [] if item.firm is None else [item.firm]
    return Line(state=item.state, place=", ".join(places), text=say.finding(item))


def _odds(terms: Terms, odds: Odds, say: Texts) -> Section:
    unit = say.unit(terms)
    rows = [
        (say("odds.one", unit=unit), tenth(odds.percent), number(terms.privacy.epsilon)),
        *(
            (
                say("odds.copies", count=count),
                tenth(percent),
                say("nothing") if epsilon is None else number(epsilon),
            )
            for count, epsilon, percent in odds.copies
        ),
    ]
    lone = odds.lone
    told = (say("odds.over"), say("nothing")) if lone is None else (tenth(lone[1]), number(lone[0]))
    rows.append((say("odds.lone", unit=unit), *told))
    blocks: list[Block] = [
        Words(text=say("odds.1", unit=unit)),
        Pictures(items=(plots.dots(odds.percent, say),)),
        Table(
            caption=say("odds.table"),
            columns=(say("odds.who"), say("odds.percent"), say("odds.epsilon")),
            rows=tuple(rows),
            numbers=frozenset({1, 2}),
        ),
        Words(text=say("odds.lone.note", colluding=terms.privacy.max_colluding), tone="soft"),
    ]
    if terms.privacy.unit == "firm":
        blocks.append(Words(text=say("odds.firm"), tone="soft"))
    return Section(id="odds", title=say("odds"), blocks=tuple(blocks))


def _firms(facts: ReportFacts, terms: Terms, say: Texts) -> Section:
    names = ("firm", "operator", "cap", "before", "spent", "reserved", "after", "releases", "state")
    rows = tuple(
        (
            row.firm,
            row.operator,
            *(number(x) for x in (row.limit, row.before, row.spent, row.reserved, row.after)),
            f"{row.releases} / {terms.privacy.max_attempts}",
            say(f"state.{row.state}"),
        )
        for row in facts.firms
    )
    table = Table(
        caption=say("firms.table", delta=f"{terms.privacy.delta:g}"),
        columns=tuple(say(f"firms.{name}") for name in names),
        rows=rows,
        numbers=frozenset(range(2, 8)),
    )
    blocks: tuple[Block, ...] = (
        Words(text=say("firms.intro")),
        Pictures(items=(plots.spending(facts.firms, say),)),
        table,
        Words(text=say("firms.limit", unit=say.unit_name(terms)), tone="soft"),
    )
    return Section(id="firms", title=say("firms"), blocks=blocks)


def _course(facts: ReportFacts, terms: Terms, say: Texts) -> Section:
    privacy, attempts = terms.privacy, len(facts.steps)
    told = say(
        "course.1",
        attempts=attempts,
        rounds=facts.rounds_done,
        voids=attempts - facts.rounds_done,
    )
    drawings = [plots.rosters(facts.steps, privacy.min_firms, say)]
    if facts.cumulative:
        limit, most = privacy.epsilon, privacy.max_attempts
        drawings.insert(0, plots.cumulative(facts.cumulative, facts.steps, limit, most, say))
    blocks = (Words(text=told), Pictures(items=tuple(drawings)))
    return Section(id="course", title=say("course"), blocks=blocks if attempts else blocks[:1])


def _experts(facts: ReportFacts, terms: Terms, odds: Odds, say: Texts) -> Section:
    privacy, mechanism = terms.privacy, terms.mechanism
    used = f"{facts.cumulative[-1][1]:.4g}" if facts.cumulative else say("nothing")
    values = {
        "unit": say("experts.unit.value", unit=say.unit_name(terms)),
        "epsilon": f"{privacy.epsilon:.4g}",
        "delta": f"{privacy.delta:g}",
        "used": say("experts.used.value", epsilon=used, count=len(facts.steps)),
        "sigma": f"{privacy.noise_multiplier:g}",
        "clip": f"{privacy.clip_norm:g}",
        "rate": f"{mechanism.sampling_rate:g}",
        "batch": str(mechanism.batch_cap),
        "attempts": str(privacy.max_attempts),
        "rounds": str(terms.training.rounds),
        "noise": say("experts.noise.value", colluding=privacy.max_colluding),
        "event": mechanism.event_type,
        "accountant": say("experts.accountant.value"),
        "terms": facts.terms_digest,
    }
    table = Table(
        caption=say("experts.table"),
        columns=(say("experts.name"), say("experts.value")),
        rows=tuple((say(f"experts.{key}"), value) for key, value in values.items()),
    )
    blocks = (Pictures(items=(plots.detection(odds.curve, say),)), table)
    return Section(id="experts", title=say("odds.experts"), blocks=blocks)


def _time(facts: ReportFacts, say: Texts) -> str:
    if facts.witnessed_s is None:
        return say("time.none")
    try:
        told = datetime.fromtimestamp(facts.witnessed_s, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # a firm may sign any number as its time
        return say("time.none")
    return say("time", count=facts.witnesses, time=told)
