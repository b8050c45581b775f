"""What a firm puts into one attempt, after it has paid: sample, clipped sum, noise, masks.

Nothing here may refuse, fail or differ in kind because of data: the sum over the roster needs this
firm's vector, and an error would tell the coordinator something that no noise covers.
"""

import logging

import numpy as np
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_client.masks import ApplyMasks
from greylag_client.sampling import draw_normals, place_units, sample_units
from greylag_client.session import ClippedSums

logger = logging.getLogger(__name__)


def make_vector(
    terms: Terms,
    engine: ClippedSums,
    *,
    weights: NDArray[np.float32],
    firms: int,
    secret: bytes,
    context: bytes,
    apply_masks: ApplyMasks,
) -> NDArray[np.uint32]:
    """The masked, noisy vector, shape (d,).

    Args:
        firms: roster size.
        secret: made with the one-time key; seeds sample and noise in this context.
    """
    clipped = _clipped_sum(terms, engine, weights, secret, context)
    normals = draw_normals(secret, context, terms.dimension)
    vector = terms.grid(firms).encode(clipped, normals).view(np.uint32)
    apply_masks(vector)
    return vector


def _clipped_sum(
    terms: Terms,
    engine: ClippedSums,
    weights: NDArray[np.float32],
    secret: bytes,
    context: bytes,
) -> NDArray[np.float64]:
    """The firm's signal; zeros if the arithmetic breaks: it must look like an empty sample."""
    try:
        cap = terms.batch_cap
        chosen = sample_units(
            secret, context, units=len(engine), rate=terms.training.sampling_rate, cap=cap
        )
        return engine.clipped_sum(weights, place_units(secret, context, chosen, places=cap))
    except Exception:  # whatever breaks after the debit, the noise must be sent
        logger.exception("%s: the gradient failed; noise alone was sent", terms.run_id)
        return np.zeros(terms.dimension)
