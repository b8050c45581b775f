"""The clean table that a mapping makes, and everything that was done on the way, by count and row.

Notes name columns and rows, never values.
"""

import csv
import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass

from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import DataTerms

from greylag_client.mapping.cells import declared_gaps, is_gap, plain, read_numbers
from greylag_client.mapping.document import Mapping, Rule
from greylag_client.mapping.headers import Column, Located
from greylag_client.mapping.matching import labels_of, share_names
from greylag_client.mapping.questions import counted, shortened

SOURCE_ROW = "source_row"  # a column more, so that every row can be found in the firm's own file
WHOLE = 0.5  # percent that a recipe's sum may be off 100 unmentioned
_RECIPE = 10.0  # percent within which shares are a whole recipe at all, and may be scaled
_ROWS_SHOWN = 5

Values = list[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanTable:
    """The table as CSV text, and what was done.

    Attributes:
        rows: how many rows it has.
        left_out: how many rows of the source it lacks.
        off_whole: how many of its rows had shares that do not add up to 100.
    """

    text: str
    rows: int
    left_out: int
    off_whole: int
    notes: tuple[str, ...]


def apply_mapping(located: Located, mapping: Mapping, data: DataTerms) -> CleanTable:
    """Make the clean table.

    Raises:
        ConfigError: the mapping is for another plan or table, or no row is left.
    """
    _check_fits(mapping, data)
    _check_texts(mapping, data)
    columns = {column.label: column for column in located.columns}
    notes = _notes_on_rows(located)
    texts: dict[str, list[str]] = {}
    numbers: dict[str, Values] = {}
    for rule in mapping.columns:
        column = _source_of(rule, columns)
        if rule.text:
            texts[rule.name] = _texts(column, data, rule.name, located.numbers)
        else:
            numbers[rule.name] = _values(
                rule, column, mapping, located.numbers, data.missing_values, notes
            )
    _keep_empty_recipes(numbers, mapping, columns, share_names(data))
    kept = _kept_rows(texts, numbers, data, located.numbers, notes)
    if not kept:
        raise ConfigError(
            "no row of the table can be used:\n  "
            + "\n  ".join(notes)
            + "\ncorrect mapping or table"
        )
    shares = [name for name in share_names(data) if name in numbers]
    off = _level(numbers, shares, kept, located.numbers, mapping.normalise, notes)
    names = [*([data.group] if data.group else []), *data.feature_names, *data.target_names]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    extra = [] if SOURCE_ROW in names else [SOURCE_ROW]
    writer.writerow([*names, *extra])
    for row in kept:
        cells = [texts[n][row] if n in texts else _written(numbers[n][row]) for n in names]
        writer.writerow([*cells, *([located.numbers[row]] if extra else [])])
    return CleanTable(
        text=file.getvalue(),
        rows=len(kept),
        left_out=len(located.numbers) + len(located.totals) - len(kept),
        off_whole=off,
        notes=tuple(notes),
    )


def _notes_on_rows(located: Located) -> list[str]:
    """What a person may not expect of whole rows."""
    notes = []
    if located.totals:
        at = _rows(range(len(located.totals)), located.totals)
        notes.append(f"left out: {counted(len(located.totals), 'row')} of sums or means ({at})")
    if unsaved := located.sheet.unsaved:
        notes.append(
            f"{counted(unsaved, 'formula')} without a value, read as gaps; open the file in a "
            "spreadsheet program and save it"
        )
    hidden = [number for number in located.numbers if number in located.sheet.hidden]
    if hidden:
        at = _rows(range(len(hidden)), hidden)
        notes.append(
            f"hidden in the sheet, read all the same: {counted(len(hidden), 'row')} ({at})"
        )
    return notes


def _check_fits(mapping: Mapping, data: DataTerms) -> None:
    if mapping.standard != data.standard:
        raise ConfigError(
            f"the mapping is for {mapping.standard!r}, the plan wants {data.standard!r}; leave "
            "--mapping out to make a new one"
        )
    named = [rule.name for rule in mapping.columns]
    wanted = [*([data.group] if data.group else []), *data.target_names, *data.feature_names]
    if sorted(named) != sorted(wanted):
        odd = sorted(set(named) ^ set(wanted)) or sorted({n for n in named if named.count(n) > 1})
        raise ConfigError(
            f"the mapping needs each column of the plan once; see to {shortened(odd)}"
        )


def _check_texts(mapping: Mapping, data: DataTerms) -> None:
    texts = {data.group, *labels_of(data)}
    odd = [rule.name for rule in mapping.columns if rule.text != (rule.name in texts)]
    if odd:
        raise ConfigError(
            f"the mapping takes {shortened(odd)} for the wrong kind; `text = true` belongs to the "
            "group, to classes and to categories, and to them alone"
        )


def _source_of(rule: Rule, columns: dict[str, Column]) -> Column | None:
    if rule.source is None:
        return None
    if rule.source not in columns:
        near = difflib.get_close_matches(rule.source, columns, n=1, cutoff=0.4)
        hint = f"; is it {near[0]!r} now?" if near else ""
        raise ConfigError(
            f"the table has no column {rule.source!r}, from which the mapping takes "
            f"{rule.name!r}{hint} Correct `source` in the mapping"
        )
    return columns[rule.source]


def _texts(
    column: Column | None, data: DataTerms, name: str, row_numbers: Sequence[int]
) -> list[str]:
    if column is None:
        return [str(number) if name == data.group else "" for number in row_numbers]
    labels = labels_of(data).get(name, {})
    texts = []
    for cell in column.cells:
        text = plain(cell)
        # First the plan's own names: one of them may be "none".
        known = labels.get(text) or labels.get(text.casefold())
        gap = is_gap(cell) or text in data.missing_values
        texts.append(known or ("" if gap else text))
    return texts


def _values(
    rule: Rule,
    column: Column | None,
    mapping: Mapping,
    row_numbers: Sequence[int],
    missing_values: Sequence[str],
    notes: list[str],
) -> Values:
    if column is None:
        return [rule.constant] * len(row_numbers)
    # Before anything is converted: -99 in degrees Celsius would become a temperature.
    declared = declared_gaps(column.cells, mapping.decimal, missing_values)
    read = read_numbers(
        [None if row in declared else cell for row, cell in enumerate(column.cells)],
        mapping.decimal,
    )
    if read.below:
        notes.append(f"{column.label!r}: {counted(read.below, 'cell')} '<x' became half of x")
    if read.about:
        notes.append(f"{column.label!r}: {counted(read.about, 'cell')} '>x' or '~x' became x")
    if read.unread:
        at = _rows(read.unread, row_numbers)
        notes.append(
            f"{column.label!r}: {counted(len(read.unread), 'cell')} without a number ({at})"
        )
    gap = 0.0 if rule.gaps == "zero" else None
    unread = {*read.unread, *declared}
    return [
        value * rule.factor + rule.offset if value is not None else (None if row in unread else gap)
        for row, value in enumerate(read.values)
    ]


def _keep_empty_recipes(
    numbers: dict[str, Values], mapping: Mapping, columns: dict[str, Column], shares: Sequence[str]
) -> None:
    """An empty cell is a zero only beside other parts of a recipe, not in a row without one."""
    filled = [rule for rule in mapping.columns if rule.gaps == "zero" and rule.name in shares]
    parts = [
        columns[rule.source].cells
        for rule in mapping.columns
        if rule.source is not None and rule.name in shares
    ]
    for row, cells in enumerate(zip(*parts, strict=True)):
        if all(map(is_gap, cells)):
            for rule in filled:
                numbers[rule.name][row] = None


def _kept_rows(
    texts: dict[str, list[str]],
    numbers: dict[str, Values],
    data: DataTerms,
    row_numbers: Sequence[int],
    notes: list[str],
) -> list[int]:
    """The rows that the plan can use; the others are counted and named."""
    kept = list(range(len(row_numbers)))
    lacks_targets = [
        row
        for row in kept
        if not any(
            texts[name][row] if name in texts else numbers[name][row] is not None
            for name in data.target_names
        )
    ]
    lacks_group = [row for row in kept if data.group and not texts[data.group][row]]
    needed = [n for n, may in zip(data.feature_names, data.may_miss, strict=True) if not may]
    lacks_features = [
        row
        for row in kept
        if any(not texts[n][row] if n in texts else numbers[n][row] is None for n in needed)
    ]
    gone: set[int] = set()
    for what, rows in (
        ("any target", lacks_targets),
        (f"a group ({data.group!r})", lacks_group),
        ("all features, which the plan does not accept", lacks_features),
    ):
        new = [row for row in rows if row not in gone]
        if new:
            at = _rows(new, row_numbers)
            notes.append(f"left out: {counted(len(new), 'row')} without {what} ({at})")
        gone.update(new)
    return [row for row in kept if row not in gone]


def _level(
    numbers: dict[str, Values],
    shares: Sequence[str],
    kept: Sequence[int],
    row_numbers: Sequence[int],
    normalise: bool,
    notes: list[str],
) -> int:
    """Say which recipes do not add up to 100, and scale them if the person agreed."""
    sums = {row: sum(numbers[name][row] or 0.0 for name in shares) for row in kept}
    recipes = sum(abs(total - 100) <= _RECIPE for total in sums.values())
    if len(shares) < 2 or recipes * 2 < len(kept):
        return 0  # shares of different things, or doses on top of a recipe: no whole to speak of
    off = [row for row, total in sums.items() if abs(total - 100) > WHOLE]
    far = [row for row in off if abs(sums[row] - 100) > _RECIPE]
    if not off:
        return 0
    if normalise:
        scaled = [row for row in off if row not in set(far)]
        for row in scaled:
            for name in shares:
                value = numbers[name][row]
                numbers[name][row] = None if value is None else value * 100 / sums[row]
        notes.append(f"shares scaled to add up to 100: {counted(len(scaled), 'row')}")
    else:
        notes.append(
            f"shares do not add up to 100 within {WHOLE:g}: {counted(len(off), 'row')} "
            f"({_rows(off, row_numbers)}); correct them, or scale them with --normalise"
        )
    if far:
        notes.append(
            f"shares off by more than {_RECIPE:g}, never scaled: {counted(len(far), 'row')} "
            f"({_rows(far, row_numbers)}); something is missing or in another unit"
        )
    return len(off)


def _rows(rows: Sequence[int], row_numbers: Sequence[int]) -> str:
    shown = ", ".join(str(row_numbers[row]) for row in rows[:_ROWS_SHOWN])
    return f"row {shown}{', ...' if len(rows) > _ROWS_SHOWN else ''}"


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"
