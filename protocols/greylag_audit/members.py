"""Who belongs, as the log tells it: member lists, whose key is whose, and who is gone."""

from collections.abc import Callable
from dataclasses import dataclass

from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.endorsement import verify_endorsement
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.membership import (
    MAX_DOCUMENT_BYTES,
    Membership,
    SignedMembership,
    membership_digest,
    verify_revocation,
)
from greylag_protocols.renewal import verify_leave
from greylag_protocols.signing import fingerprint
from greylag_protocols.trust import Trust

from greylag_audit.entries import Entry
from greylag_audit.findings import Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Whose key it is, by the member lists."""

    firm: str
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A key that speaks no more; ``how`` as in "left"."""

    position: int
    how: str


@dataclass(slots=True, kw_only=True)
class Epoch:
    """A member list in the log, and who endorsed it."""

    membership: Membership
    digest: str
    position: int
    operators: set[str]
    bodies: set[str]
    used: bool = False


class Members:
    """Fed with the entries about membership, in the log's order.

    Args:
        read_file: a file of the bundle by name.
    """

    def __init__(
        self,
        findings: Findings,
        *,
        origin: str,
        trust: Trust | None,
        read_file: Callable[[str], bytes | None],
    ) -> None:
        self._findings = findings
        self._origin = origin
        self._trust = trust
        self._read_file = read_file
        keys = [] if trust is None else [bytes.fromhex(key) for key in trust.bodies.values()]
        self._bodies = {fingerprint(key): key for key in keys}
        self.epochs: dict[int, Epoch] = {}
        self.latest: Epoch | None = None
        self.authors: dict[str, Author] = {}
        self.gone: dict[str, Departure] = {}

    def take_epoch(self, entry: Entry) -> None:
        """The lead's statement of a member list, whose signature was looked at."""
        epoch = entry.predicate["epoch"]
        name = f"membership/{entry.digest}.json"
        document = self._read_file(name)
        if document is None:
            self._findings.broken("bundle.files:missing", entry=entry.position, path=name)
            return
        try:
            membership = self._verify(document, entry)
        except (VerificationError, ConfigError) as error:
            self._findings.broken(
                "members.list:invalid", entry=entry.position, epoch=epoch, why=error
            )
            return
        known = self.epochs.get(epoch)
        if known is not None:
            if known.digest != entry.digest:
                self._findings.broken("members.list:twice", entry=entry.position, epoch=epoch)
            return
        if self.latest is not None and epoch < self.latest.membership.epoch:
            last = self.latest.membership.epoch
            self._findings.broken(
                "members.list:order", entry=entry.position, epoch=epoch, last=last
            )
        self.latest = self.epochs[epoch] = Epoch(
            membership=membership,
            digest=entry.digest,
            position=entry.position,
            operators=set(),
            bodies=set(),
        )
        for member in membership.members:
            key = member.identity_key
            self.authors.setdefault(fingerprint(key), Author(firm=member.name, key=key))

    def _verify(self, document: bytes, entry: Entry) -> Membership:
        value = parse_json(document, max_bytes=MAX_DOCUMENT_BYTES)
        membership = parse_as(Membership, value, what="membership")
        said = {"epoch": membership.epoch, "expires_s": membership.expires_s}
        if membership_digest(document).hex() != entry.digest or entry.predicate != said:
            raise VerificationError("the list in the bundle is not the one that was logged")
        if self._trust is not None:
            signed = SignedMembership(document=document, statement=entry.envelope)
            lead = bytes.fromhex(self._trust.lead)
            signed.verify(lead, consortium=self._origin, now_s=membership.issued_s)
        return membership

    def use(self, number: int, entry: Entry) -> Membership | None:
        """The list under this number, which a run goes by: from now on its identities matter."""
        epoch = self.epochs.get(number)
        if epoch is None:
            return None
        if not epoch.used:
            epoch.used = True
            self._check_identities(epoch.membership, entry)
        return epoch.membership

    def _check_identities(self, membership: Membership, entry: Entry) -> None:
        if self._trust is None:
            return
        for member in membership.members:
            known = self._trust.firms.get(member.name)
            name, at = member.name, entry.position
            if known is None:
                self._findings.add("unknown", "members.identity:unknown", entry=at, firm=name)
            elif member.identity not in (known.identity, *known.earlier):
                self._findings.broken("members.identity:other", entry=at, firm=name)
            elif member.operator != known.operator:
                self._findings.broken(
                    "members.identity:operator",
                    entry=at,
                    firm=name,
                    found=member.operator,
                    trusted=known.operator,
                )

    # -- who is gone ---------------------------------------------------------------------------

    def take_revocation(self, entry: Entry) -> None:
        """A recovery key takes an identity back."""
        firm = entry.predicate["firm"]
        try:
            if self.latest is None:
                raise VerificationError("there is no member list yet")
            member = verify_revocation(entry.envelope, self.latest.membership)
        except VerificationError as error:
            self._not_gone(entry, firm, error)
            return
        self._depart(member.identity_key, entry, "was revoked")

    def take_leave(self, entry: Entry) -> None:
        """A firm says that it has left."""
        author = self.authors.get(entry.key_id)
        try:
            if author is None or author.firm != entry.predicate["firm"]:
                raise VerificationError("no member's key signed it")
            verify_leave(entry.envelope, author.key, consortium=self._origin)
        except VerificationError as error:
            self._not_gone(entry, entry.predicate["firm"], error)
            return
        self._depart(author.key, entry, "left")

    def _not_gone(self, entry: Entry, firm: str, error: VerificationError) -> None:
        self._findings.broken("members.gone:forged", entry=entry.position, firm=firm, why=error)

    def _depart(self, key: bytes, entry: Entry, how: str) -> None:
        self.gone.setdefault(fingerprint(key), Departure(position=entry.position, how=how))

    # -- who agreed ----------------------------------------------------------------------------

    def take_endorsement(self, entry: Entry) -> None:
        """Somebody's word for a member list."""
        by, epoch = entry.predicate["by"], self.epochs.get(entry.predicate["epoch"])
        at, author = entry.position, self.authors.get(entry.key_id)
        body = self._bodies.get(entry.key_id)
        if any(item.firm == by for item in self.authors.values()):
            key = author.key if author is not None and author.firm == by else None
        elif body is None:
            self._findings.add("unknown", "members.consent:stranger", entry=at, firm=by)
            return
        else:
            author, key = None, body
        try:
            if epoch is None or key is None:
                raise VerificationError("of no such list, or by somebody else")
            verify_endorsement(entry.envelope, key, epoch.membership)
        except VerificationError:
            self._findings.broken("members.consent:forged", entry=at, firm=by)
            return
        if author is None:
            epoch.bodies.add(by)
            return
        for member in epoch.membership.members:
            if member.name == by and member.identity_key == key:
                epoch.operators.add(member.operator)

    def finish(self) -> None:
        """What is to be said at the end of the log."""
        if self._trust is None:
            self._findings.add("unknown", "members.identity:nobody")
        for number, epoch in sorted(self.epochs.items()):
            if epoch.used:
                self._findings.add(
                    "holds",
                    "members.consent:holds",
                    epoch=number,
                    count=len(epoch.operators),
                    bodies=len(epoch.bodies),
                )
