"""A log's state in one line of trust: origin, size and root (C2SP tlog-checkpoint's body)."""

import base64
from dataclasses import dataclass

from greylag_protocols.merkle import EMPTY_ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """``size`` entries hash to ``root`` (RFC 9162) in the log named ``origin``."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The three lines that a checkpoint's signature covers."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def empty(cls, origin: str) -> "Checkpoint":
        """The checkpoint before the first entry."""
        return cls(origin=origin, size=0, root=EMPTY_ROOT)
