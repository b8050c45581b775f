"""What a click may change. Each action is written to the journal, also if it fails."""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from greylag_protocols.errors import ConfigError, GreylagError

from greylag_server.enrolment import Enrolment
from greylag_server.page.accounts import Accounts
from greylag_server.page.door import Said

STEPS = ("pause", "resume", "cancel")
MOST_BECAUSE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """How runs are steered: each takes (run, because, by)."""

    pause: Callable[[str, str, str], None]
    resume: Callable[[str, str, str], None]
    cancel: Callable[[str, str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """All of them. ``steering`` is None where runs cannot be steered from here."""

    enrolment: Enrolment
    accounts: Accounts
    steering: Steering | None
    clock: Callable[[], float]

    @property
    def names(self) -> frozenset[str]:
        """What can be done here."""
        return frozenset({"invite", "remove"}) | frozenset(STEPS if self.steering else ())

    def act(self, name: str, form: Mapping[str, str], *, by: str) -> Said:
        """Do it; ``by`` is the account's name."""
        do: dict[str, Callable[[Mapping[str, str], str], Said]] = {
            "invite": self._invite,
            "remove": self._remove,
            **{step: self._step(step) for step in STEPS},
        }
        try:
            return do[name](form, by)
        except (GreylagError, sqlite3.Error) as error:
            return Said(key="said_failed", good=False, detail=str(error))

    def _invite(self, form: Mapping[str, str], by: str) -> Said:
        firm = form.get("firm", "").strip()
        operator = form.get("operator", "").strip() or None
        with self.accounts.deed(by, "invite", firm):
            line = self.enrolment.invite(firm, operator, now_s=self.clock())
        return Said(key="said_invited", good=True, once=line, firm=firm)

    def _remove(self, form: Mapping[str, str], by: str) -> Said:
        firm = form.get("firm", "")
        if form.get("typed", "").strip() != firm:
            return Said(key="said_not_typed", good=False)
        with self.accounts.deed(by, "remove", firm):
            self.enrolment.remove(firm, now_s=self.clock())
        return Said(key="said_removed", good=True, firm=firm)

    def _step(self, step: str) -> Callable[[Mapping[str, str], str], Said]:
        def steer(form: Mapping[str, str], by: str) -> Said:
            run, because = form.get("run", ""), form.get("because", "").strip()[:MOST_BECAUSE]
            if self.steering is None:
                raise ConfigError("runs are not steered from here")
            if step == "cancel" and not because:
                return Said(key="said_no_reason", good=False)
            with self.accounts.deed(by, step, f"{run}: {because}" if because else run):
                getattr(self.steering, step)(run, because, by)
            return Said(key=f"said_{step}", good=True)

        return steer
