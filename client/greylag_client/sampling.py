"""Randomness of a contribution: which units, and the noise; AES-128 in counter mode.

Both streams are seeded from a secret made with the one-time key and from the attempt's context: a
machine that was set back repeats itself bit by bit, instead of adding fresh noise to the same data.
"""

import numpy as np
from greylag_protocols.masking import derive_key
from numpy.typing import NDArray
from randomgen import AESCounter

SAMPLE_TAG = b"greylag/sample/v1"
PLACE_TAG = b"greylag/place/v1"
NOISE_TAG = b"greylag/noise/v1"
NO_UNIT = -1


def _generator(secret: bytes, context: bytes, tag: bytes) -> np.random.Generator:
    key = derive_key(secret, context, tag)[:16]
    # ``key=`` and never ``seed=``: a seed would be stretched from far less entropy.
    return np.random.Generator(AESCounter(key=int.from_bytes(key, "little")))


def sample_units(
    secret: bytes, context: bytes, *, units: int, rate: float, cap: int
) -> NDArray[np.intp]:
    """A Poisson sample of unit indices at ``rate``, cut to a random subset of ``cap``."""
    generator = _generator(secret, context, SAMPLE_TAG)
    chosen = np.flatnonzero(generator.random(units) < rate)
    if len(chosen) > cap:
        chosen = np.sort(generator.permutation(chosen)[:cap])
    return chosen


def place_units(
    secret: bytes, context: bytes, chosen: NDArray[np.intp], *, places: int
) -> NDArray[np.intp]:
    """The chosen units in random places of a batch, shape (places,); ``NO_UNIT`` elsewhere.

    A library rounds a row by its place in the matrix, and crafted weights can blow such an ulp up
    to a whole gradient. If units stood in a row, one more would move the others to other places,
    and the sum by many clip norms. Random places are for the others the same with and without it.
    """
    batch = np.full(places, NO_UNIT, dtype=np.intp)
    order = _generator(secret, context, PLACE_TAG).permutation(places)
    batch[order[: len(chosen)]] = chosen
    return batch


def draw_normals(secret: bytes, context: bytes, size: int) -> NDArray[np.float64]:
    """Standard normals, shape (size,), float64."""
    return _generator(secret, context, NOISE_TAG).standard_normal(size)
