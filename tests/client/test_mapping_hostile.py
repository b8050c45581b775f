"""Workbooks made to fill memory or to take for ever are refused at once, with what to do."""

import io
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import polars as pl
import pytest
from greylag_client.mapping import reading, workbook
from greylag_client.mapping.limits import MAX_TEXT
from greylag_client.mapping.reading import read_sheets
from greylag_protocols.errors import ConfigError

SHEET = "xl/worksheets/sheet1.xml"
MANY = 64 << 20  # bytes; a refusal must not take as much


def changed(path: Path, change: Callable[[str], str]) -> Path:
    """A small workbook with its sheet changed."""
    book, file = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["name", 1.5])
    book.save(file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content.decode()) if name == SHEET else content)
    return path


def replaced(pattern: str, text: str) -> Callable[[str], str]:
    return lambda xml: re.sub(pattern, lambda _: text, xml, count=1)


@pytest.mark.parametrize(
    ("pattern", "text", "said"),
    [
        ('r="B1"', 'r="XFD1048576"', "delete what stands far from the table"),
        ("</sheetData>", '</sheetData><mergeCells><mergeCell ref="A1:XFD1048576"/></mergeCells>',
         "reaches over more than"),
        ("</sheetData>", '</sheetData><hyperlinks><hyperlink ref="A1:XFD1048576"/></hyperlinks>',
         "reaches over more than"),
        ("</sheetData>", '</sheetData><hyperlinks><hyperlink ref="A:XFD"/></hyperlinks>',
         "reaches over more than"),
        ("<worksheet", '<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><worksheet',
         "declares entities"),
        ("<row", "<row" + " " * 10 + "</row><row", "not a workbook that can be opened"),
    ],
)  # fmt: skip
def test_reaching_too_far(pattern: str, text: str, said: str, tmp_path: Path) -> None:
    path = changed(tmp_path / "a.xlsx", replaced(pattern, text))
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match=said):
            read_sheets(path)
        assert tracemalloc.get_traced_memory()[1] < MANY
    finally:
        tracemalloc.stop()


def test_empty_cells_far_away_do_not_count(tmp_path: Path) -> None:
    far = '<row r="1048576"><c r="XFD1048576" s="0"/></row></sheetData>'
    path = changed(tmp_path / "a.xlsx", replaced("</sheetData>", far))
    assert read_sheets(path)[0].rows == [["name", 1.5]]


def test_a_small_archive_of_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "MAX_BYTES", 1 << 20)
    path = changed(tmp_path / "a.xlsx", lambda xml: xml + " " * (1 << 21))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(ConfigError, match="unpacked it holds more than 1 MiB"):
        read_sheets(path)


def test_a_text_without_end_is_cut(tmp_path: Path) -> None:
    long = changed(tmp_path / "a.xlsx", replaced("<t>name", "<t>" + "n" * (1 << 20)))
    (sheet,) = read_sheets(long)
    assert len(str(sheet.rows[0][0])) == MAX_TEXT
    text = tmp_path / "a.csv"
    text.write_text("a,b\n" + "n" * 100_000 + ",1\n")
    assert len(str(read_sheets(text)[0].rows[1][0])) == MAX_TEXT


def test_too_many_cells_of_text_and_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_CELLS", 1000)
    (tmp_path / "a.csv").write_text("a,b\n" * 1000)
    pl.DataFrame({"a": [1] * 1001}).write_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(ConfigError, match="more than 1,000 cells"):
            read_sheets(tmp_path / name)


def test_formulas_that_nobody_computed_are_told(tmp_path: Path) -> None:
    path = changed(tmp_path / "a.xlsx", replaced("<v>1.5</v>", "<f>1+1</f><v></v>"))
    (sheet,) = read_sheets(path)
    assert (sheet.unsaved, sheet.rows) == (1, [["name"]])
