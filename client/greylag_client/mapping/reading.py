"""A file's cells as they stand: Excel, Parquet, or CSV in whatever encoding and with any separator.

Nothing is decided here about what they mean. A CSV file whose separator is not certain comes as
several sheets, one for each reading; which of them is the table shows when names are matched.
"""

import csv
import io
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import ParseError  # nothing is parsed with it here

import openpyxl  # type: ignore[import-untyped]
import polars as pl
from greylag_protocols.errors import ConfigError

from greylag_client.mapping.cells import Cell, Percent
from greylag_client.table import MAX_FILE_BYTES

Kind = Literal["csv", "excel", "parquet"]
SEPARATORS = (",", ";", "\t", "|")
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "cp1252")
_KINDS: dict[str, Kind] = {
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Cells row by row; rows may differ in length.

    Attributes:
        name: the sheet's name in a workbook, empty otherwise.
        encoding, separator: how a text file was read, empty otherwise.
    """

    kind: Kind
    rows: list[list[Cell]]
    name: str = ""
    encoding: str = ""
    separator: str = ""


def read_sheets(
    path: Path, *, name: str = "", encoding: str = "", separator: str = ""
) -> list[Sheet]:
    """Every sheet that a file may hold, or the one asked for.

    Raises:
        ConfigError: no such file, an unknown format, a broken file, or no such sheet.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        hint = "; save it as .xlsx" if path.suffix.lower() in (".xls", ".ods", ".et") else ""
        raise ConfigError(
            f"{path.name}: {path.suffix or 'a file without ending'} is not read{hint}; known are "
            f"{', '.join(_KINDS)}"
        )
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if 0 < size <= MAX_FILE_BYTES else b""
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if not raw:
        raise ConfigError(
            f"{path.name}: {'empty' if not size else 'larger than 2 GiB'}; export the table again"
        )
    if kind == "parquet":
        return [_read_parquet(raw, path.name)]
    if kind == "excel":
        return _read_workbook(raw, path.name, name)
    return _read_text(raw, path.name, encoding, separator)


def _read_parquet(raw: bytes, what: str) -> Sheet:
    try:
        frame = pl.read_parquet(io.BytesIO(raw))
    except (pl.exceptions.PolarsError, OSError):  # its text may quote what is in the file
        raise ConfigError(f"{what}: not a Parquet file; export it again") from None
    rows: list[list[Cell]] = [list(frame.columns)]
    rows.extend([_to_cell(value) for value in row] for row in frame.iter_rows())
    return Sheet(kind="parquet", rows=rows)


def _read_workbook(raw: bytes, what: str, name: str) -> list[Sheet]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lists and colours that are of no use here
            book = openpyxl.load_workbook(io.BytesIO(raw), data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, TypeError, ParseError):
        raise ConfigError(
            f"{what}: not a workbook that can be opened (old, damaged or with a password); open it "
            "in a spreadsheet program and save it as .xlsx without a password"
        ) from None
    sheets = [sheet for sheet in book.worksheets if name in ("", sheet.title)]
    if not sheets:
        titles = ", ".join(repr(sheet.title) for sheet in book.worksheets[:12])
        raise ConfigError(f"{what}: no sheet {name!r}; it has {titles}")
    # Hidden sheets hold drafts and lists of choices; they count only if they are asked for.
    seen = [sheet for sheet in sheets if name or sheet.sheet_state == "visible"] or sheets
    return [Sheet(kind="excel", name=sheet.title, rows=_rows_of(sheet)) for sheet in seen]


def _rows_of(sheet: Any) -> list[list[Cell]]:
    rows = [[_excel_cell(cell) for cell in row] for row in sheet.iter_rows()]
    for area in sheet.merged_cells.ranges:  # all of a merged area is what its first cell says
        top, left = area.min_row - 1, area.min_col - 1
        for row in rows[top : area.max_row]:
            row[left : area.max_col] = [rows[top][left]] * (area.max_col - left)
    return rows


def _excel_cell(cell: Any) -> Cell:
    value = _to_cell(cell.value)
    if isinstance(value, int | float) and "%" in str(cell.number_format):
        return Percent(float(f"{value * 100:.12g}"))
    return value


def _to_cell(value: object) -> Cell:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return str(value)


def _read_text(raw: bytes, what: str, encoding: str, separator: str) -> list[Sheet]:
    if encoding and encoding not in ENCODINGS:
        raise ConfigError(f"{what}: encoding {encoding!r} is not one of {', '.join(ENCODINGS)}")
    found = encoding or _encoding_of(raw, what)
    try:
        text = raw.decode(found)
    except UnicodeDecodeError:
        raise ConfigError(f"{what}: not {found} text; save it as 'CSV UTF-8'") from None
    sheets = []
    for mark in [separator] if separator else SEPARATORS:
        head = list(_parse(text[:20_000], mark, what, strict=False))
        if separator or any(len(row) > 1 for row in head):
            rows: list[list[Cell]] = [list(row) for row in _parse(text, mark, what)]
            sheets.append(Sheet(kind="csv", rows=rows, encoding=found, separator=mark))
    if not sheets:
        raise ConfigError(
            f"{what}: its cells are separated by none of comma, semicolon, tab or |; export the "
            "table again"
        )
    return sheets


def _parse(text: str, mark: str, what: str, *, strict: bool = True) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text), delimiter=mark)
    except csv.Error as error:
        if strict:
            raise ConfigError(
                f"{what}: not a well-formed text table ({error}); export it again"
            ) from None


def _encoding_of(raw: bytes, what: str) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    head = raw[:4096]
    # Without a mark, every second byte of digits and commas in UTF-16 is zero.
    if head[1::2].count(0) > len(head) // 4:
        return "utf-16-le"
    if head[0::2].count(0) > len(head) // 4:
        return "utf-16-be"
    for encoding in ("utf-8-sig", _national(raw)):
        try:
            raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    raise ConfigError(f"{what}: its encoding is not known; save it as 'CSV UTF-8'")


def _national(raw: bytes) -> str:
    """GB18030 or the Western cp1252. Both read nearly anything, but Chinese characters are pairs
    of high bytes, while a degree sign or an umlaut stands alone."""
    high = [byte >= 0x80 for byte in raw[:1_000_000]]
    alone = sum(
        here and not before and not after
        for before, here, after in zip([False, *high], high, [*high[1:], False], strict=False)
    )
    return "cp1252" if alone > sum(high) / 2 else "gb18030"
