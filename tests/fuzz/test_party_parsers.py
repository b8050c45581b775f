"""Parsers of the lead's and the firm's programs against damaged streams, bodies and files.

In short what ``run.py`` does at length, always with the same inputs.
"""

import itertools
import tracemalloc
from random import Random

import pytest
from fuzz.damage import WAYS, damage
from fuzz.targets import load_targets
from greylag_client import link
from greylag_protocols.errors import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st
from parcels import join_parcels

TARGETS = load_targets(["party"])


@pytest.mark.parametrize("name", TARGETS)
def test_real_messages_pass(name):
    for seed in TARGETS[name].seeds():
        TARGETS[name].parse(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(number=st.integers(0, 2**32 - 1))
def test_damage_raises_the_error_tree_alone(name, number):
    target, rng = TARGETS[name], Random(number)
    donors = target.seeds()
    for way in (*WAYS[target.form], lambda *given: damage(*given[:1], target.form, *given[1:])):
        try:
            target.parse(way(rng.choice(donors), rng, donors))
        except target.allowed:
            continue


@pytest.mark.parametrize("chunk", [b"\x00", b"\x00a", b"\x00ab"])
@pytest.mark.parametrize(
    "join", [lambda chunks: join_parcels(chunks, limit=1 << 20), link._join_parcels]
)
def test_a_parcel_in_tiny_chunks_takes_no_more_memory_than_its_bytes(chunk, join):
    tracemalloc.start()
    try:
        chunks = itertools.chain(itertools.repeat(chunk, 100_000), [b"\x01"])
        parcels = list(join(chunks))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    content = 100_000 * (len(chunk) - 1)
    assert [len(parcel) for parcel in parcels] == [content]
    assert peak < 4 * content + (1 << 14)


@pytest.mark.parametrize("name", ["policy-file", "firm-file", "consortium-file"])
@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 5000, "\xff"])
def test_toml_beyond_what_python_reads_is_refused(name, text):
    with pytest.raises(ConfigError, match="TOML"):
        TARGETS[name].parse(text.encode("latin-1"))


def test_a_certificate_with_a_key_of_unknown_kind_is_not_the_pinned_one():
    # id-ecPublicKey with one byte of its identifier changed: the key cannot even be loaded.
    (real,) = TARGETS["server-certificate"].seeds()
    changed = real.replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8e48ce3d0201"))
    assert changed != real
    TARGETS["server-certificate"].parse(changed)
