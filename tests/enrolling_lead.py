"""A lead that enrols over real TLS on the loopback, at a time that the tests set."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from greylag_client.join import JoinResult, join
from greylag_protocols.membership import SignedMembership
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.enrolment_http import EnrolmentServer

NOW_S = 1_800_000_000.0
DAY_S = 24 * 3600
AGENTS_PORT = 7001


class Lead:
    """A consortium, its enrolment and the clock that its server reads."""

    def __init__(self, root: Path, now_s: float = NOW_S) -> None:
        self.now_s = now_s
        self.left: list[bytes] = []
        self.consortium = Consortium.create(
            root, name="glass", operator="acme", host="127.0.0.1", port=AGENTS_PORT,
            enrol_port=0, now_s=now_s,
        )  # fmt: skip
        self.endorsed: list[bytes] = []
        self.enrolment = Enrolment(
            self.consortium,
            on_leave=self.left.append,
            on_endorse=lambda envelope, _: self.endorsed.append(envelope),
        )
        self.server = EnrolmentServer(self.consortium, self.enrolment, clock=lambda: self.now_s)

    def invite(self, firm: str, operator: str | None = None, *, port: int | None = None) -> str:
        now_s = self.now_s
        return self.enrolment.invite(firm, operator, now_s=now_s, port=port or self.server.port)

    def join(self, firm: str, directory: Path) -> JoinResult:
        invite = self.invite(firm)
        return join(invite, directory, data=None, approve_members=None, now_s=self.now_s)

    def issue(self, **changes: object) -> SignedMembership:
        """The current membership with changes, in the lead's own hand."""
        current = self.enrolment.current_membership(NOW_S)
        membership = current.verify(
            self.consortium.signer.public_key, consortium=self.consortium.settings.id, now_s=NOW_S
        )
        return SignedMembership.sign(replace(membership, **changes), self.consortium.signer)

    def names(self) -> list[str]:
        return [member.name for member in self.enrolment.members()]


@contextmanager
def serving(root: Path, now_s: float = NOW_S) -> Iterator[Lead]:
    lead = Lead(root, now_s)
    lead.server.start()
    try:
        yield lead
    finally:
        lead.server.stop()
