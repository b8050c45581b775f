"""One attempt of a whole roster, several builds side by side on the same data and secrets."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from greylag_client.contribution import make_vector
from greylag_client.masks import PairwiseMasks
from greylag_client.session import ClippedSums
from greylag_protocols import masking
from greylag_protocols.errors import GreylagError, VerificationError
from greylag_protocols.round import RosterKey
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_lab.probe.variants import Build

# The engine of one honest firm, by the firm's number and the terms its engine believes in.
Engines = Callable[[int, Terms], ClippedSums]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """Who takes part: the last ``max_colluding`` firms work together against the others.

    Attributes:
        master: 32 secret bytes, which stand for all firms' one-time secrets.
    """

    terms: Terms
    firms: int
    master: bytes

    @property
    def honest(self) -> int:
        return self.firms - self.terms.privacy.max_colluding

    def secret(self, *labels: int | str) -> bytes:
        """32 bytes, independent for each set of labels."""
        text = "|".join(map(str, labels))
        return hashlib.blake2b(text.encode(), key=self.master, digest_size=32).digest()


class NoData:
    """A firm that adds its noise and nothing else."""

    def __init__(self, terms: Terms) -> None:
        self._dimension = terms.dimension

    def __len__(self) -> int:
        return 0

    def clipped_sum(
        self, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        return np.zeros(self._dimension)


class Recorded:
    """Keeps what an engine gave, so that the true sum is known.

    ``make_vector`` sends noise alone when an engine fails; a probe must not take that for data.
    """

    def __init__(self, engine: ClippedSums) -> None:
        self._engine = engine
        self._asked: bytes | None = None
        self.given: NDArray[np.float64] | None = None
        self.failure = ""

    def __len__(self) -> int:
        return len(self._engine)

    def clipped_sum(
        self, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        if self.given is None or self._asked != units.tobytes():
            try:
                self.given = self._engine.clipped_sum(weights, units)
            except Exception as error:
                self.failure = f"{type(error).__name__}: {error}"
                raise
            self._asked = units.tobytes()
        return self.given


def leave(vector: NDArray[np.uint32]) -> None:
    """What stands in the place of masks where nobody looks at single vectors."""


def release(
    roster: Roster,
    builds: Sequence[Build],
    engines: Engines,
    *,
    terms: Terms,
    weights: NDArray[np.float32],
    labels: tuple[int | str, ...],
) -> list[tuple[NDArray[np.int32], NDArray[np.float64]]]:
    """For each build what the coalition sees, and the true sum in whole grid steps; shapes (d,).

    The coalition sees the opened sum less its own firms' vectors, which it knows: what the honest
    firms put in, since masks cancel (``unmasked_sum`` shows that they do).

    Raises:
        GreylagError: an engine failed.
    """
    step = terms.grid(roster.firms).step
    seen = [np.zeros(terms.dimension, dtype=np.uint32) for _ in builds]
    true = [np.zeros(terms.dimension) for _ in builds]
    for firm in range(roster.honest):
        recorded = {
            clips: Recorded(engines(firm, believed))
            for clips, believed in {
                build.clips: build.engine_terms(terms) for build in builds
            }.items()
        }
        for number, build in enumerate(builds):
            engine = recorded[build.clips]
            attempt = labels if build.fresh else ("again",)
            seen[number] += build.contribute(
                terms,
                engine,
                weights=weights,
                firms=roster.firms,
                secret=roster.secret("firm", firm, *attempt),
                context=roster.secret("context", *attempt),
                apply_masks=leave,
            )
            if engine.failure or engine.given is None:
                raise GreylagError(f"the training engine failed under the probe: {engine.failure}")
            true[number] += np.rint(engine.given / step)
    return [(total.view(np.int32), whole) for total, whole in zip(seen, true, strict=True)]


def masks_hold(roster: Roster, weights: NDArray[np.float32]) -> str:
    """What is wrong with the masks of one attempt by all firms; "" if nothing is.

    Less the coalition's own vectors the opened sum must be the honest firms' to the bit, and no
    honest vector may show through its mask.
    """
    terms, context = roster.terms, roster.secret("context", "masks")
    privates = [roster.secret("key", firm) for firm in range(roster.firms)]
    keys = [
        RosterKey(firm=str(firm), key=masking.public_key(private), proof=())
        for firm, private in enumerate(privates)
    ]
    total = np.zeros(terms.dimension, dtype=np.uint32)
    honest, known = np.zeros_like(total), np.zeros_like(total)
    shown = 0
    for firm, private in enumerate(privates):
        arguments: dict[str, Any] = {
            "weights": weights,
            "firms": roster.firms,
            "secret": roster.secret("firm", firm, "masks"),
            "context": context,
        }
        apply_masks = PairwiseMasks().agree(private, keys, firm, context)
        plain = make_vector(terms, NoData(terms), **arguments, apply_masks=leave)
        masked = make_vector(terms, NoData(terms), **arguments, apply_masks=apply_masks)
        total += masked
        if firm < roster.honest:
            honest += plain
            shown += int(np.count_nonzero(plain == masked))
        else:
            known += plain
    if not np.array_equal(total - known, honest):
        return "the masks do not cancel in the sum"
    if shown > 2 + roster.honest * terms.dimension // 1000:
        return f"{shown} numbers of honest firms went out without a mask"
    try:
        terms.grid(roster.firms).decode(total)
    except VerificationError as error:
        return str(error)
    return ""
