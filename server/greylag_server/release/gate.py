"""What must hold before a model is released; each check is told, one by one.

The log is judged by the auditor's own program, as a process of its own, on a bundle like any other:
the lead's code has no say in what it finds.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.membership import MAX_DOCUMENT_BYTES, Membership
from greylag_protocols.signing import Signer
from greylag_protocols.trust import Trust, trust_in

from greylag_server.bundle import write_bundle
from greylag_server.store import RunRecord, Store

AUDITOR = "greylag-audit"
MAX_VERDICT_BYTES = 64 << 20
MOST_SHOWN = 3  # broken promises; the auditor itself tells all
# Promises about how often and how much firms were charged; the others are about the log.
CAPS = ("terms.epsilon", "attempt.limit", "receipt.charge", "receipt.match", "roster.size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One condition of the gate and how it came out."""

    name: str
    ok: bool
    text: str

    def line(self) -> str:
        """For people."""
        return f"  {'ok    ' if self.ok else 'FAILED'}  {self.name}: {self.text}"


@dataclass(slots=True)
class Checks:
    """All checks so far; each is told as soon as it is known."""

    tell: Callable[[Check], None]
    kept: list[Check] = field(default_factory=list)

    def add(self, name: str, ok: bool, text: str) -> None:
        """Note a result."""
        self.kept.append(Check(name=name, ok=ok, text=text))
        self.tell(self.kept[-1])

    @property
    def hold(self) -> bool:
        """Whether nothing has failed."""
        return all(item.ok for item in self.kept)

    def require(self) -> None:
        """Stop here if anything failed.

        Raises:
            GateClosedError: something has.
        """
        if not self.hold:
            raise GateClosedError(self)

    def to_json(self) -> list[dict[str, Any]]:
        """For programs."""
        return [asdict(item) for item in self.kept]


class GateClosedError(VerificationError):
    """A check failed: nothing is released."""

    def __init__(self, checks: Checks) -> None:
        failed = "; ".join(f"{item.name}: {item.text}" for item in checks.kept if not item.ok)
        super().__init__(f"not released, nothing was written: {failed}")
        self.checks = checks


def check_log(
    checks: Checks, store: Store, record: RunRecord, *, consortium: str, signer: Signer
) -> None:
    """The auditor's verdict on the log, on what firms were charged, and on a replay."""
    with _bundle_of(store, record, signer) as (bundle, trust):
        trust.write_text(json.dumps(asdict(_trust(bundle, consortium, signer))))
        status, verdict = _audit("verify", str(bundle), "--trust", str(trust))
        broken = [item for item in verdict["findings"] if item["state"] == "broken"]
        caps = [item for item in broken if item["check"] in CAPS]
        other = [item for item in broken if item["check"] not in CAPS]
        holds = bool((status == 0 and verdict["holds"]) or (caps and not other))
        good = f"all {verdict['size']} entries verify, by {AUDITOR} verify"
        text = good if holds else _tell(other) or "not everybody who signed it is known"
        checks.add("log", holds, text)
        checks.add(
            "caps", not caps, _tell(caps) or "every receipt is within what the terms account for"
        )
        status, found = _audit("replay", str(bundle))
        checks.add("replay", status == 0 and found["state"] != "broken", found["text"])


@contextmanager
def _bundle_of(store: Store, record: RunRecord, signer: Signer) -> Iterator[tuple[Path, Path]]:
    root = Path(tempfile.mkdtemp(prefix="greylag-release-"))
    try:
        write_bundle(store, record, root / "bundle", signer=signer)
        yield root / "bundle", root / "trust.json"
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _trust(bundle: Path, consortium: str, signer: Signer) -> Trust:
    """Keys by the lead's own records: the member lists that it keeps beside the log."""
    lists = []
    for path in (bundle / "membership").glob("*.json"):
        value = parse_json(path.read_bytes(), max_bytes=MAX_DOCUMENT_BYTES)
        lists.append(parse_as(Membership, value, what="stored membership"))
    return trust_in(lists, consortium=consortium, lead=signer.public_key.hex(), bodies={})


def _audit(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the auditor's program; its progress goes to our stderr.

    Raises:
        ConfigError: it is not installed.
        VerificationError: it could not do its work.
    """
    beside = Path(sys.executable).parent
    program = shutil.which(AUDITOR, path=str(beside)) or shutil.which(AUDITOR)
    if program is None:
        raise ConfigError(
            f"{AUDITOR} is not installed, and nothing is released unaudited; install it with: "
            "pip install 'greylag[audit]'"
        )
    done = subprocess.run(  # noqa: S603 - the auditor's program and paths of our own
        [program, *arguments, "--format", "json"], stdout=subprocess.PIPE, check=False
    )
    verdict: dict[str, Any] | None = None
    if done.returncode in (0, 1):
        with suppress(VerificationError):  # it broke down: what it said is on stderr
            verdict = parse_json(done.stdout, max_bytes=MAX_VERDICT_BYTES)
    if verdict is None:
        raise VerificationError(
            f"{AUDITOR} {arguments[0]} came to no verdict on the run's bundle (its message is "
            "above); nothing is released unaudited"
        )
    return done.returncode, verdict


def _tell(broken: list[dict[str, Any]]) -> str:
    lines = [
        ("" if item["entry"] is None else f"entry {item['entry']}: ") + item["text"]
        for item in broken[:MOST_SHOWN]
    ]
    more = len(broken) - MOST_SHOWN
    return " ".join(lines) + (f" (and {more} more)" if more > 0 else "")
