"""Make the golden bundle anew: `python tests/make_golden_bundle.py`, only when a format changed on
purpose.

A real run of five firms and six rounds, in which one answer was lost, with releases and a
withdrawal after it. Bundles like this one are with auditors; a reader that refuses it is no reader
of ours any more, so a new one goes with a new version of what changed, and the old one stays.
"""

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from audit_evidence import Evidence, make_evidence
from consortium_in_memory import NAME, NOW_S
from greylag_audit.bundle_files import open_bundle
from greylag_audit.verify import Verdict, verify
from greylag_protocols import log
from greylag_protocols.releases import (
    Current,
    ReleasedFile,
    ReleaseFacts,
    Withdrawal,
    sign_current,
    sign_release,
    sign_withdrawal,
)
from greylag_server.bundle import pack

GOLDEN = Path(__file__).parent / "audit" / "golden"
BUNDLE, TRUST, EXPECTED = "bundle.tar.zst", "trust.json", "findings.json"


def digest_of(verdict: Verdict) -> dict[str, object]:
    """What of a verdict is to stay: not the sentences, which may become better."""
    return {
        "holds": verdict.holds,
        "size": verdict.size,
        "findings": [
            [item.check, item.state, item.evidence, item.entry, item.firm, item.message]
            for item in verdict.findings
        ],
    }


def add_releases(evidence: Evidence) -> None:
    """Two more versions of the model; the first is withdrawn."""
    said = evidence.statement(evidence.find(log.RELEASE_KIND))
    about = evidence.lead, said.subject, said.digest
    for version in (2, 3):
        facts = ReleaseFacts(
            **said.predicate,
            consortium=NAME,
            name="small",
            version=version,
            issued_s=int(NOW_S),
            expires_s=int(NOW_S) + 86_400,
            licence="for members",
            permitted_uses=("predictions",),
            files=(ReleasedFile(name="model.safetensors", sha256="0" * 64, bytes=1),),
            signing_key="0" * 64,
            cosigners=2,
            holdout=None,
            because="",
        )
        evidence.entries.append(sign_release(*about, facts))
    word = Withdrawal(
        consortium=NAME,
        name="small",
        versions=(2,),
        because="a wrong unit",
        withdrawn_s=int(NOW_S) + 60,
    )
    evidence.entries.append(sign_withdrawal(*about, word))
    choice = Current(consortium=NAME, name="small", version=3, because="")
    evidence.entries.append(sign_current(*about, choice))


def main() -> None:
    """Write the three files."""
    with tempfile.TemporaryDirectory() as name:
        evidence = make_evidence(Path(name))
        add_releases(evidence)
        evidence.cosigned_at[len(evidence.entries)] = int(NOW_S) + 180
        bundle = evidence.write(Path(name) / "bundle")
        shutil.rmtree(GOLDEN, ignore_errors=True)
        GOLDEN.mkdir()
        pack(bundle, GOLDEN / BUNDLE)
    (GOLDEN / TRUST).write_text(json.dumps(asdict(evidence.trust()), indent=1) + "\n")
    with open_bundle(GOLDEN / BUNDLE) as opened:
        verdict = verify(opened, trust=evidence.trust())
    rows = digest_of(verdict)
    (GOLDEN / EXPECTED).write_text(json.dumps(rows, indent=1) + "\n")
    broken = [item.text() for item in verdict.findings if item.state == "broken"]
    sizes = {path.name: path.stat().st_size for path in sorted(GOLDEN.iterdir())}
    print(f"{verdict.size} entries, holds: {verdict.holds} {broken}; bytes: {sizes}")


if __name__ == "__main__":
    main()
