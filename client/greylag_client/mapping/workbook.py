"""Sheets of a workbook. Its parts are measured before anything is built of them: a few bytes can
name a billion cells, and a small archive can hold far more text than memory."""

import io
import re
import warnings
import zipfile
from dataclasses import dataclass
from typing import Any
from xml.parsers import expat  # entities are refused below, before one is expanded

import openpyxl  # type: ignore[import-untyped]
from greylag_protocols.errors import ConfigError
from openpyxl.utils import column_index_from_string  # type: ignore[import-untyped]

from greylag_client.mapping.cells import Cell, Percent, to_cell
from greylag_client.mapping.limits import MAX_BYTES, MAX_CELLS

_CHUNK = 1 << 16
_PLACE = re.compile(r"\$?([A-Z]{1,3})\$?(\d{1,7})")
_AREAS = ("mergeCell", "hyperlink", "comment")  # whose cells are all made when they are read


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One sheet.

    Attributes:
        hidden: numbers of the rows that are not shown, from 1.
        unsaved: formulas without a value, in the whole workbook.
    """

    title: str
    rows: list[list[Cell]]
    hidden: frozenset[int]
    unsaved: int


def read_workbook(raw: bytes, what: str, name: str) -> list[Page]:
    """All sheets that are shown, or the one asked for.

    Raises:
        ConfigError: no workbook, no such sheet, or too much of it.
    """
    try:
        extent = _measure(raw, what)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lists and colours that are of no use here
            book = openpyxl.load_workbook(io.BytesIO(raw), data_only=True, keep_links=False)
    except ConfigError:
        raise
    except Exception:  # noqa: BLE001 - whatever a damaged part makes zipfile and openpyxl trip over
        raise ConfigError(
            f"{what}: not a workbook that can be opened (old, damaged or with a password); open it "
            "in a spreadsheet program and save it as .xlsx without a password"
        ) from None
    sheets = [sheet for sheet in book.worksheets if name in ("", sheet.title)]
    if not sheets:
        titles = ", ".join(repr(sheet.title) for sheet in book.worksheets[:12])
        raise ConfigError(f"{what}: no sheet {name!r}; it has {titles or 'none'}")
    # Hidden sheets hold drafts and lists of choices; they count only if they are asked for.
    seen = [sheet for sheet in sheets if name or sheet.sheet_state == "visible"] or sheets
    return [_read(sheet, extent) for sheet in seen]


def _read(sheet: Any, extent: "_Extent") -> Page:
    last = {"max_row": max(extent.row, 1), "max_col": max(extent.column, 1)}
    rows = [[_value(cell) for cell in row] for row in sheet.iter_rows(**last)]
    for area in sheet.merged_cells.ranges:  # all of a merged area is what its first cell says
        top, left = area.min_row - 1, area.min_col - 1
        if top < len(rows) and left < len(rows[top]):
            for row in rows[top : area.max_row]:
                width = min(area.max_col, len(row)) - left
                row[left : left + width] = [rows[top][left]] * width
    hidden = frozenset(at for at, row in sheet.row_dimensions.items() if row.hidden)
    return Page(title=sheet.title, rows=rows, hidden=hidden, unsaved=extent.unsaved)


def _value(cell: Any) -> Cell:
    value = to_cell(cell.value)
    if isinstance(value, int | float) and "%" in str(cell.number_format):
        return Percent(float(f"{value * 100:.12g}"))
    return value


def _measure(raw: bytes, what: str) -> "_Extent":
    """How far the cells reach, over all parts.

    Raises:
        ConfigError: farther, or more, than is read.
    """
    extent = _Extent(what)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        if sum(part.file_size for part in archive.infolist()) > MAX_BYTES:
            raise ConfigError(
                f"{what}: unpacked it holds more than {MAX_BYTES >> 20} MiB; save the one sheet "
                "that matters as a workbook of its own"
            )
        for part in archive.infolist():
            with archive.open(part) as file:
                extent.scan(file)
    return extent


class _Extent:
    """What the XML of a workbook speaks of, counted without building anything.

    Attributes:
        row, column: the last ones with a value, over all sheets.
        unsaved: formulas without a value.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.row = self.column = self.unsaved = 0
        self._cells = self._area = 0

    def scan(self, file: Any) -> None:
        """One part; what is no XML, such as a picture, has no cells."""
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse_entities
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._read
        parser.buffer_text = True
        self._at_row = self._at_column = 0
        self._formula = self._filled = self._inside = False
        try:
            while chunk := file.read(_CHUNK):
                parser.Parse(chunk)
        except expat.ExpatError:
            return

    def _refuse_entities(self, *_: object) -> None:
        raise ConfigError(
            f"{self._what}: its XML declares entities, as no spreadsheet program does"
        )

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        if name == "row":
            number = attributes.get("r", "")
            known = number.isascii() and number.isdigit() and len(number) < 10
            self._at_row = int(number) if known else self._at_row + 1
            self._at_column = 0
        elif name == "c":
            place = _PLACE.fullmatch(attributes.get("r", ""))
            if place:
                self._at_row = int(place[2])
                self._at_column = column_index_from_string(place[1])
            else:
                self._at_column += 1
            self._formula = self._filled = False
            self._cells += 1
            self._check(self._cells)
        elif name in ("v", "t"):
            self._inside = True
        elif name == "f":
            self._formula = True
        elif name in _AREAS:
            self._area += _area_of(attributes.get("ref", ""))
            self._check(self._area)

    def _read(self, text: str) -> None:
        self._filled |= self._inside

    def _end(self, tag: str) -> None:
        name = tag.rpartition(":")[2]
        if name in ("v", "t"):
            self._inside = False
        elif name == "c":
            self.unsaved += self._formula and not self._filled
            if self._filled:
                self.row = max(self.row, self._at_row)
                self.column = max(self.column, self._at_column)
                self._check(self.row * self.column)

    def _check(self, cells: int) -> None:
        if cells > MAX_CELLS:
            raise ConfigError(
                f"{self._what}: it reaches over more than {MAX_CELLS:,} cells; delete what stands "
                "far from the table, or save the table as a workbook of its own"
            )


def _area_of(reference: str) -> int:
    """How many cells an area has."""
    ends = [_PLACE.fullmatch(end) for end in reference.upper().split(":")]
    places = [(int(end[2]), column_index_from_string(end[1])) for end in ends if end]
    if len(places) < len(ends) or not places:
        return MAX_CELLS + 1 if ":" in reference else 1  # whole rows and columns
    (top, left), (bottom, right) = places[0], places[-1]
    area: int = (abs(bottom - top) + 1) * (abs(right - left) + 1)
    return area
