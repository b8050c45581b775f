"""The report as text for a terminal and as one JSON document."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from greylag_client.quality.checks import Examination, edge_share
from greylag_client.quality.findings import KINDS, LEVELS, Finding, plain, say_share
from greylag_client.quality.scores import Score

BAR_CELLS = 20
WIDTH = 100
ALIKE_SHOWN = 4  # findings of one kind that are told one by one
NAMES_SHOWN = 30
UNDATED = (
    "not scored: name the column that holds each row's date with --date",
    "未评分：请用 --date 指明记录每行日期的列",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check has to say.

    Attributes:
        name: the table's file name.
        misfit: why the table does not fit the plan, or empty.
    """

    name: str
    misfit: str
    unit: str
    examined: Examination
    scores: tuple[Score, ...]

    @property
    def headline(self) -> str:
        examined = self.examined
        if self.misfit:
            return f"{plain(self.name)}: {examined.rows} rows; the table does NOT fit the plan"
        return (
            f"{plain(self.name)}: {examined.rows} rows fit the plan; {examined.train} to train on, "
            f"{examined.holdout} held out; the largest group has {examined.largest_group} rows"
        )

    @property
    def by_kind(self) -> list[list[Finding]]:
        """All findings, those of one kind together, the gravest kinds first."""
        found = [item for part in self.scores for item in part.findings]
        levels, kinds = list(LEVELS), list(KINDS)
        found.sort(key=lambda item: (levels.index(item.words.level), kinds.index(item.kind)))
        return [list(alike) for _, alike in groupby(found, key=lambda item: item.kind)]

    @property
    def group_sentences(self) -> tuple[str, str]:
        """What the unit "group" would mean here, English and Chinese."""
        groups = self.examined.groups
        if groups is None:
            return (
                "The plan names no group column: each row counts as a group of its own.",
                "计划未设分组列：每行自成一组。",
            )
        return (
            f"{groups.count} groups by '{plain(groups.column)}': median {groups.median:g} rows, "
            f'largest {groups.largest}. unit = "group" protects all rows of a group together; '
            f'unit = "record" protects one row. The plan has unit = "{self.unit}".',
            f"按“{plain(groups.column)}”共 {groups.count} 组：中位 {groups.median:g} 行，"
            f'最大 {groups.largest} 行。unit = "group" 整组一起保护，unit = "record" '
            f'只保护单行；本计划为 unit = "{self.unit}"。',
        )


def as_document(report: Report) -> dict[str, Any]:
    """All facts; no cell of the table is among them."""
    examined = report.examined
    groups = examined.groups
    return {
        "rows": examined.rows,
        "train": examined.train,
        "holdout": examined.holdout,
        "largest_group": examined.largest_group,
        "fits": not report.misfit,
        "misfit": report.misfit.splitlines(),
        "scores": {
            item.dimension: {"score": item.value, "fix": [english for english, _ in item.fixes]}
            for item in report.scores
        },
        "findings": [
            {
                "kind": item.kind,
                "dimension": item.words.dimension,
                "level": item.words.level,
                "column": item.column,
                "count": item.count,
                "of": item.of,
                "rows": list(item.rows),
                "text": item.english,
                "fix": item.words.fix_en,
            }
            for part in report.scores
            for item in part.findings
        ],
        "columns": [
            {
                "name": column.name,
                "role": column.role,
                "missing": int(column.gaps.sum()),
                "unread": int(column.unread.sum()),
                "outside": int(column.outside.sum()),
                "at_edges": edge_share(column),
                "constant": column.constant,
                "psi": examined.index.get(column.name),
            }
            for column in examined.columns
        ],
        "groups": {"count": groups.count, "largest": groups.largest, "median": groups.median}
        if groups
        else None,
        "classes": examined.classes,
        "compared_rows": examined.compared_rows,
    }


def as_text(report: Report, *, width: int = WIDTH) -> str:
    """For people at a terminal."""
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(Text(report.headline), soft_wrap=True)
        console.print()
        console.print(_scores(report))
        console.print()
        console.print(Text(report.group_sentences[0]))
        if report.examined.classes:
            console.print()
            console.print(_classes(report.examined.classes))
        console.print(Text(drift_sentences(report.examined)[0]))
        console.print()
        console.print(_findings(report.by_kind))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def drift_sentences(examined: Examination) -> tuple[str, str]:
    """With what the table was compared, English and Chinese."""
    if examined.compared_rows is None:
        return (
            "No data was checked here before: drift will be told from the next table on.",
            "此前未在此检查过数据：从下一张表起将报告分布变化。",
        )
    moved = sum(item.kind in ("drift", "some_drift") for item in examined.findings)
    return (
        f"Compared with the last checked data ({examined.compared_rows} rows): "
        f"{moved} of {len(examined.index)} columns have drifted.",
        f"与上次检查的数据（{examined.compared_rows} 行）相比：{len(examined.index)} 列中有 "
        f"{moved} 列发生变化。",
    )


def bar(share: float) -> str:
    """A bar that is full only for a whole share and empty only for none."""
    full = min(int(BAR_CELLS * share), BAR_CELLS)
    return "█" * full + "·" * (BAR_CELLS - full)


def _scores(report: Report) -> Grid:
    grid = Grid(show_edge=False)
    grid.add_column("score")
    grid.add_column("of 100", justify="right")
    grid.add_column("")
    grid.add_column("what to fix", overflow="fold")
    for item in report.scores:
        fixes = "\n".join(english for english, _ in item.fixes)
        grid.add_row(item.dimension, f"{item.value:g}", bar(item.value / 100), Text(fixes))
    if not report.examined.dated:
        grid.add_row("timeliness", "-", "", Text(UNDATED[0]))
    return grid


def _classes(classes: dict[str, int]) -> Grid:
    total = sum(classes.values())
    grid = Grid(show_edge=False)
    grid.add_column("class", overflow="fold")
    grid.add_column("rows", justify="right")
    grid.add_column("")
    for name, count in classes.items():
        share = count / total if total else 0.0
        grid.add_row(Text(plain(name)), str(count), f"{bar(share)} {say_share(share)}")
    return grid


def _findings(kinds: list[list[Finding]]) -> Grid | Text:
    if not kinds:
        return Text("Nothing was found that needs a look.")
    grid = Grid(show_edge=False)
    grid.add_column("")
    grid.add_column(f"found ({sum(map(len, kinds))})", overflow="fold")
    for alike in kinds:
        for item in alike[:ALIKE_SHOWN]:
            grid.add_row(item.words.level, Text(item.english))
        if more := alike[ALIKE_SHOWN:]:
            names = ", ".join(plain(item.column) for item in more[:NAMES_SHOWN])
            rest = len(more) - NAMES_SHOWN
            names += f" and {rest} more (--format json has all)" * (rest > 0)
            grid.add_row("", Text(f"the same of {names}"))
    return grid
