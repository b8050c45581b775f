"""The quality checks: each planted defect is found and named, and costs its score."""

import json
import re
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest
from greylag_client.quality import drift
from greylag_client.quality.checks import Dates, examine
from greylag_client.quality.columns import read_columns
from greylag_client.quality.findings import KINDS, Finding
from greylag_client.quality.page import as_page
from greylag_client.quality.report import as_document, as_text
from greylag_client.table import parse_table, read_cells
from greylag_protocols.plan import parse_plan
from quality_tables import (
    CLASSES,
    NAMES,
    TERMS,
    clean_rows,
    examined,
    found,
    kinds,
    near_copies,
    report,
    scores,
    write,
)

ROOT = Path(__file__).parents[2]
REAL = ROOT / ".." / "shared" / "data" / "glass_tg_by_firm.csv.gz"


def test_a_clean_table_scores_100(tmp_path: Path) -> None:
    rows = [[*row, f"2026-0{1 + at % 9}-11"] for at, row in enumerate(clean_rows())]
    path = write(tmp_path / "a.csv", rows, [*NAMES, "day"])
    dates = Dates(column="day", today=date(2026, 11, 1), fresh_days=400)
    examination = examined(path, dates=dates)
    assert examination.findings == ()
    assert set(scores(examination).values()) == {100.0}
    assert len(scores(examination)) == 5
    assert "timeliness" not in scores(examined(path))  # no date column was named
    assert "Nothing was found" in as_text(report(examination))


def test_gaps_and_absent_columns_cost_completeness(tmp_path: Path) -> None:
    rows = clean_rows()
    for at in (4, 7):
        rows[at][1] = ""
    examination = examined(write(tmp_path / "a.csv", rows))
    gaps = found(examination, "missing")
    assert (gaps.column, gaps.count, gaps.rows) == ("copper", 2, (6, 9))
    assert scores(examination)["completeness"] == 99.3  # 298 of 300, rounded down
    short = [row[:2] + row[3:] for row in rows]
    names = [name for name in NAMES if name != "nickel"]
    examination = examined(write(tmp_path / "b.csv", short, names))
    assert found(examination, "absent_column").column == "nickel"
    assert scores(examination)["completeness"] == 79.3


def test_text_and_values_out_of_range_cost_validity(tmp_path: Path) -> None:
    rows = clean_rows()
    rows[0][1] = "secret-text"
    rows[5][3] = "99"
    examination = examined(write(tmp_path / "a.csv", rows))
    assert found(examination, "unread").column == "copper"
    assert found(examination, "outside").rows == (7,)
    assert scores(examination)["validity"] == 99.1
    assert examination.train is None  # it does not fit


def test_piles_at_an_end_are_noted_unless_it_is_nothing_at_all(tmp_path: Path) -> None:
    rows = clean_rows()
    for at in range(6):
        rows[at][3] = "1500"
        rows[at + 6][1] = "0"  # no copper
    examination = examined(write(tmp_path / "a.csv", rows))
    assert [item.column for item in examination.findings if item.kind == "at_edge"] == ["heat"]
    assert found(examination, "at_edge").count == 6
    assert scores(examination)["validity"] == 100


def test_exact_copies_cost_uniqueness(tmp_path: Path) -> None:
    rows = clean_rows()
    rows[9][1:] = rows[2][1:]
    rows[10][1:] = [cell + "0" for cell in rows[2][1:]]  # the same numbers, written otherwise
    examination = examined(write(tmp_path / "a.csv", rows))
    assert found(examination, "duplicate").rows == (11, 12)
    assert scores(examination)["uniqueness"] == 96.6


def test_near_copies_across_the_split_are_found_without_a_group(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", near_copies())
    alone = replace(TERMS, group=None)
    examination = examined(path, alone)
    near = found(examination, "near_copy")
    assert near.of == examination.holdout
    assert near.share > 0.8
    assert found(examination, "group_on_both_sides").column == "melt"
    assert scores(examination)["uniqueness"] < 20
    # With the group in the plan they all stand on one side.
    assert not kinds(examined(path)) & {"near_copy", "group_on_both_sides"}
    assert scores(examined(path))["uniqueness"] == 100


def test_near_copies_in_other_groups_are_a_note(tmp_path: Path) -> None:
    rows = near_copies()
    for at, row in enumerate(rows):
        row[0] = f"M{at}"
    examination = examined(write(tmp_path / "a.csv", rows))
    assert found(examination, "near_copy_between_groups").share > 0.8
    assert scores(examination)["uniqueness"] == 100


def test_few_coarse_features_are_not_taken_for_copies(tmp_path: Path) -> None:
    rows = [[str(at), str(at % 7), str(at % 5), "300", str(at % 900)] for at in range(700)]
    names = kinds(examined(write(tmp_path / "a.csv", rows), replace(TERMS, group=None)))
    assert "near_copy" not in names


def test_a_gap_is_near_a_gap_and_far_from_every_value(tmp_path: Path) -> None:
    alone = replace(TERMS, group=None, missing="zero-and-flag")
    rows = near_copies()
    for at, row in enumerate(rows):
        row[2] = ["50", ""][at % 2]
    for at in range(2, len(rows), 3):  # a third one of each kind would be near to one of the two
        rows[at] = clean_rows(len(rows), seed=7)[at]
    path = write(tmp_path / "a.csv", rows)
    assert "near_copy" not in kinds(examined(path, alone))
    for row in rows:
        row[2] = ""
    assert "near_copy" in kinds(examined(write(path, rows), alone))


def test_tables_with_next_to_nothing_are_reported_too(tmp_path: Path) -> None:
    for terms in (TERMS, CLASSES, replace(TERMS, group=None)):
        for names, rows in ((NAMES, []), (["x"], [["1"]]), (NAMES, [[""] * 4 + ["NA"]])):
            examination = examined(write(tmp_path / "a.csv", rows, names), terms)
            assert examination.rows == len([row for row in rows if row[0]])
            told = report(examination, misfit="unfit")
            assert as_page(told, made=datetime(2026, 11, 1)).endswith("</html>\n")
            assert json.dumps(as_document(told), allow_nan=False)
            assert scores(examination)["completeness"] == 0
    one = examined(write(tmp_path / "a.csv", clean_rows(1)))
    assert one.findings == ()
    assert scores(one)["completeness"] == 100


def test_same_features_with_another_target_cost_consistency(tmp_path: Path) -> None:
    rows = clean_rows()
    rows[3] = [*rows[8][:4], str(float(rows[8][4]) + 1)]  # as measurements differ
    assert "contradiction" not in kinds(examined(write(tmp_path / "a.csv", rows)))
    rows[3][4] = str((float(rows[8][4]) + 500) % 1000)
    examination = examined(write(tmp_path / "a.csv", rows))
    assert found(examination, "contradiction").rows == (5, 10)
    assert scores(examination)["consistency"] == 96.6


def test_constant_columns_are_named_and_unused_ones_noted(tmp_path: Path) -> None:
    rows = clean_rows()
    for row in rows:
        row[2:4] = ["0", "300"]
    examination = examined(write(tmp_path / "a.csv", rows))
    assert found(examination, "constant").column == "heat"
    assert found(examination, "always_zero").column == "nickel"
    assert scores(examination)["consistency"] == 75


@pytest.mark.parametrize(
    ("labels", "kind"),
    [(["no"] * 60, "one_class"), (["no", "yes"] * 30, "rare_class"), (["no", "yes", "?"], "")],
)
def test_class_balance(tmp_path: Path, labels: list[str], kind: str) -> None:
    rows = [[*row[:4], labels[at % len(labels)]] for at, row in enumerate(clean_rows())]
    examination = examined(write(tmp_path / "a.csv", rows), CLASSES)
    assert kinds(examination) == ({kind} if kind else set())
    assert sum(examination.classes.values()) == 60
    assert (scores(examination)["consistency"] < 100) == bool(kind)
    assert "class" in as_text(report(examination))


def test_group_sizes_say_what_the_unit_group_means(tmp_path: Path) -> None:
    rows = clean_rows()
    for row in rows[:20]:
        row[0] = "one"
    terms = replace(TERMS, max_records_per_group=5)
    examination = examined(write(tmp_path / "a.csv", rows), terms)
    assert examination.largest_group == 20
    assert examination.groups is not None
    assert (examination.groups.count, examination.groups.median) == (15, 3)
    assert found(examination, "large_group").count == 20
    assert found(examination, "cut_group").count == 15
    assert "largest 20" in as_text(report(examination))


def test_dates_unread_to_come_and_long_ago_cost_timeliness(tmp_path: Path) -> None:
    days = [
        "2026-10-01",
        "2026/10/2",
        "3.10.2026",
        "2026年10月4日",
        "2026-10",
        "2026-10-05 10:30:00",
    ]
    rows = [[*row, days[at % len(days)]] for at, row in enumerate(clean_rows())]
    for at, day in ((0, "soon"), (1, "2031-01-01"), (2, "1999-01-01")):
        rows[at][5] = day
    path = write(tmp_path / "a.csv", rows, [*NAMES, "day"])
    examination = examined(path, dates=Dates(column="day", today=date(2026, 11, 1), fresh_days=365))
    assert [item.kind for item in examination.findings] == ["undated", "future", "stale"]
    assert found(examination, "undated").rows == (2,)
    assert scores(examination)["timeliness"] == 95


def summary_of(path: Path) -> drift.TableSummary:
    cells = read_cells(path)
    return drift.summarise(read_columns(cells, TERMS)[0], cells.height)


def test_drift_against_the_last_data(tmp_path: Path) -> None:
    before = summary_of(write(tmp_path / "a.csv", clean_rows(300, seed=1)))
    rows = clean_rows(300, seed=2)
    same = examined(write(tmp_path / "b.csv", rows), before=before)
    assert same.findings == ()  # another sample of the same
    assert max(same.index.values()) < drift.SOME_DRIFT
    for row in rows:
        row[3] = f"{float(row[3]) * 0.6 + 80:.2f}"  # within range, but elsewhere
    examination = examined(write(tmp_path / "c.csv", rows), before=before)
    assert found(examination, "drift").column == "heat"
    assert examination.index["heat"] > drift.STRONG_DRIFT
    assert scores(examination)["consistency"] == 75


def test_small_tables_do_not_drift_by_chance(tmp_path: Path) -> None:
    before = summary_of(write(tmp_path / "a.csv", clean_rows(24, seed=1)))
    examination = examined(write(tmp_path / "b.csv", clean_rows(24, seed=2)), before=before)
    assert max(examination.index.values()) > drift.SOME_DRIFT  # the rule of thumb alone would cry
    assert not kinds(examination) & {"drift", "some_drift"}


def test_every_kind_of_finding_can_be_said() -> None:
    for kind in KINDS:
        item = Finding(kind=kind, column="{count} \x1b[31m", count=3, of=9, rows=(2, 3))
        assert not re.search(r"\x1b|\0", item.english + item.chinese)
        assert "row 2, 3" in item.english
        assert "行 2, 3" in item.chinese


@pytest.mark.skipif(not REAL.exists(), reason="the public glass table is not on this machine")
def test_real_glass_recipes() -> None:
    text = (ROOT / "docs" / "examples" / "glass.toml").read_text(encoding="utf-8")
    data = parse_plan(text.replace("max_records_per_firm = 5000", "max_records_per_firm = 30000"))
    firm = read_cells(REAL)
    rows = firm.filter(firm["firm"] == firm["firm"].mode()[0])
    grouped = examine(rows, data.data, parse_table(rows, data.data, what="glass"))
    assert scores(grouped)["completeness"] == scores(grouped)["validity"] == 100
    assert grouped.groups is not None
    assert grouped.groups.largest > grouped.groups.median
    # Without the patents as groups the split would flatter, and their column is found.
    alone = replace(data.data, group=None)
    single = examine(rows, alone, parse_table(rows, alone, what="glass"))
    assert found(single, "group_on_both_sides").column == "ref_id"
    assert found(single, "near_copy").count > 50
    assert scores(single)["uniqueness"] < scores(grouped)["uniqueness"]
