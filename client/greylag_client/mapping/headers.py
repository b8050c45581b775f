"""Where a sheet's table begins, and what its columns are called.

Reports have titles above the table, two rows of headings, or a row of units. The row that names
most of what the plan wants is the header; the rows beside it are looked at for headings and units.
"""

import collections
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from greylag_client.mapping.cells import Cell, is_gap, plain, read_number
from greylag_client.mapping.reading import Sheet
from greylag_client.mapping.units import MAX_UNIT_LENGTH, parse_unit

SEARCHED_ROWS = 40
SEARCHED_COLUMNS, SEARCHED_DOWN = 5, 300  # of a table on its side
Known = Callable[[str], bool]

_BRACKETS = re.compile(r"[(\[{]([^()\[\]{}]*)[)\]}]")
_TOTAL = re.compile(  # what the first words of a row say that sums up others
    r"(?:.* )?(?:grand |sub-?)?totals?|sums?|means?|averages?|avg\.?|std\.?(?: ?dev\.?)?|summe|"
    r"mittelwert|min(?:imum)?|max(?:imum)?|"
    r".*(?:小计|合计|总计|汇总)|平均值?|均值|最大值|最小值|标准差"
)
# What stands behind a name without saying which thing it is.
_FILLERS = re.compile(
    r"(?i)(?<=\w)[\s_]*(含量|浓度|数值|平均值|平均|实测值|测定值|content|contents|conc\.?|value|mean|"
    r"avg|average|measured)\s*$"
)
_SPACED_SHARE = re.compile(r"(?i)\b((?:wt|mass|mol|vol|at)[.\-]{0,2})\s+%")
_BREAK = re.compile(r"\s*(?:[/,_:;]|\s)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its whole heading, the names that this may mean (the likeliest first), its unit
    as ``parse_unit`` spells it, and its cells."""

    label: str
    names: tuple[str, ...]
    unit: str | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A sheet's table.

    Attributes:
        header_rows: first and last row of the heading, counted from 1.
        numbers: the row of each row of cells, counted from 1 as a spreadsheet does.
        totals: rows that hold sums or means of others; they are no rows of cells.
        known: how many of the columns are names that were looked for.
    """

    sheet: Sheet
    header_rows: tuple[int, int]
    columns: tuple[Column, ...]
    numbers: tuple[int, ...]
    totals: tuple[int, ...]
    known: int


def locate(
    sheet: Sheet, known: Known, header_rows: tuple[int, int] | None = None
) -> Located | None:
    """The table of a sheet, or None if there is none. ``known`` tells names that are wanted."""
    rows = sheet.rows
    first, last = header_rows or _find_header(rows, known) or (0, 0)
    if not 1 <= first <= last <= len(rows):
        return None
    width = max(map(len, rows))
    filled = [
        number for number in range(last + 1, len(rows) + 1) if any(map(plain, rows[number - 1]))
    ]
    totals = tuple(number for number in filled if _is_total(rows[number - 1]))
    kept = [number for number in filled if number not in set(totals)]
    heads = [_spread(rows[number - 1], width) for number in range(first, last)]
    heads.append([plain(cell) for cell in _padded(rows[last - 1], width)])
    seen: collections.Counter[str] = collections.Counter()
    columns = []
    for index in range(width):
        parts = list(dict.fromkeys(head[index] for head in heads if head[index]))
        own = [_padded(rows[number - 1], width)[index] for number in range(first, last + 1)]
        if not any(map(plain, own)):
            continue  # a heading that was only spread over from the left
        label = " | ".join(parts)
        seen[label] += 1
        names, unit = split_heading(parts, known)
        columns.append(
            Column(
                label=label if seen[label] == 1 else f"{label} #{seen[label]}",
                names=names,
                unit=unit,
                cells=tuple(
                    rows[number - 1][index] if index < len(rows[number - 1]) else None
                    for number in kept
                ),
            )
        )
    return Located(
        sheet=sheet,
        header_rows=(first, last),
        columns=tuple(columns),
        numbers=tuple(kept),
        totals=totals,
        known=sum(any(map(known, column.names)) for column in columns),
    )


def names_down(sheet: Sheet, known: Known) -> int:
    """How many wanted names stand below each other at the left: a table on its side has them."""
    most = 0
    for index in range(SEARCHED_COLUMNS):
        column = [row[index] for row in sheet.rows[:SEARCHED_DOWN] if len(row) > index]
        texts = {plain(cell) for cell in column if isinstance(cell, str)} - {""}
        most = max(most, sum(any(map(known, _names_in(text, known))) for text in texts))
    return most


def split_heading(parts: Sequence[str], known: Known) -> tuple[tuple[str, ...], str | None]:
    """Names and unit of a column from its headings, the topmost first."""
    names: list[str] = []
    unit = None
    for part in reversed(parts):
        part = _SPACED_SHARE.sub(r"\1%", part)
        own = _unit_of(part, known)
        found = [] if own else _names_in(part, known)
        own = own or next((u for text in _unit_texts(part) if (u := _unit_of(text, known))), None)
        unit = unit or own
        names.extend(found)
    if len(parts) > 1:
        names.append(" ".join(parts))
    return tuple(dict.fromkeys(names)) or (" ".join(parts),), unit


def _unit_of(text: str, known: Known) -> str | None:
    return None if known(text) else parse_unit(text)


def _unit_texts(part: str) -> list[str]:
    """Where a heading may hold its unit: in brackets, or behind a stroke, a comma or a blank."""
    return [*_BRACKETS.findall(part), *(tail for _, tail in _tails(part))]


def _tails(part: str) -> list[tuple[str, str]]:
    """All ways to cut a heading into a name and what may be its unit, the longest unit first:
    units have strokes of their own."""
    cuts = ((part[: cut.start()], part[cut.end() :]) for cut in _BREAK.finditer(part))
    return [(head, tail) for head, tail in cuts if head and tail and " " not in tail]


def _names_in(part: str, known: Known) -> list[str]:
    """The names that one heading may mean: as it is, without its unit, what is in brackets, and
    its Chinese and its Latin half."""
    bare = _BRACKETS.sub(" ", part).strip(" /,:_") or part
    head = next((head for head, tail in _tails(bare) if _unit_of(tail, known)), None)
    if head is not None:
        bare = re.sub(r"\bin$", "", head.strip(" /,:_")).strip() or part
    inside = [text for text in _BRACKETS.findall(part) if not _unit_of(text, known)]
    short = _FILLERS.sub("", bare)
    halves = re.findall(r"[一-鿿]+|[A-Za-z][A-Za-z0-9.\- ]*", short)
    mixed = [half.strip() for half in halves] if re.search(r"[一-鿿]", short) else []
    names = [
        *([part] if known(part) else []),
        bare,
        short,
        *inside,
        *(mixed if len(mixed) == 2 else []),
    ]
    return [name for name in dict.fromkeys(names) if name.strip()]


def _find_header(rows: Sequence[Sequence[Cell]], known: Known) -> tuple[int, int] | None:
    """First and last row of the heading, from 1."""
    best, most = -1, 0
    for index, row in enumerate(rows[:SEARCHED_ROWS]):
        texts = {plain(cell) for cell in row} - {""}
        if len(texts) >= 2:
            count = sum(any(map(known, _names_in(text, known))) for text in texts)
            if count > most:
                best, most = index, count
    if best < 0:
        best = next((i for i, row in enumerate(rows[:SEARCHED_ROWS]) if _is_heading(row)), -1)
    if best < 0:
        return None
    first = best - 1 if best and _is_heading(rows[best - 1]) else best
    last = best + 1 if best + 1 < len(rows) and _is_unit_row(rows[best + 1], known) else best
    return first + 1, last + 1


def _is_heading(row: Sequence[Cell]) -> bool:
    """Text without numbers, of more than one sort."""
    texts = {plain(cell) for cell in row} - {""}
    return len(texts) >= 2 and not any(
        read_number(cell, ".").value is not None for cell in row if not is_gap(cell)
    )


def _is_unit_row(row: Sequence[Cell], known: Known) -> bool:
    texts = [plain(cell).strip("()") for cell in row if not is_gap(cell)]
    return bool(texts) and all(_unit_of(text, known) for text in texts)


def _is_total(row: Sequence[Cell]) -> bool:
    """Whether the first words of a row say that it sums up others."""
    for cell in row:
        if isinstance(cell, str) and not is_gap(cell) and read_number(cell, ".").unread:
            text = plain(cell[: MAX_UNIT_LENGTH * 2]).casefold().strip(" :()")
            return _TOTAL.fullmatch(text) is not None
    return False


def _spread(row: Sequence[Cell], width: int) -> list[str]:
    """A heading over several columns stands in the first of them alone in a text file."""
    filled: list[str] = []
    for cell in _padded(row, width):
        filled.append(plain(cell) or (filled[-1] if filled else ""))
    return filled


def _padded(row: Sequence[Cell], width: int) -> list[Cell]:
    return [*row, *[None] * (width - len(row))]
