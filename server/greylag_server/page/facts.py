"""What the page is made from, as frozen values; read by ``source``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from greylag_protocols.releases import Version
from greylag_protocols.terms import Terms

from greylag_server.enrolment import OpenInvite
from greylag_server.page.accounts import Account, Deed
from greylag_server.page.log_index import RunSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmFacts:
    """A member. ``expires_s``: when the certificate that it used last ends (0: none is kept)."""

    name: str
    operator: str
    joined_s: int
    expires_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A firm that accepted a run."""

    firm: str
    voids: int
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """A run, without its model. ``status`` is the store's word, or ``paused``, or ``cancelled``.
    ``round_s``: how long a round took lately, if a serving process noted it."""

    run: str
    terms: Terms
    status: str
    reason: str
    wanted: int
    rounds_done: int
    attempts: int
    roster: tuple[str, ...]
    parts: tuple[Part, ...]
    round_s: float | None
    seen: RunSeen

    @property
    def over(self) -> bool:
        return self.status in ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """A checkpoint, and when (by their own clocks) firms cosigned it."""

    size: int
    times: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the page shows, at one moment.

    Attributes:
        online: agents' versions (empty where unknown) by connected firm; None: nobody knows here.
        log_read: entries that the page has looked at so far.
        current: by plan name the version to use.
    """

    consortium: str
    now_s: float
    firms: tuple[FirmFacts, ...]
    online: Mapping[str, str] | None
    invites: tuple[OpenInvite, ...]
    epoch: int
    epoch_until_s: int
    server_until_s: int
    runs: tuple[RunFacts, ...]
    log_size: int
    log_root: str
    log_read: int
    log_problem: str
    cosigned: tuple[Cosigned, ...]
    versions: tuple[Version, ...]
    current: Mapping[str, int]
    deeds: tuple[Deed, ...]
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What only the serving process knows.

    Attributes:
        online: agents' versions by connected firm; empty where an agent does not tell.
        phases: where the seconds of a run's last attempts went: (phase, mean seconds).
        paused: the runs that an operator paused.
    """

    online: Callable[[], Mapping[str, str]]
    phases: Callable[[str], Sequence[tuple[str, float]]] = field(default=lambda run: ())
    paused: Callable[[], frozenset[str]] = field(default=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the browser wants to see.

    Attributes:
        run: a run's id, on its own page.
        wanted: words that a table's lines have to hold.
        phases: where a run's seconds went, if that is known.
        epsilon: of so many releases under a run's terms.
    """

    run: RunFacts | None = None
    wanted: str = ""
    phases: tuple[tuple[str, float], ...] = ()
    epsilon: Callable[[RunFacts, int], float | None] = lambda run, releases: None

    def fits(self, *texts: str) -> bool:
        """Whether a line with these texts is wanted."""
        joined = " ".join(texts).casefold()
        return all(word in joined for word in self.wanted.casefold().split())
