"""Whose keys are taken for granted where evidence is judged: they came from elsewhere than that.

A firm makes the file from what its own people approved (``greylag-client export-trust``); auditors,
and firms that check a release, read it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.membership import Hex32, Membership, Name
from greylag_protocols.terms import STRICT, Text

MAX_TRUST_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedFirm:
    """A firm as it is known; ``earlier`` are keys that it had before."""

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


def trust_in(
    memberships: Iterable[Membership], *, consortium: str, lead: str, bodies: Mapping[str, str]
) -> Trust:
    """Trust in all whom some member lists name, in the last epoch's words.

    Args:
        lead: the lead's public key, hex.
        bodies: keys of independent bodies by name, hex.
    """
    firms: dict[str, TrustedFirm] = {}
    for membership in sorted(memberships, key=lambda item: item.epoch):
        for member in membership.members:
            known = firms.get(member.name)
            earlier = set() if known is None else {*known.earlier, known.identity}
            firms[member.name] = TrustedFirm(
                identity=member.identity,
                operator=member.operator,
                earlier=tuple(sorted(earlier - {member.identity})),
            )
    return Trust(
        version="trust/v1", consortium=consortium, lead=lead, firms=firms, bodies=dict(bodies)
    )


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
