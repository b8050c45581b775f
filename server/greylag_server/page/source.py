"""Reads the consortium's files for the page, on connections of its own that cannot write: a slow
look never holds up a round."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError
from greylag_protocols.merkle import Frontier
from greylag_protocols.notes import TIME_BYTES
from greylag_protocols.plan import parse_terms

from greylag_server.authority import load_certificate
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.page.accounts import Accounts
from greylag_server.page.facts import Cosigned, Facts, FirmFacts, Live, Part, RunFacts
from greylag_server.page.log_index import LogIndex
from greylag_server.steering import MAX_PACE_BYTES, PaceNote

JOURNAL_SHOWN = 200
LOCK_WAIT_S = 5.0
CANCELLED = "cancelled by "
COSTS_OF_A_RUN = 8  # each takes a fifth of a second
BREATH_S = 0.02  # between two goes at a long log: the coordinator shares this interpreter

_read_terms = lru_cache(maxsize=64)(parse_terms)
# The certificate that a firm used last; until it used one, the newest.
_CERTIFICATES = """
SELECT m.firm, m.operator, m.joined_s, c.certificate FROM members m LEFT JOIN (
    SELECT firm, certificate,
        row_number() OVER (PARTITION BY firm ORDER BY used DESC, number DESC) AS place
    FROM certificates
) c ON c.firm = m.firm AND c.place = 1 ORDER BY m.firm
"""


class Desk:
    """All that the page knows. Its methods may be called by any thread.

    Args:
        log_path: the lead's database.
        live: what the serving process adds, if the page runs in one.

    Raises:
        ConfigError: a file cannot be opened.
    """

    def __init__(
        self,
        consortium: Consortium,
        *,
        log_path: Path,
        enrolment: Enrolment,
        accounts: Accounts,
        live: Live | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._consortium, self._enrolment, self._accounts = consortium, enrolment, accounts
        self.live, self._clock = live, clock
        self._lock = threading.Lock()
        self._index = LogIndex(consortium.settings.id, consortium.signer.public_key)
        self._log = _read_only(log_path)
        self._members = _read_only(consortium.enrolment_path)
        self._book = _read_only(accounts.path)
        self._server_until_s = _ends_s(consortium.server_cert_pem)
        self._kept: tuple[object, Facts] | None = None
        self._costs: dict[tuple[str, int], float] = {}

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            for db in (self._log, self._members, self._book):
                db.close()

    def follow(self, stop: threading.Event) -> None:
        """Read on in the log until it is read or ``stop`` is set."""
        more = True
        while more and not stop.is_set():
            with self._lock:
                more = self._index.follow(self._log, now_s=self._clock())
            if more:
                stop.wait(BREATH_S)

    def stamp(self) -> object:
        """Something else whenever the page may have changed; costs next to nothing."""
        with self._lock:
            try:
                return self._stamp()
            except sqlite3.Error:
                return object()  # locked just now: like nothing before, so it is looked at again

    def _stamp(self) -> object:
        versions = [
            db.execute("PRAGMA data_version").fetchone()[0]
            for db in (self._log, self._members, self._book)
        ]
        live = self.live
        known = (tuple(sorted(live.online().items())), live.paused()) if live is not None else None
        return (*versions, self._index.size, known, int(self._clock()) // 3600)

    def look(self) -> Facts:
        """The state now.

        Raises:
            ConfigError: a file cannot be read.
        """
        with self._lock:
            try:
                stamp = self._stamp()
                if self._kept is None or self._kept[0] != stamp:
                    self._kept = stamp, self._look()
            except sqlite3.Error as error:
                raise ConfigError(f"the lead's files cannot be read just now ({error})") from None
            return self._kept[1]

    def epsilon(self, item: RunFacts, releases: int) -> float | None:
        """What so many releases of a run that is over cost one unit; while it goes on, that takes
        too long to be told after every round."""
        key = (item.run, releases)
        if key not in self._costs and item.over and releases:
            if sum(run == item.run for run, _ in self._costs) >= COSTS_OF_A_RUN:
                return None
            self._costs[key] = item.terms.epsilon_after(releases)
        return self._costs.get(key)

    def _look(self) -> Facts:
        index, now_s = self._index, self._clock()
        size, root = self._head()
        epoch = self._members.execute(
            "SELECT epoch, expires_s FROM epochs ORDER BY epoch DESC LIMIT 1"
        ).fetchone()
        return Facts(
            consortium=self._consortium.settings.id,
            now_s=now_s,
            firms=tuple(
                FirmFacts(
                    name=row[0],
                    operator=row[1],
                    joined_s=row[2],
                    expires_s=0 if row[3] is None else _ends_s(row[3].encode()),
                )
                for row in self._members.execute(_CERTIFICATES)
            ),
            online=None if self.live is None else dict(self.live.online()),
            invites=self._enrolment.open_invites(now_s),
            epoch=0 if epoch is None else epoch[0],
            epoch_until_s=0 if epoch is None else epoch[1],
            server_until_s=self._server_until_s,
            runs=self._runs(),
            log_size=size,
            log_root=root,
            log_read=index.size,
            log_problem=index.problem,
            cosigned=self._cosigned(),
            versions=tuple(
                sorted(
                    (item for known in index.releases.versions.values() for item in known),
                    key=lambda item: -item.position,
                )
            ),
            current=dict(index.releases.current),
            deeds=self._accounts.journal(JOURNAL_SHOWN),
            accounts=self._accounts.all(),
        )

    def _head(self) -> tuple[int, str]:
        row = self._log.execute("SELECT size, peaks FROM frontier").fetchone()
        if row is None:
            return 0, ""
        peaks = tuple(row[1][at : at + 32] for at in range(0, len(row[1]), 32))
        head = Checkpoint(
            origin=self._consortium.settings.id, size=row[0], root=Frontier(row[0], peaks).root
        )
        return head.size, head.root.hex()

    def _runs(self) -> tuple[RunFacts, ...]:
        """All runs, newest first; their models stay where they are."""
        parts: dict[str, list[Part]] = {}
        for run, firm, voids, closed in self._log.execute(
            "SELECT run, firm, voids, closed FROM participants ORDER BY firm"
        ):
            parts.setdefault(run, []).append(Part(firm=firm, voids=voids, closed=bool(closed)))
        paces = {run: _round_s(text) for run, text in self._log.execute("SELECT * FROM paces")}
        paused = frozenset[str]() if self.live is None else self.live.paused()
        rows = self._log.execute(
            "SELECT run, terms, status, reason, firms, rounds_done, attempts, roster FROM runs "
            "ORDER BY rowid DESC"
        )
        return tuple(
            RunFacts(
                run=row[0],
                terms=_read_terms(row[1]),
                status=_status(row[2], row[3], paused=row[0] in paused),
                reason=row[3],
                wanted=row[4],
                rounds_done=row[5],
                attempts=row[6],
                roster=tuple(json.loads(row[7])),
                parts=tuple(parts.get(row[0], ())),
                round_s=paces.get(row[0]),
                seen=self._index.run(row[0]),
            )
            for row in rows
        )

    def _cosigned(self) -> tuple[Cosigned, ...]:
        found: dict[int, dict[str, int]] = {}
        for size, firm, word in self._log.execute(
            "SELECT size, firm, cosignature FROM cosignatures ORDER BY size DESC, firm"
        ):
            found.setdefault(size, {})[firm] = int.from_bytes(word[:TIME_BYTES], "big")
        return tuple(Cosigned(size=size, times=times) for size, times in found.items())


def _status(stored: str, reason: str, *, paused: bool) -> str:
    """In the words that `greylag-server status` uses."""
    if stored == "failed" and reason.startswith(CANCELLED):
        return "cancelled"
    return "paused" if paused else stored


def _round_s(text: str) -> float:
    value = parse_json(text.encode(), max_bytes=MAX_PACE_BYTES)
    return parse_as(PaceNote, value, what="stored pace").round_s


def _read_only(path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            timeout=LOCK_WAIT_S,
            check_same_thread=False,  # the desk's lock orders its threads
        )
    except sqlite3.Error as error:
        raise ConfigError(f"{path} cannot be opened: {error}; restore it from a backup") from None


@lru_cache(maxsize=4096)
def _ends_s(pem: bytes) -> int:
    certificate: x509.Certificate = load_certificate(pem)
    return int(certificate.not_valid_after_utc.timestamp())
