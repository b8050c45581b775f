"""Carrying questions and answers between firms: what did you see last of one that has just started?

A started firm hands out keys only when enough other firms have signed its nonce (see
``greylag_protocols.peers``). The coordinator merely carries; it cannot answer for anybody. A firm
is asked one question at a time, about all firms that wait by then: 200 firms that start together
cost a few messages each, not 200.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from greylag_protocols.membership import Membership
from greylag_protocols.messages import Ask
from greylag_protocols.peers import verify_seen

SPARE = 2  # firms asked beyond those needed, so that one that hangs holds nobody up


@dataclass(slots=True)
class _Question:
    """One firm's nonce, who was asked, and who has answered."""

    nonce: str
    asked: set[str] = field(default_factory=set)
    answers: dict[str, bytes] = field(default_factory=dict)
    full: bool = False  # enough were asked
    done: bool = False  # enough have answered


class Vouching:
    """Open questions of one run.

    Args:
        needed: answers that a firm wants, ``max_colluding + 1``.
    """

    def __init__(self, run: str, *, membership: Membership, needed: int) -> None:
        self._run = run
        self._membership = membership
        self._operators = {member.name: member.operator for member in membership.members}
        self._needed = needed
        self._open: dict[str, _Question] = {}
        self._busy: set[str] = set()

    def open(self, firm: str, nonce: str) -> None:
        """``firm`` asks; a new nonce means that it has started once more."""
        if firm not in self._open or self._open[firm].nonce != nonce:
            self._open[firm] = _Question(nonce)

    def drop(self, firm: str) -> None:
        """``firm`` is gone: its question lapses, and what it was asked is asked of others."""
        self._open.pop(firm, None)
        self._busy.discard(firm)
        for question in self._open.values():
            if firm not in question.answers:
                question.asked.discard(firm)
                question.full = False

    def take(self, firm: str, statements: Iterable[bytes]) -> None:
        """``firm`` has answered.

        Raises:
            VerificationError: a statement that its asker could not use.
        """
        self._busy.discard(firm)
        for envelope in statements:
            seen, _ = verify_seen(envelope, self._membership)
            question = self._open.get(seen.about)
            if seen.firm == firm and question is not None and question.nonce == seen.nonce:
                question.answers[firm] = envelope
                question.done = self._count(question.answers) >= self._needed

    def asks(self, online: Iterable[str]) -> list[tuple[str, Ask]]:
        """The questions to put now, one at most to each firm that is not busy with one."""
        asks = []
        for peer in online:
            if peer in self._busy:
                continue
            about = [
                (firm, question)
                for firm, question in self._open.items()
                if firm != peer and self._helps(peer, question)
            ]
            if not about:
                continue
            for _, question in about:
                question.asked.add(peer)
                question.full = self._count(question.asked) >= self._needed + SPARE
            self._busy.add(peer)
            firms = tuple(firm for firm, _ in about)
            nonces = tuple(question.nonce for _, question in about)
            asks.append((peer, Ask(run=self._run, firms=firms, nonces=nonces)))
        return asks

    def ready(self) -> dict[str, tuple[bytes, ...]]:
        """Answered questions, which are closed with this: statements by the firm that asked."""
        done = {
            firm: tuple(question.answers.values())
            for firm, question in self._open.items()
            if question.done
        }
        for firm in done:
            del self._open[firm]
        return done

    def _count(self, peers: Iterable[str]) -> int:
        """How many of ``peers`` the asker will count (see ``peers.count_peers``)."""
        return self._membership.independent(peers, self._needed - 1)

    def _helps(self, peer: str, question: _Question) -> bool:
        """Whether the word of ``peer`` is worth asking for."""
        if question.full or peer in question.asked:
            return False
        # Cheap first: of one operator no more than this many ever count.
        operator = self._operators[peer]
        if sum(self._operators[name] == operator for name in question.asked) >= self._needed - 1:
            return False
        return self._count({*question.asked, peer}) > self._count(question.asked)
