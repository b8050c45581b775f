import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from greylag_protocols.errors import VerificationError
from greylag_protocols.masking import CHUNK_WORDS, add_masks, pair_key, public_key
from greylag_protocols.round import RosterKey

CONTEXT = b"\x11" * 32
SIZES = (1, 3, 7, CHUNK_WORDS - 1, CHUNK_WORDS, CHUNK_WORDS + 1, 2 * CHUNK_WORDS + 5)


def _mask_all(vectors, *, contexts=None, public=None):
    """Every firm's masked vector; the firms stand in the roster's order."""
    secrets = [bytes([7, number]) * 16 for number in range(len(vectors))]
    shown = public or [public_key(secret) for secret in secrets]
    masked = []
    for own, vector in enumerate(vectors):
        context = contexts[own] if contexts else CONTEXT
        keys = [
            None if peer == own else pair_key(secrets[own], shown[peer], context)
            for peer in range(len(vectors))
        ]
        result = vector.copy()
        add_masks(result, add=keys[own + 1 :], subtract=keys[:own])
        masked.append(result)
    return masked


def _total(vectors):
    return np.add.reduce(np.stack(vectors), axis=0, dtype=np.uint32)


def _vectors(firms, size, seed=0):
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 2**32, (firms, size), dtype=np.uint32))


@pytest.mark.parametrize("firms", range(2, 8))
def test_masks_cancel_in_the_whole_sum(firms):
    for size in SIZES if firms in (2, 5) else SIZES[:3]:
        vectors = _vectors(firms, size, seed=size)
        assert np.array_equal(_total(_mask_all(vectors)), _total(vectors))


def test_no_proper_subset_cancels():
    vectors = _vectors(5, 64)
    masked = _mask_all(vectors)
    for count in range(1, 5):
        for chosen in itertools.combinations(range(5), count):
            got = _total([masked[i] for i in chosen])
            plain = _total([vectors[i] for i in chosen])
            # 64 uniform words: two equal ones in the same place would be a surprise already.
            assert np.count_nonzero(got == plain) <= 1


def test_one_firm_in_another_context_gives_noise():
    vectors = [np.zeros(4096, np.uint32) for _ in range(4)]
    for bit in (0, 100, 255):
        other = bytearray(CONTEXT)
        other[bit // 8] ^= 1 << bit % 8
        total = _total(_mask_all(vectors, contexts=[CONTEXT] * 3 + [bytes(other)]))
        assert np.count_nonzero(total == 0) <= 1
        ones = np.unpackbits(total.view(np.uint8)).mean()
        assert abs(ones - 0.5) < 0.01  # 131,072 fair bits: seven standard deviations


def test_the_masked_vector_looks_uniform():
    masked = _mask_all([np.zeros(4096, np.uint32) for _ in range(2)])
    assert abs(np.unpackbits(masked[0].view(np.uint8)).mean() - 0.5) < 0.01
    assert np.array_equal(masked[0] + masked[1], np.zeros(4096, np.uint32))


def test_pair_keys_agree_and_differ_from_all_others():
    a, b, c = (bytes([n]) * 32 for n in (3, 4, 5))
    assert pair_key(a, public_key(b), CONTEXT) == pair_key(b, public_key(a), CONTEXT)
    keys = {
        pair_key(a, public_key(b), CONTEXT),
        pair_key(a, public_key(c), CONTEXT),
        pair_key(b, public_key(c), CONTEXT),
        pair_key(a, public_key(b), bytes(32)),
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),  # order 4's x = 0
        (1).to_bytes(32, "little"),
        (2**255 - 19 - 1).to_bytes(32, "little"),
        (2**255 - 19).to_bytes(32, "little"),
        (2**255 - 19 + 1).to_bytes(32, "little"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        b"",
        bytes(31),
        b"\x09" + bytes(32),
    ],
)
def test_small_order_and_malformed_peer_keys_are_refused(key):
    with pytest.raises(VerificationError, match="roster key"):
        pair_key(b"\x03" * 32, key, CONTEXT)


def _twin(key: bytes) -> bytes:
    """Another public key with the same secret with everybody: the point plus the one of order 2."""
    prime = 2**255 - 19
    return pow(int.from_bytes(key, "little"), -1, prime).to_bytes(32, "little")


def test_a_twin_of_anothers_key_does_not_repeat_that_firms_mask():
    # Roster order: accomplice, victim, honest firm. The accomplice shows a key that has the honest
    # firm's secret with the victim. Were only the secret hashed, the victim's two masks would be
    # one stream with both signs: nothing at all.
    victim, honest = b"\x21" * 32, b"\x22" * 32
    real, twin = public_key(honest), _twin(public_key(honest))
    assert real != twin
    data = np.arange(64, dtype=np.uint32)
    masked = data.copy()
    add_masks(
        masked,
        add=[pair_key(victim, real, CONTEXT)],
        subtract=[pair_key(victim, twin, CONTEXT)],
    )
    assert np.count_nonzero(masked == data) <= 1


def test_keystream_is_aes_256_ctr_from_zero():
    size, keys = 2 * CHUNK_WORDS + 9, [b"\x05" * 32, b"\x06" * 32]
    streams = [
        np.frombuffer(
            Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(4 * size)),
            "<u4",
        )
        for key in keys
    ]
    vector = np.zeros(size, np.uint32)
    add_masks(vector, add=keys[:1], subtract=keys[1:])
    assert np.array_equal(vector, streams[0] - streams[1])
    # Counter block by block through ECB, which shares no mode of operation with the above.
    block = Cipher(algorithms.AES(keys[0]), modes.ECB()).encryptor()  # noqa: S305
    for counter in (0, 1, size // 4 - 1):
        words = np.frombuffer(block.update(counter.to_bytes(16, "big")), "<u4")
        assert np.array_equal(streams[0][4 * counter : 4 * counter + 4], words)


def test_no_neighbours_and_no_words_are_fine():
    vector = np.arange(5, dtype=np.uint32)
    add_masks(vector, add=[], subtract=[])
    assert vector.tolist() == [0, 1, 2, 3, 4]
    add_masks(np.zeros(0, np.uint32), add=[bytes(32)], subtract=[])


def test_roster_keys_keep_their_secrets_elsewhere():
    assert set(RosterKey.__slots__) == {"firm", "key", "proof"}
