"""The seam between a contribution and its masks: the real ones, and what they must look like."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from greylag_protocols import masking
from greylag_protocols.round import RosterKey
from numpy.typing import NDArray

ApplyMasks = Callable[[NDArray[np.uint32]], None]


class Masker(Protocol):
    """Agrees on mask keys for one attempt, and adds the masks later."""

    def agree(
        self, private_key: bytes, roster: Sequence[RosterKey], own: int, context: bytes
    ) -> ApplyMasks:
        """Mask keys with every other firm of the roster (public inputs only; may refuse)."""


class PairwiseMasks:
    """The real masks (``greylag_protocols.masking``)."""

    def agree(
        self, private_key: bytes, roster: Sequence[RosterKey], own: int, context: bytes
    ) -> ApplyMasks:
        peers = [item.key for item in (*roster[:own], *roster[own + 1 :])]
        keys = masking.pair_keys(private_key, peers, context)

        def apply(vector: NDArray[np.uint32]) -> None:
            masking.add_masks(vector, add=keys[own:], subtract=keys[:own])

        return apply
