"""What is kept of a run while its log streams by, and told in the end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True, kw_only=True)
class FirmAccount:
    """What a firm promised and spent in a run; positions are of log entries."""

    firm: str
    operator: str
    accepted: int | None = None
    acceptance: bytes = b""
    charged: int = 0
    last_attempt: int = 0
    closed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFact:
    """An attempt as the lead recorded it; hashes are hex, and empty for a void."""

    position: int
    attempt: int
    round_number: int
    context: str
    roster: tuple[str, ...]
    completed: bool
    model_in: str = ""
    state_out: str = ""
    sum_digest: str = ""
    grid_step: str = ""


class Receipt(NamedTuple):  # there are as many as entries, and a dataclass takes thrice the time
    """What has to be kept of a receipt until its attempt has ended."""

    position: int
    firm: str
    round_number: int
    context: str
    roster_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What the lead released; hashes are hex."""

    position: int
    model: str


TipOf = Callable[[str], tuple[int, str] | None]
"""Where the chain of a firm on the run's member list stands in the log: seq and head (hex)."""
