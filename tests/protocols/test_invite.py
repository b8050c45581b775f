import base64
import dataclasses

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fuzz import seeds
from greylag_protocols.encoding import canonical_json, parse_json, tagged_hash
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.invite import (
    ENROLMENT_KIND,
    MAX_INVITE_CHARS,
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    encode_token,
    parse_invite,
    parse_reply,
    parse_request,
    spki_pin,
    token_hash,
)

INVITE = seeds.make_invite()
LINE = INVITE.encode()


def _wrap(body: bytes) -> str:
    check = tagged_hash("greylag/invite-checksum/v1", body)[:4]
    return "glg1." + base64.urlsafe_b64encode(body + check).decode().rstrip("=")


def test_an_invite_comes_back_however_it_was_pasted():
    assert parse_invite(LINE) == INVITE
    assert parse_invite(f"  {LINE[:40]}\n\t{LINE[40:]} \r\n") == INVITE
    assert INVITE.token not in repr(INVITE)


@pytest.mark.parametrize("text", ["", "glg2." + LINE[5:], "https://lead.example", LINE[1:]])
def test_what_is_no_invite_is_told_apart(text):
    with pytest.raises(ConfigError, match="must start with"):
        parse_invite(text)


@pytest.mark.parametrize(
    "text",
    [
        "glg1.",
        "glg1.AAAA",
        LINE[:-1],
        LINE[:60] + ("A" if LINE[60] != "A" else "B") + LINE[61:],
        LINE + "=",
        "glg1.A",  # a single character of base64 is no byte
        "glg1." + "A" * MAX_INVITE_CHARS,
    ],
)
def test_an_invite_that_was_cut_or_altered_is_refused(text):
    with pytest.raises(ConfigError, match="incomplete or was altered"):
        parse_invite(text)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"not JSON",
        canonical_json({**parse_json(canonical_json(INVITE)), "port": 0}),
        canonical_json({**parse_json(canonical_json(INVITE)), "token": "x"}),
        canonical_json({**parse_json(canonical_json(INVITE)), "more": 1}),
    ],
)
def test_a_whole_invite_of_another_shape_is_refused_without_a_word_of_it(body):
    with pytest.raises(ConfigError, match="which version of greylag") as caught:
        parse_invite(_wrap(body))
    assert INVITE.token not in str(caught.value)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_token_is_made_of_32_bytes(size):
    with pytest.raises(ConfigError, match="32 bytes"):
        encode_token(bytes(size))
    assert len(encode_token(bytes(32))) == 43


def test_a_token_hash_depends_on_the_consortium():
    assert token_hash("glass", "t") != token_hash("steel", "t")
    assert token_hash("glass", "t") == token_hash("glass", "t")


def test_the_pin_is_the_hash_of_the_key_alone():
    key = ec.derive_private_key(7, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lead")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    encoded = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(encoded)
    assert spki_pin(csr) == digest.finalize().hex()  # type: ignore[arg-type] - has a public key too


def test_a_request_proves_its_key():
    request = seeds.make_request()
    again = parse_request(request.encode())
    again.check_proof()
    assert again == request
    assert again.token_hash == token_hash(INVITE.consortium, INVITE.token)
    assert INVITE.token not in repr(again)


@pytest.mark.parametrize(
    "change",
    [
        {"csr": "OTHER"},
        {"token": "A" * 43},
        {"recovery": "0" * 64},
        {"consortium": "steel-00ff00ff"},
        {"firm": "firm-b"},
    ],
)
def test_a_proof_covers_all_that_is_asked_for(change):
    with pytest.raises(VerificationError, match="another request"):
        dataclasses.replace(seeds.make_request(), **change).check_proof()


def test_a_proof_of_another_key_or_subject_is_refused():
    request = seeds.make_request()
    other = seeds.FIRMS["firm-b"]
    with pytest.raises(VerificationError, match="not signed by"):
        dataclasses.replace(request, identity=other.public_key.hex()).check_proof()
    proof = seeds.FIRMS["firm-a"].sign(ENROLMENT_KIND, "steel", request.digest(), {})
    with pytest.raises(VerificationError, match="another request"):
        dataclasses.replace(request, proof=proof.decode()).check_proof()
    with pytest.raises(VerificationError, match="not text"):
        dataclasses.replace(request, proof="\ud800").check_proof()


def test_a_reply_comes_back_with_its_membership():
    reply = seeds.make_reply()
    again = parse_reply(reply.encode())
    assert again == reply
    membership = again.membership.verify(
        bytes.fromhex(reply.lead_key), consortium=seeds.CONSORTIUM, now_s=float(seeds.NOW_S)
    )
    assert membership == seeds.make_membership()


def test_bodies_beyond_their_limits_are_not_read():
    with pytest.raises(VerificationError, match="at most"):
        parse_request(b" " * (MAX_REQUEST_BYTES + 1))
    with pytest.raises(VerificationError, match="at most"):
        parse_reply(b" " * (MAX_REPLY_BYTES + 1))
