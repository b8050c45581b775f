"""Reads a firm's directory for the page. Every look opens the ledger anew, and writes nothing."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from greylag_protocols.errors import ConfigError, GreylagError, VerificationError
from greylag_protocols.log import ChainTip
from greylag_protocols.membership import Membership, revoked_in
from greylag_protocols.plan import parse_terms

from greylag_client.firm import FirmDirectory
from greylag_client.ledger import Ledger
from greylag_client.page.findings import find
from greylag_client.page.view import (
    ChecksView,
    Connection,
    FirmView,
    Paused,
    ReleaseView,
    Status,
    view_members,
    view_refusal,
    view_run,
)
from greylag_client.pause import PAUSE_FILE, read_pause
from greylag_client.policy import Policy, read_policy
from greylag_client.prediction import MODEL_FILE, TERMS_FILE
from greylag_client.renewal import seconds_left
from greylag_client.spending import accounts_of

ENTRIES_AT_ONCE = 2000  # of the own chain, followed in one look: about a second
REFUSALS_SHOWN = 20
RELEASES_SHOWN = 10
MAX_TERMS_BYTES = 1 << 20
WATCHED = (
    "ledger.sqlite",
    "ledger.sqlite-wal",
    "policy.toml",
    PAUSE_FILE,
    "left.json",
    "keys/tls.credentials.pem",
    "membership/seen.json",
    "membership/approved.json",
    "membership/revoked.json",
)

ReadConnection = Callable[[], Connection]


@dataclass(kw_only=True)
class House:
    """One firm, as the page knows it.

    Attributes:
        connection: how its agent stands to the lead now.
        acting: held while somebody's click changes something.
    """

    firm: FirmDirectory
    connection: ReadConnection
    acting: threading.Lock = field(default_factory=threading.Lock)
    _tip: ChainTip = field(default_factory=ChainTip)  # so far the own chain was followed
    _looking: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return self.firm.settings.firm

    def stamp(self) -> tuple[object, ...]:
        """Something else whenever the page may have changed; costs next to nothing."""
        times: list[object] = [self.connection(), self._tip.seq]
        for name in WATCHED:
            try:
                facts = (self.firm.root / name).stat()
                times.append((facts.st_mtime_ns, facts.st_size))
            except OSError:
                times.append(None)
        return tuple(times)

    def look(self, *, now_s: float) -> FirmView:
        """The page's content now.

        Raises:
            GreylagError: the ledger or the directory cannot be read.
        """
        try:
            with self._looking, closing(_Open(self.firm)) as opened:
                return self._view(opened.ledger, now_s)
        except sqlite3.Error as error:
            raise ConfigError(f"the ledger cannot be read just now ({error})") from None

    def _view(self, ledger: Ledger, now_s: float) -> FirmView:
        firm, policy, policy_error = self.firm, None, ""
        try:
            policy = read_policy(firm.policy_path)
        except ConfigError as error:
            policy_error = str(error)
        latest, members_error = None, ""
        try:
            latest = firm.memberships.latest()
        except ConfigError as error:
            members_error = str(error)
        paused, runs = self._paused(policy), ledger.accounts()
        opened = [item.name for item in ledger.datasets.opened()]
        budgets = accounts_of(ledger, policy, opened, now_s=now_s) if policy is not None else []
        members = checks = None
        if latest is not None:
            members = view_members(
                latest,
                firm.approved(),
                own=self.name,
                revoked=revoked_in(latest, firm.memberships.revocations()),
                now_s=now_s,
            )
            checks = self._check(ledger, latest)
        left = firm.left is not None
        findings = find(
            connection=self.connection(),
            policy=policy,
            problems=tuple(item for item in (policy_error, members_error) if item),
            paused=paused,
            budgets=budgets,
            members=members,
            checks=checks,
            certificate_left_s=self._certificate_left_s(now_s),
            left=left,
        )
        return FirmView(
            name=self.name,
            consortium=firm.settings.consortium,
            status=Status(paused=paused, findings=tuple(findings), left=left),
            budgets=tuple(budgets),
            runs=tuple(view_run(item) for item in reversed(runs)),
            refusals=tuple(view_refusal(item) for item in ledger.refusals.newest(REFUSALS_SHOWN)),
            members=members,
            checks=checks,
            releases=tuple(_releases(firm.root)),
        )

    def _paused(self, policy: Policy | None) -> Paused:
        by_page = read_pause(self.firm.root)
        return Paused(
            by_page=by_page is not None,
            by_policy=policy is not None and policy.paused,
            since_s=by_page.since_s if by_page is not None else 0,
        )

    def _check(self, ledger: Ledger, latest: Membership) -> ChecksView:
        """Follow the own chain a piece further, under the key that the member list shows."""
        entries, broken, name = ledger.tip().seq, "", self.name
        try:
            key = latest.member(name).identity_key
            if self._tip.seq and ledger.head_at(self._tip.seq) != self._tip.head:
                raise VerificationError(
                    f"entry {self._tip.seq} of the ledger is not the one that was there before"
                )
            for envelope in ledger.entries_after(self._tip.seq)[:ENTRIES_AT_ONCE]:
                self._tip = self._tip.follow(envelope, firm=name, identity_key=key)
        except VerificationError as error:
            broken = str(error)
        peers = [(item.name, ledger.peers.tip(item.name).seq) for item in latest.members]
        return ChecksView(
            checked=self._tip.seq,
            entries=entries,
            broken=broken,
            peers=tuple((peer, seq) for peer, seq in peers if seq and peer != name),
            members=len(latest.members),
        )

    def _certificate_left_s(self, now_s: float) -> float | None:
        try:
            return seconds_left(self.firm.read_tls().certificate, now_s)
        except ConfigError:
            return None


class _Open:
    """A ledger that is closed again."""

    def __init__(self, firm: FirmDirectory) -> None:
        self.ledger = Ledger(firm.ledger_path)

    def close(self) -> None:
        self.ledger.close_file()


def _releases(root: Path) -> list[ReleaseView]:
    """Directories with a released model right below the firm's, or below ``releases`` in it. Only
    what they call themselves is shown; whether a release holds is for ``predict`` to check."""
    found = []
    for path in sorted([*root.glob(f"*/{MODEL_FILE}"), *root.glob(f"releases/*/{MODEL_FILE}")]):
        terms_path = path.parent / TERMS_FILE
        try:
            if terms_path.stat().st_size > MAX_TERMS_BYTES:
                continue
            terms = parse_terms(terms_path.read_bytes())
        except (OSError, GreylagError):
            continue
        found.append(
            ReleaseView(
                path=str(path.parent.relative_to(root)),
                run=terms.run_id,
                purpose=terms.run.purpose,
                targets=terms.data.target_names,
            )
        )
    return found[:RELEASES_SHOWN]
