"""``try``: the command on real tables and directories; nothing is written, reserved or sent."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from enrolling_lead import serving
from greylag_client.cli import app
from greylag_client.datasets import Content
from greylag_client.firm import FirmDirectory
from greylag_client.ledger import Ledger
from greylag_client.policy import read_policy
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.terms import Terms
from quality_tables import NAMES, clean_rows, write
from typer.testing import CliRunner, Result

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
holdout = 0.3
expected_records = 400
max_records_per_firm = 200
[model]
hidden = [4]
[privacy]
epsilon = 0.5
delta = 1e-6
max_colluding = 2
min_firms = 5
[training]
rounds = 8
sampling_rate = 0.2
"""
OPENED: list[str] = []


def _note(event: str, _: object) -> None:
    if event in ("socket.__new__", "socket.connect", "socket.sendto", "socket.getaddrinfo"):
        OPENED.append(event)


sys.addaudithook(_note)  # stays for good, and only counts


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [[*row, "remark"] for row in clean_rows(90)]
    return write(tmp_path / "table.csv", rows, [*NAMES, "note"])


@pytest.fixture
def firm(tmp_path: Path, table: Path) -> FirmDirectory:
    """A firm that has joined and approved, with a ledger but no run yet."""
    with serving(tmp_path / "lead", time.time()) as lead:
        joined = lead.join("north", tmp_path / "north")
    joined.firm.approve(joined.digest)
    settings = joined.firm.root / "firm.toml"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith("data")]
    settings.write_text("\n".join([*lines, f"data = {json.dumps(str(table))}", ""]))
    Ledger(joined.firm.ledger_path).close_file()
    return FirmDirectory.open(joined.firm.root)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["try", *map(str, arguments)])


def document(result: Result) -> dict[str, Any]:
    assert isinstance(result.exception, SystemExit | None), result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def terms_of(text: str, run_id: str = "alloys-1") -> Terms:
    return settle_terms(parse_plan(text), consortium="alloys-00000000", run_id=run_id)


def test_a_table_is_rehearsed_without_a_directory(plan: Path, table: Path) -> None:
    found = document(run(plan, "--data", table, "--firms", 6, "--format", "json"))
    assert found["refused"] is None
    assert found["firms"] == 6
    assert found["cost"]["epsilon"] == 0.5
    copies = {item["copies"]: item["epsilon"] for item in found["cost"]["copies"]}
    assert list(copies) == [2, 3, 5, 10]  # a melt has three rows
    assert 0.5 < copies[2] < copies[3] < copies[10]
    assert found["cost"]["lone"] > 0.5
    gain = found["gain"]
    assert gain["together"] == sorted(gain["together"])
    assert gain["gain"] == pytest.approx([gain["alone"] - x for x in gain["together"][::-1]])
    assert gain["own_rows"] + gain["held_out_rows"] == 90
    assert gain["unit"] == "MPa"
    assert found["sight"]["columns_untouched"] == ["note"]
    assert found["effort"]["up_bytes"] > 4 * 21  # 3 x 4 + 4 + 4 + 1 weights


def test_reports_hold_no_cell(plan: Path, table: Path) -> None:
    output = run(plan, "--data", table).stdout
    assert "Nothing was reserved or sent" in output
    assert "中文摘要" in output
    assert max(len(line) for line in output.splitlines()) <= 100
    assert "remark" not in output
    assert not any(row[0] in output.split() or row[4] in output for row in clean_rows(90))


def test_nothing_is_written_reserved_or_sent(plan: Path, firm: FirmDirectory) -> None:
    def content() -> dict[str, bytes]:
        files = [path for path in firm.root.rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in files}

    before = content()
    OPENED.clear()
    found = document(run(plan, "--dir", firm.root, "--firms", 9, "--format", "json"))
    assert OPENED == []
    assert content() == before
    (budget,) = found["cost"]["budgets"]
    assert (budget["limit"], budget["held"], budget["after"], budget["left"]) == (10, 0, 0.5, 9.5)
    assert found["refused"] == []
    assert all(rule["allowed"] for rule in found["cost"]["rules"])
    assert Ledger(firm.ledger_path).accounts() == []


def test_the_policy_s_refusals_are_told_rule_by_rule(plan: Path, firm: FirmDirectory) -> None:
    text = firm.policy_path.read_text()
    text = text.replace("max_epsilon_per_run = 4.0", "max_epsilon_per_run = 0.25")
    firm.policy_path.write_text(text.replace('purposes = ["*"]', 'purposes = ["*glass*"]'))
    result = run(plan, "--dir", firm.root, "--format", "json")
    found = document(result)
    assert result.exit_code == 1
    refused = {rule["name"] for rule in found["cost"]["rules"] if not rule["allowed"]}
    assert refused == {"max_epsilon_per_run", "purposes"}
    assert len(found["refused"]) == 2
    assert found["gain"] is not None  # it was rehearsed all the same


def test_a_spent_budget_refuses(plan: Path, firm: FirmDirectory) -> None:
    ledger, policy = Ledger(firm.ledger_path), read_policy(firm.policy_path)
    for number in range(4):
        terms = terms_of(PLAN, f"old-{number}")
        ledger.accept(
            terms, terms.encode(), contents={"main": Content(commitment=bytes(32))},
            policy=policy, now_s=time.time(), sign=lambda tip: b"signed",
        )  # fmt: skip
    text = firm.policy_path.read_text()
    firm.policy_path.write_text(text.replace("lifetime_epsilon = 10.0", "lifetime_epsilon = 2.5"))
    found = document(run(plan, "--dir", firm.root, "--format", "json"))
    assert found["cost"]["budgets"][0]["left"] == 0  # the fifth run just fits
    firm.policy_path.write_text(text.replace("lifetime_epsilon = 10.0", "lifetime_epsilon = 2.25"))
    result = run(plan, "--dir", firm.root, "--format", "json")  # the ledger is open meanwhile
    assert result.exit_code == 1
    assert "lifetime_epsilon = 2.25" in document(result)["refused"][0]
    assert document(result)["cost"]["budgets"][0]["after"] == 2.0
    ledger.close_file()


def test_terms_as_a_lead_sends_them(tmp_path: Path, table: Path) -> None:
    path = tmp_path / "terms.json"
    path.write_bytes(terms_of(PLAN).encode())
    found = document(run(path, "--data", table, "--format", "json"))
    assert found["run"] == "alloys"
    path.write_text(path.read_text().replace('"rounds":8', '"rounds":80'))
    assert isinstance(run(path, "--data", table).exception, ConfigError)


def test_too_little_data_is_said(plan: Path, tmp_path: Path) -> None:
    small = write(tmp_path / "small.csv", clean_rows(12))
    result = run(plan, "--data", small, "--format", "json")
    found = document(result)
    assert result.exit_code == 0
    assert found["gain"] is None
    assert found["advice"] == "too little data to say"
    assert "training rows" in found["too_little"]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [((), "--dir"), (("--data", "x.csv", "--dir", "."), "not both"), (("--data", "x.csv"), "x.csv"),
     (("--data", "TABLE", "--firms", "4"), "min_firms")],
)  # fmt: skip
def test_bad_input(plan: Path, table: Path, arguments: tuple[str, ...], cause: str) -> None:
    words = [str(table) if word == "TABLE" else word for word in arguments]
    error = run(plan, *words).exception
    assert isinstance(error, ConfigError)
    assert error.exit_code == 2
    assert cause in str(error)
