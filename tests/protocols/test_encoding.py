import dataclasses
import hashlib
import json
import math

import pytest
from greylag_protocols import encoding
from greylag_protocols.encoding import (
    canonical_json,
    pack_frame,
    parse_as,
    parse_frame,
    parse_json,
    tagged_hash,
)
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.messages import Close, Closed, Round
from greylag_protocols.parsing import parse_coordinator_message, parse_firm_message
from greylag_protocols.signing import parse_statement, verify_statement
from greylag_protocols.terms import TrainingTerms
from hypothesis import given, settings
from hypothesis import strategies as st

FAST = settings(max_examples=100, deadline=None)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(
    -encoding.EXACT_INT, encoding.EXACT_INT
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@FAST
@given(JSON_VALUES)
def test_canonical_json_round_trip(value):
    encoded = canonical_json(value)
    again = parse_json(encoded)
    assert again == value
    assert canonical_json(again) == encoded


def test_canonical_json_follows_rfc_8785():
    # RFC 8785 section 3.2.2 and 3.2.3.
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical_json(value) == (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_json({"\ufb33": 1, "\U0001f600": 2, "a": 3}).startswith(b'{"a":3,"\xf0')


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**53, -(2**53), "\ud800", {"\ud800": 1}, b"raw", {1: 2}, object()],
)
def test_canonical_json_refuses_what_json_cannot_hold(value):
    with pytest.raises(ConfigError, match="canonical JSON"):
        canonical_json({"x": value} if not isinstance(value, dict) else value)


def test_large_doubles_come_back_as_doubles():
    assert canonical_json(1e16) == b"10000000000000000"
    assert isinstance(parse_json(b"10000000000000000"), float)
    assert parse_json(b"9007199254740991") == 2**53 - 1
    assert isinstance(parse_json(b"9007199254740991"), int)
    assert isinstance(parse_json(b"-9007199254740992"), float)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b"9" * 400,
        b"9" * 5000,
        b'"\\ud800"',
        b'{"\\udc00":1}',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b"\xef\xbb\xbf1",
        "1".encode("utf-16"),
        "[1]".encode("utf-32"),
        b"[" * 100_000,
        b"1 2",
    ],
)
def test_json_that_is_refused(data):
    with pytest.raises(VerificationError):
        parse_json(data)


def test_a_surrogate_pair_is_one_character():
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_json_depth_and_size_limits():
    depth = encoding.MAX_JSON_DEPTH
    assert parse_json(b"[" * (depth - 1) + b"1" + b"]" * (depth - 1)) is not None
    with pytest.raises(VerificationError, match="deeper"):
        parse_json(b"[" * depth + b"1" + b"]" * depth)
    assert parse_json(b"12345", max_bytes=5) == 12345
    with pytest.raises(VerificationError, match="at most 5"):
        parse_json(b"123456", max_bytes=5)


def test_unknown_key_gets_a_suggestion():
    with pytest.raises(
        ConfigError, match=r"unknown key 'sampling_rat', did you mean 'sampling_rate'\?"
    ):
        parse_as(TrainingTerms, {"rounds": 1, "sampling_rat": 0.1}, what="plan")
    with pytest.raises(ConfigError, match=r"unknown key 'zzzz'(;|$)"):
        parse_as(TrainingTerms, {"rounds": 1, "sampling_rate": 0.1, "zzzz": 1}, what="plan")
    with pytest.raises(ConfigError, match=r"key 'rounds' is missing"):
        parse_as(TrainingTerms, {"sampling_rate": 0.1}, what="plan")


def test_explanations_stay_short_for_hostile_input():
    many = {f"k{number}": 1 for number in range(20_000)} | {"x" * 1_000_000: 1}
    with pytest.raises(ConfigError, match="more") as caught:
        parse_as(TrainingTerms, many, what="message")
    assert len(str(caught.value)) < 5_000


def test_frames_round_trip_and_share_memory():
    data = pack_frame({"kind": "x", "n": 3}, [b"", b"abc", b"\x00" * 5])
    header, blobs = parse_frame(data)
    assert header == {"kind": "x", "n": 3}
    assert [bytes(blob) for blob in blobs] == [b"", b"abc", b"\x00" * 5]
    assert all(blob.obj is data for blob in blobs)


def _frame(header: bytes, tail: bytes = b"") -> bytes:
    return b"GLG1" + len(header).to_bytes(4, "big") + header + tail


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GLG1",
        b"GLG2" + _frame(b'{"blobs":[]}')[4:],
        _frame(b"[]"),
        _frame(b"{}"),
        _frame(b'{"blobs":3}'),
        _frame(b'{"blobs":[true]}', b"x"),
        _frame(b'{"blobs":[1.0]}', b"x"),
        _frame(b'{"blobs":[-1,1]}'),
        _frame(b'{"blobs":[2]}', b"x"),
        _frame(b'{"blobs":[1]}', b"xx"),
        _frame(b'{"blobs":[1e300]}', b"x"),
        _frame(b'{"blobs":[' + b"0," * encoding.MAX_BLOBS + b"0]}"),
        b"GLG1\xff\xff\xff\xff{}",
        pack_frame({"kind": "x"}, [b"abc"])[:-1],
        pack_frame({"kind": "x"}, [b"abc"]) + b"z",
    ],
)
def test_frames_that_are_refused(data):
    with pytest.raises(VerificationError):
        parse_frame(data)


KNOWN_KEYS = [
    *("kind", "run", "entries", "attempt", "class", "refusal_class", "seen", "roster", "round"),
    *("cosigned", "log_size", "proof_sizes", "next_attempt", "a"),
]
HEADERS = st.dictionaries(
    st.sampled_from(KNOWN_KEYS),
    JSON_VALUES | st.sampled_from(["round", "contribution", "offer", "0" * 64, 1, 0, ["a"], [0]]),
    max_size=9,
)
PARSERS = (
    parse_json,
    parse_frame,
    parse_firm_message,
    parse_coordinator_message,
    parse_statement,
    lambda data: verify_statement(data, bytes(32), "receipt/v1"),
)


def _survives(data: bytes) -> None:
    for parse in PARSERS:
        try:
            parse(data)
        except VerificationError:
            continue


@FAST
@given(st.binary(max_size=200))
def test_parsers_survive_arbitrary_bytes(data):
    _survives(data)
    _survives(_frame(data))


@FAST
@given(HEADERS, st.lists(st.binary(max_size=70), max_size=5))
def test_parsers_survive_arbitrary_frames(header, blobs):
    _survives(pack_frame(header, blobs))


@FAST
@given(
    st.dictionaries(
        st.sampled_from(["payload", "payloadType", "signatures"]),
        JSON_VALUES
        | st.just("application/vnd.in-toto+json")
        | st.sampled_from(["e30=", "W10=", "MQ==", "bnVsbA==", "eyJzdWJqZWN0IjpbW11dfQ=="])
        | st.just([{"keyid": "a", "sig": "AA=="}]),
        max_size=4,
    )
)
def test_statement_parsers_survive_arbitrary_envelopes(value):
    _survives(json.dumps(value).encode())


@FAST
@given(st.data())
def test_parsers_survive_mutated_messages(data):
    original = data.draw(
        st.sampled_from(
            [
                Close(run="r", seen=1).encode(),
                Closed(run="r", entries=(b"a", b"bc")).encode(),
                pack_frame(
                    {"kind": "refusal", "run": "r", "class": "policy"}, [b'{"payload":"e30="}']
                ),
            ]
        )
    )
    at = data.draw(st.integers(0, len(original) - 1))
    new = data.draw(st.binary(max_size=3))
    _survives(original[:at] + new + original[at + data.draw(st.integers(0, 3)) :])


def test_tagged_hash_is_injective_in_tag_and_parts():
    digests = [
        tagged_hash("a", b"bc", b"d"),
        tagged_hash("a", b"b", b"cd"),
        tagged_hash("a", b"bcd"),
        tagged_hash("ab", b"c", b"d"),
        tagged_hash("a", b"bc", b"d", b""),
        tagged_hash("a", b"", b"bc", b"d"),
        tagged_hash("a"),
        tagged_hash("a", b""),
        tagged_hash("", b"a"),
    ]
    assert len(set(digests)) == len(digests)
    flat = (1).to_bytes(8, "big") + b"a" + (2).to_bytes(8, "big") + b"bc"
    assert tagged_hash("a", b"bc") == hashlib.sha256(flat).digest()


def test_every_round_field_is_in_the_header_only_once():
    # A dataclass field without a place in the encoding would silently not travel.
    assert {field.name for field in dataclasses.fields(Round)} == {
        *("run", "round_number", "attempt", "log", "cosigned", "cosignatures", "roster", "seen"),
        *("keys", "proofs", "batches", "weights"),
    }


def test_documents_that_cost_more_than_they_are_worth_are_refused():
    keys = {f"k{index}": 0 for index in range(encoding.MAX_KEYS)}
    assert parse_json(json.dumps(keys).encode()) == keys
    with pytest.raises(VerificationError, match="1025 keys"):
        parse_json(json.dumps(keys | {"one": 0}).encode())
    values = [0] * (encoding.MAX_VALUES - 1)
    assert parse_json(json.dumps(values).encode()) == values
    with pytest.raises(VerificationError, match="more than 262144 values"):
        parse_json(json.dumps([*values, 0]).encode())


@dataclasses.dataclass
class _Numbers:
    numbers: tuple[int, ...]


def test_a_long_list_is_left_at_its_first_fault():
    """Noting every fault would take a thousand times the memory of the list."""
    short, long = ["x"] * 20, ["x"] * 10_000
    with pytest.raises(ConfigError, match=r"numbers\.7.*and 12 more"):
        encoding.parse_as(_Numbers, {"numbers": short}, what="test")
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            encoding.parse_as(_Numbers, {"numbers": long}, what="test")
        assert "numbers.0" in str(caught.value)
        assert "more" not in str(caught.value)
