"""A messy table on its way to the plan: what is found, asked, said and refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from greylag_client.cli import app
from greylag_client.mapping.document import read_mapping, write_mapping
from greylag_client.mapping.questions import Question, take_proposals
from greylag_client.mapping.reading import read_sheets
from greylag_client.mapping.table_files import Mapped, map_file
from greylag_client.table import load_table
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan
from greylag_protocols.terms import DataTerms, Feature, Target
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
GLASS_PLAN = ROOT / "docs/examples/glass.toml"
DATA = DataTerms(
    standard="glasses@1.0",
    task="regression",
    targets=(Target(name="tg_k", unit="K", range=(300, 1300)),),
    features=(
        Feature(names=("SiO2", "Na2O", "CaO", "SnO2"), unit="mol%", range=(0, 100)),
        Feature(names=("density",), unit="g/cm3", range=(1, 9)),
    ),
    group="batch",
    holdout=0.2,
    expected_records=1000,
    max_records_per_firm=500,
)
HEADER = "Batch,SiO2 (mol%),Na2O (mol%),CaO (mol%),Density (g/cm3),Tg (K)"
GOOD = ["A,70,20,10,2.5,800", "A,71,19,10,2.5,801", "B,60,30,10,2.6,750", "B,61,29,10,2.6,751"]


def no_question(question: Question) -> int:
    raise AssertionError(question.text)


def write(path: Path, *rows: str, header: str = HEADER, encoding: str = "utf-8") -> Path:
    path.write_bytes("\n".join([header, *rows]).encode(encoding))
    return path


def mapped(
    path: Path,
    ask: Callable[[Question], int] = no_question,
    *,
    mapping: Path | None = None,
    normalise: bool = False,
) -> Mapped:
    return map_file(path, DATA, out=None, mapping_path=mapping, normalise=normalise, ask=ask)


def refusal(path: Path, ask: Callable[[Question], int] = no_question) -> str:
    with pytest.raises(ConfigError) as caught:
        mapped(path, ask)
    return str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030"])
def test_finds_encodings_of_chinese(encoding: str, tmp_path: Path) -> None:
    header = "批号;二氧化硅;氧化钠;氧化钙;密度;转变温度 (K)"
    rows = ["甲;70;20;10;2,5;800", "甲;71;19;10;2,5;801", "乙;60;30;10;2,6;750"]
    result = mapped(write(tmp_path / "a.csv", *rows, header=header, encoding=encoding))
    assert result.unfit is None
    assert load_table(result.out, DATA).groups == ("甲", "甲", "乙")


def test_a_lonely_degree_sign_is_western_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", *GOOD, header=HEADER.replace("(K)", "(°C)"), encoding="cp1252")
    assert [sheet.encoding for sheet in read_sheets(path)] == ["cp1252"]
    assert load_table(mapped(path).out, DATA).targets[0, 0] == 800 + 273.15


def test_asks_which_of_two_and_in_which_unit(tmp_path: Path) -> None:
    asked: list[Question] = []

    def ask(question: Question) -> int:
        asked.append(question)
        wanted = "DTA" if "Which column" in question.text else "°C"
        return next(i for i, choice in enumerate(question.choices) if wanted in choice)

    header = HEADER.replace("Tg (K)", "Tg (DSC),Tg (DTA)")
    result = mapped(write(tmp_path / "a.csv", *[f"{r},600" for r in GOOD], header=header), ask)
    assert len(asked) == 2
    assert load_table(result.out, DATA).targets[0, 0] == pytest.approx(873.15)


def test_yes_takes_proposals_and_stops_where_there_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", *GOOD, header=HEADER.replace("Batch", "Origin"))
    assert "run without --yes" in refusal(path, take_proposals)
    # 800 may be kelvin or degrees Celsius: nobody but the firm knows.
    path = write(tmp_path / "c.csv", *GOOD, header=HEADER.replace("Tg (K)", "Tg"))
    assert "In which unit is 'Tg'" in refusal(path, take_proposals)
    path = write(tmp_path / "b.csv", *GOOD, header=HEADER.replace("Tg", "Glas transition temp"))
    assert mapped(path, take_proposals).questions == 1


def test_wt_for_mol_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", *GOOD, header=HEADER.replace("mol%", "wt%"))
    text = refusal(path)
    assert "SiO2, Na2O, CaO: given in wt%, but the plan wants mol%; convert" in text


def test_a_heading_over_several_columns_holds_for_all_of_them(tmp_path: Path) -> None:
    second = "Batch,SiO2,Na2O,CaO,g/cm3,K"
    for share, fits in (("mol%", True), ("wt%", False)):
        first = f",Composition ({share}),,,Density,Tg"
        path = write(tmp_path / f"{share[:2]}.csv", second, *GOOD, header=first)
        if fits:
            assert mapped(path).mapping.header_rows == (1, 2)
        else:
            assert "SiO2, Na2O, CaO: given in wt%" in refusal(path)


def test_groups_are_sought_among_columns_that_repeat(tmp_path: Path) -> None:
    rows = [f"S{number},{row}" for number, row in enumerate(GOOD)]
    header = "Sample," + HEADER.replace("Batch", "Origin")
    asked: list[Question] = []

    def last_choice(question: Question) -> int:
        asked.append(question)
        return len(question.choices) - 1

    result = mapped(write(tmp_path / "a.csv", *rows, header=header), last_choice)
    assert [question.choices[0] for question in asked] == ["'Origin'"]
    assert "'Sample'" not in asked[0].choices
    assert "each row is a group of its own" in result.notes
    assert load_table(result.out, DATA).largest_group == 1
    assert read_mapping(result.mapping_path) == result.mapping


def test_fractions_are_known_by_a_whole_of_one(tmp_path: Path) -> None:
    header = HEADER.replace(" (mol%)", "")
    path = write(tmp_path / "a.csv", "A,0.7,0.2,0.1,2.5,800", "A,0.8,,0.2,2.5,801", header=header)
    assert load_table(mapped(path).out, DATA).features[:, :3].tolist() == [
        [70, 20, 10],
        [80, 0, 20],
    ]
    path = write(
        tmp_path / "b.csv", "A,0.7,0.2,0.4,2.5,800", "A,0.7,0.2,0.4,2.5,801", header=header
    )
    result = mapped(path, take_proposals)
    assert load_table(result.out, DATA).features[0, 0] == 0.7


def test_a_row_without_a_recipe_does_not_become_one_of_zeros(tmp_path: Path) -> None:
    result = mapped(write(tmp_path / "a.csv", *GOOD, "C,80,20,,2.5,800", "C,-,-,-,2.5,800"))
    assert (result.table.rows, result.table.left_out) == (5, 1)
    assert any("without all features" in note and "row 7" in note for note in result.notes)


def test_absent_shares_are_zero_only_if_the_rest_is_whole(tmp_path: Path) -> None:
    assert "not in the table, so 0: SnO2" in mapped(write(tmp_path / "a.csv", *GOOD)).notes
    poor = [row.replace(",10,", ",1,") for row in GOOD]
    with pytest.raises(AssertionError, match=r"does not list SnO2\. Are they 0"):
        mapped(write(tmp_path / "b.csv", *poor))
    text = refusal(write(tmp_path / "c.csv", *poor), lambda question: 1)
    assert "the plan needs SnO2" in text


def test_sums_are_said_and_scaled_only_if_agreed(tmp_path: Path) -> None:
    rows = [*GOOD, "C,68,20,10,2.5,800", "C,40,20,10,2.5,800"]
    path = write(tmp_path / "a.csv", *rows)
    first = mapped(path)
    assert any(
        "do not add up to 100 within 0.5: 2 rows" in n and "--normalise" in n for n in first.notes
    )
    assert load_table(first.out, DATA).features[4, 0] == 68
    agreed = mapped(path, mapping=first.mapping_path, normalise=True)
    features = load_table(agreed.out, DATA).features
    assert features[4, :4].sum() == pytest.approx(100)
    assert features[5, :4].sum() == 70  # too far off to be a slip of rounding
    assert any("never scaled: 1 row (row 7)" in note for note in agreed.notes)
    assert (features[:4] == load_table(first.out, DATA).features[:4]).all()


def test_rows_that_the_plan_cannot_use_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [*GOOD, "C,70,20,10,2.5,", ",70,20,10,2.5,800", "D,70,20,10,secret,800"]
    result = mapped(write(tmp_path / "a.csv", *rows))
    said = "\n".join(result.notes)
    assert (result.table.rows, result.table.left_out) == (4, 3)
    assert "1 row without any target (row 6)" in said
    assert "1 row without a group ('batch') (row 7)" in said
    assert "'Density (g/cm3)': 1 cell without a number (row 8)" in said
    assert "secret" not in said


def test_what_the_plan_still_refuses_is_told_with_the_next_step(tmp_path: Path) -> None:
    result = mapped(write(tmp_path / "a.csv", *GOOD, "C,70,20,10,2.5,5000"))
    with pytest.raises(
        ConfigError, match=r"outside the public range (?s:.)*--mapping \S*a\.mapping"
    ):
        result.raise_if_unfit()


def test_percent_cells_and_hidden_sheets_of_a_workbook(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    hidden: Any = book.active
    hidden.title = "draft"
    hidden.sheet_state = "hidden"
    sheet: Any = book.create_sheet("data")
    for target in (hidden, sheet):
        target.append(HEADER.replace(" (mol%)", "").split(","))
    for _ in range(9):
        hidden.append(["A", 70, 20, 10, 2.5, 800])
    for row in GOOD:
        batch, *numbers = row.split(",")
        sheet.append(
            [batch, *[float(text) / 100 for text in numbers[:3]], *map(float, numbers[3:])]
        )
        for cell in sheet[sheet.max_row][1:4]:
            cell.number_format = "0.0%"
    book.save(tmp_path / "a.xlsx")
    result = mapped(tmp_path / "a.xlsx")
    assert result.mapping.sheet == "data"
    assert load_table(result.out, DATA).features[0, 0] == pytest.approx(70)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xls", b"x", "save it as .xlsx"),
        ("a.xlsx", b"no workbook", "password"),
        ("a.parquet", b"no table", "not a Parquet file"),
        ("a.csv", b"", "empty"),
        ("a.csv", b"one\ntwo\n", "separated by none of"),
        ("a.csv", b"1,2\n3,4\n", "no row that names columns"),
        ("a.csv", b"\x81\x20\xff\xff,\xff\xff\n", "encoding is not known"),
    ],
)
def test_unreadable_files_name_the_cause(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert said in refusal(path)


def test_a_mapping_is_the_same_after_writing_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", *GOOD)
    result = mapped(path)
    assert read_mapping(result.mapping_path) == result.mapping
    assert "reuse it with --mapping" in refusal(path)
    text = write_mapping(result.mapping)
    for before, after, said in (
        ("sourc", "quelle", "quelle"),
        ("glasses@1.0", "steels@1.0", "leave --mapping out"),
        ('source = "Batch"', 'source = "Charge"', "no column 'Charge'"),
        ('name = "SnO2"', 'name = "HfO2"', "HfO2, SnO2"),
        ("header_rows = [1, 1]", "header_rows = [9, 9]", "correct header_rows"),
        ('encoding = "utf-8-sig"', 'encoding = "rot13"', "is not one of"),
    ):
        result.mapping_path.write_text(text.replace(before, after), encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            mapped(path, mapping=result.mapping_path)
        assert said in str(caught.value)


def test_the_command_asks_on_stderr_and_answers_in_json(tmp_path: Path) -> None:
    names = "Patent,SiO2,Na2O,CaO,Tg"
    rows = ["P1,70,20,10,500", "P1,71,19,10,501", "P2,60,30,10,480"]
    path = write(tmp_path / "a.csv", *rows, header=names)
    run = CliRunner().invoke(
        app, ["map", str(path), "--plan", str(GLASS_PLAN), "--format", "json"], input="2\n"
    )
    assert run.exit_code == 0, run.output
    facts = json.loads(run.stdout.splitlines()[-1])  # the runner echoes the answer
    assert (facts["fits"], facts["questions"], facts["rows"]) == (True, 1, 3)
    assert "In which unit is 'Tg'" in run.stderr
    glass = parse_plan(GLASS_PLAN.read_text(encoding="utf-8")).data
    assert load_table(Path(facts["out"]), glass).targets[0, 0] == 773.15
    again = CliRunner().invoke(
        app, ["map", str(path), "--plan", str(GLASS_PLAN), "--mapping", facts["mapping"]]
    )
    assert again.exit_code == 0
    assert "The table fits the plan." in again.stdout


def test_the_command_without_an_answer_says_how_to_go_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", *GOOD, header=HEADER.replace("Batch", "Origin"))
    run = CliRunner().invoke(app, ["map", str(path), "--plan", str(GLASS_PLAN)], input="")
    assert isinstance(run.exception, ConfigError)
    assert "not answered" in str(run.exception)
    assert not list(tmp_path.glob("*.mapped.csv"))


def test_other_commands_do_not_wait_for_the_readers_of_tables() -> None:
    code = (
        "import sys, greylag_client.mapping.command;"
        "print({'openpyxl', 'pint', 'polars', 'torch'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('separator = ","', 'separator = ",,"', "separator"),
        ('name = "batch"', 'name = "batch"\ntext = false', "wrong kind|text"),
        ('source = "Tg (K)"', 'source = "Tg (K)"\ntext = true', "wrong kind"),
    ],
)
def test_a_mapping_that_was_changed_for_the_worse(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    kept = mapped(write(tmp_path / "a.csv", *GOOD)).mapping_path
    text = kept.read_text(encoding="utf-8")
    assert old in text
    changed = text.replace("text = true", "") if "false" in new else text
    kept.write_text(changed.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        mapped(tmp_path / "a.csv", mapping=kept)


@pytest.mark.parametrize(
    "words", ["Total", "Sum:", "subtotal", "Grand total", "Mean", "合计", "A 小计", "平均值"]
)
def test_rows_that_sum_up_others_are_left_out_and_told(words: str, tmp_path: Path) -> None:
    row = f"{words},131,49,20,5.0,800"
    result = mapped(write(tmp_path / "a.csv", *GOOD[:2], row, *GOOD[2:]))
    assert (result.table.rows, result.table.left_out) == (4, 1)
    assert "left out: 1 row of sums or means (row 4)" in result.notes


@pytest.mark.parametrize("name", ["Totalis-3", "Meaney", "Sumitomo", "Maximum Glass Ltd"])
def test_names_that_begin_like_a_sum_are_rows(name: str, tmp_path: Path) -> None:
    result = mapped(write(tmp_path / "a.csv", *GOOD, f"{name},70,20,10,2.5,800"))
    assert result.table.rows == 5
