"""A bundle of an earlier day, from the repository: what readers once accepted they accept still."""

import json
from pathlib import Path

import pytest
from greylag_audit.bundle_files import open_bundle
from greylag_audit.replay import replay
from greylag_audit.show import describe
from greylag_audit.trust import read_trust
from greylag_audit.verify import verify

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "findings.json").read_text())


@pytest.mark.parametrize("quick", [False, True])
def test_every_finding_is_as_it_was(quick: bool) -> None:
    with open_bundle(GOLDEN / "bundle.tar.zst") as bundle:
        verdict = verify(bundle, trust=read_trust(GOLDEN / "trust.json"), quick=quick)
    assert (verdict.holds, verdict.size) == (EXPECTED["holds"], EXPECTED["size"]) != (False, 0)
    found = [
        [item.check, item.state, item.evidence, item.entry, item.firm, item.message]
        for item in verdict.findings
        if item.check != "entry.signature"  # a quick look says how quick it was
    ]
    assert found == [row for row in EXPECTED["findings"] if row[0] != "entry.signature"]
    assert "every promise that can be checked is kept" in describe(verdict)


def test_it_replays() -> None:
    with open_bundle(GOLDEN / "bundle.tar.zst") as bundle:
        _, found = replay(bundle)
    assert found.message == "replay.follows:holds"
