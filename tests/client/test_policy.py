"""The firm's own law: each rule refuses what it names, and the file is read strictly."""

from dataclasses import replace
from pathlib import Path

import pytest
from consortium_in_memory import make_terms
from greylag_client.policy import DEFAULT_POLICY, Engine, Policy, read_policy
from greylag_protocols.errors import ConfigError, RefusedError

TERMS = make_terms()
PRIVACY = TERMS.privacy
FITTING = Policy(lifetime_epsilon=10.0, max_epsilon_per_run=PRIVACY.epsilon)


def test_terms_within_every_rule_pass() -> None:
    FITTING.check_terms(TERMS)


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        (replace(FITTING, paused=True), "paused = true"),
        (replace(FITTING, units=("group", "firm")), "units does not allow 'record'"),
        (replace(FITTING, max_epsilon_per_run=0.9 * PRIVACY.epsilon), "max_epsilon_per_run"),
        (replace(FITTING, max_delta=0.9 * PRIVACY.delta), "max_delta"),
        (replace(FITTING, min_firms=PRIVACY.min_firms + 1), "min_firms = 4, the run allows 3"),
        (replace(FITTING, min_colluding=2), "min_colluding = 2, the run survives 1"),
    ],
)
def test_each_rule_refuses(policy: Policy, rule: str) -> None:
    with pytest.raises(RefusedError, match=rule) as caught:
        policy.check_terms(TERMS)
    assert caught.value.refusal_class == "policy"
    assert ";" not in str(caught.value)  # that rule alone


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
    with pytest.raises(RefusedError, match="paused = true; min_colluding"):
        policy.check_terms(TERMS)


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
