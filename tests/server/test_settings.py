"""server.toml, the environment and options."""

from pathlib import Path

import pytest
from greylag_protocols.errors import ConfigError
from greylag_server.settings import TEMPLATE, ServerSettings, read_settings


def write(root: Path, text: str) -> Path:
    (root / "server.toml").write_text(text, encoding="utf-8")
    return root


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert read_settings(tmp_path, environment={}) == ServerSettings()


def test_what_init_writes_changes_nothing_and_shows_the_defaults(tmp_path: Path) -> None:
    assert read_settings(write(tmp_path, TEMPLATE), environment={}) == ServerSettings()
    lines = [line.removeprefix("# ") for line in TEMPLATE.splitlines()[2:]]
    shown = read_settings(write(tmp_path, "\n".join(lines)), environment={})
    assert shown == ServerSettings(page_port=7802, metrics_port=7803)


def test_an_option_beats_the_environment_and_that_the_file(tmp_path: Path) -> None:
    write(tmp_path, "round_wait_s = 1.0\noffer_wait_s = 2.0\nclose_wait_s = 3.0\n")
    environment = {
        "GREYLAG_SERVER_ROUND_WAIT_S": "10",
        "GREYLAG_SERVER_OFFER_WAIT_S": "20",
        "GREYLAG_SERVER_METRICS_PORT": "9000",
        "GREYLAG_SERVER_LOG_FORMAT": "json",
    }
    options = {"round_wait_s": 100.0, "offer_wait_s": None}
    found = read_settings(tmp_path, environment=environment, options=options)
    assert (found.round_wait_s, found.offer_wait_s, found.close_wait_s) == (100.0, 20.0, 3.0)
    assert (found.metrics_port, found.log_format) == (9000, "json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("round_wait = 3.0", "round_wait_s"),
        ('log_format = "xml"', "log_format"),
        ("page_port = 70000", "page_port"),
        ("round_wait_s = 0.0", "round_wait_s"),
        ("round_wait_s = inf", "round_wait_s"),
        ('bind = "a b"', "bind"),
        ("page_port = true", "page_port"),
    ],
)
def test_a_fault_in_the_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_settings(write(tmp_path, text), environment={})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GREYLAG_SERVER_ROUND_WAIT", "3", "did you mean GREYLAG_SERVER_ROUND_WAIT_S"),
        ("GREYLAG_SERVER_ROUND_WAIT_S", "long", "no number"),
        ("GREYLAG_SERVER_PAGE_PORT", "-1", "page_port"),
    ],
)
def test_a_fault_in_the_environment_is_named(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_settings(tmp_path, environment={name: value})


def test_what_others_put_into_the_environment_is_left_alone(tmp_path: Path) -> None:
    environment = {
        "GREYLAG_SERVER_DIR": "/data",
        "GREYLAG_SERVER_SERVICE_HOST": "10.0.0.1",
        "GREYLAG_SERVER_PORT_7800_TCP": "tcp://10.0.0.1:7800",
        "PATH": "/bin",
    }
    assert read_settings(tmp_path, environment=environment) == ServerSettings()
