"""Whole probes by the command: every unit of privacy, exit codes, one document."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from greylag_lab.demo import PLASTICS_PLAN

pytestmark = pytest.mark.e2e

WRONG = {"no noise", "noise / h", "sigma / 2", "no clipping", "same randomness again"}
UNITS = {
    "record": "",
    "group": "expected_groups = 400\nmax_groups_per_firm = 120\nmax_records_per_group = 5\n",
    "firm": "expected_firms = 5\n",
}


def plan_of(unit: str, directory: Path) -> Path:
    text = PLASTICS_PLAN.read_text()
    text = text.replace("expected_records", UNITS[unit] + "expected_records")
    text = text.replace('unit = "record"', f'unit = "{unit}"')
    if unit == "firm":
        text = text.replace("sampling_rate = 0.3", "sampling_rate = 1.0")
    path = directory / "plan.toml"
    path.write_text(text)
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("greylag-lab")
    return subprocess.run(
        [program, "probe", *arguments], capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_every_broken_build_is_flagged_and_this_one_is_not(unit: str, tmp_path: Path) -> None:
    ended = run(str(plan_of(unit, tmp_path)), "--seed", "1", "--format", "json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    assert found["verdict"] == "sound"
    assert found["unit"] == unit
    assert found["this_build"]["flagged_by"] == []
    expected = WRONG if unit == "firm" else WRONG | {"no sampling"}
    assert {item["build"] for item in found["broken_builds"]} == expected
    assert all(item["flagged_by"] for item in found["broken_builds"])
    assert found["cannot_see"]
    assert found["false_alarm"] < 1e-4


@pytest.mark.slow
def test_text_says_what_was_tested_found_and_cannot_be_seen(tmp_path: Path) -> None:
    ended = run(str(plan_of("record", tmp_path)))  # fresh entropy
    assert ended.returncode == 0, ended.stdout
    for words in ("5 firms, of which 2", "ok      canaries", "sigma / 2: flagged by noise"):
        assert words in ended.stdout
    assert "What this cannot see" in ended.stdout
    assert "NOT FLAGGED" not in ended.stdout


@pytest.mark.slow
def test_wrong_input_ends_with_two_and_says_why(tmp_path: Path) -> None:
    absent = run(str(tmp_path / "none.toml"))
    assert (absent.returncode, absent.stdout) == (2, "")
    assert "cannot be read" in absent.stderr
    few = run(str(plan_of("record", tmp_path)), "--firms", "3")
    assert few.returncode == 2
    assert "2 honest firms" in " ".join(few.stderr.split())
    assert run(str(plan_of("record", tmp_path)), "--format", "xml").returncode == 2
