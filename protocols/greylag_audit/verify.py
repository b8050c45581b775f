"""The whole audit of a bundle: one pass over its log, then what the end of the log allows to say.

In a quick audit the receipts' own signatures are left out: each holds the hash of the one before
it, so that the last one of a firm, which is checked, covers them all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from greylag_protocols import log, releases
from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.endorsement import ENDORSEMENT_KIND
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.log import GENESIS, entry_head
from greylag_protocols.membership import MEMBERSHIP_KIND, REVOCATION_KIND
from greylag_protocols.optimiser import model_digest
from greylag_protocols.renewal import LEAVE_KIND
from greylag_protocols.signing import fingerprint
from greylag_protocols.terms import Terms, terms_digest
from greylag_protocols.trust import Trust
from greylag_protocols.usage import USAGE_KIND

from greylag_audit.bundle_files import Bundle
from greylag_audit.chains import Chains
from greylag_audit.entries import Entry, read_entry
from greylag_audit.findings import Finding, Findings
from greylag_audit.ledger_export import LedgerExport, compare
from greylag_audit.members import Author, Members
from greylag_audit.published import Published
from greylag_audit.runs import RunBook
from greylag_audit.shapes import LEAD_KINDS, SHAPES, check_shape
from greylag_audit.texts import CHECKS
from greylag_audit.tree import LogTree
from greylag_audit.witnesses import Witnesses

Progress = Callable[[int, int], None]
MAX_RUNS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came out.

    Attributes:
        run: the run that the bundle is about; its sums and weights are in it.
        runs: all runs of the log, as it tells them.
        trusted: whether there were keys to tell who is who.
    """

    origin: str
    size: int
    run: str
    trusted: bool
    quick: bool
    findings: tuple[Finding, ...]
    runs: dict[str, RunBook]
    members: Members

    @property
    def holds(self) -> bool:
        """Every promise that can be checked is kept, by parties whom the auditor knows."""
        return self.trusted and not any(
            item.state == "broken" or (item.state == "unknown" and item.check == "members.identity")
            for item in self.findings
        )


def verify(
    bundle: Bundle,
    *,
    trust: Trust | None,
    quick: bool = False,
    ledger: LedgerExport | None = None,
    progress: Progress = lambda done, of: None,
) -> Verdict:
    """Audit a bundle.

    Raises:
        ConfigError: it is no bundle, or cannot be read.
    """
    return _Audit(bundle, trust=trust, quick=quick, ledger=ledger).run(progress)


class _Audit:
    def __init__(
        self, bundle: Bundle, *, trust: Trust | None, quick: bool, ledger: LedgerExport | None
    ) -> None:
        self._bundle = bundle
        self._label = bundle.label()
        self._trust = trust
        self._quick = quick
        self._ledger = ledger
        self._findings = Findings()
        self._tree = LogTree(bundle, self._findings)
        self._origin = self._tree.newest.checkpoint.origin
        self._members = Members(
            self._findings, origin=self._origin, trust=trust, read_file=bundle.read
        )
        watched = "" if ledger is None else ledger.firm
        self._chains = Chains(findings=self._findings, watched=watched)
        self._published = Published(findings=self._findings, consortium=self._origin)
        self._runs: dict[str, RunBook] = {}
        self._key_ids: dict[str, dict[str, str]] = {}
        self._lead = "" if trust is None else fingerprint(bytes.fromhex(trust.lead))

    def run(self, progress: Progress) -> Verdict:
        """The whole audit."""
        size = self._tree.size
        for position, envelope in enumerate(self._tree.entries(lambda done: progress(done, size))):
            self._take(position, envelope)
        self._finish()
        return Verdict(
            origin=self._origin,
            size=size,
            run=self._label.run,
            trusted=self._trust is not None,
            quick=self._quick,
            findings=tuple(self._findings.complete(size=str(size))),
            runs=self._runs,
            members=self._members,
        )

    # -- entry by entry ------------------------------------------------------------------------

    def _take(self, position: int, envelope: bytes) -> None:
        try:
            entry = read_entry(envelope, position)
        except VerificationError as error:
            self._findings.broken("entry.form:malformed", entry=position, why=error)
            return
        kind = entry.kind
        if kind == log.RECEIPT_KIND and entry.exact:
            self._take_chained(entry)  # nearly all entries of a log
            return
        if kind not in SHAPES:
            self._findings.broken("entry.form:kind", entry=position, kind=kind)
            return
        try:
            check_shape(entry)
        except VerificationError as error:
            self._findings.broken("entry.form:content", entry=position, kind=kind, why=error)
            return
        if kind in log.CHAINED_KINDS:
            self._take_chained(entry)
        elif kind in LEAD_KINDS:
            self._take_lead(entry)
        elif kind == REVOCATION_KIND:
            self._members.take_revocation(entry)
        elif kind == LEAVE_KIND:
            self._members.take_leave(entry)
        elif kind == ENDORSEMENT_KIND:
            self._members.take_endorsement(entry)
        else:
            self._author_of(entry, always=True)

    def _author_of(self, entry: Entry, *, always: bool) -> Author | None:
        """The member who signed an entry; None if nobody known did."""
        author, firm = self._members.authors.get(entry.key_id), entry.predicate["firm"]
        genuine = author is not None and author.firm == firm
        if author is not None and genuine and (always or not self._quick):
            try:
                entry.check_signature(author.key)
            except VerificationError:
                genuine = False
        if not genuine:
            what = "entry.signature:stranger" if author is None else "entry.signature:forged"
            kind = entry.kind.partition("/")[0]
            self._findings.broken(what, entry=entry.position, firm=firm, kind=kind)
        return author if author is not None and author.firm == firm else None

    def _take_chained(self, entry: Entry) -> None:
        author = self._author_of(entry, always=False)
        if author is None:
            return
        self._chains.follow(entry, author)
        run = entry.predicate["run"]
        book = self._runs.get(run) or self._book(run, entry)
        gone = self._members.gone.get(entry.key_id)
        if gone is not None and (
            entry.kind != log.RECEIPT_KIND or _attempts_since(book, gone.position)
        ):
            self._findings.broken(
                "members.gone:spoke",
                entry=entry.position,
                firm=author.firm,
                how=gone.how,
                since=gone.position,
            )
        if entry.kind == log.RECEIPT_KIND:
            book.take_receipt(entry)
        elif entry.kind == log.ACCEPTANCE_KIND:
            book.take_acceptance(entry, self._members.use(entry.predicate["epoch"], entry))
        else:
            book.take_closed(entry)

    def _take_lead(self, entry: Entry) -> None:
        self._lead = self._lead or entry.key_id  # without trust: at least always the same
        genuine = entry.key_id == self._lead
        if genuine and self._trust is not None:
            try:
                entry.check_signature(bytes.fromhex(self._trust.lead))
            except VerificationError:
                genuine = False
        if not genuine:
            kind = entry.kind.partition("/")[0]
            self._findings.broken("entry.signature:forged", entry=entry.position, kind=kind)
            return
        if entry.kind == MEMBERSHIP_KIND:
            self._members.take_epoch(entry)
            return
        if entry.kind == log.TERMS_KIND:
            self._take_terms(entry)
            return
        if entry.kind in releases.KINDS:
            self._published.take_version(entry, self._book(entry.subject, entry))
            return
        if entry.kind == USAGE_KIND:
            self._published.take_usage(entry)
            return
        book = self._book(entry.subject, entry)
        if entry.kind == log.START_KIND:
            book.take_start(entry, entry_head)
        elif entry.kind == log.RESTART_KIND:
            book.take_restart(entry)
        else:
            self._check_gone(book, entry)
            book.take_attempt(entry, lambda firm: self._tip_of(book, firm))

    def _book(self, run: str, entry: Entry) -> RunBook:
        if run not in self._runs:
            if len(self._runs) == MAX_RUNS:
                raise ConfigError(f"a log of more than {MAX_RUNS} runs is not read here")
            self._runs[run] = RunBook(run=run, findings=self._findings)
            if entry.kind != log.TERMS_KIND:
                self._findings.broken("terms.known:never", entry=entry.position, run=run)
        return self._runs[run]

    def _take_terms(self, entry: Entry) -> None:
        run, broken = entry.subject, self._findings.broken
        book, at = self._book(run, entry), entry.position
        if book.terms_digest:
            broken("terms.known:twice", entry=at, run=run)
            return
        book.terms_digest = entry.digest
        encoded = self._bundle.read(f"terms/{entry.digest}.json")
        if encoded is None:
            broken("terms.known:missing", entry=at, run=run)
            return
        if terms_digest(encoded).hex() != entry.digest:
            broken("terms.known:other", entry=at, run=run)
            return
        try:
            terms = parse_as(Terms, parse_json(encoded), what="terms")
            if (terms.run_id, terms.consortium) != (run, self._origin):
                raise VerificationError("they are of another run or consortium")
        except (ConfigError, VerificationError) as error:
            broken("terms.known:invalid", entry=at, run=run, why=error)
            return
        book.set_terms(terms, encoded, entry.digest, position=at)

    def _tip_of(self, book: RunBook, firm: str) -> tuple[int, str] | None:
        key_id = self._key_id(book, firm)
        if key_id is None:
            return None
        chain = self._chains.by_key.get(key_id)
        return (0, GENESIS.hex()) if chain is None else (chain.seq, chain.head)

    def _key_id(self, book: RunBook, firm: str) -> str | None:
        if book.run not in self._key_ids:
            if book.membership is None:
                return None
            self._key_ids[book.run] = {
                item.name: fingerprint(item.identity_key) for item in book.membership.members
            }
        return self._key_ids[book.run].get(firm)

    def _check_gone(self, book: RunBook, entry: Entry) -> None:
        """The attempt that was under way when a firm went may still have it; no later one may."""
        if not self._members.gone:
            return
        for item in entry.predicate["roster"]:
            gone = self._members.gone.get(self._key_id(book, item["firm"]) or "")
            if gone is not None and _attempts_since(book, gone.position):
                self._findings.broken(
                    "members.gone:roster",
                    entry=entry.position,
                    firm=item["firm"],
                    how=gone.how,
                    since=gone.position,
                )

    # -- at the end of the log -----------------------------------------------------------------

    def _finish(self) -> None:
        if self._quick:
            self._chains.check_heads()
            self._findings.add("holds", "entry.signature:quick")
        for book in self._runs.values():
            book.finish()
        self._members.finish()
        self._check_witnesses()
        self._check_artefacts()
        if self._ledger is not None:
            compare(self._ledger, self._chains.heads, self._tree.size, self._findings)
        for check in CHECKS.values():
            if check.evidence == "cannot be checked":
                self._findings.add("unknown", check.id)

    def _check_witnesses(self) -> None:
        if self._trust is None:
            self._findings.add("unknown", "log.signature:unknown")
        elif self._trust.consortium != self._origin:
            self._findings.broken(
                "log.signature:origin", origin=self._origin, consortium=self._trust.consortium
            )
        witnesses = Witnesses(findings=self._findings, members=self._members, trust=self._trust)
        for size, note in self._tree.earlier.items():
            if size != self._tree.size:
                witnesses.check_note(note)
        witnesses.check_note(self._tree.newest)
        book = self._runs.get(self._label.run)
        terms = [item.terms for item in ([book] if book else self._runs.values()) if item.terms]
        colluding = max((item.privacy.max_colluding for item in terms), default=0)
        # Firms countersign the log that an attempt starts from, so its own end comes later.
        until = book.attempts[-2].position + 1 if book and len(book.attempts) > 1 else 0
        witnesses.check_quorum(colluding=colluding, until=until, size=self._tree.size)
        for item in self._runs.values():
            if item.membership is None or item.terms is None:
                continue
            after = witnesses.surely_after(
                colluding=item.terms.privacy.max_colluding, time_s=item.membership.expires_s
            )
            late = [fact for fact in item.attempts if after is not None and fact.position >= after]
            if late:
                self._findings.broken(
                    "members.expired:used",
                    entry=late[0].position,
                    run=item.run,
                    epoch=item.membership.epoch,
                )

    def _check_artefacts(self) -> None:
        """The sums and weights of the run that the bundle is about, and files about nothing."""
        book, bundle = self._runs.get(self._label.run), self._bundle
        named = {f"terms/{item.terms_digest}.json" for item in self._runs.values()}
        named |= {f"membership/{item.digest}.json" for item in self._members.epochs.values()}
        if book is None:
            self._findings.broken("bundle.files:run", run=self._label.run)
        else:
            named |= self._check_sums(book)
            self._check_weights(book)
        for prefix in ("terms/", "membership/", "sums/"):
            for path in bundle.names(prefix):
                if path not in named:
                    self._findings.broken("bundle.files:spare", path=path)

    def _check_sums(self, book: RunBook) -> set[str]:
        named = set()
        for fact in book.attempts:
            if not fact.completed:
                continue
            path = f"sums/{fact.sum_digest}"
            named.add(path)
            content = self._bundle.read(path)
            if content is None:
                self._findings.broken("sums:missing", entry=fact.position, round=fact.round_number)
            elif log.sum_digest(content).hex() != fact.sum_digest:
                self._findings.broken("sums:other", entry=fact.position, round=fact.round_number)
        return named

    def _check_weights(self, book: RunBook) -> None:
        initial = self._bundle.read("weights/initial")
        if book.started is not None and book.terms is not None:
            expected = book.first_state().weights.astype("<f8").tobytes()
            if initial is None:
                self._findings.broken("bundle.files:missing", path="weights/initial")
            elif initial != expected:
                self._findings.broken("run.start:weights", entry=book.started)
        released = self._bundle.read("weights/released")
        if book.release is None:
            self._findings.add("unknown", "release.follows:never", run=book.run)
        elif released is None:
            self._findings.broken("bundle.files:missing", path="weights/released")
        elif len(released) % 4 or (
            model_digest(np.frombuffer(released, dtype="<f4")).hex() != book.release.model
        ):
            self._findings.broken("release.follows:weights", entry=book.release.position)


def _attempts_since(book: RunBook, position: int) -> bool:
    return bool(book.attempts) and book.attempts[-1].position > position
