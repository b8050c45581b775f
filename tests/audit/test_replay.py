"""From the first weights through every sum to the released ones: the same bits, or where not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_evidence import Evidence
from greylag_audit.bundle_files import open_bundle
from greylag_audit.findings import Finding
from greylag_audit.replay import replay
from greylag_protocols import log
from greylag_protocols.errors import ConfigError
from greylag_protocols.optimiser import model_digest


def outcome(root: Path) -> Finding:
    with open_bundle(root) as bundle:
        return replay(bundle)[1]


def test_a_real_run_replays(real_bundle: Path) -> None:
    found = outcome(real_bundle)
    assert (found.state, found.message) == ("holds", "replay.follows:holds")
    assert dict(found.facts) == {"rounds": "6"}


def test_progress_is_told(real_bundle: Path) -> None:
    seen: list[tuple[int, int]] = []
    with open_bundle(real_bundle) as bundle:
        replay(bundle, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(at, 6) for at in range(7)]


def changed_sum(evidence: Evidence) -> tuple[str, int]:
    """The lead puts another sum in the place of a round's, and logs its hash."""
    at = evidence.find(log.ROUND_KIND, round=3)
    old = bytes.fromhex(evidence.statement(at).predicate["sum"])
    content = bytearray(evidence.artefacts[old])
    content[0] ^= 1
    new = log.sum_digest(bytes(content))
    evidence.artefacts[new] = bytes(content)
    evidence.sign(at, sum=new.hex())
    return "replay.follows:state", at


def short_sum(evidence: Evidence) -> tuple[str, int]:
    at = evidence.find(log.ROUND_KIND, round=3)
    new = log.sum_digest(b"1234")
    evidence.artefacts[new] = b"1234"
    evidence.sign(at, sum=new.hex())
    return "replay.follows:sum", at


def other_model(evidence: Evidence) -> tuple[str, int]:
    at = evidence.find(log.ROUND_KIND, round=4)
    evidence.sign(at, model_in=bytes(32).hex())
    return "replay.follows:model", at


def other_start(evidence: Evidence) -> tuple[str, int]:
    at = evidence.find(log.START_KIND)
    evidence.sign(at, state=bytes(32).hex())
    return "replay.follows:start", at


def other_release(evidence: Evidence) -> tuple[str, int]:
    at = evidence.find(log.RELEASE_KIND)
    evidence.sign(at, digest=model_digest(evidence.record.state.published()))  # type: ignore[union-attr]
    return "replay.follows:released", at


@pytest.mark.parametrize(
    "change", [changed_sum, short_sum, other_model, other_start, other_release]
)
def test_the_first_round_that_differs_is_named(
    change: Callable[[Evidence], tuple[str, int]], evidence: Evidence, tmp_path: Path
) -> None:
    expected = change(evidence)
    found = outcome(evidence.write(tmp_path / "bundle"))
    assert (found.message, found.entry) == expected
    assert found.state == "broken"


def test_weights_beside_the_log_are_compared(real_bundle: Path, tmp_path: Path) -> None:
    root = shutil.copytree(real_bundle, tmp_path / "bundle")
    content = bytearray((root / "weights/released").read_bytes())
    content[-1] ^= 1
    (root / "weights/released").write_bytes(content)
    assert outcome(root).message == "replay.follows:released"


def test_a_run_without_release_replays_as_far_as_it_went(
    evidence: Evidence, tmp_path: Path
) -> None:
    del evidence.entries[evidence.find(log.RELEASE_KIND)]
    found = outcome(evidence.write(tmp_path / "bundle"))
    assert (found.message, found.state) == ("replay.follows:unreleased", "unknown")


def test_a_bundle_without_its_terms_cannot_be_replayed(real_bundle: Path, tmp_path: Path) -> None:
    root = shutil.copytree(real_bundle, tmp_path / "bundle")
    next((root / "terms").iterdir()).unlink()
    with pytest.raises(ConfigError, match="no log or terms"):
        outcome(root)
