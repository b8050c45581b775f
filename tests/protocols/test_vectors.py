"""Replays ``protocols/spec/vectors``, made by the slow reference, against the package."""

import json
from pathlib import Path
from typing import Any

import pytest
from greylag_protocols.errors import ConfigError, VerificationError
from spec_operations import OPERATIONS

Given = dict[str, Any]
VECTORS = Path(__file__).parents[2] / "protocols" / "spec" / "vectors"
FILES = ("accounting", "encoding", "masking", "membership", "quantisation", "statements", "step")
FILES = (*FILES, "terms")


def replay(vector: Given) -> None:
    run, given = OPERATIONS[vector["op"]], vector["in"]
    if "refused" in vector:
        with pytest.raises((VerificationError, ConfigError)):
            run(given)
    elif "out" in vector:
        assert run(given) == vector["out"]
    elif "not" in vector:
        assert run(given) != vector["not"]
    elif "above" in vector:
        assert run(given) > float(vector["above"])
    else:
        assert float(vector["low"]) <= run(given) <= float(vector["high"])


def load(name: str) -> list[Given]:
    vectors: list[Given] = json.loads((VECTORS / f"{name}.json").read_text())["vectors"]
    return vectors


@pytest.mark.parametrize("name", FILES)
def test_the_package_gives_what_the_slow_reference_gives(name: str) -> None:
    for vector in load(name):
        try:
            replay(vector)
        except (Exception, pytest.fail.Exception) as error:
            error.add_note(f"vector {vector['name']}")
            raise


def test_every_file_is_replayed_and_a_third_is_negative() -> None:
    assert sorted(FILES) == sorted(path.stem for path in VECTORS.glob("*.json"))
    vectors = [vector for name in FILES for vector in load(name)]
    negative = [vector for vector in vectors if {"refused", "not", "above"} & set(vector)]
    assert negative == [vector for vector in vectors if "_bad_" in vector["name"]]
    assert 3 * len(negative) >= len(vectors)
    assert {vector["op"] for vector in vectors} <= set(OPERATIONS)
    assert len({vector["name"] for vector in vectors}) == len(vectors)
