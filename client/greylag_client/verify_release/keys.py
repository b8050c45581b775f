"""Whose keys a release is checked with: this firm's own approvals, or a trust file of a firm's."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import terms_digest
from greylag_protocols.trust import MAX_TRUST_BYTES, Trust, parse_trust

from greylag_client.firm import FirmDirectory
from greylag_client.firm_files import write_private
from greylag_client.ledger import copied_ledger
from greylag_client.trust import trusted_keys

MAX_STATEMENT_BYTES = 1 << 17
WITHDRAWALS = "withdrawals"  # below the firm's directory: those that this firm was shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What a release is checked with.

    Attributes:
        accepted: digest of the terms by run, where this firm took part.
        withdrawals: the lead's statements, as they were handed in.
    """

    trust: Trust
    lead_operator: str | None = None
    accepted: dict[str, bytes] = field(default_factory=dict)
    withdrawals: tuple[bytes, ...] = ()

    @property
    def lead_key(self) -> bytes:
        return bytes.fromhex(self.trust.lead)

    @property
    def cosigner_keys(self) -> dict[str, bytes]:
        """The firms' present keys by name."""
        return {name: bytes.fromhex(item.identity) for name, item in self.trust.firms.items()}

    def independent(self, firms: Collection[str], colluding: int) -> int:
        """How many of ``firms`` count: those of one operator up to ``colluding``, as in rosters. So
        more than ``colluding`` hold one that is honest."""
        operators = Counter(self.trust.firms[name].operator for name in firms)
        own = 0 if self.lead_operator is None else operators.pop(self.lead_operator, 0)
        return max(
            leads + sum(min(count, colluding - leads) for count in operators.values())
            for leads in range(min(own, colluding) + 1)
        )


def keys_of_firm(root: Path, withdrawals: Collection[bytes] = ()) -> Keys:
    """Keys by what people of the firm at ``root`` approved; with what the firm knows of withdrawals
    already.

    Raises:
        ConfigError: it is no firm's directory, or nobody approved a member list there yet.
    """
    firm = FirmDirectory.open(root)
    approved = max(firm.memberships.approved().values(), key=lambda item: item.epoch)
    with copied_ledger(firm.ledger_path) as ledger:
        accepted = {item.run: terms_digest(item.terms) for item in ledger.accounts()}
    known = [
        read_limited(path, MAX_STATEMENT_BYTES)
        for path in sorted((root / WITHDRAWALS).glob("*.json"))
    ]
    return Keys(
        trust=trusted_keys(firm),
        lead_operator=approved.lead,
        accepted=accepted,
        withdrawals=(*known, *withdrawals),
    )


def keys_of_file(path: Path, withdrawals: Collection[bytes] = ()) -> Keys:
    """Keys by a trust file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    trust = parse_trust(read_limited(path, MAX_TRUST_BYTES))
    return Keys(trust=trust, withdrawals=tuple(withdrawals))


def keep_withdrawal(root: Path, name: str, statement: bytes) -> None:
    """A genuine withdrawal is remembered by the firm: from then on it counts without being named.

    Raises:
        ConfigError: it cannot be written.
    """
    directory = root / WITHDRAWALS
    directory.mkdir(mode=0o700, exist_ok=True)
    write_private(directory / f"{name}.json", statement)


def read_limited(path: Path, limit: int) -> bytes:
    """A file that somebody named, of at most ``limit`` bytes.

    Raises:
        ConfigError: it cannot be read, or is longer.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise ConfigError(f"{path} is longer than {limit} bytes; name another file")
    return content
