import pytest
from greylag_protocols.errors import VerificationError
from greylag_protocols.keys import (
    BATCH_KIND,
    MAX_BATCH,
    batch_leaves,
    claimed_firm,
    key_leaf,
    prove_batch,
    sign_batch,
    verify_batch,
)
from greylag_protocols.log import ChainTip
from greylag_protocols.merkle import root_of

FIRST = 5
KEYS = [bytes([number]) * 32 for number in range(1, 12)]


def _batch(signer, keys=KEYS, first=FIRST):
    return sign_batch(
        signer,
        keys,
        firm="a",
        consortium="glass",
        epoch=3,
        run="r-1",
        terms=b"\x09" * 32,
        first=first,
        tip=ChainTip(seq=7, head=b"\x08" * 32),
    )


def test_every_key_of_a_batch_verifies_for_its_own_attempt_only(firm):
    batch = verify_batch(_batch(firm), firm.public_key)
    assert batch.facts.attempts == range(5, 16)
    assert (batch.facts.firm, batch.facts.seq, batch.facts.head) == ("a", 7, "08" * 32)
    assert batch.facts.tip == ChainTip(seq=7, head=b"\x08" * 32)
    assert claimed_firm(_batch(firm)) == "a"
    for offset, key in enumerate(KEYS):
        proof = prove_batch(KEYS, FIRST)[1][offset]
        batch.check_key(key, proof, attempt=FIRST + offset)
        for attempt in (-1, 0, FIRST - 1, *range(FIRST, FIRST + 12), 2**64):
            if attempt != FIRST + offset:
                with pytest.raises(VerificationError):
                    batch.check_key(key, proof, attempt=attempt)
        with pytest.raises(VerificationError):
            batch.check_key(KEYS[offset - 1], proof, attempt=FIRST + offset)
        with pytest.raises(VerificationError):
            batch.check_key(key, proof[:-1], attempt=FIRST + offset)


def test_a_proof_from_another_batch_is_refused(firm):
    batch = verify_batch(_batch(firm), firm.public_key)
    others = [bytes([number]) * 32 for number in range(101, 112)]
    with pytest.raises(VerificationError, match="root"):
        batch.check_key(others[0], prove_batch(others, FIRST)[1][0], attempt=FIRST)
    # The same keys, signed for later attempts: a key serves one attempt only.
    later = verify_batch(_batch(firm, first=FIRST + 1), firm.public_key)
    with pytest.raises(VerificationError, match="root"):
        later.check_key(KEYS[1], prove_batch(KEYS, FIRST)[1][1], attempt=FIRST + 1)


def test_leaves_bind_key_and_attempt():
    leaves = batch_leaves([KEYS[0]] * 3, 1)
    assert len(set(leaves)) == 3
    assert key_leaf(KEYS[0], 1) != key_leaf(KEYS[1], 1)


def test_a_batch_of_one(firm):
    batch = verify_batch(_batch(firm, keys=KEYS[:1]), firm.public_key)
    batch.check_key(KEYS[0], (), attempt=FIRST)
    with pytest.raises(VerificationError):
        batch.check_key(KEYS[1], (), attempt=FIRST)


def test_batches_signed_by_another_or_of_another_shape_are_refused(firm, lead):
    with pytest.raises(VerificationError, match="not signed by"):
        verify_batch(_batch(firm), lead.public_key)
    with pytest.raises(VerificationError, match="size"):
        verify_batch(_batch(firm, keys=[bytes(32)] * (MAX_BATCH + 1)), firm.public_key)
    with pytest.raises(VerificationError, match="size"):
        verify_batch(_batch(firm, keys=[]), firm.public_key)
    with pytest.raises(VerificationError, match="first"):
        verify_batch(_batch(firm, first=0), firm.public_key)
    envelope = firm.sign(BATCH_KIND, "r-1", root_of(batch_leaves(KEYS, 1)), {"firm": "a"})
    with pytest.raises(VerificationError, match="missing"):
        verify_batch(envelope, firm.public_key)
    with pytest.raises(VerificationError, match="expected a key-batch"):
        verify_batch(firm.sign("receipt/v1", "r-1", bytes(32), {}), firm.public_key)
