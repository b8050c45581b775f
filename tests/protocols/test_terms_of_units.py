"""What the three units of privacy mean in terms: denominators, padding, and rules of their own."""

import pytest
from fuzz import seeds
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan


@pytest.fixture(scope="module")
def by_unit():
    return dict(zip(seeds.PLANS, seeds.make_terms(), strict=True))


@pytest.mark.parametrize(
    ("unit", "denominator", "rows"),
    [("record", 0.3 * 120, 1), ("group", 0.5 * 30, 4), ("firm", 5.0, 9)],
)
def test_each_unit_has_its_denominator_and_rows(by_unit, unit, denominator, rows):
    assert by_unit[unit].denominator == pytest.approx(denominator)
    assert by_unit[unit].rows_per_unit == rows


def test_a_batch_that_no_machine_could_pad_is_refused():
    text = seeds.PLANS["group"]
    parse_plan(text)
    huge = text.replace("max_groups_per_firm = 20", "max_groups_per_firm = 1000000000")
    huge = huge.replace("max_records_per_group = 4", "max_records_per_group = 100000")
    with pytest.raises(ConfigError, match="padded"):
        parse_plan(huge)


def test_a_classification_has_one_target():
    target = '{ name = "y", classes = ["good", "bad"] }'
    two = seeds.PLANS["group"].replace(target, f"{target}, {target.replace('y', 'z', 1)}")
    with pytest.raises(ConfigError, match="exactly one target"):
        parse_plan(two)


def test_the_step_is_the_plans(by_unit):
    terms = by_unit["group"]
    rule, training = terms.step_rule, terms.training
    assert (rule.optimiser, rule.rounds) == (training.optimiser, training.rounds)
    assert (rule.learning_rate, rule.ema) == (training.learning_rate, training.ema)
