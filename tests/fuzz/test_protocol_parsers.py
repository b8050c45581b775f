"""Every parser of the core against damaged messages: only the error tree, and memory in measure.

The list is the fuzzer's (``tests/fuzz``); here each way of damage is tried a fixed number of times.
"""

import tracemalloc
from random import Random

import pytest
from fuzz import seeds
from fuzz.damage import WAYS, damage
from fuzz.targets import load_targets
from greylag_protocols import encoding
from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.parsing import parse_coordinator_message, parse_firm_message
from greylag_protocols.plan import parse_plan, parse_terms
from greylag_protocols.terms import Terms, TrainingTerms
from hypothesis import given, settings
from hypothesis import strategies as st

TARGETS = load_targets(["protocol"])
SLOW = ("terms", "plan")  # a valid one is accounted for
ODD = st.integers(0, 2**32 - 1)


def _try(target, data: bytes) -> None:
    try:
        target.parse(data)
    except target.allowed:
        return


@pytest.mark.parametrize("name", TARGETS)
def test_real_messages_pass(name):
    for seed in TARGETS[name].seeds():
        TARGETS[name].parse(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(number=ODD)
def test_damaged_messages_raise_the_error_tree_alone(name, number):
    target, rng = TARGETS[name], Random(number)
    donors = target.seeds()
    for way in (*WAYS[target.form], lambda *given: damage(*given[:1], target.form, *given[1:])):
        if name not in SLOW or number % 4 == 0:
            _try(target, way(rng.choice(donors), rng, donors))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(data=st.binary(max_size=300))
def test_random_bytes_raise_the_error_tree_alone(name, data):
    _try(TARGETS[name], data)


def _frame(header: bytes) -> bytes:
    return b"GLG1" + len(header).to_bytes(4, "big") + header


WIDE = {  # many wrong things in few bytes
    "numbers": b'{"kind":"round","run":0,"roster":[' + b"0," * 10_000 + b'0],"blobs":[]}',
    "objects": b'{"data":{"features":[' + b"{}," * 8_000 + b'{}]},"blobs":[]}',
    "lists": b'{"kind":"ask","firms":[' + b"[]," * 8_000 + b'[]],"blobs":[]}',
    "pairs": b'{"kind":"offer","x":[' + b'{"a":0},' * 4_000 + b'0],"blobs":[]}',
    "lengths": b'{"kind":"seen","run":"x","blobs":[' + b"0," * 10_000 + b"0]}",
    "texts": b'{"kind":"round","roster":["' + b'","' * 8_000 + b'"],"blobs":[]}',
}


@pytest.mark.parametrize("case", WIDE)
@pytest.mark.parametrize(
    ("parse", "multiple"),
    [
        (parse_json, 32),
        (parse_firm_message, 160),  # an empty blob takes 2 bytes of a header, and a view of 184
        (parse_coordinator_message, 160),
        (parse_terms, 400),  # each of a dozen absent keys is noted with a copy of all the rest
    ],
)
def test_memory_is_bounded_by_a_multiple_of_the_input(case, parse, multiple):
    framed = parse in (parse_firm_message, parse_coordinator_message)
    data = _frame(WIDE[case]) if framed else WIDE[case]
    _try_any(parse, b"{}")  # what is built once, such as validators, does not count
    tracemalloc.start()
    try:
        _try_any(parse, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < multiple * len(data) + (1 << 18)


def _try_any(parse, data: bytes) -> None:
    try:
        parse(data)
    except (ConfigError, VerificationError):
        return


def test_a_document_has_no_more_values_or_keys_than_anyone_needs(monkeypatch):
    keys = {f"k{at}": at for at in range(encoding.MAX_KEYS)}
    assert len(parse_json(encoding.canonical_json(keys))) == encoding.MAX_KEYS
    with pytest.raises(VerificationError, match="keys"):
        parse_json(encoding.canonical_json({**keys, "more": 1}))
    monkeypatch.setattr(encoding, "MAX_VALUES", 10)
    assert parse_json(b"[[1,2,3],[4,5,6],7]") == [[1, 2, 3], [4, 5, 6], 7]
    with pytest.raises(VerificationError, match="values"):
        parse_json(b"[[1,2,3],[4,5,6],7,8]")


def test_a_long_text_is_left_at_the_first_fault_of_a_list_and_not_quoted():
    wrong = ["secret", "secret"]
    value = {"rounds": 1, "sampling_rate": "secret"}
    with pytest.raises(ConfigError, match=r"\(found 'secret'\)"):
        parse_as(TrainingTerms, value, what="plan")
    terms = parse_json(seeds.make_terms()[0].encode())
    terms["model"]["hidden"] = wrong
    with pytest.raises(ConfigError, match=r"hidden\.0.*hidden\.1"):
        parse_as(Terms, terms, what="terms")
    terms["run"]["purpose"] = "x" * encoding.MAX_EXPLAINED_CHARS
    with pytest.raises(ConfigError, match=r"hidden\.0") as caught:
        parse_as(Terms, terms, what="terms")
    assert "hidden.1" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_long_text_without_fault_passes():
    terms = parse_json(seeds.make_terms()[0].encode())
    names = [f"feature number {at} of many" for at in range(1000)]
    terms["data"]["features"][0]["names"] = names
    parsed = parse_as(Terms, terms, what="terms")
    assert parsed.data.feature_names == tuple(names)
    assert parsed.model == seeds.make_terms()[0].model


@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 5000, "a = \x00"])
def test_toml_beyond_what_python_reads_is_refused(text):
    with pytest.raises(ConfigError, match="not TOML"):
        parse_plan(text)
