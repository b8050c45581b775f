"""The rules that rosters keep: large enough, of members, and changing as rarely as was agreed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from greylag_protocols.membership import Membership
from greylag_protocols.terms import REJOIN_EVERY, Terms

from greylag_audit.findings import Findings

MAX_VOIDS = 2  # a firm that voided so many attempts is out of the run


@dataclass(slots=True, kw_only=True)
class RosterRules:
    """One run's rosters, attempt by attempt.

    Attributes:
        last: the roster of the last attempt.
        repeating: whether the last attempt was void, so that its round is repeated.
        voids: attempts that each firm failed.
    """

    findings: Findings
    last: tuple[str, ...] = ()
    repeating: bool = False
    voids: dict[str, int] = field(default_factory=dict)

    def check(
        self,
        firms: tuple[str, ...],
        *,
        run: str,
        round_number: int,
        terms: Terms,
        membership: Membership | None,
        position: int,
    ) -> None:
        """The next attempt's roster; call ``ended`` afterwards."""
        if firms != self.last:
            self._check_firms(firms, run, terms, membership, position)
            self._check_change(firms, run, round_number, position)
        elif self.repeating:
            self._not_smaller(run, round_number, position)

    def ended(self, firms: tuple[str, ...], missing: Sequence[str] | None) -> None:
        """How the attempt ended; ``missing`` as in a void, None for a completed round."""
        self.last, self.repeating = firms, missing is not None
        for name in missing or ():
            self.voids[name] = self.voids.get(name, 0) + 1

    def _check_firms(
        self,
        firms: tuple[str, ...],
        run: str,
        terms: Terms,
        membership: Membership | None,
        position: int,
    ) -> None:
        broken, privacy = self.findings.broken, terms.privacy
        if list(firms) != sorted(set(firms)):
            broken("roster.members:form", entry=position)
        if len(firms) < privacy.min_firms:
            broken(
                "roster.size:small",
                entry=position,
                run=run,
                count=len(firms),
                least=privacy.min_firms,
            )
        for name in firms:
            if self.voids.get(name, 0) >= MAX_VOIDS:
                count = self.voids[name]
                broken("roster.out:back", entry=position, firm=name, run=run, count=count)
        if membership is None:
            return
        known = {member.name for member in membership.members}
        strangers = [name for name in firms if name not in known]
        for name in strangers:
            broken("roster.members:stranger", entry=position, firm=name, run=run)
        together = membership.coalition(name for name in firms if name in known) + len(strangers)
        if together > privacy.max_colluding:
            broken(
                "roster.operators:many",
                entry=position,
                run=run,
                count=together,
                limit=privacy.max_colluding,
            )

    def _check_change(
        self, firms: tuple[str, ...], run: str, round_number: int, position: int
    ) -> None:
        if not self.last:
            return
        new = sorted(set(firms) - set(self.last))
        if self.repeating and not set(firms) < set(self.last):
            self._not_smaller(run, round_number, position)
        elif new and (round_number - 1) % REJOIN_EVERY:
            for name in new:
                self.findings.broken(
                    "roster.rejoin:early",
                    entry=position,
                    firm=name,
                    run=run,
                    round=round_number,
                    every=REJOIN_EVERY,
                )

    def _not_smaller(self, run: str, round_number: int, position: int) -> None:
        self.findings.broken("roster.retry:same", entry=position, run=run, round=round_number)
