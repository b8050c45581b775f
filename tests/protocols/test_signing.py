import base64
import json

import pytest
from greylag_protocols import signing
from greylag_protocols.encoding import canonical_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.signing import (
    MAX_ENVELOPE_BYTES,
    PAYLOAD_TYPE,
    STATEMENT_TYPE,
    Ed25519Signer,
    fingerprint,
    parse_statement,
    verify_statement,
)

KIND = "receipt/v1"


@pytest.fixture
def envelope(firm):
    return firm.sign(KIND, "run-1", b"\x07" * 32, {"seq": 1, "firm": "a"})


def _signed(signer: Ed25519Signer, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """A well-made envelope around a payload that greylag itself would not write."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, payload_type, {})
    envelope.sign(signer._signer)
    return canonical_json(envelope.to_dict())


def _statement(**changes) -> bytes:
    value = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "run-1", "digest": {"sha256": "07" * 32}}],
        "predicateType": "urn:greylag:receipt/v1",
        "predicate": {"seq": 1},
    }
    return canonical_json({**value, **changes})


def test_a_statement_comes_back(firm, envelope):
    statement = verify_statement(envelope, firm.public_key, KIND)
    assert (statement.kind, statement.subject, statement.digest) == (KIND, "run-1", b"\x07" * 32)
    assert statement.predicate == {"seq": 1, "firm": "a"}
    assert parse_statement(envelope) == statement


def test_the_signature_is_plain_dsse_over_the_payload_as_sent(firm, envelope):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    value = json.loads(envelope)
    payload = base64.b64decode(value["payload"])
    encoding = b"DSSEv1 %d %s %d %s" % (
        len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload
    )  # fmt: skip
    signature = base64.b64decode(value["signatures"][0]["sig"])
    Ed25519PublicKey.from_public_bytes(firm.public_key).verify(signature, encoding)
    assert value["signatures"][0]["keyid"] == fingerprint(firm.public_key)


def test_payload_bytes_are_checked_as_received(firm):
    # Other white space and key order in the payload: still the bytes that were signed.
    payload = json.dumps(json.loads(_statement()), indent=2).encode()
    assert verify_statement(_signed(firm, payload), firm.public_key, KIND).subject == "run-1"


def test_another_key_or_kind_is_refused(firm, lead, envelope):
    with pytest.raises(VerificationError, match="not signed by"):
        verify_statement(envelope, lead.public_key, KIND)
    with pytest.raises(VerificationError, match="expected a round/v1"):
        verify_statement(envelope, firm.public_key, "round/v1")
    with pytest.raises(VerificationError, match="not an Ed25519"):
        verify_statement(envelope, b"short", KIND)


def test_claiming_anothers_keyid_does_not_help(firm, lead):
    value = json.loads(firm.sign(KIND, "run-1", bytes(32), {}))
    value["signatures"][0]["keyid"] = fingerprint(lead.public_key)
    with pytest.raises(VerificationError, match="not signed by"):
        verify_statement(canonical_json(value), lead.public_key, KIND)


def test_any_changed_payload_is_refused(firm, envelope):
    value = json.loads(envelope)
    payload = base64.b64decode(value["payload"])
    for at in range(0, len(payload), 7):
        changed = bytearray(payload)
        changed[at] ^= 1
        value["payload"] = base64.b64encode(changed).decode()
        with pytest.raises(VerificationError):
            verify_statement(canonical_json(value), firm.public_key, KIND)


def _with_extra_signature(value):
    value["signatures"].append({"keyid": "x", "sig": "AA=="})


def _without_signature(value):
    value["signatures"] = []


def _with_doubled_signature(value):
    value["signatures"] *= 2


def _with_extra_key(value):
    value["note"] = 1


def _with_extra_key_in_the_signature(value):
    value["signatures"][0]["note"] = 1


def _with_url_safe_base64(value):
    sig = value["signatures"][0]["sig"]
    value["signatures"][0]["sig"] = sig.replace("+", "-").replace("/", "_")
    value["payload"] = value["payload"][:-4] + value["payload"][-4:].replace("+", "-")
    value["signatures"][0]["sig"] += "" if "-" in sig or "_" in sig else "\n"


def _with_loose_base64_bits(value):
    sig = value["signatures"][0]["sig"]  # 64 bytes: two of the last character's bits are unused
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    changed = alphabet[alphabet.index(sig[-3]) ^ 1]
    assert base64.b64decode(sig[:-3] + changed + "==") == base64.b64decode(sig)
    value["signatures"][0]["sig"] = sig[:-3] + changed + "=="


def _with_another_type(value):
    value["payloadType"] = "text/plain"


def _with_a_keyid_that_is_no_text(value):
    value["signatures"][0]["keyid"] = 5


@pytest.mark.parametrize(
    "change",
    [
        _with_extra_signature,
        _without_signature,
        _with_doubled_signature,
        _with_extra_key,
        _with_extra_key_in_the_signature,
        _with_url_safe_base64,
        _with_loose_base64_bits,
        _with_another_type,
        _with_a_keyid_that_is_no_text,
    ],
)
def test_an_envelope_has_one_form_only(firm, envelope, change):
    # Chains hash the envelope; a second form with a valid signature would let whoever passes it on
    # fork a firm's chain.
    value = json.loads(envelope)
    change(value)
    with pytest.raises(VerificationError):
        verify_statement(canonical_json(value), firm.public_key, KIND)


def test_white_space_around_an_envelope_is_refused(firm, envelope):
    for other in (envelope + b"\n", b" " + envelope, json.dumps(json.loads(envelope)).encode()):
        with pytest.raises(VerificationError, match="one accepted form"):
            verify_statement(other, firm.public_key, KIND)


@pytest.mark.parametrize(
    "payload",
    [
        _statement(predicate=[1]),
        _statement(predicate="text"),
        _statement(subject=[]),
        _statement(subject=[{"name": "a", "digest": {"sha256": "07" * 32}}] * 2),
        _statement(subject=[{"name": 1, "digest": {"sha256": "07" * 32}}]),
        _statement(subject=[{"name": "a", "digest": {"sha256": "07" * 31}}]),
        _statement(subject=[{"name": "a", "digest": {"sha256": "07" * 33}}]),
        _statement(subject=[{"name": "a", "digest": {"sha256": " " + "07" * 32}}]),
        _statement(subject=[{"name": "a", "digest": {"sha256": "AB" * 32}}]),
        _statement(subject=[{"name": "a", "digest": {"sha256": "07" * 32, "md5": ""}}]),
        _statement(_type="https://in-toto.io/Statement/v0.1"),
        _statement(predicateType="https://slsa.dev/provenance/v1"),
        _statement(predicateType=7),
        _statement(more=1),
        b"[]",
        b"null",
        b'"subject"',
        b"{}",
        b'{"a":1,"a":2}',
        b"\xff",
    ],
)
def test_signed_payloads_of_another_shape_are_refused(firm, payload):
    with pytest.raises(VerificationError):
        verify_statement(_signed(firm, payload), firm.public_key, KIND)


def test_oversized_envelopes_are_neither_read_nor_written(firm):
    with pytest.raises(VerificationError, match="at most"):
        parse_statement(b" " * (MAX_ENVELOPE_BYTES + 1))
    with pytest.raises(ConfigError, match="holds at most"):
        firm.sign(KIND, "run-1", bytes(32), {"text": "x" * 50_000})
    assert len(firm.sign(KIND, "run-1", bytes(32), {"text": "x" * 48_000})) <= MAX_ENVELOPE_BYTES


@pytest.mark.parametrize(
    "text", ["", 'quote " and \\ back', "\x00\x1f\x7f\n\t\b", "玻璃 é \u2028", "\U0001f986"]
)
def test_an_envelope_of_texts_is_encoded_as_jcs_does(text):
    envelope = {
        "payload": "",
        "payloadType": text,
        "signatures": [{"sig": text, "keyid": "k"}],
    }
    assert signing._encode_texts(envelope) == canonical_json(envelope)
