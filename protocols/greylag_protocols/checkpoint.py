"""A log's state in one line of trust: origin, size and root (C2SP tlog-checkpoint's body)."""

import base64
import re
from dataclasses import dataclass

from greylag_protocols.errors import VerificationError
from greylag_protocols.merkle import EMPTY_ROOT

_TEXT = re.compile(r"([^\s+]{1,100})\n(0|[1-9][0-9]{0,15})\n([A-Za-z0-9+/]{43}=)\n")


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


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint that a signature covers; extension lines are not accepted.

    Raises:
        VerificationError: not one, or not in its one accepted form.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise VerificationError("not a checkpoint: origin, size and root, a line each")
    root = base64.b64decode(found[3])  # 43 characters and one "=" are 32 bytes, whatever they say
    checkpoint = Checkpoint(origin=found[1], size=int(found[2]), root=root)
    if checkpoint.text() != text:
        raise VerificationError("a checkpoint that is not in its one accepted form")
    return checkpoint
