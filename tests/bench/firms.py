"""The firms' side: real participants, of which only the gradient is made up."""

import functools
import os
import time
from pathlib import Path

import numpy as np
from consortium import CONSORTIUM, LEAD, open_membership, signer_of
from greylag_client.ledger import Ledger
from greylag_client.masks import PairwiseMasks
from greylag_client.participant import Participant
from greylag_client.policy import Policy
from greylag_client.session import Identity, OneTable
from greylag_protocols.errors import VerificationError
from greylag_protocols.membership import Membership, SignedMembership
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

UNITS = 100


class FixedSum:
    """An engine whose clipped sum is always the same: gradients are not part of these figures."""

    def __init__(self, dimension: int) -> None:
        self._sum = np.random.default_rng(0).normal(size=dimension) / np.sqrt(dimension)

    def __len__(self) -> int:
        return UNITS

    def clipped_sum(
        self, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        return self._sum


shared_engine = functools.lru_cache(FixedSum)  # firms share it: 200 copies would fill the memory


class Approver:
    """Approves every epoch that the lead signed."""

    def __init__(self) -> None:
        self._seen: dict[str, Membership] = {}

    def approved(self) -> dict[str, Membership]:
        return self._seen

    def store_seen(self, signed: SignedMembership, *, now_s: float) -> Membership:
        membership = open_membership(signed)
        self._seen[membership.digest().hex()] = membership
        return membership

    def revocations(self) -> tuple[bytes, ...]:
        return ()

    def store_revocation(self, envelope: bytes, membership: Membership) -> None:
        raise VerificationError("nobody is revoked here")


def make_participant(name: str, ledger: Path | str) -> Participant:
    """One firm, as its agent composes it, with a policy that allows everything."""

    def load_engine(terms: Terms) -> FixedSum:
        return shared_engine(terms.dimension)

    policy = Policy(lifetime_epsilon=1e3, max_epsilon_per_run=1e3)
    return Participant(
        identity=Identity(
            firm=name,
            consortium=CONSORTIUM,
            signer=signer_of(name),
            lead_key=signer_of(LEAD).public_key,
        ),
        policy=lambda: policy,
        ledger=Ledger(ledger),
        memberships=Approver(),
        data=OneTable(load_engine),
        masker=PairwiseMasks(),
        entropy=os.urandom,
        clock=time.time,
    )
