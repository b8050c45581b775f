"""The quality report: values stay out, the page is inert, the command keeps its promises."""

import json
import re
import stat
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from greylag_client.cli import app
from greylag_client.quality import drift
from greylag_client.quality.checks import examine
from greylag_client.quality.page import as_page
from greylag_client.quality.report import as_document, as_text
from greylag_client.table import parse_table
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import Feature, Target
from quality_tables import CLASSES, TERMS, clean_rows, examined, kinds, report, write
from typer.testing import CliRunner, Result


class Tags(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


HOSTILE = "<img src=x onerror=alert(1)>\"'&</style><script>alert(2)</script>\x1b]0;t\x07\u202e"


def test_the_page_is_inert_whatever_the_table_says() -> None:
    name = HOSTILE[:50]
    terms = replace(
        CLASSES,
        features=(Feature(names=(name, "nickel"), range=(0, 100)), TERMS.features[1]),
        targets=(Target(name=HOSTILE[20:], classes=("<b>no</b>", "yes")),),
        group=HOSTILE[10:],
    )
    rows = [
        ["<script>", HOSTILE if at == 5 else row[1], row[2], row[3], "<b>no</b>"]
        for at, row in enumerate(clean_rows())
    ]
    names = [HOSTILE[10:], name, "nickel", "heat", HOSTILE[20:]]
    cells = pl.DataFrame(rows, schema=names, orient="row")
    with pytest.raises(ConfigError) as misfit:
        parse_table(cells, terms, what=HOSTILE)
    examination = examine(cells, terms, None)
    assert {"unread", "one_class"} <= kinds(examination)
    told = report(examination, name=HOSTILE, misfit=str(misfit.value))
    page = as_page(told, made=datetime(2026, 11, 1))
    seen = Tags(page)
    assert not seen.tags & {"script", "img", "link", "iframe", "a", "b", "form", "object", "svg"}
    assert not {name for name in seen.attributes if name.startswith("on")}
    assert not seen.attributes & {"src", "href", "action", "srcset"}
    assert not re.search(r"https?:|//|url\(|@import", page)
    assert "default-src 'none'" in page
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", page + as_text(told))
    assert "&lt;img src=x" in page  # it is shown all the same
    assert "完整性" in page
    assert "Completeness" in page


def test_reports_hold_no_cell(tmp_path: Path) -> None:
    rows = clean_rows()
    rows[0][1] = "secret-text"
    path = write(tmp_path / "a.csv", rows)
    told = report(examined(path), misfit="x")
    page = as_page(told, made=datetime(2026, 11, 1))
    texts = [page, as_text(told), json.dumps(as_document(told))]
    for cell in {cell for row in rows for cell in row}:
        assert not any(
            re.search(rf"(?<![\w.#]){re.escape(cell)}(?![\w.%])", text) for text in texts
        )


PLAN = """
[run]
name = "alloys"
purpose = "strength of alloys"
[data]
standard = "alloys@1.0"
task = "regression"
targets = [ { name = "strength", unit = "MPa", range = [0, 1000] } ]
features = [
  { names = ["copper", "nickel"], range = [0, 100] },
  { names = ["heat"], range = [200, 1500] },
]
group = "melt"
expected_records = 1000
max_records_per_firm = 2000
[privacy]
epsilon = 2.0
delta = 1e-6
max_colluding = 2
min_firms = 5
[training]
rounds = 10
sampling_rate = 0.2
"""


def call(table: Path, *options: str) -> Result:
    plan = table.parent / "plan.toml"
    plan.write_text(PLAN, encoding="utf-8")
    return CliRunner().invoke(app, ["check", str(table), "--plan", str(plan), *options])


def test_the_command_prints_one_document_and_remembers(tmp_path: Path) -> None:
    first = call(write(tmp_path / "a.csv", clean_rows(300)), "--format", "json")
    assert first.exit_code == 0, first.output
    facts = json.loads(first.stdout)
    assert facts["rows"] == facts["train"] + facts["holdout"] == 300
    assert facts["largest_group"] == 3
    assert facts["fits"]
    assert facts["compared_rows"] is None
    kept = tmp_path / drift.SUMMARY_FILE
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    moved = [[*row[:3], f"{float(row[3]) * 0.5 + 60:.2f}", row[4]] for row in clean_rows(200)]
    for _ in range(2):  # looking twice at one table must not hide its drift
        facts = json.loads(call(write(tmp_path / "b.csv", moved), "--format", "json").stdout)
        assert facts["compared_rows"] == 300
        assert [item["column"] for item in facts["findings"]] == ["heat"]
    text = call(tmp_path / "b.csv")
    assert text.stdout.startswith("b.csv: 200 rows fit the plan; ")
    assert "'heat': differs strongly" in " ".join(text.stdout.split())
    assert str(kept) in text.stdout


def test_the_command_reports_and_fails_where_the_table_does_not_fit(tmp_path: Path) -> None:
    rows = clean_rows()
    rows[4][1] = "777"
    page = tmp_path / "page.html"
    result = call(
        write(tmp_path / "a.csv", rows), "--page", str(page), "--format", "json", "--date", "melt"
    )
    assert isinstance(result.exception, ConfigError)
    assert "column 'copper': 1 row outside the public range [0, 100]" in str(result.exception)
    facts = json.loads(result.stdout)
    assert (facts["fits"], facts["rows"], facts["train"]) == (False, 60, None)
    assert facts["misfit"] == str(result.exception).splitlines()
    assert facts["scores"]["validity"]["fix"]
    assert facts["scores"]["timeliness"]["score"] == 0
    assert "not fit the plan" in page.read_text(encoding="utf-8")
    assert not (tmp_path / drift.SUMMARY_FILE).exists()  # no yardstick for the next table
    text = call(tmp_path / "a.csv")
    assert isinstance(text.exception, ConfigError)
    assert text.stdout == ""
    assert "'copper': values outside the public range: 1; row 6" in text.stderr


def test_usage_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", clean_rows())
    before = table.read_bytes()
    for options, said in (
        (["--page", str(table)], "overwrite"),
        (["--dir", str(tmp_path)], "not a firm's directory"),
        (["--date", "yesterday"], "no column 'yesterday'"),
        (["--format", "xml"], "'text' or 'json'"),
    ):
        result = call(table, *options)
        assert isinstance(result.exception, ConfigError), options
        assert said in str(result.exception)
        assert result.stdout == ""
    assert table.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "plan.toml"]


def test_the_summary_goes_to_the_firms_directory_and_a_damaged_one_is_renewed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    firm = tmp_path / "firm"
    firm.mkdir()
    (firm / "firm.toml").touch()
    kept = firm / drift.SUMMARY_FILE
    kept.write_bytes(b'{"version": 7')
    result = call(write(tmp_path / "a.csv", clean_rows()), "--dir", str(firm))
    assert result.exit_code == 0
    assert "written anew" in caplog.text
    assert drift.read_history(kept).standards["alloys@1.0"][0].rows == 60
    assert not (tmp_path / drift.SUMMARY_FILE).exists()


def test_without_a_date_column_it_is_said_how_to_score_timeliness(tmp_path: Path) -> None:
    made = report(examined(write(tmp_path / "a.csv", clean_rows())))
    assert "timeliness" not in as_document(made)["scores"]
    assert "not scored" in as_text(made)
    assert "--date" in as_page(made, made=datetime(2026, 1, 2))
