"""The checks: pure functions from a table's cells and the plan's data section to findings."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from greylag_protocols.terms import DataTerms

from greylag_client.quality import copies
from greylag_client.quality.columns import Column, Numbers, read_columns, scaled_features
from greylag_client.quality.drift import (
    SOME_DRIFT,
    STRONG_DRIFT,
    TableSummary,
    stability_index,
    summarise,
)
from greylag_client.quality.findings import Finding, of_rows
from greylag_client.table import Table, with_declared_gaps

EDGE_SHARE = 0.02  # of the values at one end of the range, before it is worth a look
EDGE_ROWS = 3
RARE_CLASS = 0.02
LARGE_GROUP = 0.2
DATE_FORMATS = (  # what completes a text to a day, and how it then reads
    ("", "%Y-%m-%d"),
    ("", "%Y/%m/%d"),
    ("", "%Y.%m.%d"),
    ("", "%d.%m.%Y"),
    ("", "%Y年%m月%d日"),
    ("", "%Y%m%d"),
    ("-01", "%Y-%m-%d"),
    ("-01-01", "%Y-%m-%d"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dates:
    """How old a table's rows may be: its date column, the day to count from, and the age."""

    column: str
    today: date
    fresh_days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """What ``unit = "group"`` would protect: all rows of one group at once."""

    column: str
    count: int
    largest: int
    median: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """All that was found about one table.

    Attributes:
        train, holdout: rows on each side of the split; None if the table does not fit the plan.
        groups: None without a group column.
        classes: rows of each class of the plan, by its name; empty for a regression.
        index: the population stability index of each column, where there is a table before.
        dated: whether a date column was named.
    """

    rows: int
    train: int | None
    holdout: int | None
    columns: tuple[Column, ...]
    findings: tuple[Finding, ...]
    groups: Groups | None
    classes: dict[str, int]
    index: dict[str, float]
    compared_rows: int | None
    summary: TableSummary
    dated: bool

    @property
    def largest_group(self) -> int:
        return self.groups.largest if self.groups else min(self.rows, 1)


def examine(
    cells: pl.DataFrame,
    data: DataTerms,
    table: Table | None,
    *,
    dates: Dates | None = None,
    before: TableSummary | None = None,
) -> Examination:
    """Run all checks.

    Args:
        cells: text cells as ``read_cells`` gives them.
        table: the same rows once they fit the plan; None if they do not.
        before: the summary of the firm's last checked data.
    """
    cells = with_declared_gaps(cells, data)
    columns, absent = read_columns(cells, data)
    rows = cells.height
    findings = [Finding(kind="absent_column", column=name, count=rows, of=rows) for name in absent]
    for column in columns:
        findings += check_column(column)
    if data.group in cells.columns:
        gaps = cells[str(data.group)].is_null().to_numpy()
        findings += of_rows("missing", gaps, column=str(data.group))
    findings += of_rows("duplicate", copies.find_duplicates(columns, rows))
    findings += of_rows("contradiction", copies.find_contradictions(columns, rows))
    if table is not None:
        findings += check_split(cells, data, table, scaled_features(columns, rows))
    groups, sizes = _groups(cells, data)
    if groups is not None:
        findings += check_groups(data, groups, sizes)
    classes = _class_counts(data, columns)
    findings += check_classes(data, classes)
    index, found = check_drift(columns, before)
    findings += found
    if dates is not None and dates.column in cells.columns:
        findings += check_dates(cells[dates.column], dates)
    return Examination(
        rows=rows,
        train=None if table is None else len(table.train),
        holdout=None if table is None else len(table.holdout),
        columns=tuple(columns),
        findings=tuple(findings),
        groups=groups,
        classes=classes,
        index=index,
        compared_rows=None if before is None else before.rows,
        summary=summarise(columns, rows),
        dated=dates is not None,
    )


def check_column(column: Column) -> list[Finding]:
    """Gaps, unreadable and outlying values, piles at the range's ends, no variation."""
    name = column.name
    found = of_rows("missing", column.gaps, column=name)
    found += of_rows("unread", column.unread, column=name)
    found += of_rows("outside", column.outside, column=name)
    if column.role == "class":
        return found  # check_classes looks at these
    known = len(column.known)
    if column.constant:
        zero = not column.listed and column.low == 0 and column.known[0] == 0
        kind = "always_zero" if zero else "constant"
        return [*found, Finding(kind=kind, column=name, count=known, of=known)]
    for end in () if column.listed else (column.low, column.high):
        pile = column.values == end
        if not _is_natural(column, end) and pile.sum() >= max(EDGE_ROWS, EDGE_SHARE * known):
            found += of_rows("at_edge", pile, column=name, of=known)
    return found


def edge_share(column: Column) -> float:
    """Share of the values that stand exactly at an end of the public range, but for a natural
    zero."""
    if column.listed:
        return 0.0
    known = column.known
    ends = [end for end in (column.low, column.high) if not _is_natural(column, end)]
    return float(np.isin(known, ends).mean()) if len(known) else 0.0


def _is_natural(column: Column, end: float) -> bool:
    """Nothing of it, which is no instrument's limit."""
    return end == 0 and end == column.low


def check_split(
    cells: pl.DataFrame, data: DataTerms, table: Table, scaled: Numbers
) -> list[Finding]:
    """Rows that would be learned by heart on one side and scored on the other."""
    near = copies.find_near_copies(scaled, table.train, table.holdout)
    held_out = len(table.holdout)
    if data.group is not None:
        return of_rows("near_copy_between_groups", near, of=held_out)
    found = of_rows("near_copy", near, of=held_out)
    used = {*data.feature_names, *data.target_names}
    column = copies.suggest_group(cells, scaled, used)
    if column is not None:
        both = copies.on_both_sides(cells[column], table.train, table.holdout)
        found += of_rows("group_on_both_sides", both, column=column, of=held_out)
    return found


def check_groups(data: DataTerms, groups: Groups, sizes: list[int]) -> list[Finding]:
    """Groups so large that one of them is much of the table, or that the plan cuts."""
    found = []
    total = sum(sizes)
    if groups.largest > max(10, LARGE_GROUP * total):
        found.append(Finding(kind="large_group", count=groups.largest, of=total))
    most = data.max_records_per_group
    cut = sum(max(0, size - most) for size in sizes) if most is not None else 0
    if cut:
        found.append(Finding(kind="cut_group", count=cut, of=total))
    return found


def check_classes(data: DataTerms, classes: dict[str, int]) -> list[Finding]:
    """Classes that are absent or rare."""
    total = sum(classes.values())
    if not total:
        return []
    name = data.targets[0].name
    if max(classes.values()) == total:
        return [Finding(kind="one_class", column=name, count=total, of=total)]
    rarest = min(classes.values())
    if rarest < RARE_CLASS * total:
        return [Finding(kind="rare_class", column=name, count=rarest, of=total)]
    return []


def check_drift(
    columns: list[Column], before: TableSummary | None
) -> tuple[dict[str, float], list[Finding]]:
    """The stability index by column, and those beyond both the thresholds and chance."""
    index: dict[str, float] = {}
    found = []
    for column in columns:
        then = before.columns.get(column.name) if before else None
        if then is None:
            continue
        value, chance = stability_index(then, column)
        index[column.name] = value
        if value > max(SOME_DRIFT, chance):
            kind = "drift" if value > STRONG_DRIFT else "some_drift"
            rows = len(column.values)
            found.append(Finding(kind=kind, column=column.name, count=rows, of=rows, figure=value))
    return index, found


def check_dates(labels: pl.Series, dates: Dates) -> list[Finding]:
    """Rows without a date, with one to come, and with one too long ago."""
    parsed = pl.Series(labels.name, [None] * len(labels), dtype=pl.Date)
    days_alone = labels.str.replace(r"[T ]\d{1,2}:.*$", "")  # without a time of day
    for begun, form in DATE_FORMATS:
        parsed = parsed.fill_null((days_alone + begun).str.strptime(pl.Date, form, strict=False))
    ages = pl.Series([None if day is None else (dates.today - day).days for day in parsed])
    days = ages.cast(pl.Float64).fill_null(np.nan).to_numpy()
    name = dates.column
    found = of_rows("undated", np.isnan(days), column=name)
    found += of_rows("future", days < 0, column=name)
    old = days > dates.fresh_days
    if old.any():
        count = int(old.sum())
        limit = float(dates.fresh_days)
        found.append(Finding(kind="stale", column=name, count=count, of=len(days), figure=limit))
    return found


def _groups(cells: pl.DataFrame, data: DataTerms) -> tuple[Groups | None, list[int]]:
    if data.group is None or data.group not in cells.columns:
        return None, []
    sizes = copies.group_sizes(cells[data.group])
    if not sizes:
        return None, []
    groups = Groups(
        column=data.group,
        count=len(sizes),
        largest=sizes[0],
        median=float(np.median(sizes)),
    )
    return groups, sizes


def _class_counts(data: DataTerms, columns: list[Column]) -> dict[str, int]:
    for column in columns:
        if column.role == "class":
            labels = data.targets[0].classes or ()
            counts = np.bincount(column.known.astype(int), minlength=len(labels))
            return dict(zip(labels, counts.tolist(), strict=True))
    return {}
