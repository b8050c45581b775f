"""Sessions at the operator's page, and how often one may try to begin one.

No I/O: entropy and time are arguments. What is compared or looked up is a hash, so that neither
timing nor a dump of this tells a secret.
"""

import hashlib
import hmac
import threading
from collections.abc import Callable
from dataclasses import dataclass

IDLE_S, WHOLE_S = 30 * 60, 12 * 3600
MAX_SESSIONS, MAX_TRIERS = 200, 10_000
FREE_TRIES, FIRST_WAIT_S, LONGEST_WAIT_S = 3, 2.0, 15 * 60.0
FORGET_S = 24 * 3600.0
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the next page says once: the key of a text, a program's own words, a secret."""

    key: str
    good: bool
    detail: str = ""
    once: str = ""
    firm: str = ""


@dataclass(slots=True, kw_only=True)
class Session:
    """One browser's. ``word`` stands on its forms; ``number`` is the account's."""

    name: str
    number: int
    word: str
    began_s: float
    seen_s: float
    said: Said | None = None


@dataclass(slots=True, kw_only=True)
class _Tries:
    """Failures of one account or address, and when it may try again."""

    failed: int = 0
    until_s: float = 0.0
    last_s: float = 0.0


class Door:
    """Sessions by cookie, failures by account and by address.

    Args:
        entropy: ``n -> n`` random bytes from the operating system.
        clock: seconds of a steady clock.
    """

    def __init__(self, *, entropy: Callable[[int], bytes], clock: Callable[[], float]) -> None:
        self._entropy, self._clock = entropy, clock
        self._lock = threading.Lock()
        self._sessions: dict[bytes, Session] = {}
        self._tries: dict[str, _Tries] = {}
        self._key = entropy(SECRET_BYTES)

    # -- trying ----------------------------------------------------------------------------------

    def wait_s(self, *who: str) -> float:
        """How long these (an account, an address) have to wait; 0 begins a try, which counts as
        failed until ``enter``, so that many at once gain nothing."""
        with self._lock:
            now_s = self._clock()
            tries = [self._of(item, now_s) for item in who]
            wait_s = max((item.until_s - now_s for item in tries), default=0.0)
            if wait_s > 0:
                return wait_s
            for item in tries:
                item.failed, item.last_s = item.failed + 1, now_s
                if item.failed >= FREE_TRIES:
                    doubled = FIRST_WAIT_S * 2.0 ** min(item.failed - FREE_TRIES, 20)
                    item.until_s = now_s + min(LONGEST_WAIT_S, doubled)
            return 0.0

    def _of(self, who: str, now_s: float) -> _Tries:
        if len(self._tries) >= MAX_TRIERS:
            fresh = {k: v for k, v in self._tries.items() if v.last_s > now_s - LONGEST_WAIT_S}
            self._tries = fresh if len(fresh) < MAX_TRIERS else {}
        tries = self._tries.setdefault(who, _Tries(last_s=now_s))
        if tries.last_s < now_s - FORGET_S:
            tries = self._tries[who] = _Tries(last_s=now_s)
        return tries

    def enter(self, name: str, number: int, *who: str) -> str:
        """Begin a session; its cookie. The failures of ``who`` are forgotten."""
        with self._lock:
            for item in who:
                self._tries.pop(item, None)
            cookie, now_s = self._entropy(SECRET_BYTES).hex(), self._clock()
            while len(self._sessions) >= MAX_SESSIONS:
                self._sessions.pop(next(iter(self._sessions)))
            self._sessions[_hash(cookie)] = Session(
                name=name,
                number=number,
                word=self._entropy(SECRET_BYTES).hex(),
                began_s=now_s,
                seen_s=now_s,
            )
            return cookie

    # -- sessions --------------------------------------------------------------------------------

    def session(self, cookie: str | None, *, busy: bool) -> Session | None:
        """The session of a cookie, unless it has ended.

        Args:
            busy: somebody did something; what the page asks by itself keeps no session alive.
        """
        with self._lock:
            session, now_s = self._sessions.get(_hash(cookie or "")), self._clock()
            if session is None:
                return None
            if now_s >= min(session.seen_s + IDLE_S, session.began_s + WHOLE_S):
                del self._sessions[_hash(cookie or "")]
                return None
            if busy:
                session.seen_s = now_s
            return session

    def leave(self, cookie: str | None) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_hash(cookie or ""), None)

    # -- the form for signing in, before there is a session ----------------------------------------

    def new_cookie(self) -> str:
        """For a browser that has none yet."""
        return self._entropy(SECRET_BYTES).hex()

    def word_for(self, cookie: str) -> str:
        """What its form has to carry. Nothing is kept, whoever asks how often."""
        return hmac.new(self._key, cookie.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def same(word: str, given: str) -> bool:
    """Whether a form carries the right word."""
    return hmac.compare_digest(_hash(word), _hash(given))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
