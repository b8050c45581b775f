"""What this firm refused and why, for its own people; none of it is ever sent."""

from typing import NamedTuple

from greylag_client.ledger_file import LedgerFile

KEPT = 1000
REASON_CHARS = 2000  # a reason may quote what a remote wrote


class Refused(NamedTuple):
    """A refusal, and how often it was repeated in a row. Times are Unix seconds."""

    run: str
    refusal_class: str
    reason: str
    first_s: int
    last_s: int
    times: int


class Refusals:
    """The list in a ledger's file: the newest ``KEPT``."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def note(self, run: str, refusal_class: str, reason: str, *, now_s: float) -> bool:
        """Add one; a repetition of the run's last one only counts it up. Returns if it is new."""
        reason = reason[:REASON_CHARS]
        with self._file.transaction():
            last = self._file.db.execute(
                "SELECT number, class, reason FROM refusals WHERE run = ? ORDER BY number DESC "
                "LIMIT 1",
                (run,),
            ).fetchone()
            if last is not None and last[1:] == (refusal_class, reason):
                self._file.db.execute(
                    "UPDATE refusals SET last_s = ?, times = times + 1 WHERE number = ?",
                    (int(now_s), last[0]),
                )
                return False
            self._file.db.execute(
                "INSERT INTO refusals (run, class, reason, first_s, last_s, times) "
                "VALUES (?, ?, ?, ?, ?, 1)",
                (run, refusal_class, reason, int(now_s), int(now_s)),
            )
            self._file.db.execute(
                "DELETE FROM refusals WHERE number <= (SELECT max(number) FROM refusals) - ?",
                (KEPT,),
            )
        return True

    def newest(self, limit: int = 50) -> list[Refused]:
        """The last refusals, newest first."""
        rows = self._file.db.execute(
            "SELECT run, class, reason, first_s, last_s, times FROM refusals "
            "ORDER BY last_s DESC, number DESC LIMIT ?",
            (limit,),
        )
        return [Refused(*row) for row in rows]
