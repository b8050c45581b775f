"""How an agent stands to the lead, from what it does: it reads its credentials at every dial, and
is asked to answer when a connection holds."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from greylag_protocols.errors import GreylagError

from greylag_client.page.view import Connection

if TYPE_CHECKING:
    from greylag_client.link import Answer, ReadTls

# A dial that failed is followed by another one well within this time (``link``: a try ends within
# about 20 s, the wait after it within 15 s). So one that was not followed holds.
SURELY_HELD_S = 60.0


class LinkWatch:
    """Watches one firm's dials and answers; its methods may be called by any thread.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._dials = 0
        self._dialled_s = 0.0
        self._heard = False

    def dialling(self, read_tls: "ReadTls") -> "ReadTls":
        """``read_tls``, watched."""

        def read() -> object:
            self._dials, self._dialled_s = self._dials + 1, self._clock()
            self._heard = False
            return read_tls()

        return read  # type: ignore[return-value]

    def hearing(self, answer: "Answer") -> "Answer":
        """``answer``, watched."""

        def hear(frame: bytes) -> bytes:
            self._heard, self._dials = True, 1
            return answer(frame)

        return hear

    def connection(self, *, runs: bool, error: Exception | None) -> Connection:
        """What is known now.

        Args:
            runs, error: whether the agent is at work, and why it is not.
        """
        if not runs:
            known = isinstance(error, GreylagError | OSError)
            return Connection(state="away", reason=str(error) if known else "")
        if not self._dials:
            return Connection(state="direct")
        if self._heard or self._clock() - self._dialled_s > SURELY_HELD_S:
            return Connection(state="connected")
        return Connection(state="dialling" if self._dials == 1 else "trying")
