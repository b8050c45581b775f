"""Numbers as people write them in tables: decimal commas, "<0.1", percent signs, ways to say none.

A spreadsheet's own numbers arrive as numbers and are never guessed at; only text is.
"""

import collections
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from greylag_client.mapping.limits import MAX_TEXT

Cell = str | float | int | None
DecimalMark = Literal[".", ","]

_GAP_WORDS = (
    "na n/a n.a. n.a nan null none nil - -- --- / . ? ... #n/a #value! #div/0! #ref! #name? #num! "
    "#null! nd n.d. n.d nm n.m. tbd tr trace 无 无数据 未测 未检测 未检出 未知 缺失 待测 空 痕量 "
    "微量"
)
GAPS = frozenset(_GAP_WORDS.split())
_NUMBER = re.compile(
    r"(?P<sign>[<>≤≥~≈]{0,2}=?)\s*"
    r"(?P<digits>[+-]?(?:\d[\d.,'’ ]*|[.,]\d+)(?:[eE][+-]?\d+)?)"
    r"\s*(?:(?:±|\+/-|\+-)\s*[\d.,]+)?\s*(?P<unit>[^\d\s<>≤≥~≈.,;+-][^\d<>≤≥~≈;]{0,11}\d?)?"
)
_COMMA_MARK = re.compile(r"\d,\d{1,2}(?!\d)|\d,\d{4,}|\d\.\d{3},\d|(?<!\d)0,\d")
_POINT_MARK = re.compile(r"\d\.\d{1,2}(?!\d)|\d\.\d{4,}|\d,\d{3}\.\d|(?<!\d)0\.\d")


class Percent(float):
    """A number that a spreadsheet shows with a percent sign, already times 100."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One cell as a number. ``value`` is None for a gap and for text that is no number."""

    value: float | None = None
    sign: str = ""
    unit: str = ""
    unread: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A column of numbers, and what had to be decided to get them.

    Attributes:
        values: one per row; None where a gap or an unread text is.
        below: how many "<x" became half of x.
        about: how many ">x", "~x" became x.
        unread: row numbers (from 0) of text that is no number.
        units: units written behind numbers, with how often.
    """

    values: tuple[float | None, ...]
    below: int
    about: int
    unread: tuple[int, ...]
    units: collections.Counter[str]


def to_cell(value: object) -> Cell:
    """What a file or a driver gives, as a cell; arrays and binary values become text."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    if isinstance(value, Decimal):
        whole = value.is_finite() and value.adjusted() < 30 and value == value.to_integral_value()
        return int(value) if whole else float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[: MAX_TEXT // 2]).hex()
    return str(value)[:MAX_TEXT]


def plain(cell: Cell) -> str:
    """A cell as text: one width of characters, single blanks, whole numbers without a point."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    text = str(cell)
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    text = unicodedata.normalize("NFKC", text).replace("−", "-")
    # Control characters would end up in file names of errors, TOML and the clean table.
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def is_gap(cell: Cell) -> bool:
    """Whether a cell says that there is nothing."""
    if isinstance(cell, float):
        return cell != cell
    text = plain(cell)
    return not text or text.casefold() in GAPS or set(text) <= {"-", "–", "—", "_"}


def decimal_mark(cells: Iterable[Cell]) -> DecimalMark:
    """Which mark the texts among the cells use, by the cells that allow one reading only."""
    comma = point = 0
    for cell in cells:
        if isinstance(cell, str):
            comma += bool(_COMMA_MARK.search(cell))
            point += bool(_POINT_MARK.search(cell))
    return "," if comma > point else "."


def read_number(cell: Cell, mark: DecimalMark) -> Reading:
    """A cell as a number, with its sign ("<") and the unit behind it if it has any."""
    if is_gap(cell):
        return Reading()
    if isinstance(cell, int | float):
        value = float(cell)
        if not math.isfinite(value):
            return Reading(unread=True)
        return Reading(value=value, unit="%" if isinstance(cell, Percent) else "")
    match = _NUMBER.fullmatch(plain(cell))
    number = None if match is None else _to_float(match["digits"].strip(), mark)
    if match is None or number is None or not math.isfinite(number):
        return Reading(unread=True)
    return Reading(value=number, sign=match["sign"], unit=(match["unit"] or "").strip())


def read_numbers(cells: Sequence[Cell], mark: DecimalMark) -> Numbers:
    """A whole column; "<x" is half of x."""
    below = about = 0
    values: list[float | None] = []
    unread = []
    units: collections.Counter[str] = collections.Counter()
    for row, cell in enumerate(cells):
        reading = read_number(cell, mark)
        value = reading.value
        if reading.unread:
            unread.append(row)
        if reading.unit:
            units[reading.unit] += 1
        if value is not None and reading.sign[:1] in ("<", "≤"):
            below += 1
            value /= 2
        elif reading.sign:
            about += 1
        values.append(value)
    return Numbers(
        values=tuple(values), below=below, about=about, unread=tuple(unread), units=units
    )


def declared_gaps(
    cells: Sequence[Cell], mark: DecimalMark, missing_values: Sequence[str]
) -> frozenset[int]:
    """Rows (from 0) of a column of numbers whose cells the plan declares missing: so written, or
    the same number."""
    if not missing_values:
        return frozenset()
    numbers = {read_number(text, ".").value for text in missing_values} - {None}
    return frozenset(
        row
        for row, cell in enumerate(cells)
        if plain(cell) in missing_values
        or (numbers and not is_gap(cell) and read_number(cell, mark).value in numbers)
    )


def _to_float(digits: str, mark: DecimalMark) -> float | None:
    thousands = "." if mark == "," else ","
    whole, _, rest = digits.partition(mark)
    # A separator stands before every three digits of the whole part; anything else is no number.
    if re.search(rf"[{thousands}'’ ]", digits) and not re.fullmatch(
        rf"[+-]?\d{{1,3}}(?:[{thousands}'’ ]\d{{3}})+", whole
    ):
        return None
    text = re.sub(rf"[{thousands}'’ ]", "", whole) + ("." + rest if rest else "")
    try:
        return float(text)
    except ValueError:
        return None
