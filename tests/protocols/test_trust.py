"""Trust files: whose keys are in them, and what is no such file."""

import json
from dataclasses import asdict

import pytest
from greylag_protocols.errors import ConfigError
from greylag_protocols.membership import Member, Membership
from greylag_protocols.trust import MAX_TRUST_BYTES, TrustedFirm, parse_trust, trust_in

LEAD, BODY = "aa" * 32, "bb" * 32


def epoch(number: int, **keys: str) -> Membership:
    """Members by name; each key is two hex digits, again and again."""
    members = tuple(
        Member(name=name, operator=f"{name}-{number}", identity=key * 32, recovery=key * 32)
        for name, key in keys.items()
    )
    return Membership(
        consortium="glass", lead="lead", epoch=number, issued_s=0, expires_s=9, members=members
    )


EPOCHS = [epoch(3, north="33"), epoch(1, north="11", south="01"), epoch(2, north="22")]
TRUST = trust_in(EPOCHS, consortium="glass", lead=LEAD, bodies={"guild": BODY})


def test_the_last_epoch_that_names_a_firm_counts_and_its_earlier_keys_are_kept() -> None:
    assert TRUST.firms == {
        "north": TrustedFirm(
            identity="33" * 32, operator="north-3", earlier=("11" * 32, "22" * 32)
        ),
        "south": TrustedFirm(identity="01" * 32, operator="south-1"),
    }


def test_a_key_that_came_back_is_not_an_earlier_one() -> None:
    epochs = [epoch(1, north="11"), epoch(2, north="22"), epoch(3, north="11")]
    trust = trust_in(epochs, consortium="glass", lead=LEAD, bodies={})
    assert trust.firms["north"].earlier == ("22" * 32,)


def test_what_is_written_is_read_again() -> None:
    assert parse_trust(json.dumps(asdict(TRUST)).encode()) == TRUST


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"version": "trust/v2"}, "version"),
        ({"lead": "AA" * 32}, "lead"),
        ({"firms": {"North": {"identity": LEAD, "operator": "n"}}}, "firms"),
        ({"salt": ""}, "salt"),
    ],
)
def test_another_form_is_refused(changed: dict[str, object], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        parse_trust(json.dumps(asdict(TRUST) | changed).encode())


@pytest.mark.parametrize("data", [b"{", b'{"lead": 1, "lead": 2}', b" " * (MAX_TRUST_BYTES + 1)])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match="the trust file is not acceptable"):
        parse_trust(data)
