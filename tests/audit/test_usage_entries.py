"""Statements of use in a log, as an auditor reads them."""

from pathlib import Path

import pytest
from audit_evidence import Evidence, audit, broken
from greylag_protocols.usage import USAGE_KIND


def stated(evidence: Evidence, period: str, end: int, *, of: str = "", firm: str = "") -> bytes:
    """The lead's entry; ``of`` names another firm in its predicate."""
    firm = firm or sorted(evidence.firms)[0]
    predicate = {"firm": of or firm, "period": period, "end_entry": end}
    return evidence.lead.sign(USAGE_KIND, firm, bytes(32), predicate)


def found(evidence: Evidence, out: Path) -> list[tuple[str, str]]:
    verdict = audit(evidence.write(out), evidence.trust())
    return [(message, firm) for message, _, firm in broken(verdict)]


def test_periods_that_follow_one_another(evidence: Evidence, tmp_path: Path) -> None:
    size, other = len(evidence.entries), sorted(evidence.firms)[1]
    evidence.entries += [
        stated(evidence, "2026-11", size),
        stated(evidence, "2026-11", size, firm=other),
        stated(evidence, "2026-12", size + 2),
    ]
    assert found(evidence, tmp_path / "bundle") == []


@pytest.mark.parametrize(
    ("period", "back", "of"),
    [
        ("2026-11", 0, ""),  # the same period again
        ("2026-10", 0, ""),  # an earlier one
        ("2026-12", 2, ""),  # one that ends before the last one ended
        ("2026-12", -9, ""),  # one that ends after its own entry
        ("2026-12", 0, "stranger"),
    ],
)
def test_periods_that_do_not(
    evidence: Evidence, tmp_path: Path, period: str, back: int, of: str
) -> None:
    size = len(evidence.entries)
    evidence.entries += [
        stated(evidence, "2026-11", size),
        stated(evidence, period, size + 1 - back, of=of),
    ]
    (message, _) = found(evidence, tmp_path / "bundle")[0]
    assert message == "usage.follows:period"
