"""Who may see the page: links that open one session each, sessions that end, words on forms.

No I/O: entropy and time are arguments. Secrets are compared in constant time, and kept as hashes,
so that nothing here can print them.
"""

import hashlib
import hmac
import threading
from collections.abc import Callable
from dataclasses import dataclass

from greylag_protocols.errors import GreylagError

SECRET_BYTES = 32
SESSION_S = 12 * 3600
MAX_SESSIONS = 20
MOST_WRONG, WRONG_WITHIN_S = 10, 60.0


class TooManyError(GreylagError):
    """So many wrong tokens came that none is looked at for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One browser's. ``word`` stands on its forms (against forged requests)."""

    word: str
    ends_s: float


class Door:
    """Not more than one link is valid at a time; opening a session makes the next.

    Args:
        entropy: ``n -> n`` random bytes from the operating system.
        clock: seconds of a steady clock.
        show_link: is given each new token, to put it where the firm's people find it.
    """

    def __init__(
        self,
        *,
        entropy: Callable[[int], bytes],
        clock: Callable[[], float],
        show_link: Callable[[str], None],
    ) -> None:
        self._entropy = entropy
        self._clock = clock
        self._show_link = show_link
        self._lock = threading.Lock()
        self._sessions: dict[bytes, Session] = {}
        self._wrong: list[float] = []
        self._token = b""
        self._renew()

    def enter(self, token: str) -> str | None:
        """A session's cookie for the token of the present link; None if it is not that.

        Raises:
            TooManyError: too many wrong ones of late.
        """
        with self._lock:
            now_s = self._clock()
            self._wrong = [at_s for at_s in self._wrong if at_s > now_s - WRONG_WITHIN_S]
            if len(self._wrong) >= MOST_WRONG:
                raise TooManyError("too many wrong tokens; wait a minute")
            if not hmac.compare_digest(_hash(token), self._token):
                self._wrong.append(now_s)
                return None
            self._renew()
            cookie = self._entropy(SECRET_BYTES).hex()
            while len(self._sessions) >= MAX_SESSIONS:
                self._sessions.pop(next(iter(self._sessions)))
            word = self._entropy(SECRET_BYTES).hex()
            self._sessions[_hash(cookie)] = Session(word=word, ends_s=now_s + SESSION_S)
            return cookie

    def session(self, cookie: str | None) -> Session | None:
        """The session of a cookie, unless it has ended."""
        if not cookie:
            return None
        with self._lock:
            key = _hash(cookie)  # what is looked up is a hash: its timing tells nothing of a cookie
            session = self._sessions.get(key)
            if session is not None and session.ends_s <= self._clock():
                del self._sessions[key]
                return None
            return session

    def leave(self, cookie: str | None) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_hash(cookie or ""), None)

    def _renew(self) -> None:
        token = self._entropy(SECRET_BYTES).hex()
        self._token = _hash(token)
        self._show_link(token)


def right_word(session: Session, word: str) -> bool:
    """Whether a form carries its session's word."""
    return hmac.compare_digest(_hash(session.word), _hash(word))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
