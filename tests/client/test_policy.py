"""The firm's own law: each rule refuses what it names, and the file is read strictly."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from consortium_in_memory import Consortium, make_terms
from greylag_client.policy import (
    DEFAULT_POLICY,
    DatasetPolicy,
    Engine,
    Limits,
    Policy,
    read_policy,
)
from greylag_protocols.errors import ConfigError, RefusedError

TERMS = make_terms()
PRIVACY = TERMS.privacy
NOW = datetime(2026, 11, 24, 12)
FITTING = Policy(lifetime_epsilon=10.0, max_epsilon_per_run=PRIVACY.epsilon)


def test_terms_within_every_rule_pass() -> None:
    FITTING.check_terms(TERMS, NOW)


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        (replace(FITTING, paused=True), "paused = true"),
        (replace(FITTING, units=("group", "firm")), "units does not allow 'record'"),
        (replace(FITTING, max_epsilon_per_run=0.9 * PRIVACY.epsilon), "max_epsilon_per_run"),
        (replace(FITTING, max_delta=0.9 * PRIVACY.delta), "max_delta"),
        (replace(FITTING, min_firms=PRIVACY.min_firms + 1), "min_firms = 4, the run allows 3"),
        (replace(FITTING, min_colluding=2), "min_colluding = 2, the run survives 1"),
        (replace(FITTING, families=("tcn",)), "families does not allow 'mlp'"),
        (replace(FITTING, max_parameters=49), "max_parameters = 49, the model has 50"),
        (replace(FITTING, purposes=("*glass*", "a tes")), "purposes does not allow 'a test'"),
    ],
)
def test_each_rule_refuses(policy: Policy, rule: str) -> None:
    with pytest.raises(RefusedError, match=rule) as caught:
        policy.check_terms(TERMS, NOW)
    assert caught.value.refusal_class == "policy"
    assert ";" not in str(caught.value).split(". Nothing was charged")[0]  # that rule alone


def test_a_purpose_may_match_any_pattern_in_any_case() -> None:
    for purposes in (("*",), ("glass*", "A T?st")):
        replace(FITTING, purposes=purposes).check_terms(TERMS, NOW)
    with pytest.raises(RefusedError, match="purposes"):
        replace(FITTING, purposes=()).check_terms(TERMS, NOW)


@pytest.mark.parametrize(
    ("hours", "moment", "open_now"),
    [
        ((), "2026-11-24 12:00", True),
        (("00:00-06:00",), "2026-11-24 05:59", True),
        (("00:00-06:00",), "2026-11-24 06:00", False),
        (("mon-fri 18:00-06:00",), "2026-11-24 18:00", True),  # a Tuesday
        (("mon-fri 18:00-06:00",), "2026-11-24 12:00", False),
        (("mon-fri 18:00-06:00",), "2026-11-28 05:59", True),  # Friday's night
        (("mon-fri 18:00-06:00",), "2026-11-28 18:00", False),
        (("mon-fri 18:00-06:00",), "2026-11-30 05:59", False),  # Sunday's night
        (("sat-mon 08:00-09:00",), "2026-11-29 08:30", True),
        (("sat-mon 08:00-09:00",), "2026-11-25 08:30", False),
        (("12:00-13:00", "tue 14:00-15:00"), "2026-11-24 14:30", True),
    ],
)
def test_hours(hours: tuple[str, ...], moment: str, open_now: bool) -> None:
    policy = replace(FITTING, hours=hours)
    if open_now:
        policy.check_terms(TERMS, datetime.fromisoformat(moment))
    else:
        with pytest.raises(RefusedError, match=r"hours: .* lies outside them"):
            policy.check_terms(TERMS, datetime.fromisoformat(moment))


@pytest.mark.parametrize(
    "window", ["", "6-7", "25:00-26:00", "mon 8:00-9:00", "xyz 08:00-09:00", "mon-fri"]
)
def test_a_window_that_cannot_be_read_is_refused(window: str) -> None:
    with pytest.raises(ConfigError, match="is not a window"):
        replace(FITTING, hours=(window,))


def test_an_operator_can_be_kept_out(memory_path: Path) -> None:
    consortium = Consortium(memory_path, terms=TERMS, operators={"firm-b": "rival"})
    policy = replace(FITTING, excluded_operators=("rival", "unheard-of"))
    policy.check_company(consortium.membership, ("firm-a", "firm-c"))
    with pytest.raises(RefusedError, match="excluded_operators: rival in the roster"):
        policy.check_company(consortium.membership, ("firm-a", "firm-b"))


def test_limits_of_a_data_set_stand_before_the_firms() -> None:
    policy = replace(
        FITTING, yearly_epsilon=3.0, datasets={"main": DatasetPolicy(lifetime_epsilon=5.0)}
    )
    assert policy.limits("other") == Limits(
        lifetime_epsilon=10.0, lifetime_delta=1e-4, yearly_epsilon=3.0
    )
    assert policy.limits("main") == Limits(
        lifetime_epsilon=5.0, lifetime_delta=1e-4, yearly_epsilon=3.0
    )


@pytest.mark.parametrize(
    ("engines", "allowed", "refused"),
    [
        (FITTING.engines, ["grpc"], ["flower"]),
        (("flower",), ["flower"], ["grpc"]),
        (("flower", "grpc"), ["grpc", "flower"], []),
    ],
)
def test_an_engine_must_be_listed(
    engines: tuple[Engine, ...], allowed: list[Engine], refused: list[Engine]
) -> None:
    policy = replace(FITTING, engines=engines)
    for engine in allowed:
        policy.check_engine(engine)
    for engine in refused:
        with pytest.raises(RefusedError, match=f"engines does not allow '{engine}'") as caught:
            policy.check_engine(engine)
        assert caught.value.refusal_class == "policy"


def test_a_refusal_names_every_broken_rule() -> None:
    policy = replace(FITTING, paused=True, min_colluding=2)
    with pytest.raises(RefusedError, match=r"paused = true, .*; min_colluding"):
        policy.check_terms(TERMS, NOW)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default_file_says_what_the_defaults_are(tmp_path: Path) -> None:
    assert read_policy(write(tmp_path, DEFAULT_POLICY)) == Policy(lifetime_epsilon=10.0)


def test_a_missing_file_means_no_part_in_anything(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"takes part in nothing.*lifetime_epsilon = 10"):
        read_policy(tmp_path / "policy.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "lifetime_epsilon = 10.0\nmax_epsilon_per_rum = 1.0",
            "did you mean 'max_epsilon_per_run'",
        ),
        ("max_epsilon_per_run = 1.0", "'lifetime_epsilon' is missing"),
        ("lifetime_epsilon = inf", "lifetime_epsilon"),
        ("lifetime_epsilon = nan", "lifetime_epsilon"),
        ("lifetime_epsilon = 0.0", "lifetime_epsilon"),
        ("lifetime_epsilon = '10'", "lifetime_epsilon"),
        ("lifetime_epsilon = 10.0\nmin_firms = 2", "min_firms"),
        ("lifetime_epsilon = 10.0\nmin_colluding = 0", "min_colluding"),
        ("lifetime_epsilon = 10.0\nmax_delta = 0.1", "max_delta"),
        ("lifetime_epsilon = 10.0\nunits = ['row']", "units"),
        ("lifetime_epsilon = 10.0\nengines = ['carrier pigeon']", "engines"),
        ("lifetime_epsilon = 10.0\nengines = []", "engines"),
        ("lifetime_epsilon = 10.0\npaused = 'no'", "paused"),
        ("lifetime_epsilon = ", "policy.toml: not TOML"),
    ],
)
def test_the_file_is_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_policy(write(tmp_path, text))


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(b"# \xff\nlifetime_epsilon = 10.0\n")
    with pytest.raises(ConfigError, match="not TOML"):
        read_policy(path)
