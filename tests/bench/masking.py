"""The masking kernel against its limit: AES-256-CTR and numpy's add, and nothing else.

The limit adds every chunk of keystream to one and the same chunk, which never leaves the cache.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from greylag_protocols.masking import CHUNK_WORDS, add_masks
from harness import Figure, compare, say

REPEATS = 7
FIRMS = (10, 50, 100, 200)
DIMENSIONS = (100_000, 1_000_000)


def measure_masking() -> list[Figure]:
    """One figure for each size of roster and model."""
    return [_measure(firms, dimension) for dimension in DIMENSIONS for firms in FIRMS]


def _measure(firms: int, dimension: int) -> Figure:
    say(f"masking kernel, {firms} firms, d = {dimension:,}")
    rng = np.random.default_rng(0)
    keys = [rng.bytes(32) for _ in range(firms - 1)]
    vector = np.zeros(dimension, dtype=np.uint32)
    zeros = memoryview(bytes(4 * CHUNK_WORDS))
    buffer = bytearray(4 * CHUNK_WORDS + 15)
    stream = np.frombuffer(buffer, dtype="<u4", count=CHUNK_WORDS)

    total = np.zeros(CHUNK_WORDS, dtype=np.uint32)

    def limit() -> None:
        for key in keys:
            encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
            for start in range(0, dimension, CHUNK_WORDS):
                size = min(CHUNK_WORDS, dimension - start)
                encryptor.update_into(zeros[: 4 * size], buffer)
                np.add(total[:size], stream[:size], out=total[:size])

    kernel_s, limit_s = compare(
        lambda: add_masks(vector, add=keys[::2], subtract=keys[1::2]), limit, repeats=REPEATS
    )
    return Figure(
        name="masking kernel / (AES-256-CTR + numpy add)",
        where={"firms": firms, "d": dimension},
        value=kernel_s / limit_s,
        unit="x",
        bound=1.15,
        details={"ns_per_parameter_and_neighbour": kernel_s / dimension / (firms - 1) * 1e9},
    )
