import dataclasses
import json

import pytest
from greylag_protocols.encoding import canonical_json
from greylag_protocols.errors import ConfigError, GreylagError, VerificationError
from greylag_protocols.membership import (
    LIFETIME_S,
    MEMBERSHIP_KIND,
    Member,
    Membership,
    SignedMembership,
    claimed_revocation,
    membership_digest,
    revoked_in,
    sign_revocation,
    verify_revocation,
)
from greylag_protocols.signing import Ed25519Signer

NOW = 1_800_000_000


def _member(name: str, operator: str = "", **changes) -> Member:
    digit = format(sum(name.encode()) % 16, "x")
    facts = {"identity": name.encode().hex().ljust(64, digit), "recovery": digit * 64, **changes}
    return Member(name=name, operator=operator or name, **facts)


def _membership(*members: Member, **changes) -> Membership:
    facts = {
        "consortium": "glass",
        "lead": "lead",
        "epoch": 1,
        "issued_s": NOW,
        "expires_s": NOW + 1000,
        "members": members or (_member("a"), _member("b"), _member("lead")),
        **changes,
    }
    return Membership(**facts)


def _check(signed: SignedMembership, key: bytes, now_s: float = NOW) -> Membership:
    return signed.verify(key, consortium="glass", now_s=now_s)


def test_a_signed_membership_comes_back(lead):
    membership = _membership()
    signed = SignedMembership.sign(membership, lead)
    assert _check(signed, lead.public_key) == membership
    assert membership.digest() == membership_digest(signed.document)
    assert membership.member("b").identity_key == bytes.fromhex(membership.members[1].identity)
    with pytest.raises(VerificationError, match="no firm 'c'"):
        membership.member("c")


def test_another_signer_or_document_is_refused(lead, firm):
    signed = SignedMembership.sign(_membership(), lead)
    with pytest.raises(VerificationError, match="not signed by"):
        _check(signed, firm.public_key)
    other = dataclasses.replace(signed, document=_membership(epoch=2).encode())
    with pytest.raises(VerificationError, match="another document"):
        _check(other, lead.public_key)
    # The very same content in other bytes is another document too.
    spaced = json.dumps(json.loads(signed.document)).encode()
    with pytest.raises(VerificationError, match="another document"):
        _check(dataclasses.replace(signed, document=spaced), lead.public_key)
    wrong_kind = lead.sign("terms/v1", "glass", membership_digest(signed.document), {})
    with pytest.raises(VerificationError, match="expected a membership/v1"):
        _check(dataclasses.replace(signed, statement=wrong_kind), lead.public_key)


def test_validity_in_time(lead):
    signed = SignedMembership.sign(_membership(), lead)
    for now_s in (NOW - 300, NOW, NOW + 999.9):
        _check(signed, lead.public_key, now_s)
    for now_s in (NOW - 301, NOW + 1000, NOW + 10**9, float("nan")):
        with pytest.raises(VerificationError, match="not valid now"):
            _check(signed, lead.public_key, now_s)


def test_another_consortium_is_refused(lead):
    with pytest.raises(VerificationError, match="consortium 'steel', not 'glass'"):
        _check(SignedMembership.sign(_membership(consortium="steel"), lead), lead.public_key)
    document = _membership().encode()
    statement = lead.sign(MEMBERSHIP_KIND, "steel", membership_digest(document), {})
    with pytest.raises(VerificationError, match="consortium"):
        _check(SignedMembership(document=document, statement=statement), lead.public_key)


@pytest.mark.parametrize(
    "members",
    [
        (_member("b"), _member("a")),
        (_member("a"), _member("a")),
        (_member("a", identity="1" * 64), _member("b", identity="1" * 64)),
    ],
)
def test_unsorted_or_doubled_members_are_refused(lead, members):
    signed = SignedMembership.sign(_membership(*members), lead)
    with pytest.raises(VerificationError, match="not unique and sorted"):
        _check(signed, lead.public_key)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("epoch",), 0),
        (("epoch",), True),
        (("epoch",), 1.0),
        (("issued_s",), "now"),
        (("members",), {}),
        (("members", 0, "name"), "A"),
        (("members", 0, "name"), "a\n"),
        (("members", 0, "identity"), "1" * 63),
        (("members", 0, "identity"), "A" * 64),
        (("members", 0, "identity"), "1" * 64 + "\n"),
        (("members", 0, "more"), 1),
        (("more",), 1),
    ],
)
def test_documents_of_another_shape_are_refused(lead, path, value):
    document = json.loads(_membership().encode())
    *parents, last = path
    place = document
    for step in parents:
        place = place[step]
    place[last] = value
    encoded = json.dumps(document).encode()
    statement = lead.sign(MEMBERSHIP_KIND, "glass", membership_digest(encoded), {})
    with pytest.raises(ConfigError, match="membership: "):
        _check(SignedMembership(document=encoded, statement=statement), lead.public_key)


def test_a_document_that_is_not_json_stays_in_the_error_tree(lead):
    for document in (b"", b"[]", b"null", b'{"a":1,"a":1}', b"\xff"):
        statement = lead.sign(MEMBERSHIP_KIND, "glass", membership_digest(document), {})
        with pytest.raises(GreylagError):
            _check(SignedMembership(document=document, statement=statement), lead.public_key)


def test_coalition_is_the_lead_and_the_largest_other_operator():
    membership = _membership(
        _member("a", "host"),
        _member("b", "host"),
        _member("c", "host"),
        _member("d", "small"),
        _member("e", "small"),
        _member("f"),
        _member("lead", "lead"),
        _member("own", "lead"),
    )
    assert membership.coalition("abcdef") == 3
    assert membership.coalition([*"abcdef", "lead", "own"]) == 5
    assert membership.coalition(["a", "d", "e", "f"]) == 2
    assert membership.coalition(["lead"]) == 1
    assert membership.coalition([]) == 0
    with pytest.raises(VerificationError):
        membership.coalition(["a", "nobody"])


def test_the_document_is_canonical():
    membership = _membership()
    assert canonical_json(json.loads(membership.encode())) == membership.encode()


def test_an_epoch_lasts_thirty_days_at_most(lead):
    for lifetime_s, fits in ((LIFETIME_S, True), (LIFETIME_S + 1, False)):
        signed = SignedMembership.sign(_membership(expires_s=NOW + lifetime_s), lead)
        if fits:
            _check(signed, lead.public_key)
        else:
            with pytest.raises(VerificationError, match="30 days at most"):
                _check(signed, lead.public_key)


def test_a_recovery_key_is_nobodys_identity(lead):
    first = _member("a")
    for other in (
        _member("b", recovery=first.identity),
        _member("b", identity="ab" * 32, recovery="ab" * 32),
    ):
        signed = SignedMembership.sign(_membership(first, other), lead)
        with pytest.raises(VerificationError, match="recovery key is also"):
            _check(signed, lead.public_key)


# -- revocation ------------------------------------------------------------------------------------


@pytest.fixture
def recoverable(firm):
    """A membership in which firm ``a`` has a real identity and a real recovery key."""
    recovery = Ed25519Signer(b"\x07" * 32)
    keys = {"identity": firm.public_key.hex(), "recovery": recovery.public_key.hex()}
    return _membership(_member("a", **keys), _member("b")), recovery


def _revocation(membership, signer, **changes):
    facts = {
        "consortium": "glass",
        "firm": "a",
        "identity": membership.member("a").identity_key,
        **changes,
    }
    return sign_revocation(signer, **facts)


def test_a_recovery_key_takes_an_identity_back(recoverable):
    membership, recovery = recoverable
    envelope = _revocation(membership, recovery)
    assert verify_revocation(envelope, membership) == membership.member("a")
    assert claimed_revocation(envelope) == "a"
    assert revoked_in(membership, [envelope, envelope]) == {"a"}
    assert revoked_in(membership, []) == set()


@pytest.mark.parametrize(
    "changes",
    [{"consortium": "steel"}, {"identity": bytes(32)}, {"firm": "b"}, {"firm": "c"}],
    ids=lambda change: next(iter(change)),
)
def test_a_revocation_is_of_one_identity_in_one_consortium(recoverable, changes):
    membership, recovery = recoverable
    envelope = _revocation(membership, recovery, **changes)
    with pytest.raises(VerificationError):
        verify_revocation(envelope, membership)
    assert revoked_in(membership, [envelope]) == set()


def test_no_other_key_revokes(recoverable, firm, lead):
    membership, _ = recoverable
    for signer in (firm, lead):  # not even the identity itself: whoever stole it would
        with pytest.raises(VerificationError, match="not signed by"):
            verify_revocation(_revocation(membership, signer), membership)
