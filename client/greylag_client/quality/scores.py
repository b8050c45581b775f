"""Five scores from 0 to 100, each with what to fix first."""

import math
from dataclasses import dataclass

from greylag_client.quality.checks import Examination
from greylag_client.quality.findings import Dimension, Finding, of_dimension

FIXES_SHOWN = 3
ABSENT = "absent_column"
# How much of a column is lost to consistency by what was found about it. Notes cost nothing:
# they may well be as meant.
COLUMN_COST = {"constant": 1.0, "one_class": 1.0, "drift": 1.0, "rare_class": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One dimension's score.

    Attributes:
        value: 0..100, rounded down to tenths, so that only a flawless table has 100.
        findings: all of this dimension, the gravest first.
    """

    dimension: Dimension
    value: float
    findings: tuple[Finding, ...]

    @property
    def fixes(self) -> tuple[tuple[str, str], ...]:
        """What to do, English and Chinese, the gravest first, none twice; notes cost no score."""
        costly = (item.words for item in self.findings if item.words.level != "note")
        fixes = dict.fromkeys((words.fix_en, words.fix_zh) for words in costly)
        return tuple(fixes)[:FIXES_SHOWN]


def score(examined: Examination) -> tuple[Score, ...]:
    """All dimensions; timeliness only if a date column was named."""
    shares: dict[Dimension, float] = {
        "completeness": _completeness(examined),
        "validity": _validity(examined),
        "uniqueness": _uniqueness(examined),
        "consistency": _consistency(examined),
        "timeliness": _timeliness(examined),
    }
    return tuple(
        Score(
            dimension=dimension,
            value=math.floor(1000 * share + 1e-9) / 10,
            findings=tuple(of_dimension(examined.findings, dimension)),
        )
        for dimension, share in shares.items()
        if dimension != "timeliness" or examined.dated
    )


def _completeness(examined: Examination) -> float:
    """Share of the cells the plan asks for that are filled."""
    wanted = {column.name for column in examined.columns}
    wanted |= {item.column for item in examined.findings if item.kind in ("missing", ABSENT)}
    if examined.groups is not None:
        wanted.add(examined.groups.column)
    gaps = _rows(examined, "missing", ABSENT)
    return _share(gaps, len(wanted) * examined.rows)


def _validity(examined: Examination) -> float:
    """Share of the filled cells that can be read and lie in range."""
    filled = sum(len(column.values) - int(column.gaps.sum()) for column in examined.columns)
    return _share(_rows(examined, "unread", "outside"), filled)


def _uniqueness(examined: Examination) -> float:
    """Share of rows that repeat no other, times that of held-out rows unlike those trained on."""
    alike = max(
        (i.share for i in examined.findings if i.kind in ("near_copy", "group_on_both_sides")),
        default=0.0,
    )
    return _share(_rows(examined, "duplicate"), examined.rows) * (1 - alike)


def _consistency(examined: Examination) -> float:
    """Share of columns that vary and keep their distribution, times that of rows that agree."""
    worst: dict[str, float] = {}
    for item in examined.findings:
        cost = COLUMN_COST.get(item.kind, 0.0)
        worst[item.column] = max(worst.get(item.column, 0.0), cost)
    columns = _share(sum(worst.values()), len(examined.columns))
    return columns * _share(_rows(examined, "contradiction"), examined.rows)


def _timeliness(examined: Examination) -> float:
    """Share of rows with a date that is neither to come nor too long ago."""
    return _share(_rows(examined, "undated", "future", "stale"), examined.rows)


def _rows(examined: Examination, *kinds: str) -> int:
    return sum(item.count for item in examined.findings if item.kind in kinds)


def _share(lost: float, of: float) -> float:
    """What is left of ``of``; of nothing, nothing is good."""
    return max(0.0, 1 - lost / of) if of else 0.0
