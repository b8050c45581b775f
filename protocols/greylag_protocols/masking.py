"""Pairwise one-time masks that cancel only in the sum over the whole roster.

Firm ``i`` sends ``x_i + sum_j sign(i, j) PRG(k_ij)  mod 2^32``. ``sign(i, j) = -sign(j, i)``, so
each stream is added once and subtracted once; the sum over *all* of the roster is ``sum_i x_i``,
and any sum that lacks an honest firm is uniform to whoever lacks the pair keys (Bonawitz et al.
2017, section 4, without the dropout recovery: here a missing firm voids the attempt).

``k_ij = HKDF-SHA256(X25519(key_i, key_j), info = tag | context | both public keys, sorted)``. The
context binds terms, run, round, attempt, model, log checkpoint and everybody's one-time key:
parties that were told different stories derive different streams and the result is noise. The
pair's own keys are bound too, since different public keys can have the same secret with everybody
(they differ by a point of small order): a firm that shows such a twin of another's key would
otherwise repeat that firm's stream, with the other sign, and so take the mask off a third firm.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from greylag_protocols.errors import VerificationError

MASK_TAG = b"greylag/mask/v1"
CHUNK_WORDS = 1 << 15  # 128 KiB: the accumulator's chunk and the keystream stay in L2


def derive_key(secret: bytes, context: bytes, tag: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) to 32 bytes; ``context`` starts with the attempt's 32 bytes."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=tag + b"|" + context).derive(secret)


def public_key(private_key: bytes) -> bytes:
    """The X25519 public key, 32 bytes, of a 32-byte private key."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def pair_keys(private_key: bytes, peer_public_keys: Iterable[bytes], context: bytes) -> list[bytes]:
    """The mask keys that a firm shares with each of its peers in one context, 32 bytes (AES-256).

    Raises:
        VerificationError: a peer's key is not 32 bytes or of small order.
    """
    keys = []
    try:
        own = X25519PrivateKey.from_private_bytes(private_key)
        own_public_key = own.public_key().public_bytes_raw()  # costs as much as an exchange: once
        for peer in peer_public_keys:
            shared = own.exchange(X25519PublicKey.from_public_bytes(peer))
            pair = sorted([own_public_key, peer])
            keys.append(derive_key(shared, context + b"".join(pair), MASK_TAG))
    except ValueError:
        raise VerificationError("a roster key is not a usable X25519 key") from None
    return keys


def pair_key(private_key: bytes, peer_public_key: bytes, context: bytes) -> bytes:
    """The mask key that two firms share in one context (see ``pair_keys``)."""
    return pair_keys(private_key, [peer_public_key], context)[0]


def add_masks(vector: NDArray[np.uint32], add: Sequence[bytes], subtract: Sequence[bytes]) -> None:
    """Add and subtract keystreams to ``vector`` in place, mod 2^32.

    Args:
        vector: shape (d,), C-contiguous uint32.
        add, subtract: AES-256 keys. A key serves one vector only, so counters start at 0.
    """
    streams = [
        (Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor(), operation)
        for keys, operation in ((add, np.add), (subtract, np.subtract))
        for key in keys
    ]
    chunk_bytes = 4 * CHUNK_WORDS
    zeros = memoryview(bytes(chunk_bytes))
    buffer = bytearray(chunk_bytes + 15)  # update_into asks for block_size - 1 bytes of slack
    keystream = np.frombuffer(buffer, dtype="<u4", count=CHUNK_WORDS)
    # Chunk outside, neighbour inside: the accumulator's chunk stays in cache for all neighbours.
    for start in range(0, len(vector), CHUNK_WORDS):
        part = vector[start : start + CHUNK_WORDS]
        size = len(part)
        for encryptor, operation in streams:
            encryptor.update_into(zeros[: 4 * size], buffer)
            operation(part, keystream[:size], out=part)
