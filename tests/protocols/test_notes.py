import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from greylag_protocols.checkpoint import Checkpoint, parse_checkpoint
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.merkle import hash_leaf
from greylag_protocols.notes import (
    COSIGNATURE,
    COSIGNATURE_BYTES,
    MAX_NOTE_BYTES,
    cosign,
    cosigner_name,
    key_id,
    parse_note,
    sign_checkpoint,
    verify_cosignature,
    verify_log_signature,
    with_cosignatures,
)
from greylag_protocols.signing import Ed25519Signer, verify_raw

LEAD, FIRM = Ed25519Signer(bytes([1]) * 32), Ed25519Signer(bytes([2]) * 32)
CHECKPOINT = Checkpoint(origin="plastics-01", size=7, root=hash_leaf(b"root"))
TIME_S = 1_790_000_000


def test_the_lines_of_a_note():
    note = sign_checkpoint(LEAD, CHECKPOINT)
    name = cosigner_name("plastics-01", "supplier-02")
    blob = cosign(FIRM, CHECKPOINT, time_s=TIME_S)
    full = with_cosignatures(note, [(name, FIRM.public_key, blob)])
    lines = full.encode().decode().split("\n")
    assert lines[:2] == ["plastics-01", "7"]
    assert base64.b64decode(lines[2]) == CHECKPOINT.root
    assert lines[3] == lines[6] == ""
    assert lines[4].startswith("\u2014 plastics-01 ")
    assert lines[5].startswith("\u2014 plastics-01/supplier-02 ")
    assert parse_note(full.encode()) == full
    verify_log_signature(full, LEAD.public_key)
    assert full.signatures[1].key_id == key_id(name, COSIGNATURE, FIRM.public_key)
    assert verify_cosignature(CHECKPOINT, full.signatures[1].blob, FIRM.public_key) == TIME_S


def test_a_cosignature_is_what_the_specification_says():
    blob = cosign(FIRM, CHECKPOINT, time_s=TIME_S)
    assert len(blob) == COSIGNATURE_BYTES
    signed = f"cosignature/v1\ntime {TIME_S}\n{CHECKPOINT.text()}".encode()
    Ed25519PublicKey.from_public_bytes(FIRM.public_key).verify(blob[8:], signed)


def test_somebody_else_s_words():
    note = sign_checkpoint(LEAD, CHECKPOINT)
    with pytest.raises(VerificationError, match="not signed by the lead"):
        verify_log_signature(note, FIRM.public_key)
    other = Checkpoint(origin="plastics-01", size=8, root=CHECKPOINT.root)
    forged = parse_note(note.encode().replace(b"\n7\n", b"\n8\n"))
    with pytest.raises(VerificationError, match="not signed by"):
        verify_log_signature(forged, LEAD.public_key)
    blob = cosign(FIRM, CHECKPOINT, time_s=TIME_S)
    later = (TIME_S + 1).to_bytes(8, "big") + blob[8:]
    never = bytes([255]) * 8 + blob[8:]
    for checkpoint, bad, key in (
        (other, blob, FIRM.public_key),
        (CHECKPOINT, blob, LEAD.public_key),
        (CHECKPOINT, blob[:-1], FIRM.public_key),
        (CHECKPOINT, later, FIRM.public_key),
        (CHECKPOINT, never, FIRM.public_key),
    ):
        with pytest.raises(VerificationError):
            verify_cosignature(checkpoint, bad, key)


def test_a_statement_is_never_signed_as_a_note():
    with pytest.raises(ConfigError):
        LEAD.sign_note(b"DSSEv1 28 application/vnd.in-toto+json 2 {}")
    with pytest.raises(VerificationError, match="not an Ed25519 public key"):
        verify_raw(bytes(64), b"", b"short")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plastics-01\n7\n",
        "plastics-01\n07\n{root}\n",
        "plastics-01\n-7\n{root}\n",
        "plastics 01\n7\n{root}\n",
        "plastics+01\n7\n{root}\n",
        "plastics-01\n7\n{root}",
        "plastics-01\n7\n{root}\nextension\n",
        "plastics-01\n7\nAAAA\n",
        "plastics-01\n7\n" + "A" * 42 + "B=\n",  # bits that no byte takes
        "plastics-01\n99999999999999999\n{root}\n",
    ],
)
def test_what_is_no_checkpoint(text):
    root = base64.b64encode(CHECKPOINT.root).decode()
    assert parse_checkpoint(f"plastics-01\n7\n{root}\n") == CHECKPOINT
    with pytest.raises(VerificationError):
        parse_checkpoint(text.format(root=root))


def test_what_is_no_note():
    good = sign_checkpoint(LEAD, CHECKPOINT).encode()
    line = good.split(b"\n")[4]
    for bad in (
        b"",
        b"\xff",
        good[:-1],
        good.replace(b"\n\n", b"\n"),
        CHECKPOINT.text().encode() + b"\n",
        CHECKPOINT.text().encode() + b"\n\n",
        good.replace("\u2014".encode(), b"-"),
        good.replace(line, line[:-1] + b"!"),
        good.replace(line, line + b"="),
        good.replace(line, b"\xe2\x80\x94 plastics-01 AAAA"),
        good.replace(line, b"\xe2\x80\x94 plastics-01 AAAAAAB="),
        good + b"\n",
        good + b" " * MAX_NOTE_BYTES,
    ):
        with pytest.raises(VerificationError):
            parse_note(bad)
