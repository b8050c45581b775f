"""What an audit finds: for each promise whether it holds, on what kind of evidence, and where not.

Nothing here is a sentence: a finding names its message and the facts for it, and ``texts`` says it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from greylag_audit.texts import CHECKS, render

State = Literal["holds", "broken", "unknown"]
Evidence = Literal["proved", "signed claim", "cannot be checked"]

MAX_PER_CHECK = 20  # a forged log may be wrong in every entry; who reads it needs the first few


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result.

    Attributes:
        check: the promise that was looked at; a key of ``texts.CHECKS``.
        evidence: proved: follows from signatures and hashes; signed claim: somebody said so.
        entry: position of the log entry at fault, counted from 0.
        firm: name of the firm that it is about.
        message: key of the sentence in ``texts``.
        facts: what the sentence mentions.
    """

    check: str
    state: State
    evidence: Evidence
    entry: int | None = None
    firm: str | None = None
    message: str
    facts: tuple[tuple[str, str], ...] = ()

    def text(self, lang: str = "en") -> str:
        """The finding as a sentence for people."""
        return render(self.message, dict(self.facts), lang)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "check": self.check,
            "state": self.state,
            "evidence": self.evidence,
            "entry": self.entry,
            "firm": self.firm,
            "message": self.message,
            "facts": dict(self.facts),
            "text": self.text(),
        }


@dataclass(slots=True)
class Findings:
    """Collects findings while the log streams by; a check without any holds at the end."""

    kept: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        state: State,
        message: str,
        *,
        entry: int | None = None,
        firm: str | None = None,
        **facts: object,
    ) -> None:
        """Note a result; ``message`` is ``check:what``."""
        check = message.partition(":")[0]
        key = f"{state} {check}"
        self.counts[key] += 1
        if self.counts[key] > MAX_PER_CHECK:
            return
        self.kept.append(
            Finding(
                check=check,
                state=state,
                evidence="cannot be checked" if state == "unknown" else CHECKS[check].evidence,
                entry=entry,
                firm=None if firm is None else firm[:80],
                message=message,
                facts=tuple((name, _plain(value)) for name, value in facts.items()),
            )
        )

    def broken(
        self, message: str, *, entry: int | None = None, firm: str | None = None, **facts: object
    ) -> None:
        """A promise is broken, there and by that firm."""
        self.add("broken", message, entry=entry, firm=firm, **facts)

    def has(self, check: str) -> bool:
        """Whether anything was noted of a check."""
        return any(key.endswith(f" {check}") for key in self.counts)

    def complete(self, **facts: str) -> Iterator[Finding]:
        """All findings in the order of ``CHECKS``: those noted, and the checks that hold, whose
        sentences may mention ``facts``."""
        for check in CHECKS.values():
            noted = [item for item in self.kept if item.check == check.id]
            yield from noted
            for state in ("broken", "unknown"):
                more = self.counts[f"{state} {check.id}"] - MAX_PER_CHECK
                if more > 0:
                    yield Finding(
                        check=check.id,
                        state="broken" if state == "broken" else "unknown",
                        evidence=check.evidence,
                        message="more",
                        facts=(("count", str(more)),),
                    )
            if not noted and check.always:
                yield Finding(
                    check=check.id,
                    state="holds",
                    evidence=check.evidence,
                    message=check.id,
                    facts=tuple(facts.items()),
                )


def _plain(value: object) -> str:
    """Facts may come from forged entries: short, and printable on a terminal."""
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text if len(text) <= 200 else f"{text[:200]}..."
