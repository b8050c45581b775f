"""What one firm's agent is made of: the real masks, signatures, ledger, noise. There is no option
to leave any of them out; the lab's unmasked simulation composes its own participants.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from greylag_protocols.errors import ConfigError
from greylag_protocols.membership import Membership, SignedMembership
from greylag_protocols.terms import Terms

from greylag_client.engine import make_engine
from greylag_client.firm import FirmDirectory
from greylag_client.ledger import Ledger
from greylag_client.masks import PairwiseMasks
from greylag_client.participant import Participant
from greylag_client.policy import read_policy
from greylag_client.session import ClippedSums, Identity
from greylag_client.table import load_table


@dataclass(frozen=True, slots=True)
class _Approvals:
    """The firm's approvals, and one digest that was approved on the command line."""

    firm: FirmDirectory
    beforehand: str | None

    def approved(self) -> dict[str, Membership]:
        return self.firm.approved()

    def store_seen(self, signed: SignedMembership, *, now_s: float) -> Membership:
        membership = self.firm.store_seen(signed, now_s=now_s)
        if membership.digest().hex() == self.beforehand:
            self.firm.approve(self.beforehand)
        return membership

    def revocations(self) -> tuple[bytes, ...]:
        return self.firm.memberships.revocations()

    def store_revocation(self, envelope: bytes, membership: Membership) -> None:
        self.firm.memberships.store_revocation(envelope, membership)


def identity_of(firm: FirmDirectory) -> Identity:
    """Who speaks for a firm's directory."""
    settings = firm.settings
    return Identity(firm=settings.firm, consortium=settings.consortium, signer=firm.signer)


def make_participant(firm: FirmDirectory, *, approve: str | None = None) -> Participant:
    """One firm's participant, from its directory.

    Raises:
        ConfigError: the directory or its policy is at fault.
    """
    return Participant(
        identity=identity_of(firm),
        policy=read_policy(firm.policy_path),
        ledger=Ledger(firm.ledger_path),
        memberships=_Approvals(firm, approve),
        load_engine=_engine_loader(firm),
        masker=PairwiseMasks(),
        entropy=os.urandom,
        clock=time.time,
    )


def _engine_loader(firm: FirmDirectory) -> Callable[[Terms], ClippedSums]:
    def load(terms: Terms) -> ClippedSums:
        if firm.data_path is None:
            raise ConfigError("no table yet: set `data` in firm.toml to a CSV file")
        table = load_table(firm.data_path, terms.data)
        return make_engine(terms, table.records(table.train))

    return load
