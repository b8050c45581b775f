"""The build under test, and builds with one part that is wrong on purpose.

They live here alone: an agent composes ``make_vector`` and knows no options. Each wrong build
repeats the steps of ``make_vector`` with a single figure changed: a probe that flags it, and not
the true one, has seen that figure.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from greylag_client.contribution import make_vector
from greylag_client.masks import ApplyMasks
from greylag_client.sampling import draw_normals, place_units, sample_units
from greylag_client.session import ClippedSums
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

UNCLIPPED = 1e9  # the largest clip_norm that terms can state


class Contribute(Protocol):
    """Makes one firm's vector (``greylag_client.contribution.make_vector``)."""

    def __call__(
        self,
        terms: Terms,
        engine: ClippedSums,
        *,
        weights: NDArray[np.float32],
        firms: int,
        secret: bytes,
        context: bytes,
        apply_masks: ApplyMasks,
    ) -> NDArray[np.uint32]:
        """The masked, noisy vector, shape (d,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongParts:
    """``make_vector`` with wrong figures; with the defaults it gives the same bits.

    Attributes:
        noise: what the noise is multiplied by.
        noise_per_honest: divide the noise by ``h``, not by ``sqrt(h)``.
        sampled: take part at the terms' rate; else always.
    """

    noise: float = 1.0
    noise_per_honest: bool = False
    sampled: bool = True

    def __call__(
        self,
        terms: Terms,
        engine: ClippedSums,
        *,
        weights: NDArray[np.float32],
        firms: int,
        secret: bytes,
        context: bytes,
        apply_masks: ApplyMasks,
    ) -> NDArray[np.uint32]:
        rate, cap = terms.training.sampling_rate, terms.batch_cap
        if not self.sampled:
            rate, cap = 1.0, max(cap, len(engine))
        chosen = sample_units(secret, context, units=len(engine), rate=rate, cap=cap)
        total = engine.clipped_sum(weights, place_units(secret, context, chosen, places=cap))
        normals = draw_normals(secret, context, terms.dimension) * self.noise
        if self.noise_per_honest:
            normals /= math.sqrt(firms - terms.privacy.max_colluding)
        vector = terms.grid(firms).encode(total, normals).view(np.uint32)
        apply_masks(vector)
        return vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One way to make contributions.

    Attributes:
        clips: whether its engine clips to the terms' norm.
        fresh: whether each attempt has randomness of its own.
    """

    name: str
    contribute: Contribute
    clips: bool = True
    fresh: bool = True

    def engine_terms(self, terms: Terms) -> Terms:
        """What its training engine believes the terms to be."""
        if self.clips:
            return terms
        return replace(terms, privacy=replace(terms.privacy, clip_norm=UNCLIPPED))


THIS_BUILD = Build(name="this build", contribute=make_vector)


def wrong_builds(terms: Terms) -> tuple[Build, ...]:
    """The builds that must be flagged under ``terms``."""
    builds = [
        Build(name="no noise", contribute=WrongParts(noise=0.0)),
        Build(name="noise / h", contribute=WrongParts(noise_per_honest=True)),
        Build(name="sigma / 2", contribute=WrongParts(noise=0.5)),
        Build(name="no clipping", contribute=WrongParts(), clips=False),
        Build(name="same randomness again", contribute=WrongParts(), fresh=False),
    ]
    if terms.training.sampling_rate < 1.0:
        builds.append(Build(name="no sampling", contribute=WrongParts(sampled=False)))
    return tuple(builds)
