"""The fast reader of entries reads just what the ordinary one reads."""

import pytest
from audit_evidence import Evidence
from fuzz import seeds
from fuzz.protocol_targets import sign_payload
from greylag_audit.entries import read_entry
from greylag_protocols.errors import VerificationError
from greylag_protocols.signing import parse_statement
from hypothesis import given, settings
from hypothesis import strategies as st

FIRM = seeds.FIRMS["firm-a"]
RECEIPT = seeds.make_chain().entries[1]


def same(envelope: bytes) -> bool:
    """Both readers agree; whether they accept."""
    try:
        expected = parse_statement(envelope)
    except VerificationError:
        with pytest.raises(VerificationError):
            read_entry(envelope, 0)
        return False
    entry = read_entry(envelope, 7)
    found = (entry.kind, entry.subject, bytes.fromhex(entry.digest), entry.predicate)
    assert found == (expected.kind, expected.subject, expected.digest, expected.predicate)
    assert [type(item) for item in entry.predicate.values()] == [
        type(expected.predicate[key]) for key in entry.predicate
    ]
    return True


def test_every_entry_of_a_real_log_is_read_alike(real: Evidence) -> None:
    assert all(same(envelope) for envelope in real.entries)
    for at, envelope in enumerate(real.entries):
        if real.statement(at).kind == "receipt/v1":
            entry = read_entry(envelope, at)
            assert entry.exact
            entry.check_signature(real.signer_of(at).public_key)
            with pytest.raises(VerificationError):
                entry.check_signature(real.lead.public_key)


ODD = [
    (b'"attempt":1', b'"attempt":01'),
    (b'"attempt":1', b'"attempt":-1'),
    (b'"attempt":1', b'"attempt":1.0'),
    (b'"attempt":1', b'"attempt":true'),
    (b'"attempt":1', b'"attempt":9007199254740993'),
    (b'"attempt":1', b'"attempt":"1"'),
    (b'"attempt":1', b'"attempt":1,"attempt":1'),
    (b'"firm":"firm-a"', b'"firm":"\\u0066irm-a"'),
    (b'"firm":"firm-a"', '"firm":"é"'.encode()),
    (b'"firm":"firm-a"', '"firm":"鹅"'.encode()),
    (b'"firm":"firm-a"', b'"firm":"\xff"'),
    (b'"firm":"firm-a"', b'"firm":"a\nb"'),
    (b'"firm":"firm-a"', b'"firm":"a","x":"b"'),
    (b'"round":1', b'"round": 1'),
    (b"receipt/v1", b"receipt/v2"),
    (b"urn:greylag:", b"urn:other:"),
    (b'"name":"small-1"', b'"name":"other-1"'),
]


@pytest.mark.parametrize(("old", "new"), ODD)
def test_odd_receipts_are_read_alike(old: bytes, new: bytes) -> None:
    payload = read_entry(RECEIPT, 0).payload
    changed = payload.replace(old, new)
    assert changed != payload
    same(sign_payload(changed, FIRM))


def test_a_receipt_that_names_two_runs_is_not_exact() -> None:
    payload = read_entry(RECEIPT, 0).payload
    changed = payload.replace(b'"name":"small-1"', b'"name":"other-1"')
    assert not read_entry(sign_payload(changed, FIRM), 0).exact


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(at=st.integers(0, len(RECEIPT) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_read_alike_or_not_at_all(at: int, byte: int) -> None:
    changed = bytearray(RECEIPT)
    changed[at] = byte
    envelope = bytes(changed)
    try:
        entry = read_entry(envelope, 0)
    except VerificationError:
        return  # whatever the ordinary reader says: no honest signer writes it
    try:
        entry.check_signature(FIRM.public_key)
    except VerificationError:
        return  # it may be read, but is by nobody
    assert envelope == RECEIPT or entry.key_id != read_entry(RECEIPT, 0).key_id
