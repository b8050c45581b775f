"""``serving.toml`` of the consortium's directory: rows that firms may ask for in a month.

rows_per_month = 100000      # every firm; without it as many as it likes
[firms]
"anna" = 500000              # this one
"""

from dataclasses import dataclass, field
from typing import Annotated

from greylag_protocols.encoding import parse_as, parse_toml
from greylag_protocols.errors import ConfigError
from greylag_protocols.membership import Name
from greylag_protocols.terms import STRICT
from pydantic import Field

from greylag_server.consortium import Consortium

FILE = "serving.toml"
Rows = Annotated[int, Field(ge=0, le=2**50)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many rows a month."""

    __pydantic_config__ = STRICT
    rows_per_month: Rows | None = None
    firms: dict[Name, Rows] = field(default_factory=dict)

    def limit(self, firm: str) -> int | None:
        """Of a firm; None for as many as it likes."""
        return self.firms.get(firm, self.rows_per_month)


def read_quota(consortium: Consortium) -> Quota:
    """The quota that the lead wrote; without a file none.

    Raises:
        ConfigError: a file with other keys or values.
    """
    path = consortium.root / FILE
    if not path.exists():
        return Quota()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    return parse_as(Quota, parse_toml(content, what=str(path)), what=str(path))
