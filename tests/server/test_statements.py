"""Statements of a period: made from a real run's log, checked by the firms' own ledgers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from consortium_in_memory import LEAD, NAME, Consortium, make_terms, run_on
from greylag_client.statement import read_statement
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.usage import Tariff, UsageStatement, compare_with_own
from greylag_server.statements import (
    close_period,
    open_period,
    read_statements,
    write_statements,
)
from greylag_server.store import Store

TARIFF = Tariff(thousand_rows="4", attempt="1", shared_part="1", sharing="attempts")


@dataclass(kw_only=True)
class Ended:
    """A run of four rounds that is over."""

    consortium: Consortium
    store: Store

    def close(self, period: str, **rows: int) -> list[UsageStatement]:
        totals = {name.replace("_", "-"): (count, 1) for name, count in rows.items()}
        return close_period(self.store, NAME, period, totals, TARIFF, LEAD)


@pytest.fixture
def ended(tmp_path: Path) -> Iterator[Ended]:
    consortium = Consortium(tmp_path, terms=make_terms())
    store = consortium.open_store()
    run_on(consortium.local_grid(), consortium.coordinator(store))
    yield Ended(consortium=consortium, store=store)
    store.close()


def test_every_firm_finds_its_own_ledger_in_its_statement(ended: Ended) -> None:
    statements = ended.close("2026-11", firm_a=2_500)
    assert [item.firm for item in statements] == sorted(ended.consortium.firms)
    for item in statements:
        ledger = ended.consortium.firms[item.firm].ledger
        assert item.runs[0].attempts == item.runs[0].rounds == 4
        assert compare_with_own(item, ledger.entries_after(0), ledger.head_at(item.seq)) == []
    assert [item.total for item in statements] == ["3.50", "-6.50", "-6.50", "-6.50"]
    # 2,500 rows cost 10.00; all of it comes back in four equal shares, and 4 attempts are 4.00
    assert [line.amount for line in statements[0].lines] == ["10.00", "0.00", "-4.00", "-2.50"]


def test_a_period_begins_where_the_last_one_ended(ended: Ended) -> None:
    first = ended.close("2026-11", firm_a=2_500)
    second = ended.close("2026-12", firm_a=4_000)
    assert second[0].first_entry == first[0].end_entry
    assert second[0].predictions.rows == 1_500
    assert second[0].runs == ()
    assert second[0].seq_before == second[0].seq == first[0].seq
    logged = read_statements(ended.store)
    assert [item.statement for item in logged] == [*first, *second]


def test_what_is_open_is_shown_and_not_kept(ended: Ended) -> None:
    size = ended.store.checkpoint().size
    shown = open_period(ended.store, NAME, "2026-11", {}, TARIFF)
    assert ended.store.checkpoint().size == size
    assert ended.close("2026-11") == shown


@pytest.mark.parametrize("again", ["2026-11", "2026-10"])
def test_a_period_is_closed_once(ended: Ended, again: str) -> None:
    ended.close("2026-11")
    size = ended.store.checkpoint().size
    with pytest.raises(ConfigError, match="2026-11 is closed already"):
        ended.close(again)
    assert ended.store.checkpoint().size == size


def test_an_empty_log_has_nobody_to_state_anything_to(tmp_path: Path) -> None:
    store = Store(tmp_path / "log.sqlite", origin=NAME)
    with pytest.raises(ConfigError, match="nothing has happened"):
        close_period(store, NAME, "2026-11", {}, TARIFF, LEAD)
    store.close()


def test_a_firm_that_only_asks_for_predictions_has_a_statement(ended: Ended) -> None:
    statements = {item.firm: item for item in ended.close("2026-11", firm_z=1_000)}
    assert statements["firm-z"].total == "4.00"
    assert statements["firm-z"].shares == 0


@pytest.fixture
def written(ended: Ended, tmp_path: Path) -> Path:
    ended.close("2026-11", firm_a=2_500)
    _write(ended, tmp_path / "november")
    return tmp_path / "november/firm-a-2026-11.json"


def _write(ended: Ended, out: Path) -> None:
    write_statements(
        read_statements(ended.store),
        out,
        store=ended.store,
        signer=LEAD,
        membership=ended.consortium.membership,
    )


def _read(content: bytes, firm: str = "firm-a") -> tuple[UsageStatement, int]:
    return read_statement(content, firm=firm, consortium=NAME, lead_key=LEAD.public_key)


def test_each_firm_reads_its_file(ended: Ended, written: Path) -> None:
    for logged in read_statements(ended.store):
        firm = logged.statement.firm
        stated, size = _read((written.parent / f"{firm}-2026-11.json").read_bytes(), firm)
        assert stated == logged.statement
        assert size == ended.store.checkpoint().size


def test_another_firms_file_is_refused(written: Path) -> None:
    with pytest.raises(VerificationError, match="it is for firm-a"):
        _read(written.read_bytes(), firm="firm-b")


@pytest.mark.parametrize("key", ["statement", "entry", "proof"])
def test_an_altered_file_is_refused(written: Path, key: str) -> None:
    content = json.loads(written.read_text())
    changed = content[key].replace("1", "2", 1)
    assert changed != content[key]
    with pytest.raises(VerificationError):
        _read(json.dumps({**content, key: changed}).encode())
    with pytest.raises(VerificationError, match="statement's file"):
        _read(json.dumps({**content, "more": ""}).encode())


def test_what_is_there_is_never_overwritten(ended: Ended, written: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(ConfigError, match="not an empty directory"):
        _write(ended, written.parent)
    assert written.read_bytes() == before
