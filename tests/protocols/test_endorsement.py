"""Endorsements of a member list: whose word counts, for which list, and how often."""

from dataclasses import replace

import pytest
from greylag_protocols.endorsement import (
    claimed_endorser,
    endorsed_by_body,
    endorsing_operators,
    sign_endorsement,
    verify_endorsement,
)
from greylag_protocols.errors import VerificationError
from greylag_protocols.membership import Member, Membership, sign_revocation
from greylag_protocols.signing import Ed25519Signer

SIGNERS = {name: Ed25519Signer(bytes([at + 1] * 32)) for at, name in enumerate("abcdefg")}
OPERATORS = {"a": "a", "b": "b", "c": "host", "d": "host", "e": "lead", "f": "f"}
BODY = Ed25519Signer(b"\x77" * 32)


def member(name: str) -> Member:
    key = SIGNERS[name].public_key
    return Member(name=name, operator=OPERATORS[name], identity=key.hex(), recovery=key[::-1].hex())


def epoch(number: int, names: str) -> Membership:
    members = tuple(member(name) for name in names)
    return Membership(
        consortium="glass", lead="lead", epoch=number, issued_s=0, expires_s=99, members=members
    )


OLD, NEW = epoch(1, "abcde"), epoch(2, "abcdef")


def words(names: str, membership: Membership = NEW) -> list[bytes]:
    return [sign_endorsement(SIGNERS[name], membership, by=name) for name in names]


def operators(envelopes: list[bytes], **changes: object) -> frozenset[str]:
    facts = {"trusted": [OLD], "firm": "a", **changes}
    return endorsing_operators(NEW, envelopes, **facts)  # type: ignore[arg-type]


def test_known_firms_count_by_operator() -> None:
    assert operators(words("bcd")) == {"b", "host"}
    assert operators([*words("bcd"), *words("b")]) == {"b", "host"}


@pytest.mark.parametrize(
    ("envelopes", "why"),
    [
        (words("a"), "its own word"),
        (words("e"), "the lead's own agent"),
        (words("f"), "a firm that the new list brings in"),
        (words("b", OLD), "an endorsement of the old list"),
        ([sign_endorsement(SIGNERS["g"], NEW, by="b")], "another key"),
        ([b"", b"{}", b"\xff"], "no statement"),
        ([sign_revocation(SIGNERS["b"], consortium="glass", firm="b", identity=b"k" * 32)], "kind"),
        ([], "nobody"),
    ],
)
def test_whose_word_does_not_count(envelopes: list[bytes], why: str) -> None:
    assert operators(envelopes) == set(), why


def test_a_firm_of_the_same_host_does_not_count() -> None:
    assert operators(words("bd"), firm="c") == {"b"}


def test_a_firm_whose_key_or_operator_changed_is_not_known() -> None:
    for change in ({"identity": SIGNERS["g"].public_key.hex()}, {"operator": "sold"}):
        members = [replace(item, **change) if item.name == "b" else item for item in OLD.members]
        assert operators(words("b"), trusted=[replace(OLD, members=tuple(members))]) == set()
    assert operators(words("b"), revoked=["b"]) == set()
    assert operators(words("b"), trusted=[]) == set()


def test_a_bodys_word_is_enough_and_only_for_its_list() -> None:
    good, other = (sign_endorsement(BODY, item, by="association") for item in (NEW, OLD))
    assert endorsed_by_body(NEW, [b"", good], [SIGNERS["a"].public_key, BODY.public_key])
    assert not endorsed_by_body(NEW, [other], [BODY.public_key])
    assert not endorsed_by_body(NEW, [good], [SIGNERS["a"].public_key])
    assert not endorsed_by_body(NEW, [good], [])


def test_what_an_endorsement_says() -> None:
    (envelope,) = words("b")
    assert claimed_endorser(envelope) == "b"
    assert verify_endorsement(envelope, SIGNERS["b"].public_key, NEW) == "b"
    for key, membership in (
        (SIGNERS["a"].public_key, NEW),
        (SIGNERS["b"].public_key, OLD),
        (SIGNERS["b"].public_key, replace(NEW, expires_s=100)),
        (SIGNERS["b"].public_key, replace(NEW, consortium="other")),
    ):
        with pytest.raises(VerificationError):
            verify_endorsement(envelope, key, membership)
    revocation = sign_revocation(SIGNERS["b"], consortium="glass", firm="b", identity=b"k" * 32)
    assert claimed_endorser(revocation) is None
