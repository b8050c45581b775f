"""What an agent keeps in memory about one run: terms, engine, one-time keys, peers' key batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from greylag_protocols import masking
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.keys import MAX_BATCH, VerifiedBatch, sign_batch
from greylag_protocols.log import ChainTip
from greylag_protocols.membership import Membership, SignedMembership
from greylag_protocols.messages import Contribution, SignedBatch
from greylag_protocols.signing import Signer
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_client.datasets import MAIN, Content


class ClippedSums(Protocol):
    """The training engine as the participant sees it."""

    def __len__(self) -> int:
        """Number of units of privacy: records, groups, or 1 for the firm itself."""

    def clipped_sum(
        self, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """The sum of clipped gradients (or updates) over ``units``, shape (d,).

        Args:
            units: indices of units by their place in the batch; negative where a place is empty.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedData:
    """The data sets that a run reads, ready to train on.

    Attributes:
        contents: what they hold, by name; for the ledger.
    """

    engine: ClippedSums
    contents: Mapping[str, Content]


class DataSource(Protocol):
    """The firm's data sets as the participant sees them."""

    def fitting(self, terms: Terms) -> tuple[str, ...]:
        """Names of the data sets that are meant for such terms.

        Raises:
            ConfigError: there is none.
        """

    def load(self, terms: Terms, names: Sequence[str]) -> LoadedData:
        """Read and check data sets together.

        Raises:
            ConfigError: they do not fit the terms.
        """


class Memberships(Protocol):
    """Which membership epochs this firm's security officer approved (``FirmDirectory``)."""

    def approved(self) -> dict[str, Membership]:
        """The approved epochs by digest (hex)."""

    def store_seen(self, signed: SignedMembership, *, now_s: float) -> Membership:
        """Verify an epoch under the pinned lead key and keep it, so that it can be approved."""

    def revocations(self) -> tuple[bytes, ...]:
        """The revocations that reached this firm, over whatever channel."""

    def store_revocation(self, envelope: bytes, membership: Membership) -> None:
        """Keep a revocation of a member's identity; VerificationError if it is none."""


class OneTable:
    """A single data set whose content nobody else holds: for compositions in one process."""

    def __init__(self, load_engine: Callable[[Terms], ClippedSums]) -> None:
        self._load_engine = load_engine

    def fitting(self, terms: Terms) -> tuple[str, ...]:
        return (MAIN,)

    def load(self, terms: Terms, names: Sequence[str]) -> LoadedData:
        contents = {name: Content(commitment=bytes(32)) for name in names}
        return LoadedData(engine=self._load_engine(terms), contents=contents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this firm is, and whose log it watches (``lead_key``: Ed25519, 32 bytes)."""

    firm: str
    consortium: str
    signer: Signer
    lead_key: bytes


@dataclass(slots=True)
class OneTimeKey:
    """A private key and a seed secret, in memory only; taking erases them (best effort: Python
    may have made copies that cannot be reached)."""

    private: bytearray = field(repr=False)
    secret: bytearray = field(repr=False)
    public: bytes

    def take(self) -> tuple[bytes, bytes]:
        pair = bytes(self.private), bytes(self.secret)
        self.private[:] = bytes(len(self.private))
        self.secret[:] = bytes(len(self.secret))
        return pair


@dataclass(slots=True, kw_only=True)
class Session:
    """What is kept in memory about one run."""

    terms: Terms
    digest: bytes
    membership: Membership
    engine: ClippedSums
    keys: dict[int, OneTimeKey] = field(default_factory=dict)
    batches: dict[str, VerifiedBatch] = field(default_factory=dict)
    last_log: Checkpoint | None = None  # that the last attempt answered was bound to
    last_context: bytes = b""
    last_reply: Contribution | None = None

    def take_key(self, attempt: int) -> tuple[bytes, bytes]:
        """The private key and seed secret of ``attempt``; those of earlier attempts, which came to
        nothing for this firm, are erased as well."""
        for stale in [number for number in self.keys if number < attempt]:
            self.keys.pop(stale).take()
        return self.keys.pop(attempt).take()

    def renew_keys(
        self, identity: Identity, tip: ChainTip, *, first: int, entropy: Callable[[int], bytes]
    ) -> SignedBatch:
        """Fresh one-time keys for ``first`` onwards; whatever was left of older ones is erased."""
        for stale in self.keys.values():
            stale.take()
        self.keys = {}
        count = max(1, min(MAX_BATCH, self.terms.privacy.max_attempts - first + 1))
        for attempt in range(first, first + count):
            private = entropy(32)
            self.keys[attempt] = OneTimeKey(
                private=bytearray(private),
                secret=bytearray(entropy(32)),
                public=masking.public_key(private),
            )
        public = tuple(key.public for key in self.keys.values())
        statement = sign_batch(
            identity.signer,
            public,
            firm=identity.firm,
            consortium=identity.consortium,
            epoch=self.membership.epoch,
            run=self.terms.run_id,
            terms=self.digest,
            first=first,
            tip=tip,
        )
        return SignedBatch(statement=statement, keys=public)
