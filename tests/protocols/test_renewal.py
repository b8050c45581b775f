import dataclasses

import pytest
from fuzz import seeds
from greylag_protocols.encoding import canonical_json, parse_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.invite import MAX_REQUEST_BYTES
from greylag_protocols.membership import REVOCATION_KIND
from greylag_protocols.renewal import (
    LEAVE_KIND,
    MAX_REPLY_BYTES,
    RENEWAL_KIND,
    Leave,
    RenewalReply,
    RenewalRequest,
    claimed_leave,
    parse_renewal_reply,
    parse_renewal_request,
    verify_leave,
)

GLASS = "glass-00ff00ff"
OWN, OTHER = seeds.FIRMS["firm-a"], seeds.FIRMS["firm-b"]
REQUEST = RenewalRequest.prove(OWN, consortium=GLASS, firm="firm-a", csr="CSR")
LEAVE = Leave(consortium=GLASS, firm="firm-a", left_s=1_800_000_000)


def test_a_renewal_proves_the_identity_key():
    again = parse_renewal_request(REQUEST.encode())
    again.check_proof(OWN.public_key)
    assert again == REQUEST
    with pytest.raises(VerificationError, match="not signed by"):
        again.check_proof(OTHER.public_key)


@pytest.mark.parametrize("change", [{"csr": "B"}, {"firm": "firm-b"}, {"consortium": "steel-1"}])
def test_a_proof_covers_all_that_is_asked_for(change):
    with pytest.raises(VerificationError, match="another request"):
        dataclasses.replace(REQUEST, **change).check_proof(OWN.public_key)


def test_a_proof_of_another_kind_or_subject_is_none():
    for kind, subject, match in (
        ("enrolment/v1", GLASS, "expected a renewal/v1"),
        (RENEWAL_KIND, "steel-1", "another request"),
    ):
        proof = OWN.sign(kind, subject, REQUEST.digest(), {"firm": "firm-a"}).decode()
        with pytest.raises(VerificationError, match=match):
            dataclasses.replace(REQUEST, proof=proof).check_proof(OWN.public_key)
    with pytest.raises(VerificationError, match="not text"):
        dataclasses.replace(REQUEST, proof="\ud800").check_proof(OWN.public_key)


@pytest.mark.parametrize(
    "change", [{"more": 1}, {"csr": "é"}, {"firm": "Firm A"}, {"proof": "x" * 8193}, {"proof": 1}]
)
def test_a_request_of_another_shape_is_refused(change):
    body = canonical_json({**parse_json(REQUEST.encode()), **change})
    with pytest.raises(ConfigError, match=f"renewal request: .*{next(iter(change))}"):
        parse_renewal_request(body)


def test_a_reply_comes_back():
    renewed = RenewalReply(certificate="PEM", ca="CA")
    assert parse_renewal_reply(renewed.encode()) == renewed
    with pytest.raises(ConfigError, match="'ca' is missing"):
        parse_renewal_reply(b'{"certificate":"PEM"}')


def test_bodies_beyond_their_limits_are_not_read():
    for parse, most in (
        (parse_renewal_request, MAX_REQUEST_BYTES),
        (parse_renewal_reply, MAX_REPLY_BYTES),
    ):
        with pytest.raises(VerificationError, match="at most"):
            parse(b" " * (most + 1))


def test_a_leave_is_the_firms_own_word():
    envelope = LEAVE.sign(OWN)
    assert verify_leave(envelope, OWN.public_key, consortium=GLASS) == LEAVE
    assert claimed_leave(envelope) == LEAVE
    with pytest.raises(VerificationError, match="not signed by"):
        verify_leave(envelope, OTHER.public_key, consortium=GLASS)
    with pytest.raises(VerificationError, match="has left consortium 'glass-00ff00ff'"):
        verify_leave(envelope, OWN.public_key, consortium="steel-1")


@pytest.mark.parametrize(
    ("kind", "subject", "predicate", "match"),
    [
        (REVOCATION_KIND, "firm-a", {}, "expected a leave/v1"),
        (LEAVE_KIND, "firm-b", {}, "speak of itself alone"),
        (LEAVE_KIND, "firm-a", {"left_s": -1}, "left_s"),
        (LEAVE_KIND, "firm-a", {"left_s": True}, "left_s"),
        (LEAVE_KIND, "firm-a", {"more": 1}, "unknown key"),
    ],
)
def test_what_is_no_leave_is_refused(kind, subject, predicate, match):
    facts = {**dataclasses.asdict(LEAVE), **predicate}
    envelope = OWN.sign(kind, subject, OWN.public_key, facts)
    with pytest.raises(VerificationError, match=match):
        claimed_leave(envelope)


def test_nobody_leaves_for_another_identity():
    envelope = OWN.sign(LEAVE_KIND, "firm-a", OTHER.public_key, dataclasses.asdict(LEAVE))
    with pytest.raises(VerificationError, match="another identity than its own"):
        verify_leave(envelope, OWN.public_key, consortium=GLASS)
