"""What a lead publishes after runs: releases and their versions, and statements of use."""

from dataclasses import dataclass, field

from greylag_protocols.errors import VerificationError
from greylag_protocols.log import RELEASE_KIND as FIRST_RELEASE_KIND
from greylag_protocols.releases import RELEASE_KIND, ReleaseHistory, parse_release

from greylag_audit.entries import Entry
from greylag_audit.facts import Release
from greylag_audit.findings import Findings
from greylag_audit.runs import RunBook


@dataclass(slots=True, kw_only=True)
class Published:
    """Takes these entries in the log's order."""

    findings: Findings
    consortium: str
    _history: ReleaseHistory = field(init=False)
    _stated: dict[str, tuple[str, int]] = field(default_factory=dict)  # by firm: period and its end

    def __post_init__(self) -> None:
        self._history = ReleaseHistory(consortium=self.consortium)

    def take_version(self, entry: Entry, book: RunBook) -> None:
        """A release, a withdrawal or another current version, and the list that they make."""
        try:
            if entry.kind in (FIRST_RELEASE_KIND, RELEASE_KIND):
                self._check_release(entry, book)
            self._history.take(entry.statement(), entry.position)
        except VerificationError as error:
            self.findings.broken(
                "release.follows:versions", entry=entry.position, run=entry.subject, why=error
            )

    def take_usage(self, entry: Entry) -> None:
        """A firm's statement: its period begins where the firm's last one ended."""
        firm, predicate = entry.subject, entry.predicate
        last, end = self._stated.get(firm, ("", 0)), predicate["end_entry"]
        follows = predicate["period"] > last[0] and last[1] <= end <= entry.position
        if predicate["firm"] != firm or not follows:
            self.findings.broken("usage.follows:period", entry=entry.position, firm=firm)
        self._stated[firm] = predicate["period"], end

    def _check_release(self, entry: Entry, book: RunBook) -> None:
        predicate, broken, at = entry.predicate, self.findings.broken, entry.position
        if entry.kind == RELEASE_KIND:
            parse_release(entry.statement())
            if book.terms is not None and predicate["name"] != book.terms.run.name:
                broken("release.follows:name", entry=at, run=book.run)
        last = book.attempts[-1].attempt if book.attempts else 0
        if predicate["terms"] != book.terms_digest:
            broken("release.follows:terms", entry=at, run=book.run)
        found, count = (predicate["rounds"], predicate["attempts"]), (book.rounds_done, last)
        if found != count:
            broken("release.follows:rounds", entry=at, run=book.run, found=found, count=count)
        states = [item.state_out for item in book.attempts if item.completed]
        if predicate["state"] != (states[-1] if states else book.start_state):
            broken("release.follows:state", entry=at, run=book.run)
        book.release = Release(position=at, model=entry.digest)
