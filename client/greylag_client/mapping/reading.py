"""A table's cells as they stand: Excel, Parquet, CSV in whatever encoding and with any separator.

Nothing is decided here about what they mean. A CSV file whose separator is not certain comes as
several sheets, one for each reading; which of them is the table shows when names are matched.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from greylag_protocols.errors import ConfigError

from greylag_client.mapping.cells import Cell, to_cell
from greylag_client.mapping.limits import MAX_BYTES, MAX_CELLS, MAX_TEXT
from greylag_client.mapping.workbook import read_workbook

Kind = Literal["csv", "excel", "parquet", "sql"]
Separator = Literal["", ",", ";", "\t", "|"]  # none where the format has none
SEPARATORS: tuple[Separator, ...] = (",", ";", "\t", "|")
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
        hidden: numbers of rows that a workbook does not show.
        unsaved: formulas of a workbook that no spreadsheet program has computed yet.
    """

    kind: Kind
    rows: list[list[Cell]]
    name: str = ""
    encoding: str = ""
    separator: Separator = ""
    hidden: frozenset[int] = frozenset()
    unsaved: int = 0


def read_sheets(
    path: Path, *, name: str = "", encoding: str = "", separator: Separator = ""
) -> list[Sheet]:
    """Every sheet that a file may hold, or the one asked for.

    Raises:
        ConfigError: no such file, an unknown format, a broken file, or no such sheet.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        hint = {
            **dict.fromkeys((".xls", ".ods", ".et"), "; save it as .xlsx"),
            **dict.fromkeys((".db", ".sqlite", ".sqlite3"), "; a database is named sqlite:///FILE"),
        }.get(path.suffix.lower(), "")
        raise ConfigError(
            f"{path.name}: {path.suffix or 'a file without ending'} is not read{hint}; known are "
            f"{', '.join(_KINDS)}"
        )
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if 0 < size <= MAX_BYTES else b""
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if not raw:
        raise ConfigError(
            f"{path.name}: larger than {MAX_BYTES >> 20} MiB; leave out what is not needed"
            if size
            else f"{path.name}: empty; export the table again"
        )
    if kind == "parquet":
        return [_read_parquet(raw, path.name)]
    if kind == "excel":
        pages = read_workbook(raw, path.name, name)
        return [
            Sheet(
                kind="excel",
                name=page.title,
                rows=page.rows,
                hidden=page.hidden,
                unsaved=page.unsaved,
            )
            for page in pages
        ]
    return _read_text(raw, path.name, encoding, separator)


def _read_parquet(raw: bytes, what: str) -> Sheet:
    try:
        # Lengths first: a few bytes can stand for a billion equal rows.
        lazy = pl.scan_parquet(io.BytesIO(raw))
        width, height = len(lazy.collect_schema()), lazy.select(pl.len()).collect().item()
        _check_cells(width * height, what)
        frame = lazy.with_columns(pl.col(pl.String).str.head(MAX_TEXT)).collect()
    # Its text may quote what is in the file; damaged lengths make it panic.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        raise ConfigError(f"{what}: not a Parquet file; export it again") from None
    rows: list[list[Cell]] = [list(frame.columns)]
    rows.extend([to_cell(value) for value in row] for row in frame.iter_rows())
    return Sheet(kind="parquet", rows=rows)


def _read_text(raw: bytes, what: str, encoding: str, separator: Separator) -> list[Sheet]:
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
    cells = 0
    try:
        for row in csv.reader(io.StringIO(text), delimiter=mark):
            cells += len(row) + 1
            _check_cells(cells, what)
            yield [cell[:MAX_TEXT] for cell in row]
    except csv.Error as error:
        if strict:
            raise ConfigError(
                f"{what}: not a well-formed text table ({error}); export it again"
            ) from None


def _check_cells(number: int, what: str) -> None:
    if number > MAX_CELLS:
        raise ConfigError(
            f"{what}: more than {MAX_CELLS:,} cells; leave out columns and rows that are not needed"
        )


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
