"""One attempt under way: what was sent, who has yet to answer, and what has come in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from greylag_protocols import log
from greylag_protocols.errors import VerificationError
from greylag_protocols.log import AttemptRecord, ChainTip
from greylag_protocols.log_view import LogView
from greylag_protocols.messages import Contribution, Round
from greylag_protocols.notes import verify_cosignature
from greylag_protocols.round import Attempt
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_server.roster import Firm, find_entry
from greylag_server.witnesses import Witnesses


def make_round(
    run: str,
    *,
    number: int,
    round_number: int,
    log_view: LogView,
    witnesses: Witnesses,
    weights: NDArray[np.float32],
    firms: Sequence[Firm],
    shown: Iterable[bytes],
) -> Round:
    """The message of attempt ``number``; key batches in ``shown`` are known to everybody."""
    roster = tuple(item.roster_key(number) for item in firms)
    cosigned, words = witnesses.shown(roster)
    known = set(shown)
    return Round(
        run=run,
        round_number=round_number,
        attempt=number,
        log=log_view,
        cosigned=cosigned,
        cosignatures=words,
        roster=tuple(item.firm for item in roster),
        seen=tuple(item.tip.seq for item in firms),
        keys=tuple(item.key for item in roster),
        proofs=tuple(item.proof for item in roster),
        batches=tuple(item.statement for item in firms if item.statement not in known),
        weights=weights,
    )


@dataclass(frozen=True, slots=True)
class Send:
    """A frame for a firm; ``is_round`` if answering it is training."""

    firm: str
    frame: bytes
    is_round: bool = False


@dataclass(slots=True, kw_only=True)
class Flight:
    """The attempt that is being answered; vectors are added as they come."""

    attempt: Attempt
    context: bytes
    frame: bytes
    total: NDArray[np.uint32]
    waiting: set[str]
    entries: list[bytes] = field(default_factory=list)
    words: dict[str, bytes] = field(default_factory=dict)  # cosignatures

    @classmethod
    def of(cls, message: Round, frame: bytes, terms: Terms, terms_digest: bytes) -> "Flight":
        """The attempt that ``frame`` (the encoded ``message``) asks for."""
        attempt = message.attempt_under(terms_digest, origin=terms.consortium)
        return cls(
            attempt=attempt,
            context=attempt.context(),
            frame=frame,
            total=np.zeros(terms.dimension, dtype=np.uint32),
            waiting=set(message.roster),
        )

    def add(self, firm: Firm, message: Contribution, fresh: Iterable[bytes]) -> None:
        """Take a firm's vector, with the entries of its chain that are new.

        Raises:
            VerificationError: a vector of another length, no receipt for this context, or no
                cosignature on the log that it is bound to.
        """
        checkpoint = self.attempt.checkpoint
        verify_cosignature(checkpoint, message.cosignature, firm.identity_key)
        if len(message.vector) != len(self.total):
            raise VerificationError("a vector of another length")
        if find_entry(message.entries, log.RECEIPT_KIND, self.context) is None:
            raise VerificationError("no receipt for this context")
        self.entries.extend(fresh)
        self.words[firm.name], firm.log_size = message.cosignature, checkpoint.size
        np.add(self.total, message.vector, out=self.total)
        self.waiting.discard(firm.name)

    def record(self, run: str, tips: Sequence[ChainTip]) -> AttemptRecord:
        """What the log says of it; ``tips`` follow the roster's order."""
        return AttemptRecord(
            run=run,
            round_number=self.attempt.round_number,
            attempt=self.attempt.attempt,
            context=self.context,
            roster=self.attempt.firms,
            tips=tips,
        )
