"""Proofs that an entry is in a log: true ones, others', and bytes that are none."""

import base64

import pytest
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.errors import VerificationError
from greylag_protocols.merkle import hash_leaf, nodes_of, prove_inclusion, root_of
from greylag_protocols.notes import cosign, cosigner_name, sign_checkpoint, with_cosignatures
from greylag_protocols.proofs import MAX_HEAD_BYTES, format_proof, parse_proof, verify_proof
from greylag_protocols.signing import Ed25519Signer

LEAD = Ed25519Signer(b"\x01" * 32)
FIRMS = {name: Ed25519Signer(name.encode() * 16) for name in ("fa", "fb", "fc")}
KEYS = {name: signer.public_key for name, signer in FIRMS.items()}
ENTRIES = [f"entry {number}".encode() for number in range(11)]
LEAVES = [hash_leaf(item) for item in ENTRIES]
CHECKPOINT = Checkpoint(origin="glass", size=len(ENTRIES), root=root_of(LEAVES))


def note(*firms: str, checkpoint: Checkpoint = CHECKPOINT, spoiled: bool = False) -> bytes:
    words = []
    for firm in firms:
        word = bytearray(cosign(FIRMS[firm], checkpoint, time_s=1_800_000_000))
        word[-1] ^= spoiled
        words.append((cosigner_name("glass", firm), KEYS[firm], bytes(word)))
    return with_cosignatures(sign_checkpoint(LEAD, checkpoint), words).encode()


def proof(index: int, *firms: str, extra: bytes | None = None, spoiled: bool = False) -> bytes:
    hashes = prove_inclusion(nodes_of(LEAVES), index, len(LEAVES))
    return format_proof(index, hashes, note(*firms, spoiled=spoiled).decode(), extra)


def verify(data: bytes, entry: bytes, origin: str = "glass", **keys: bytes) -> tuple[str, ...]:
    outcome = verify_proof(
        parse_proof(data),
        entry,
        origin=origin,
        log_key=LEAD.public_key,
        cosigner_keys=keys or KEYS,
    )
    assert outcome.checkpoint == CHECKPOINT
    assert outcome.firms == tuple(firm for firm, _ in outcome.cosigned)
    return tuple(firm for firm, time_s in outcome.cosigned if time_s == 1_800_000_000)


@pytest.mark.parametrize("index", range(len(ENTRIES)))
def test_every_entry_can_be_proved(index: int) -> None:
    assert verify(proof(index, "fb", "fa"), ENTRIES[index]) == ("fa", "fb")


def test_the_form_is_that_of_the_standard() -> None:
    lines = proof(4, extra=b"more").split(b"\n")
    assert lines[:3] == [b"c2sp.org/tlog-proof@v1", b"extra bW9yZQ==", b"index 4"]
    at = lines.index(b"")
    assert b"\n".join(lines[at + 1 :]) == note()
    assert parse_proof(proof(4, extra=b"more")).extra == b"more"
    assert parse_proof(proof(4)).extra == b""


def test_strangers_cosignatures_do_not_matter() -> None:
    assert verify(proof(3, "fa", "fb"), ENTRIES[3], fb=KEYS["fb"]) == ("fb",)
    assert verify(proof(3, "fa"), ENTRIES[3], fa=KEYS["fb"]) == ()


def test_what_is_not_proved() -> None:
    with pytest.raises(VerificationError, match="does not lead to the root"):
        verify(proof(3), ENTRIES[4])
    with pytest.raises(VerificationError, match="of the log 'glass', not of 'woods'"):
        verify(proof(3), ENTRIES[3], origin="woods")
    with pytest.raises(VerificationError, match="not signed by"):
        verify(proof(3, "fa", spoiled=True), ENTRIES[3])
    with pytest.raises(VerificationError, match="not signed by the lead"):
        verify_proof(
            parse_proof(proof(3)),
            ENTRIES[3],
            origin="glass",
            log_key=KEYS["fa"],
            cosigner_keys=KEYS,
        )


HASH = base64.b64encode(bytes(32))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nindex 0\n",
        b"c2sp.org/tlog-proof@v2\nindex 0\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nindex 01\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nindex 0\nindex 1\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + HASH[:-5] + b"\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + HASH[:-2] + b"B=\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"\n".join([HASH] * 65) + b"\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nextra !\nindex 0\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nextra \nindex 0\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nextra A\nindex 0\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nextra QQ\nindex 0\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nextra QR==\nindex 0\n\n" + note(),
        b"c2sp.org/tlog-proof@v1\nextra " + b"A" * MAX_HEAD_BYTES + b"\nindex 0\n\n" + note(),
        "c2sp.org/tlog-proof@v1\nindex ٣\n\n".encode() + note(),
        b"c2sp.org/tlog-proof@v1\nindex 0\n\nno note",
        b"x" * (5 << 20),
    ],
)
def test_bytes_that_are_no_proof(data: bytes) -> None:
    with pytest.raises(VerificationError):
        parse_proof(data)
