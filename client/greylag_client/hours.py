"""The hours in which a firm's agent may answer: ``mon-fri 18:00-06:00``, in local time."""

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from greylag_protocols.errors import ConfigError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))? )?"
    r"(?P<begin>[0-2]\d:[0-5]\d)-(?P<end>[0-2]\d:[0-5]\d)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of time on some days of the week; one that ends before it begins goes on over
    midnight and belongs to the day on which it began."""

    days: frozenset[int]
    begin: time
    end: time

    def holds(self, moment: datetime) -> bool:
        """Whether ``moment``, local time, lies within."""
        now = moment.time()
        if self.begin < self.end:
            return moment.weekday() in self.days and self.begin <= now < self.end
        if now >= self.begin:
            return moment.weekday() in self.days
        yesterday = (moment - timedelta(days=1)).weekday()
        return now < self.end and yesterday in self.days


def parse_window(text: str) -> Window:
    """A window as policy.toml writes it; without days it holds on every day.

    Raises:
        ConfigError: shows how one is written.
    """
    found = _WINDOW.fullmatch(text.strip().lower())
    try:
        if found is None:
            raise ValueError
        first = DAYS.index(found["first"]) if found["first"] else 0
        last = DAYS.index(found["last"]) if found["last"] else first
        if not found["first"]:
            last = len(DAYS) - 1
        length = (last - first) % len(DAYS) + 1
        return Window(
            days=frozenset((first + offset) % len(DAYS) for offset in range(length)),
            begin=time.fromisoformat(found["begin"]),
            end=time.fromisoformat(found["end"]),
        )
    except ValueError:
        raise ConfigError(
            f"hours: {text!r} is not a window; write for example 'mon-fri 18:00-06:00' or "
            "'00:00-06:00', in local time"
        ) from None
