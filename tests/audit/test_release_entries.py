"""Releases, withdrawals and versions in a log, as an auditor reads them."""

from pathlib import Path
from typing import Any

import pytest
from audit_evidence import Evidence, audit, broken
from consortium_in_memory import NAME
from greylag_protocols import log
from greylag_protocols.releases import (
    RELEASE_KIND,
    Current,
    Withdrawal,
    sign_current,
    sign_withdrawal,
)

ZERO = "0" * 64


def release(evidence: Evidence, **changed: Any) -> bytes:
    """A release of the run as leads write it now."""
    said = evidence.statement(evidence.find(log.RELEASE_KIND))
    facts = {
        **said.predicate,
        "consortium": NAME,
        "name": "small",
        "version": 1,
        "issued_s": 5,
        "expires_s": 9,
        "licence": "for members",
        "permitted_uses": ["predictions"],
        "files": [{"name": "model.safetensors", "sha256": ZERO, "bytes": 1}],
        "signing_key": ZERO,
        "cosigners": 2,
        "holdout": None,
        "because": "",
    }
    return evidence.lead.sign(RELEASE_KIND, said.subject, said.digest, facts | changed)


def withdrawal(evidence: Evidence, *versions: int) -> bytes:
    word = Withdrawal(
        consortium=NAME, name="small", versions=versions, because="a wrong unit", withdrawn_s=6
    )
    said = evidence.statement(evidence.find(log.RELEASE_KIND))
    return sign_withdrawal(evidence.lead, said.subject, said.digest, word)


def current(evidence: Evidence, version: int) -> bytes:
    word = Current(consortium=NAME, name="small", version=version, because="")
    said = evidence.statement(evidence.find(log.RELEASE_KIND))
    return sign_current(evidence.lead, said.subject, said.digest, word)


def found(evidence: Evidence, out: Path) -> list[str]:
    verdict = audit(evidence.write(out), evidence.trust())
    return [message for message, _, _ in broken(verdict)]


def test_versions_that_add_up(evidence: Evidence, tmp_path: Path) -> None:
    evidence.entries += [
        release(evidence, version=2),
        current(evidence, 1),
        withdrawal(evidence, 1),
        current(evidence, 2),
        withdrawal(evidence, 2),
    ]
    assert found(evidence, tmp_path / "bundle") == []


def test_a_log_with_new_releases_alone(evidence: Evidence, tmp_path: Path) -> None:
    at = evidence.find(log.RELEASE_KIND)
    evidence.entries[at] = release(evidence)
    verdict = audit(evidence.write(tmp_path / "bundle"), evidence.trust())
    assert broken(verdict) == []
    assert verdict.runs[evidence.run].release is not None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "other"}, "release.follows:name"),
        ({"version": 4}, "release.follows:versions"),
        ({"consortium": "woods"}, "release.follows:versions"),
        ({"licence": ""}, "release.follows:versions"),
        ({"state": ZERO}, "release.follows:state"),
        ({"rounds": 3}, "release.follows:rounds"),
        ({"terms": ZERO}, "release.follows:terms"),
    ],
)
def test_a_release_that_does_not_follow(
    evidence: Evidence, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    evidence.entries.append(release(evidence, **{"version": 2, **changed}))
    assert message in found(evidence, tmp_path / "bundle")


def test_words_about_versions_that_do_not_add_up(evidence: Evidence, tmp_path: Path) -> None:
    evidence.entries += [withdrawal(evidence, 2), withdrawal(evidence, 1), current(evidence, 1)]
    messages = found(evidence, tmp_path / "bundle")
    assert messages == ["release.follows:versions"] * 2
