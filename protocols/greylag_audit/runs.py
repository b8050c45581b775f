"""One run, as the log tells it: terms, acceptances, attempts, receipts, goodbyes, release.

Fed with the run's entries in the log's order, after their form and authors were checked. What it
keeps is a few numbers per firm and attempt, however long the log.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greylag_protocols.errors import ConfigError, GreylagError, VerificationError
from greylag_protocols.membership import Membership
from greylag_protocols.optimiser import ModelState
from greylag_protocols.parameters import initial_weights
from greylag_protocols.plan import check_terms
from greylag_protocols.round import initial_seed
from greylag_protocols.terms import Terms

from greylag_audit.entries import Entry
from greylag_audit.facts import AttemptFact, FirmAccount, Receipt, Release, TipOf
from greylag_audit.findings import Findings
from greylag_audit.rosters import RosterRules


@dataclass(slots=True, kw_only=True)
class RunBook:
    """One run; see the module's head."""

    run: str
    findings: Findings
    terms: Terms | None = None
    encoded_terms: bytes = b""
    terms_digest: str = ""
    epoch: int | None = None
    membership: Membership | None = None
    started: int | None = None
    start_state: str = ""
    attempts: list[AttemptFact] = field(default_factory=list)
    firms: dict[str, FirmAccount] = field(default_factory=dict)
    release: Release | None = None
    rounds_done: int = 0
    seed_acceptances: list[bytes] = field(default_factory=list)
    _rules: RosterRules = field(init=False)
    _event: str = ""
    _limit: int = 0
    _steps: dict[int, str] = field(default_factory=dict)  # by size of the roster
    _open: dict[int, dict[str, Receipt]] = field(default_factory=dict)
    _ended: dict[int, AttemptFact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rules = RosterRules(findings=self.findings)

    def account(self, firm: str) -> FirmAccount:
        """The firm's account in this run."""
        if firm not in self.firms:
            members = () if self.membership is None else self.membership.members
            operators = {item.name: item.operator for item in members}
            self.firms[firm] = FirmAccount(firm=firm, operator=operators.get(firm, ""))
        return self.firms[firm]

    # -- before training -----------------------------------------------------------------------

    def set_terms(self, terms: Terms, encoded: bytes, digest: str, *, position: int) -> None:
        """The terms, of the shape of terms; their rules are checked here."""
        self.terms, self.encoded_terms, self.terms_digest = terms, encoded, digest
        self._event, self._limit = terms.mechanism.event_type, terms.privacy.max_attempts
        privacy = terms.privacy
        try:
            cost = terms.epsilon_after(privacy.max_attempts)
            if cost > privacy.epsilon * (1 + 1e-6):
                self.findings.broken(
                    "terms.epsilon:more",
                    entry=position,
                    run=self.run,
                    promised=f"{privacy.epsilon:g}",
                    attempts=privacy.max_attempts,
                    cost=f"{cost:.4g}",
                )
                return
            check_terms(terms)
        except (ConfigError, VerificationError) as error:
            self.findings.broken("terms.known:invalid", entry=position, run=self.run, why=error)

    def take_acceptance(self, entry: Entry, membership: Membership | None) -> None:
        """A firm agreed; ``membership`` is the list that it says it did so under."""
        firm, epoch = entry.predicate["firm"], entry.predicate["epoch"]
        at, broken = entry.position, self.findings.broken
        if membership is None:
            broken("run.acceptance:nolist", entry=at, firm=firm, run=self.run, epoch=epoch)
        elif self.epoch is None:
            self.epoch, self.membership = epoch, membership
        if self.epoch is not None and epoch != self.epoch:
            broken(
                "run.acceptance:epoch",
                entry=at,
                firm=firm,
                run=self.run,
                epoch=epoch,
                expected=self.epoch,
            )
        if self.terms_digest and entry.digest != self.terms_digest:
            broken("run.acceptance:terms", entry=at, firm=firm, run=self.run)
        account = self.account(firm)
        if account.accepted is not None:
            broken("run.acceptance:twice", entry=at, firm=firm, run=self.run)
            return
        self._check_open(entry, account)
        account.accepted, account.acceptance = at, entry.envelope

    def take_start(self, entry: Entry, head_of: Callable[[bytes], bytes]) -> None:
        """The lead says whose acceptances seed the first weights."""
        broken, at = self.findings.broken, entry.position
        if self.started is not None:
            broken("run.start:twice", entry=at, run=self.run)
            return
        self.started, self.start_state = at, entry.predicate["state"]
        acceptances = [item.acceptance for item in self.firms.values() if item.acceptance]
        heads = sorted(head_of(item).hex() for item in acceptances)
        if entry.predicate["acceptances"] != heads or entry.digest != self.terms_digest:
            broken("run.start:acceptances", entry=at, run=self.run)
        self.seed_acceptances = acceptances
        if self.terms is not None and self.first_state().digest().hex() != self.start_state:
            broken("run.start:state", entry=at, run=self.run)

    def first_state(self) -> ModelState:
        """The state that training has to start from.

        Raises:
            ConfigError: the run has no terms here.
        """
        if self.terms is None:
            raise ConfigError(f"the terms of run {self.run} are not in this bundle")
        seed = initial_seed(bytes.fromhex(self.terms_digest), self.seed_acceptances)
        return ModelState.start(initial_weights(seed, self.terms.parameters))

    # -- training ------------------------------------------------------------------------------

    def take_receipt(self, entry: Entry) -> None:
        """A firm charged one release."""
        predicate, broken, at = entry.predicate, self.findings.broken, entry.position
        firm, attempt = predicate["firm"], predicate["attempt"]
        account = self.firms.get(firm) or self.account(firm)
        if account.closed is not None:
            self._check_open(entry, account)
        if account.accepted is None:
            broken("run.acceptance:late", entry=at, firm=firm, run=self.run)
        account.charged += 1
        if predicate["charged"] != account.charged:
            broken(
                "receipt.charge:count",
                entry=at,
                firm=firm,
                run=self.run,
                found=predicate["charged"],
                count=account.charged,
            )
            account.charged = predicate["charged"]
        if attempt <= account.last_attempt:
            last = account.last_attempt
            broken(
                "attempt.order:reused",
                entry=at,
                firm=firm,
                run=self.run,
                attempt=attempt,
                last=last,
            )
        account.last_attempt = attempt
        if self.terms is not None:
            self._check_against_terms(entry)
        receipt = Receipt(at, firm, predicate["round"], entry.digest, predicate["roster_size"])
        waiting = self._open.get(attempt)
        if waiting is not None:
            waiting[firm] = receipt
        elif attempt in self._ended:  # it came late
            self._match(receipt, self._ended[attempt])
        else:
            self._open[attempt] = {firm: receipt}

    def _check_against_terms(self, entry: Entry) -> None:
        predicate, broken, at = entry.predicate, self.findings.broken, entry.position
        firm, found, attempt = predicate["firm"], predicate["event"], predicate["attempt"]
        run, event, limit = self.run, self._event, self._limit
        if found != event:
            broken(
                "receipt.charge:event", entry=at, firm=firm, run=run, found=found, expected=event
            )
        if max(attempt, predicate["charged"]) > limit:
            broken(
                "attempt.limit:passed", entry=at, firm=firm, run=run, attempt=attempt, limit=limit
            )

    def take_attempt(self, entry: Entry, tip_of: TipOf) -> None:
        """The lead's record of how an attempt ended."""
        predicate, at = entry.predicate, entry.position
        missing = predicate.get("missing")
        fact = AttemptFact(
            position=at,
            attempt=predicate["attempt"],
            round_number=predicate["round"],
            context=entry.digest,
            roster=self._same_roster(tuple(item["firm"] for item in predicate["roster"])),
            completed=missing is None,
            model_in=predicate.get("model_in", ""),
            state_out=predicate.get("state_out", ""),
            sum_digest=predicate.get("sum", ""),
            grid_step=predicate.get("grid_step", ""),
        )
        self._check_order(fact)
        if self.terms is not None:
            self._rules.check(
                fact.roster,
                run=self.run,
                round_number=fact.round_number,
                terms=self.terms,
                membership=self.membership,
                position=at,
            )
            self._check_step(fact, predicate.get("event"), self.terms)
        self._rules.ended(fact.roster, missing)
        self._check_receipts(fact)
        self._check_tips(predicate["roster"], fact, tip_of)
        self._ended[fact.attempt] = fact
        self.attempts.append(fact)
        self.rounds_done += fact.completed

    def take_restart(self, entry: Entry) -> None:
        """A new process of the lead goes on with the run; an attempt may be under way."""
        found = entry.predicate["rounds"], entry.predicate["attempts"]
        count = self.rounds_done, self.attempts[-1].attempt if self.attempts else 0
        if found[0] != count[0] or found[1] < count[1]:
            facts = {"run": self.run, "found": str(found), "count": str(count)}
            self.findings.broken("attempt.order:restart", entry=entry.position, **facts)

    def _same_roster(self, roster: tuple[str, ...]) -> tuple[str, ...]:
        """Thousands of attempts share one tuple."""
        return (
            self.attempts[-1].roster
            if self.attempts and self.attempts[-1].roster == roster
            else roster
        )

    def _check_order(self, fact: AttemptFact) -> None:
        broken, at = self.findings.broken, fact.position
        last = self.attempts[-1].attempt if self.attempts else 0
        if fact.attempt <= last:
            broken("attempt.order:attempt", entry=at, run=self.run, attempt=fact.attempt, last=last)
        if fact.round_number != self.rounds_done + 1:
            broken(
                "attempt.order:round",
                entry=at,
                run=self.run,
                round=fact.round_number,
                done=self.rounds_done,
            )
        if self.started is None:
            broken("run.start:never", entry=at, run=self.run)
        if self.release is not None:
            since = self.release.position
            broken("attempt.order:over", entry=at, run=self.run, since=since)
        if self.terms is not None and fact.attempt > self._limit:
            broken(
                "attempt.limit:passed",
                entry=at,
                run=self.run,
                attempt=fact.attempt,
                limit=self._limit,
            )

    def _check_step(self, fact: AttemptFact, event: str | None, terms: Terms) -> None:
        if not fact.completed:
            return
        facts = {"run": self.run, "round": str(fact.round_number)}
        if event != self._event:
            self.findings.broken(
                "round.step:event", entry=fact.position, **facts, found=event, expected=self._event
            )
        firms = len(fact.roster)
        if firms not in self._steps:
            try:
                self._steps[firms] = terms.grid(firms).step.hex()
            except GreylagError:  # a roster for which there is no scale at all
                self._steps[firms] = ""
        if fact.grid_step != self._steps[firms]:
            self.findings.broken("round.step:grid", entry=fact.position, **facts)

    def _check_receipts(self, fact: AttemptFact) -> None:
        receipts = self._open.pop(fact.attempt, {})
        firms = frozenset(fact.roster)
        expected = (fact.round_number, fact.context, len(fact.roster))
        for receipt in receipts.values():
            if receipt.firm not in firms or receipt[2:] != expected:
                self._match(receipt, fact)
        if not fact.completed:
            return
        for firm in fact.roster:
            if firm not in receipts:
                self.findings.broken(
                    "receipt.match:missing",
                    entry=fact.position,
                    firm=firm,
                    run=self.run,
                    round=fact.round_number,
                )
            elif self.firms[firm].accepted is None:
                self.findings.broken(
                    "roster.members:unaccepted", entry=fact.position, firm=firm, run=self.run
                )

    def _match(self, receipt: Receipt, fact: AttemptFact) -> None:
        message = ""
        if receipt.firm not in fact.roster:
            message = "receipt.match:foreign"
        elif receipt[2:] != (fact.round_number, fact.context, len(fact.roster)):
            message = "receipt.match:context"
        if message:
            self.findings.broken(
                message,
                entry=receipt.position,
                firm=receipt.firm,
                run=self.run,
                attempt=fact.attempt,
            )

    def _check_tips(self, roster: list[dict[str, Any]], fact: AttemptFact, tip_of: TipOf) -> None:
        for item in roster:
            firm = item["firm"]
            tip = tip_of(firm)
            if tip is not None and (item["seq"], item["head"]) != tip:
                self.findings.broken(
                    "receipt.match:tip",
                    entry=fact.position,
                    firm=firm,
                    run=self.run,
                    attempt=fact.attempt,
                    found=item["seq"],
                    count=tip[0],
                )

    # -- the end -------------------------------------------------------------------------------

    def take_closed(self, entry: Entry) -> None:
        """A firm will never again answer in this run."""
        predicate, broken, at = entry.predicate, self.findings.broken, entry.position
        firm = predicate["firm"]
        account = self.account(firm)
        self._check_open(entry, account)
        if entry.digest != self.terms_digest:
            broken("run.closed:terms", entry=at, firm=firm, run=self.run)
        if predicate["charged"] != account.charged:
            broken(
                "run.closed:count",
                entry=at,
                firm=firm,
                run=self.run,
                found=predicate["charged"],
                count=account.charged,
            )
        account.closed = at

    def _check_open(self, entry: Entry, account: FirmAccount) -> None:
        if account.closed is not None:
            self.findings.broken(
                "run.closed:after",
                entry=entry.position,
                firm=account.firm,
                run=self.run,
                since=account.closed,
            )

    def finish(self) -> None:
        """Receipts of which nobody said what became of them."""
        for attempt, receipts in sorted(self._open.items()):
            for receipt in receipts.values():
                self.findings.broken(
                    "receipt.match:lost",
                    entry=receipt.position,
                    firm=receipt.firm,
                    run=self.run,
                    attempt=attempt,
                )
