"""``server.toml``: how this machine serves. ``consortium.toml`` says who the consortium is.

What a command's option says counts most; then the environment (``GREYLAG_SERVER_`` and a key in
capitals), then the file, then what stands here.
"""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from greylag_protocols.encoding import parse_as, parse_toml
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import STRICT
from pydantic import Field

SERVER_FILE = "server.toml"
PREFIX = "GREYLAG_SERVER_"
MAX_BYTES = 64 << 10
DEFAULT_PAGE_PORT, DEFAULT_METRICS_PORT = 7802, 7803
# The directory is an option's; Kubernetes adds the others for a service of that name.
NOT_KEYS = re.compile(r"DIR|SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_.*)?")

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Address = Annotated[str, Field(pattern=r"^[0-9A-Za-z.:-]{0,253}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What stands in server.toml; every key may be left out.

    Attributes:
        bind: address of the firms' two ports; empty: all addresses, or the loopback alone if
            consortium.toml's host is this machine itself.
        operator_bind: address of the operator's page. Elsewhere than on the loopback it speaks TLS.
        page_port: 0: no page. Left out: 7802, or a free one if that is taken.
        metrics_bind: address of ``/metrics``, which speaks plain HTTP to whoever asks.
        metrics_port: 0: no metrics. Left out: 7803, or a free one if that is taken.
        offer_wait_s, round_wait_s, close_wait_s: the longest waits for acceptances, for an
            attempt's answers and for goodbyes.
        least_round_wait_s: however fast rounds were, an attempt is waited for so long.
        known_wait_s: how long a started lead waits for its firms to say what they saw of its log.
        log_format: ``text`` for people, ``json`` for machines.
    """

    __pydantic_config__ = STRICT
    bind: Address = ""
    operator_bind: Address = "127.0.0.1"
    page_port: Port | None = None
    metrics_bind: Address = "127.0.0.1"
    metrics_port: Port | None = None
    offer_wait_s: Seconds = 300.0
    round_wait_s: Seconds = 120.0
    close_wait_s: Seconds = 10.0
    least_round_wait_s: Seconds = 20.0
    known_wait_s: Seconds = 10.0
    log_format: Literal["text", "json"] = "text"


TEMPLATE = """\
# How this machine serves. A line without its # replaces what holds without it; so does a variable
# of the environment: GREYLAG_SERVER_ROUND_WAIT_S=60. Check with: greylag-server serve --check
# bind = ""                       # firms' ports: empty is every address of this machine
# operator_bind = "127.0.0.1"     # the operator's page; elsewhere than here it speaks TLS
# page_port = 7802                # 0: no page
# metrics_bind = "127.0.0.1"      # Prometheus; plain HTTP
# metrics_port = 7803             # 0: no metrics
# offer_wait_s = 300.0            # the longest wait for acceptances,
# round_wait_s = 120.0            # for the answers of a round (it adapts, between least and this),
# least_round_wait_s = 20.0
# close_wait_s = 10.0             # and for goodbyes
# known_wait_s = 10.0             # after a start: for firms to say what they saw of the log
# log_format = "text"             # or "json"
"""


def read_settings(
    root: Path,
    *,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> ServerSettings:
    """The settings of the lead in ``root``.

    Args:
        environment: the process's own where it is not given.
        options: what a command line said; None stands for nothing.

    Raises:
        ConfigError: a key or value is unusable; names it.
    """
    environment = os.environ if environment is None else environment
    path = root / SERVER_FILE
    values: dict[str, Any] = {}
    if path.exists():
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path} is longer than {MAX_BYTES} bytes")
        values = parse_toml(content, what=str(path))
        parse_as(ServerSettings, values, what=str(path))  # so that its own faults are named as such
    values = values | _from_environment(environment)
    values |= {key: value for key, value in (options or {}).items() if value is not None}
    return parse_as(ServerSettings, values, what="the server's settings")


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {item.name for item in fields(ServerSettings)}
    defaults = asdict(ServerSettings())
    found: dict[str, Any] = {}
    for name, text in environment.items():
        key = name.removeprefix(PREFIX)
        if key == name or (NOT_KEYS.fullmatch(key) and key.lower() not in known):
            continue
        if (key := key.lower()) not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
            raise ConfigError(f"{name} is no setting{hint}")
        found[key] = _value(name, text, defaults[key])
    return found


def _value(name: str, text: str, default: object) -> Any:
    if isinstance(default, str):
        return text
    try:
        return int(text) if default is None else float(text)
    except ValueError:
        raise ConfigError(f"{name} is no number") from None
