"""Terms of plugins: what everybody can know of a model whose code only some have."""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from greylag_protocols.errors import ConfigError
from greylag_protocols.parameters import declared_parameters, mlp_parameters
from greylag_protocols.plan import parse_plan, parse_terms, settle_terms
from greylag_protocols.terms import Terms

MODEL = """[model]
family = "plugin:glass-net"
[model.plugin]
distribution = "glass_models"
version = "1.2"
sha256 = "{digest}"
[[model.parameters]]
name = "0.weight"
shape = [4, 2]
[[model.parameters]]
name = "0.bias"
shape = [4]
[[model.parameters]]
name = "2.weight"
shape = [1, 4]
""".format(digest="ab" * 32)
BUILT_IN = '[model]\nfamily = "mlp"\nhidden = [128, 128]\nactivation = "tanh"\n'
GLASS_SHA256 = "30c5f6cd52174e3fdc434fab18ecea5723788560950f1abc174bfbca167c5b79"


@pytest.fixture
def settle(plan_text: str) -> Callable[[str], Terms]:
    def make(model: str) -> Terms:
        assert BUILT_IN in plan_text
        plan = parse_plan(plan_text.replace(BUILT_IN, model))
        return settle_terms(plan, consortium="glass", run_id="glass-1")

    return make


def test_terms_without_plugins_keep_their_bytes(glass_terms: Terms) -> None:
    encoded = glass_terms.encode()
    assert hashlib.sha256(encoded).hexdigest() == GLASS_SHA256  # of the version before plugins
    assert set(json.loads(encoded)["model"]) == {"family", "hidden", "activation"}


def test_a_plugins_terms_come_back_as_they_were(settle: Callable[[str], Terms]) -> None:
    terms = settle(MODEL)
    assert parse_terms(terms.encode()) == terms
    model = json.loads(terms.encode())["model"]
    assert model["plugin"]["version"] == "1.2"
    assert model["parameters"][1] == {"name": "0.bias", "shape": [4]}
    assert terms.dimension == 16
    assert [item.bound for item in terms.parameters] == [math.sqrt(1.5), 0.0, 0.0]


def test_the_shapes_of_an_mlp_begin_like_the_mlp() -> None:
    mlp = mlp_parameters(inputs=3, hidden=[5, 4], outputs=2)
    assert declared_parameters([(item.name, item.shape) for item in mlp]) == mlp
    assert declared_parameters([("only", (7,))])[0].bound == 0


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("plugin:glass-net", "mlp", "need model.family = 'plugin:NAME'"),
        ("plugin:glass-net", "tcn", "use 'mlp' or 'plugin:NAME'"),
        ("plugin:glass-net", "plugin:", "a plugin's name is of"),
        ("plugin:glass-net", "plugin:../evil", "a plugin's name is of"),
        ("plugin:glass-net", "plugin:glass-net\\n", "a plugin's name is of"),
        ("[model]\n", "[model]\nhidden = [3]\n", "are of 'mlp'; leave them out"),
        ("[model]\n", '[model]\nactivation = "relu"\n', "are of 'mlp'; leave them out"),
        ("ab" * 32, "AB" * 32, r"model\.plugin\.sha256"),
        ("ab" * 32, "ab" * 31, r"model\.plugin\.sha256"),
        ('version = "1.2"\n', "", r"model\.plugin\.version' is missing"),
        ('version = "1.2"\n', 'version = "1.2"\nurl = "x"\n', "unknown key"),
        ("0.bias", "0.weight", "'0.weight' stands there twice"),
        ("shape = [4]", "shape = []", "shape"),
        ("shape = [4]", "shape = [0]", "shape"),
        ("shape = [4]", "shape = [4, 1, 1]", "shape"),
        ("shape = [4]", "shape = [16777217]", "shape"),
        ("shape = [4, 2]", "shape = [8192, 8192]", "weights; at most"),
    ],
)
def test_other_descriptions_are_refused(
    old: str, new: str, reason: str, settle: Callable[[str], Terms]
) -> None:
    assert MODEL.count(old) == 1
    with pytest.raises(ConfigError, match=reason):
        settle(MODEL.replace(old, new))


@pytest.mark.parametrize("cut", ["[model.plugin]", "[[model.parameters]]"])
def test_half_a_description_is_refused(cut: str, settle: Callable[[str], Terms]) -> None:
    head, *rest = MODEL.split("[[model.parameters]]")
    only_parameters = '[model]\nfamily = "plugin:glass-net"\n' + "".join(
        "[[model.parameters]]" + item for item in rest
    )
    with pytest.raises(ConfigError, match=r"needs \[model.plugin\] and \[\[model.parameters\]\]"):
        settle(head if cut == "[[model.parameters]]" else only_parameters)


def test_terms_from_outside_are_held_to_the_same(settle: Callable[[str], Terms]) -> None:
    value: dict[str, Any] = json.loads(settle(MODEL).encode())
    value["model"]["parameters"] = []
    with pytest.raises(ConfigError, match="needs"):
        parse_terms(json.dumps(value).encode())
    value["model"]["parameters"] = [{"name": f"{at}", "shape": [1]} for at in range(257)]
    with pytest.raises(ConfigError, match=r"model\.parameters"):
        parse_terms(json.dumps(value).encode())
