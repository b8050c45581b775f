"""Whom the auditor trusts: keys that came from somewhere else than the bundle.

``greylag-client export-trust`` makes the file from what a firm's own people approved.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.membership import Hex32, Name
from greylag_protocols.terms import STRICT, Text
from pydantic import Field

MAX_TRUST_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedFirm:
    """A firm as the auditor knows it; ``earlier`` are keys that it had before."""

    __pydantic_config__ = STRICT
    identity: Hex32
    operator: Name
    earlier: Annotated[tuple[Hex32, ...], Field(max_length=64)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Keys by name, all Ed25519 in hex: the lead's, the firms', and independent bodies'."""

    __pydantic_config__ = STRICT
    version: Literal["trust/v1"]
    consortium: Text
    lead: Hex32
    firms: dict[Name, TrustedFirm]
    bodies: dict[str, Hex32] = field(default_factory=dict)


def parse_trust(data: bytes) -> Trust:
    """A trust file from outside.

    Raises:
        ConfigError: not one; names what is wrong.
    """
    try:
        value = parse_json(data, max_bytes=MAX_TRUST_BYTES)
    except VerificationError as error:
        raise ConfigError(f"the trust file is not acceptable: {error}") from None
    return parse_as(Trust, value, what="trust file")


def read_trust(path: Path) -> Trust:
    """The trust file at ``path``.

    Raises:
        ConfigError: it cannot be read, or is not one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TRUST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); a firm makes one with: "
            "greylag-client export-trust DIR --out FILE"
        ) from None
    return parse_trust(data)
