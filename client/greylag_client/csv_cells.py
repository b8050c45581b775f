"""A CSV file's cells as text, before anything is known of what they mean.

Errors name columns and rows as a spreadsheet counts them, never values: they may end up in a log.
"""

import codecs
import collections
import csv
import gzip
import io
import shlex
import zlib
from pathlib import Path

import polars as pl
from greylag_protocols.data_terms import MISSING
from greylag_protocols.errors import ConfigError

ROWS_SHOWN = 5
NAME_SHOWN = 60
MAX_FILE_BYTES = 2 << 30


def read_cells(path: Path) -> pl.DataFrame:
    """A CSV file's cells as text, stripped; gaps are null.

    Raises:
        ConfigError: no such file, another format or encoding, ragged rows, a column name twice.
    """
    text = _read_text(path)
    header = _read_header(text, path.name)
    try:
        # With a byte order mark, or a table whose first column begins with "x^" would be unpacked.
        marked = io.BytesIO(codecs.BOM_UTF8 + text.encode())
        cells = pl.read_csv(
            marked, has_header=False, skip_rows=1, schema=dict.fromkeys(header, pl.String)
        )
    except pl.exceptions.NoDataError:
        cells = pl.DataFrame(schema=dict.fromkeys(header, pl.String))
    except pl.exceptions.PolarsError:  # its text may quote cells, so it is not passed on
        raise ConfigError(
            f"{path.name}: not a well-formed CSV file{_first_bad_row(text, len(header))}; each row "
            f"needs {len(header)} cells, quoted where they hold commas"
        ) from None
    return _drop_empty_end(_blank_to_null(cells))


def _read_text(path: Path) -> str:
    if not path.name.lower().endswith((".csv", ".csv.gz")):
        raise ConfigError(
            f"{path.name}: only .csv and .csv.gz are read here; make a table that fits of it with: "
            f"greylag-client map {shlex.quote(path.name)} --plan PLAN"
        )
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); check the path and file") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path.name}: larger than {MAX_FILE_BYTES >> 30} GiB; split the table")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path.name}: not UTF-8 (first seen in row {row}); save it as 'CSV UTF-8'"
        ) from None


def _read_header(text: str, what: str) -> list[str]:
    try:
        header = next(csv.reader(io.StringIO(text), strict=True), [])
    except csv.Error as error:
        raise ConfigError(f"{what}: the header row is not well-formed CSV ({error})") from None
    names = [name.strip() for name in header]
    if not any(names):
        raise ConfigError(f"{what}: empty; its first row must name the columns")
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise ConfigError(
            f"{what}: separated by semicolons or tabs; save it with commas (and decimal points)"
        )
    twice = sorted(name for name, times in collections.Counter(names).items() if times > 1)
    if twice:
        shown = ", ".join(repr(name[:NAME_SHOWN]) for name in twice[:ROWS_SHOWN])
        raise ConfigError(f"{what}: column names stand twice in the header: {shown}; rename them")
    return names


def _first_bad_row(text: str, width: int) -> str:
    row = 0
    try:
        for row, cells in enumerate(csv.reader(io.StringIO(text), strict=True), start=1):
            if len(cells) > width:
                return f" (row {row} has {len(cells)} cells)"
    except csv.Error:
        return f" (the quotes of row {row + 1} do not close)"
    return ""


def _drop_empty_end(cells: pl.DataFrame) -> pl.DataFrame:
    """Spreadsheets like to export empty rows below the last one."""
    filled = cells.select(~pl.all_horizontal(pl.all().is_null())).to_series().arg_true()
    return cells.head(int(filled[-1]) + 1 if len(filled) else 0)


def _blank_to_null(cells: pl.DataFrame) -> pl.DataFrame:
    stripped = pl.all().str.strip_chars()
    return cells.with_columns(stripped).with_columns(
        pl.when(pl.all().is_in(MISSING)).then(None).otherwise(pl.all()).name.keep()
    )
