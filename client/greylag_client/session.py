"""What an agent keeps in memory about one run: terms, engine, one-time keys, peers' key batches."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from greylag_protocols.keys import VerifiedBatch
from greylag_protocols.membership import Membership
from greylag_protocols.messages import Contribution
from greylag_protocols.terms import Terms
from numpy.typing import NDArray


class ClippedSums(Protocol):
    """The training engine as the participant sees it."""

    def __len__(self) -> int:
        """Number of units of privacy: records, groups, or 1 for the firm itself."""

    def clipped_sum(
        self, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """The sum of clipped gradients (or updates) over ``units``, shape (d,)."""


@dataclass(slots=True)
class OneTimeKey:
    """A private key and a seed secret, in memory only; taking erases them (best effort: Python
    may have made copies that cannot be reached)."""

    private: bytearray
    secret: bytearray
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
    log_size: int = 0
    last_context: bytes = b""
    last_reply: Contribution | None = None
