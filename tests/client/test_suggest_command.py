"""`suggest` from the command line: one document, a page, and a file that comes back as new rows."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from greylag_client.cli import app
from greylag_client.data_files import FirmData
from greylag_client.datasets import Dataset
from greylag_client.ledger import Ledger
from greylag_client.local_models.layers import Layers
from greylag_client.personal.artefact import (
    Intervals,
    Personal,
    checksums,
    encode_personal,
    facts_of,
)
from greylag_client.personal.parts import Blend, Part
from greylag_client.table import load_table
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan, settle_terms
from scipy.stats import norm
from typer.testing import CliRunner

HOSTILE = '<script>alert("x")</script>'
PLAN = f"""
[run]
name = "made-up"
purpose = "numbers made up for a test"
[data]
standard = "made-up@1.0"
task = "regression"
targets = [ {{ name = "y", unit = "K", range = [-10, 10] }} ]
features = [ {{ names = ["a", "b", '{HOSTILE}'], unit = "wt%", range = [0, 100] }} ]
group = "g"
expected_records = 1000
max_records_per_firm = 1000
[model]
hidden = []
[privacy]
noise_multiplier = 2.0
delta = 1e-5
max_colluding = 1
min_firms = 3
[training]
rounds = 2
sampling_rate = 0.5
"""
TERMS = settle_terms(parse_plan(PLAN), consortium="makers", run_id="made-up-1")
LAYERS: Layers = ((np.array([[0.5, -0.25, 0.1]], dtype=np.float64), np.zeros(1)),)
REACH = 1.5


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A release, a version that only moves it, and a table of own rows."""
    tensors = {"0.weight": LAYERS[0][0].astype(np.float32), "0.bias": np.zeros(1, np.float32)}
    weights = safetensors.numpy.save(tensors)
    shared = {"terms.json": TERMS.encode(), "model.safetensors": weights}
    moved = ((LAYERS[0][0], np.array([0.1])),)
    blend = Blend(
        parts=(Part(name="shared", layers=LAYERS, forest=None),
               Part(name="offset", layers=moved, forest=None)),
        weights=(0.5, 0.5),
    )  # fmt: skip
    intervals = Intervals(coverage=0.9, reach=(REACH,))
    facts = facts_of(blend, weights, rows=30, groups=10, intervals=intervals)
    own = shared | encode_personal(Personal(facts=facts, blend=blend))
    for name, files in (("release", shared), ("own", own)):
        (tmp_path / name).mkdir()
        for file, content in (files | {"SHA256SUMS": checksums(files)}).items():
            (tmp_path / name / file).write_bytes(content)
    with (tmp_path / "own.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", HOSTILE, "y", "g"])
        for row in range(30):
            first = 5.0 + 3 * row
            writer.writerow([first, 95 - first, 5, "" if row % 7 == 0 else 1.0, f"g{row // 3}"])
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    return tmp_path


def ask(made: Path, *more: str, model: str = "own", wanted: str = "y=-1..1") -> Any:
    asked = ["suggest", str(made / model), "--target", wanted, "--sum", "100", *more]
    return CliRunner().invoke(app, asked)


def test_one_document_on_stdout(made: Path) -> None:
    found = ask(made, "--from", str(made / "own.csv"), "--format", "json", "--count", "3")
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert document["private"] is False
    assert any("not private" in note for note in document["notes"])
    assert any("measured in the lab" in note for note in document["notes"])
    assert document["interval"] == {
        "coverage": 0.8, "from": "version", "rows": 30, "groups": 10,
        "targets": {"y": pytest.approx(REACH * norm.ppf(0.9) / norm.ppf(0.95))},
    }  # fmt: skip
    assert len(document["proposals"]) == 3
    for item in document["proposals"]:
        amounts = np.array([item["recipe"].get(name, 0.0) for name in ("a", "b", HOSTILE)])
        assert amounts.sum() == pytest.approx(100)
        # The mean of both parts, by hand: y = 10 (w x + 0.05), x = amount / 50 - 1.
        by_hand = 10 * (LAYERS[0][0][0] @ (amounts / 50 - 1) + 0.05)
        assert item["predictions"]["y"]["predicted"] == pytest.approx(by_hand, abs=1e-6)


def test_for_people_it_says_what_it_is(made: Path) -> None:
    found = ask(made, "--from", str(made / "own.csv"))
    assert found.exit_code == 0, found.output
    assert "proposals to be measured in the lab" in found.stdout
    assert "待实验验证" in found.stdout
    shared = ask(made, model="release").stdout
    assert "No interval" in shared
    assert "not private" not in shared


def test_what_is_wrong_ends_with_2_and_nothing_on_stdout(made: Path) -> None:
    for more, said in (
        (["--fix", "c=3"], "no column 'c'"),
        (["--fix", "a=90..", "--fix", "b=20.."], "no recipe fits"),
        (["--from", str(made / "own.csv"), "--out", str(made / "own.csv")], "written over"),
        (["--out", str(made / "lab.xlsx")], "ends in .csv"),
        (["--format", "yaml"], "text"),
    ):
        found = ask(made, *more)
        assert isinstance(found.exception, ConfigError), found.output
        assert said in str(found.exception)
        assert found.stdout == ""


def test_what_the_lab_fills_in_comes_back_as_a_data_set_of_its_own(made: Path) -> None:
    lab = made / "lab.csv"
    found = ask(made, "--from", str(made / "own.csv"), "--out", str(lab), "--count", "4")
    assert found.exit_code == 0, found.output
    with pytest.raises(ConfigError, match="without any target"):
        load_table(lab, TERMS.data)
    with lab.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["y"] for row in rows] == [""] * 4
    for number, row in enumerate(rows):
        row["y"] = str(number)
    with lab.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    checked = CliRunner().invoke(app, ["check", str(lab), "--plan", str(made / "plan.toml")])
    assert checked.exit_code == 0, checked.output
    (made / "keys").mkdir()
    ledger = Ledger(made / "ledger.sqlite")
    files = FirmData(made / "keys", made / "own.csv", ledger)
    ledger.datasets.open(Dataset(name="lab", path=str(lab), standard="", opened_s=1))
    assert [item.name for item in files.datasets()] == ["main", "lab"]
    table, _ = files.read({"lab": lab}, TERMS.data)
    assert table.targets[:, 0].tolist() == [0, 1, 2, 3]
    assert len(set(table.groups)) == 4
    ledger.close_file()


class Seen(HTMLParser):
    """Tags, and whatever could run or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.active: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        active = ("src", "href", "xlink:href")
        named = [name for name, _ in attrs if name.startswith("on") or name in active]
        self.active += [(tag, name) for name in named]


def test_the_page_holds_no_script_and_fetches_nothing(made: Path) -> None:
    page = made / "p.html"
    found = ask(made, "--from", str(made / "own.csv"), "--page", str(page), "--fix", f"{HOSTILE}=5")
    assert found.exit_code == 0, found.output
    text = page.read_text(encoding="utf-8")
    seen = Seen()
    seen.feed(text)
    assert "script" not in seen.tags
    assert {"svg", "rect", "circle", "table"} <= seen.tags
    assert seen.active == []
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?:", text)
    assert "配方建议" in text
    bare = made / "bare.html"
    shared = ask(made, "--page", str(bare), model="release")
    assert shared.exit_code == 0, shared.output
    assert 'class="reach"' not in bare.read_text(encoding="utf-8")
