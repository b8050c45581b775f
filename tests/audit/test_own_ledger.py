"""A firm compares its own books with the log that the lead shows."""

import json
from pathlib import Path

import pytest
from audit_evidence import STRANGER, Evidence, audit
from greylag_audit.ledger_export import LedgerExport, parse_export
from greylag_protocols import log
from greylag_protocols.errors import ConfigError


def export(evidence: Evidence, firm: str, *, entries: tuple[bytes, ...] | None = None) -> bytes:
    head = {
        "version": "ledger/v1",
        "consortium": "glass",
        "firm": firm,
        "identity": evidence.firms[firm].public_key.hex(),
    }
    lines = [json.dumps(head).encode(), *(evidence.ledgers[firm] if entries is None else entries)]
    return b"".join(line + b"\n" for line in lines)


def told(root: Path, evidence: Evidence, ledger: LedgerExport) -> list[tuple[str, str, int | None]]:
    verdict = audit(root, evidence.trust(), ledger=ledger)
    found = [item for item in verdict.findings if item.check == "ledger.agrees"]
    assert all(item.firm == ledger.firm for item in found)
    return [(item.message, item.state, item.entry) for item in found]


def test_every_firms_own_books_agree(real: Evidence, real_bundle: Path) -> None:
    for firm in real.firms:
        ledger = parse_export(export(real, firm))
        assert told(real_bundle, real, ledger) == [("ledger.agrees:holds", "holds", None)]


def test_a_receipt_that_the_log_lacks_is_told(evidence: Evidence, tmp_path: Path) -> None:
    """The lead drops the end of its log, and with it what the firm paid for; it agrees with
    itself."""
    cut = evidence.find(log.ROUND_KIND, round=5) + 1
    evidence.entries = evidence.entries[:cut]
    evidence.cosigned_at = {}
    ledger = parse_export(export(evidence, "firm-b"))
    root = evidence.write(tmp_path / "bundle")
    assert audit(root, evidence.trust()).holds
    assert told(root, evidence, ledger) == [
        ("ledger.agrees:dropped", "broken", cut),
        ("ledger.agrees:untold", "unknown", None),
    ]
    assert not audit(root, evidence.trust(), ledger=ledger).holds


def test_a_goodbye_that_the_lead_has_not_had_is_no_fraud(
    evidence: Evidence, tmp_path: Path
) -> None:
    del evidence.entries[evidence.find(log.CLOSED_KIND, firm="firm-b")]
    root = evidence.write(tmp_path / "bundle")
    found = told(root, evidence, parse_export(export(evidence, "firm-b")))
    assert found == [("ledger.agrees:untold", "unknown", None)]


def test_an_old_copy_of_the_ledger_is_told(real: Evidence, real_bundle: Path) -> None:
    old = real.ledgers["firm-b"][:-1]
    ledger = parse_export(export(real, "firm-b", entries=old))
    at = real.find(log.CLOSED_KIND, firm="firm-b")
    assert told(real_bundle, real, ledger) == [("ledger.agrees:more", "broken", at)]


def test_another_statement_in_the_log_is_told(evidence: Evidence, tmp_path: Path) -> None:
    """Somebody else has the firm's key, and signed another story with it."""
    at = evidence.find(log.CLOSED_KIND, firm="firm-b")
    evidence.sign(at, charged=1)
    found = told(
        evidence.write(tmp_path / "bundle"), evidence, parse_export(export(evidence, "firm-b"))
    )
    assert found == [("ledger.agrees:other", "broken", at)]


def test_an_export_that_is_no_chain_is_told(real: Evidence, real_bundle: Path) -> None:
    entries = real.ledgers["firm-b"]
    forged = log.sign_closed(
        STRANGER, log.ChainTip(), firm="firm-b", run="small-1", terms=bytes(32), charged=0
    )
    for wrong in ((entries[1],), (entries[0], entries[2]), (b"{}",), (forged,)):
        ledger = parse_export(export(real, "firm-b", entries=wrong))
        assert ("ledger.agrees:broken", "broken", None) in told(real_bundle, real, ledger)
    cut = parse_export(export(real, "firm-b")[:-1])
    assert cut.fault == "its last line is cut off"


@pytest.mark.parametrize("data", [b"", b"{}\n", b"[1]\n", b"\xff\n", b'{"version":"ledger/v2"}\n'])
def test_what_is_no_export_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match="ledger export"):
        parse_export(data)
