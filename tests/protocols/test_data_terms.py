"""Kinds of columns in plans and terms: categories, orders, declared gaps; and one task a run."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from greylag_protocols.data_terms import MAX_CATEGORIES, DataTerms
from greylag_protocols.encoding import canonical_json
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import encode_features, spread_categories
from greylag_protocols.plan import MAX_CATEGORY_COLUMNS, parse_plan, parse_terms, settle_terms
from greylag_protocols.terms import Terms

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NUMBERS = (
    '{ names = ["SiO2", "B2O3"], unit = "mol%", range = [0, 100], scale = "sqrt", multiplier = 8 },'
)
GRADES = 'categories = ["low", "mid", "high"]'
FLAG = 'missing = "zero-and-flag"'
MIXED = f"""{NUMBERS}
  {{ names = ["cut", "next"], categories = ["Fair", "Good", "Ideal"], multiplier = 2 }},
  {{ names = ["seller"], categories = ["A", "B"], other = true }},
  {{ names = ["grade"], {GRADES}, ordered = true, multiplier = 4, {FLAG} }},
"""


@pytest.fixture
def mixed_text(plan_text: str) -> str:
    assert NUMBERS in plan_text
    text = plan_text.replace(NUMBERS, MIXED)
    return text.replace('missing = "refuse"', 'missing = "refuse"\nmissing_values = ["-99", "?"]')


@pytest.fixture
def mixed(mixed_text: str) -> DataTerms:
    return parse_plan(mixed_text).data


def settle(text: str) -> Terms:
    return settle_terms(parse_plan(text), consortium="glass", run_id="r-1")


def test_inputs_by_hand(mixed: DataTerms) -> None:
    values = np.array(
        [[0.0, 25.0, 0.0, 2.0, 1.0, 0.0], [100.0, 1.0, 1.0, 1.0, 2.0, math.nan]],
    )
    assert encode_features(mixed, values).tolist() == [
        [0, 4, 2, 0, 0, 0, 0, 2, 0, 1, 0, -4, 0],
        [8, 0.8, 0, 2, 0, 0, 2, 0, 0, 0, 1, 0, 1],
    ]
    assert mixed.input_width == 13
    assert list(mixed.by_feature) == ["SiO2", "B2O3", "cut", "next", "seller", "grade"]
    assert mixed.by_feature["next"] is mixed.features[1]
    assert mixed.may_miss == (False, False, False, False, False, True)


def test_inputs_of_what_no_table_can_hold_are_bounded(mixed: DataTerms) -> None:
    values = np.array([[0, 0, 7, -1, 1e300, math.inf], [0, 0, 0.5, math.nan, -math.inf, -3.0]])
    inputs = encode_features(mixed, values)
    assert inputs[:, 2:11].tolist() == [[0] * 9, [0] * 9]
    assert inputs[:, 11].tolist() == [4, -4]


def test_categories_spread_for_trees(mixed: DataTerms) -> None:
    values = np.array([[5.0, 7.5, 0.0, math.nan, 2.0, math.nan]])
    nan = math.nan
    np.testing.assert_array_equal(
        spread_categories(mixed, values), [[5.0, 7.5, 1, 0, 0, nan, nan, nan, 0, 0, 1, nan]]
    )
    assert mixed.columns_width == 12
    numbers = replace(mixed, features=mixed.features[:1])
    assert spread_categories(numbers, values[:, :2]) is not None
    np.testing.assert_array_equal(spread_categories(numbers, values[:, :2]), values[:, :2])


def test_terms_hold_only_what_is_used_and_come_back_equal(mixed_text: str, plan_text: str) -> None:
    terms = settle(mixed_text)
    value = json.loads(terms.encode())
    assert parse_terms(terms.encode()) == terms
    assert parse_terms(terms.encode()).encode() == terms.encode()
    keys = [set(item) - {"names", "unit", "scale", "multiplier"} for item in features_of(value)]
    assert keys == [
        {"range"},
        {"categories"},
        {"categories", "other"},
        {"categories", "ordered", "missing"},
    ]
    assert value["data"]["missing_values"] == ["-99", "?"]
    plain = json.loads(settle(plan_text).encode())
    assert set(features_of(plain)[0]) == {"names", "unit", "range", "scale", "multiplier"}
    assert "missing_values" not in plain["data"]
    assert terms.parameters[0].shape == (128, 13)


def features_of(value: dict) -> list[dict]:
    return value["data"]["features"]


NO_ORDER = "'other' and 'ordered' belong to 'categories'"
FAULTS = [
    (", multiplier = 2 }", ", multiplier = 2, range = [0, 1] }", "both of 'range'"),
    ('categories = ["A", "B"], other = true', 'unit = ""', "neither of 'range'"),
    ("range = [0, 100]", "range = [0, 100], ordered = true", NO_ORDER),
    ("range = [0, 100]", "range = [0, 100], other = true", NO_ORDER),
    ("ordered = true", "ordered = true, other = true", "no place in an order"),
    ('["A", "B"], other = true', '["A"]', "two different categories"),
    ('["A", "B"]', "[]", "two different categories"),
    ('["A", "B"]', '["A", "A"]', "two different categories"),
    ('["A", "B"]', '["A", ""]', r"categories\.1"),
    ('["A", "B"]', '["A", " B"]', "blanks around a category"),
    ('["A", "B"]', '["A", "NA"]', "also says that a value is missing"),
    ('["A", "B"]', '["A", "?"]', "also says that a value is missing"),
    ('["A", "B"]', '["A", 7]', r"categories\.1"),
    ('["A", "B"]', json.dumps(["A", "b" * 101]), r"categories\.1"),
    ('["A", "B"], other = true', '["A", "B"], unit = "K"', "neither 'unit' nor 'scale'"),
    ('["A", "B"], other = true', '["A", "B"], scale = "sqrt"', "neither 'unit' nor 'scale'"),
    ('["A", "B"]', json.dumps([f"c{n}" for n in range(MAX_CATEGORIES + 1)]), "categories"),
    ('["-99", "?"]', '["-99", " ?"]', "blanks around a value"),
    ('["-99", "?"]', "[-99]", r"missing_values\.0"),
    ('["-99", "?"]', '[""]', r"missing_values\.0"),
    ('["-99", "?"]', json.dumps([f"m{n}" for n in range(65)]), "missing_values"),
    ('missing = "zero-and-flag" }', 'missing = "mean" }', r"features\.3\.missing"),
    ("ordered = true", "orderd = true", "did you mean 'ordered'"),
]


@pytest.mark.parametrize(("old", "new", "said"), FAULTS)
def test_columns_that_make_no_sense_are_refused(
    mixed_text: str, old: str, new: str, said: str
) -> None:
    assert mixed_text.count(old) == 1
    with pytest.raises(ConfigError, match=said):
        parse_plan(mixed_text.replace(old, new))


def test_the_number_of_inputs_that_categories_make_is_bounded(mixed_text: str) -> None:
    """Else a short plan would make tables that fill a firm's memory."""
    labels = json.dumps([f"c{n}" for n in range(MAX_CATEGORIES)])
    spread = MAX_CATEGORY_COLUMNS // MAX_CATEGORIES

    def with_columns(count: int) -> str:
        names = json.dumps([f"f{n}" for n in range(count)])
        text = mixed_text.replace("hidden = [128, 128]", "hidden = [2]")
        return text.replace('names = ["cut", "next"]', f"names = {names}").replace(
            '["Fair", "Good", "Ideal"]', labels
        )

    assert parse_plan(with_columns(spread)).data.columns_width > MAX_CATEGORY_COLUMNS - 20
    with pytest.raises(ConfigError, match="more than 10000 inputs"):
        parse_plan(with_columns(spread + 1))


def test_numbers_and_classes_are_two_plans(plan_text: str) -> None:
    target = '{ name = "tg_k", unit = "K", range = [300, 1300] }'
    classed = '{ name = "clear", classes = ["no", "yes"] }'
    both = plan_text.replace(f"[ {target} ]", f"[ {target}, {classed} ]")
    assert both != plan_text
    with pytest.raises(ConfigError, match="one run never predicts both"):
        parse_plan(both)
    as_classes = both.replace('task = "regression"', 'task = "classification"')
    with pytest.raises(ConfigError, match="one run never predicts both"):
        parse_plan(as_classes)
    alone = as_classes.replace(f"[ {target}, {classed} ]", f"[ {classed} ]")
    assert parse_plan(alone).data.outputs == 2
    with pytest.raises(ConfigError, match="class 'no' also says that a value is missing"):
        parse_plan(alone.replace("[data]", '[data]\nmissing_values = ["no"]'))


def test_a_firm_refuses_terms_that_state_a_category_otherwise(mixed_text: str) -> None:
    value = json.loads(settle(mixed_text).encode())
    features_of(value)[1]["categories"] = ["Fair", "Fair"]
    with pytest.raises(ConfigError, match="two different categories"):
        parse_terms(canonical_json(value))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_a_plan_that_can_be_settled(path: Path) -> None:
    plan = parse_plan(path.read_text(encoding="utf-8"))
    terms = settle_terms(plan, consortium="example", run_id="example-1")
    assert parse_terms(terms.encode()) == terms
