"""The firm's own law. It is read from ``policy.toml``, applied by the firm's agent, never sent.

A refusal names the rule in the firm's own log; the lead is told only that policy refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from greylag_protocols.encoding import parse_as, parse_toml
from greylag_protocols.errors import ConfigError, RefusedError
from greylag_protocols.terms import STRICT, Terms, Unit
from pydantic import Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Delta = Annotated[float, Field(gt=0, lt=0.01)]
Engine = Literal["grpc", "flower"]

DEFAULT_POLICY = """\
# This firm's own law. The agent obeys it; it is never sent to anybody.
# Changes act when the agent is next started. Units and terms: see docs/units.md.

# --- budget: what may ever be learned about one record of this firm -------------------------------
lifetime_epsilon = 10.0       # over all runs, for ever; mandatory. Whole runs are added up.
lifetime_delta = 1e-4
max_epsilon_per_run = 4.0     # a run that asks for more is refused
max_delta = 1e-5              # a run with a larger delta is refused

# --- company: whom this firm hides among ----------------------------------------------------------
min_firms = 3                 # least number of firms in every roster
min_colluding = 1             # least number of firms that the noise must survive if they collude
max_roster_changes = 8        # per run: varying rosters let differences be estimated

# --- what is allowed ------------------------------------------------------------------------------
units = ["record", "group", "firm"]   # leave only "group" or "firm" to demand those
engines = ["grpc"]            # ways to the lead; "flower" lets the lead's code run beside this
                              # firm's keys: read docs/flower.md before you add it
paused = false                # true: refuse everything
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of ``policy.toml`` (their meaning stands in the file itself)."""

    __pydantic_config__ = STRICT
    lifetime_epsilon: Positive
    lifetime_delta: Delta = 1e-4
    max_epsilon_per_run: Positive = 4.0
    max_delta: Delta = 1e-5
    min_firms: Annotated[int, Field(ge=3)] = 3
    min_colluding: Annotated[int, Field(ge=1)] = 1
    max_roster_changes: Annotated[int, Field(ge=0)] = 8
    units: tuple[Unit, ...] = ("record", "group", "firm")
    engines: Annotated[tuple[Engine, ...], Field(min_length=1)] = ("grpc",)
    paused: bool = False

    def check_terms(self, terms: Terms) -> None:
        """Refuse terms that this firm does not want.

        Raises:
            RefusedError: class ``policy``; names the rule.
        """
        privacy = terms.privacy
        rules = [
            (self.paused, "paused = true"),
            (privacy.unit not in self.units, f"units does not allow {privacy.unit!r}"),
            (
                privacy.epsilon > self.max_epsilon_per_run,
                f"max_epsilon_per_run = {self.max_epsilon_per_run}, the run asks {privacy.epsilon}",
            ),
            (
                privacy.delta > self.max_delta,
                f"max_delta = {self.max_delta}, the run asks {privacy.delta}",
            ),
            (
                privacy.min_firms < self.min_firms,
                f"min_firms = {self.min_firms}, the run allows {privacy.min_firms}",
            ),
            (
                privacy.max_colluding < self.min_colluding,
                f"min_colluding = {self.min_colluding}, the run survives {privacy.max_colluding}",
            ),
        ]
        broken = [rule for is_broken, rule in rules if is_broken]
        if broken:
            raise RefusedError("policy.toml: " + "; ".join(broken), refusal_class="policy")

    def check_engine(self, engine: Engine) -> None:
        """Refuse whatever comes by an engine that this firm does not want.

        Raises:
            RefusedError: class ``policy``; names the rule.
        """
        if engine not in self.engines:
            raise RefusedError(
                f"policy.toml: engines does not allow {engine!r}", refusal_class="policy"
            )


def read_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        ConfigError: the file is missing, not TOML, or holds unknown or wrong keys.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"no policy at {path}; without one this firm takes part in nothing. Write one: at "
            "least `lifetime_epsilon = 10.0`"
        ) from None
    return parse_as(Policy, parse_toml(content, what=path.name), what=path.name)
