"""What the page shows of the log, gathered entry by entry as it grows.

The entries are the lead's own store's, checked when they came in; here they are only read, in a way
that costs a tenth of parsing them for evidence. Nothing that is shown is proof; that is the
auditor's.
"""

import base64
import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from greylag_protocols import log
from greylag_protocols.errors import VerificationError
from greylag_protocols.releases import KINDS, ReleaseHistory
from greylag_protocols.signing import PREDICATE_PREFIX, verify_statement

AT_ONCE = 2000  # entries followed in one go: about 40 ms
ENDS = frozenset({log.ROUND_KIND, log.VOID_KIND})
WORDS = frozenset({log.RECEIPT_KIND, log.CLOSED_KIND, log.REFUSAL_KIND, log.RESTART_KIND})


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSeen:
    """One attempt. ``missing``: who did not answer, if that made it void. ``seconds`` since the one
    before; 0 where this process did not see both end."""

    number: int
    round_number: int
    void: bool
    missing: tuple[str, ...]
    roster: int
    seconds: float


@dataclass(slots=True, kw_only=True)
class RunSeen:
    """One run. ``charged`` counts releases by firm, as the firms' own entries say."""

    attempts: list[AttemptSeen] = field(default_factory=list)
    charged: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # by firm: the class, last
    refusals: Counter[str] = field(default_factory=Counter)  # by class
    restarts: int = 0

    def copy(self) -> "RunSeen":
        """The same, which stays as it is."""
        return RunSeen(
            attempts=self.attempts.copy(),
            charged=self.charged.copy(),
            refused=self.refused.copy(),
            refusals=self.refusals.copy(),
            restarts=self.restarts,
        )


class LogIndex:
    """Follows one log. Not for several threads at once.

    Args:
        consortium: whose log it is.
        lead_key: by which words about releases have to be signed.

    Attributes:
        size: entries read so far.
        runs: by id, what they showed.
        releases: all versions of all models.
        problem: why the log's words about releases do not hold, if they do not.
    """

    def __init__(self, consortium: str, lead_key: bytes) -> None:
        self.size = 0
        self.runs: dict[str, RunSeen] = {}
        self.releases = ReleaseHistory(consortium=consortium)
        self.problem = ""
        self._lead_key = lead_key
        self._live = False  # it caught up once: what comes now has just happened
        self._last = ("", 0.0)  # the run whose attempt ended last, and when

    def follow(self, db: sqlite3.Connection, *, now_s: float) -> bool:
        """Read on; whether there is more."""
        rows = db.execute(
            "SELECT position, envelope FROM entries WHERE position >= ? ORDER BY position LIMIT ?",
            (self.size, AT_ONCE),
        ).fetchall()
        ended: list[tuple[str, bool, dict[str, Any]]] = []
        for position, envelope in rows:
            kind, subject, predicate = _glance(envelope)
            if kind in ENDS:
                ended.append((subject, kind == log.VOID_KIND, predicate))
            elif kind in WORDS:
                self._take(kind, self.runs.setdefault(subject, RunSeen()), predicate)
            elif kind in KINDS:
                self._release(position, kind, envelope)
            self.size = position + 1
        self._end(ended, now_s)
        more = len(rows) == AT_ONCE
        self._live = self._live or not more
        return more

    def run(self, run: str) -> RunSeen:
        """What is known of a run now, as a copy that stays as it is."""
        return (self.runs.get(run) or RunSeen()).copy()

    def _take(self, kind: str, seen: RunSeen, predicate: dict[str, Any]) -> None:
        firm = str(predicate.get("firm", ""))
        if kind == log.RESTART_KIND:
            seen.restarts += 1
        elif kind == log.REFUSAL_KIND:
            refusal = str(predicate["class"])
            seen.refusals[refusal] += 1
            seen.refused[firm] = refusal
        else:
            seen.charged[firm] = max(seen.charged.get(firm, 0), int(predicate["charged"]))

    def _release(self, position: int, kind: str, envelope: bytes) -> None:
        try:
            self.releases.take(verify_statement(envelope, self._lead_key, kind), position)
        except VerificationError as error:
            self.problem = self.problem or f"log entry {position}: {error}"

    def _end(self, ended: list[tuple[str, bool, dict[str, Any]]], now_s: float) -> None:
        """Attempts that ended since the last look: the time since the one before is shared among
        them, if that was one of the same run which this process saw end."""
        for run, void, predicate in ended:
            last_run, last_s = self._last
            timed = self._live and run == last_run and last_s > 0
            same = sum(other == run for other, _, _ in ended)
            self.runs.setdefault(run, RunSeen()).attempts.append(
                AttemptSeen(
                    number=int(predicate["attempt"]),
                    round_number=int(predicate["round"]),
                    void=void,
                    missing=tuple(str(item) for item in predicate.get("missing", ())),
                    roster=len(predicate["roster"]),
                    seconds=max(0.0, now_s - last_s) / same if timed else 0.0,
                )
            )
        if ended and self._live:
            self._last = (ended[-1][0], now_s)


def _glance(envelope: bytes) -> tuple[str, str, dict[str, Any]]:
    """An entry's kind, subject and predicate."""
    statement = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    kind = str(statement["predicateType"]).removeprefix(PREDICATE_PREFIX)
    return kind, str(statement["subject"][0]["name"]), statement["predicate"]
