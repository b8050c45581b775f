"""What one firm's agent is made of: the real masks, signatures, ledger, noise. There is no option
to leave any of them out; the lab's unmasked simulation composes its own participants.
"""

import os
import time
from dataclasses import dataclass
from functools import partial

from greylag_protocols.membership import Membership, SignedMembership

from greylag_client.data_files import FirmData
from greylag_client.firm import FirmDirectory
from greylag_client.identity import identity_of
from greylag_client.ledger import Ledger
from greylag_client.masks import PairwiseMasks
from greylag_client.participant import Participant
from greylag_client.pause import current_policy


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


def make_participant(firm: FirmDirectory, *, approve: str | None = None) -> Participant:
    """One firm's participant, from its directory.

    Raises:
        ConfigError: the directory or its policy is at fault.
    """
    read = partial(current_policy, firm)
    read()  # a mistake is told now, not at the first message
    ledger = Ledger(firm.ledger_path)
    return Participant(
        identity=identity_of(firm),
        policy=read,
        ledger=ledger,
        memberships=_Approvals(firm, approve),
        data=FirmData.of(firm, ledger),
        masker=PairwiseMasks(),
        entropy=os.urandom,
        clock=time.time,
    )
