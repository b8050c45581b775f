"""What ``plan tune`` proposes: valid plans, for reasons that can be checked, from public facts."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.terms import Plan
from greylag_server.cli import app
from greylag_server.tuning import (
    MOST_ROUNDS,
    NOISE_A_ROUND,
    RATE_ALLOWANCE,
    WIDTHS,
    as_toml,
    choose_learning_rate,
    choose_rounds,
    choose_width,
    noise_share,
    tune,
)
from typer.testing import CliRunner

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SHARES = [0.001 * 1.3**power for power in range(40)]


def example(name: str) -> Plan:
    return parse_plan((EXAMPLES / f"{name}.toml").read_text(encoding="utf-8"))


# From little noise to none that one could work with.
@pytest.mark.parametrize(("name", "epsilon", "firms"), [("glass-families", 8.0, 65)])
def test_proposals_are_plans_that_could_run(name: str, epsilon: float, firms: int) -> None:
    plan = example(name)
    plan = replace(plan, privacy=replace(plan.privacy, epsilon=epsilon))
    tuned = tune(plan, firms=firms)
    terms = settle_terms(tuned.plan, consortium="x", run_id="x")
    terms.grid(firms)
    assert terms.privacy.epsilon == epsilon
    assert terms.privacy.max_attempts >= terms.training.rounds
    assert tuned.noise["proposed"]["noise_multiplier"] == terms.privacy.noise_multiplier
    share = noise_share(terms, firms)
    assert tuned.noise["proposed"]["noise_share"] == share
    fewest = terms.training.rounds == choose_rounds(1e9)
    assert fewest or share * terms.training.rounds**0.5 < NOISE_A_ROUND * (1 + RATE_ALLOWANCE)
    # Nothing but the keys that are named has changed.
    data, run = tuned.plan.data, tuned.plan.run
    assert (data, run) == (plan.data, plan.run)
    assert tuned.plan.training.ema <= plan.training.ema
    assert tuned.plan.training.schedule == plan.training.schedule
    assert all(item.why for item in tuned.proposals)


def test_pasting_the_fragment_gives_the_proposed_plan() -> None:
    text = (EXAMPLES / "plastics.toml").read_text(encoding="utf-8")
    tuned = tune(parse_plan(text), firms=8)
    pasted = tomllib.loads(text)
    for table, keys in tomllib.loads(as_toml(tuned.proposals)).items():
        pasted[table] |= keys
    plan = tuned.plan
    assert pasted["training"]["rounds"] == plan.training.rounds
    assert pasted["training"]["sampling_rate"] == plan.training.sampling_rate
    assert pasted["training"]["learning_rate"] == plan.training.learning_rate
    assert pasted["privacy"]["clip_norm"] == plan.privacy.clip_norm
    assert tuple(pasted["model"]["hidden"]) == plan.model.hidden


def test_more_noise_never_asks_for_more_rounds_or_larger_steps() -> None:
    rounds = [choose_rounds(share) for share in SHARES]
    assert rounds == sorted(rounds, reverse=True)
    assert rounds[0] == MOST_ROUNDS > rounds[-1]
    rates = [choose_learning_rate(count, 9601) for count in rounds]
    assert rates == sorted(rates)  # the fewer rounds, the longer each step
    assert choose_learning_rate(500, 410) > choose_learning_rate(500, 9601)


def test_less_noise_never_asks_for_a_smaller_model() -> None:
    widths = [choose_width(lambda width, share=share: share * width / 64) for share in SHARES]
    assert widths == sorted(widths, reverse=True)
    assert {widths[0], widths[-1]} == {max(WIDTHS), min(WIDTHS)}


def test_more_firms_rows_and_epsilon_mean_less_noise() -> None:
    plan = example("plastics")
    terms = settle_terms(plan, consortium="x", run_id="x")
    shares = [noise_share(terms, firms) for firms in (5, 8, 30)]
    assert shares == sorted(shares, reverse=True)
    richer = replace(terms, data=replace(terms.data, expected_records=3800))
    assert noise_share(richer, 5) == shares[0] / 2
    # The coalition's noise does not count, but is there: 5 / 3 of the variance that protects.
    alone = terms.privacy.noise_multiplier * terms.dimension**0.5 / terms.denominator / 200**0.5
    assert shares[0] == pytest.approx(alone * (5 / 3) ** 0.5)


def test_what_it_cannot_judge_is_refused() -> None:
    plan = example("plastics")
    with pytest.raises(ConfigError, match="min_firms"):
        tune(plan, firms=4)
    given = replace(plan.privacy, epsilon=None, noise_multiplier=5.0)
    with pytest.raises(ConfigError, match="give privacy"):
        tune(replace(plan, privacy=given), firms=8)
    with pytest.raises(ConfigError, match="are for records and groups"):
        tune(replace(plan, privacy=replace(plan.privacy, unit="firm")), firms=8)


def test_the_command_prints_one_document_or_a_page() -> None:
    plan = str(EXAMPLES / "plastics.toml")
    found = CliRunner().invoke(app, ["plan", "tune", plan, "--firms", "8", "--format", "json"])
    facts = json.loads(found.stdout)
    assert found.exit_code == 0
    assert facts["firms"] == 8
    assert {item["key"] for item in facts["proposals"]} == {
        "training.sampling_rate",
        "training.rounds",
        "training.learning_rate",
        "privacy.clip_norm",
        "model.hidden",
    }
    page = CliRunner().invoke(app, ["plan", "tune", plan, "--firms", "8"]).stdout
    assert facts["toml"].rstrip() in page
    assert all(item["why"] in page for item in facts["proposals"])
