"""From a messy workbook of 800 recipes to a passing `check`, with `map` and at most three answers,
through the real programs; and what lies beyond `map` is said."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import messy_tables
import pytest
from messy_tables import Messy

pytestmark = pytest.mark.e2e
CLIENT = Path(sys.executable).with_name("greylag-client")
MOST_ANSWERS = 3
MAKERS = {
    "layered": messy_tables.layered,
    "typed-by-hand": messy_tables.typed_by_hand,
    "chinese-glasses": messy_tables.chinese_glasses,
    "chinese-glasses-gb18030": partial(messy_tables.chinese_glasses, text=True),
    "chinese-plastics": messy_tables.chinese_plastics,
    "grown": messy_tables.grown,
}


def client(
    *arguments: str | Path, answers: Sequence[int] = ()
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [CLIENT, *map(str, arguments)],
        input="".join(f"{answer}\n" for answer in answers),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_map(messy: Messy) -> tuple[dict[str, object], list[int]]:
    """Answer question after question as a person would, by what it asks and offers."""
    known, answers = list(messy.answers), list[int]()
    command = ("map", messy.path, "--plan", messy.plan, *messy.options, "--format", "json")
    while True:
        done = client(*command, answers=answers)
        if done.returncode == 0:
            return json.loads(done.stdout), answers
        assert "not answered: " in done.stderr, done.stderr
        question = done.stderr.rpartition("\nanswer")[0].rpartition("answer")[2]
        wanted = next((choice for words, choice in known if words in question), None)
        assert wanted is not None, f"not expected: {question}"
        choices = re.findall(r"^  (\d+)\) (.*)$", question, re.MULTILINE)
        answers.append(next(int(n) for n, text in choices if text.strip("'") == wanted))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_messy_file_reaches_a_passing_check(
    make: Callable[[Path], Messy], tmp_path: Path
) -> None:
    messy = make(tmp_path)
    facts, answers = run_map(messy)
    assert len(answers) == facts["questions"] <= MOST_ANSWERS
    assert facts["fits"] is True
    said = "\n".join(facts["notes"])  # type: ignore[arg-type]
    for note in messy.notes:
        assert note in said
    with Path(str(facts["out"])).open(encoding="utf-8") as file:
        rows = {int(row["source_row"]): row for row in csv.DictReader(file)}
    assert rows.keys() == messy.truth.keys()
    for at, true in messy.truth.items():
        for name, value in true.items():
            cell = rows[at][name]
            if isinstance(value, float):
                assert float(cell) == pytest.approx(value, abs=messy.tolerance, rel=1e-6), (
                    at,
                    name,
                )
            else:
                assert cell == ("" if value is None else str(value)), (at, name)
        assert not any(
            float(cell) for name, cell in rows[at].items()
            if name not in true and name != "source_row"
        )  # fmt: skip
    checked = client("check", str(facts["out"]), "--plan", messy.plan, "--format", "json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["fits"] is True


@pytest.mark.slow
def test_a_second_file_needs_no_answer(tmp_path: Path) -> None:
    messy = messy_tables.typed_by_hand(tmp_path)
    facts, _ = run_map(messy)
    again = client(
        "map", messy.path, "--plan", messy.plan, "--mapping", str(facts["mapping"]),
        "--out", tmp_path / "again.csv",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.csv").read_bytes() == Path(str(facts["out"])).read_bytes()


def test_a_table_on_its_side_is_told(tmp_path: Path) -> None:
    path = messy_tables.turned(tmp_path)
    done = client("map", path, "--plan", messy_tables.plastics_plan(tmp_path))
    assert done.returncode == 2
    assert "on its side" in " ".join(done.stderr.split())


def test_weight_percent_is_not_taken_for_mole_percent(tmp_path: Path) -> None:
    path = messy_tables.in_weight_percent(tmp_path)
    done = client("map", path, "--plan", messy_tables.EXAMPLES / "glass.toml")
    assert done.returncode == 2
    assert "given in wt%, but the plan wants mol%" in " ".join(done.stderr.split())


@pytest.mark.parametrize("command", ["check", "schema"])
def test_a_workbook_is_sent_to_map_first(command: str, tmp_path: Path) -> None:
    path = messy_tables.in_weight_percent(tmp_path)
    plan = ["--plan", messy_tables.EXAMPLES / "glass.toml"] if command == "check" else []
    done = client(command, path, *plan)
    assert done.returncode == 2
    assert "greylag-client map weight.xlsx" in " ".join(done.stderr.split())
