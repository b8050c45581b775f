"""What travels between coordinator and firms: one frame each. ``parsing`` reads them.

    coordinator -> firm   Offer, Ask, Round, Close, Show
    firm -> coordinator   Asking, Seen, Accepted, Contribution, Closed, Cosigned, Refusal

An ``Offer`` to a firm that has just started is answered by ``Asking``: other firms are to say what
they saw of it (``peers``). ``Ask`` takes the question to them, ``Seen`` brings their words, and the
next ``Offer`` hands them over, with what the firm's ledger lost (``entries``). A ``Round`` is the
one message down and a ``Contribution`` the one message up per attempt; key batches ride along when
the old ones run out.

``Offer``, ``Round`` and ``Show`` (which asks for nothing else) show how the log grew, and answers
to them carry the firm's cosignature (72 bytes) on what was shown.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greylag_protocols.encoding import pack_frame
from greylag_protocols.errors import RefusalClass
from greylag_protocols.log_view import LogView
from greylag_protocols.membership import SignedMembership
from greylag_protocols.optimiser import model_digest
from greylag_protocols.round import Attempt, RosterKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBatch:
    """A key batch as a firm sends it: the signed root and the public keys below it."""

    statement: bytes
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The coordinator asks a firm to take part; also how a restarted firm comes back.

    ``next_attempt`` is the first attempt that new keys are needed for; ``seen`` is the last entry
    of the firm's chain that the coordinator holds; ``peers`` are other firms' words about it;
    ``statements`` are the revocations that the coordinator knows of, and endorsements of this list.
    A firm whose ledger ends before ``seen`` is given the log's ``entries`` of its chain after that,
    and the terms that they accept (``past``).
    """

    run: str
    next_attempt: int
    seen: int
    terms: bytes
    membership: SignedMembership
    log: LogView
    peers: tuple[bytes, ...] = ()
    entries: tuple[bytes, ...] = ()
    past: tuple[bytes, ...] = ()
    statements: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        header = {
            "kind": "offer",
            "run": self.run,
            "next_attempt": self.next_attempt,
            "seen": self.seen,
            "peers": len(self.peers),
        }
        lost = {"entries": len(self.entries), "past": len(self.past)}  # named if there are any
        header |= {name: count for name, count in lost.items() if count}
        signed = self.membership
        fixed = [self.terms, signed.document, signed.statement, self.log.blob()]
        lists = [*self.peers, *self.entries, *self.past, *self.statements]
        return pack_frame(header, [*fixed, *lists])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What did you see last of these firms? Each asks with its nonce (hex)."""

    run: str
    firms: tuple[str, ...]
    nonces: tuple[str, ...]

    def encode(self) -> bytes:
        return pack_frame(
            {
                "kind": "ask",
                "run": self.run,
                "firms": list(self.firms),
                "nonces": list(self.nonces),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One attempt, the same bytes for every firm of the roster.

    ``seen[i]`` is the last chain entry held of the ``i``-th firm; ``batches`` are the signed roots
    that this roster's keys stand under, sent whenever one of them is new to somebody.
    ``cosignatures`` are those of ``log_view.choose_cosigners`` on the log's state of ``cosigned``
    entries, which the attempt before was bound to (0: there was none).
    """

    run: str
    round_number: int
    attempt: int
    log: LogView
    cosigned: int
    cosignatures: tuple[bytes, ...]
    roster: tuple[str, ...]
    seen: tuple[int, ...]
    keys: tuple[bytes, ...]
    proofs: tuple[tuple[bytes, ...], ...]
    batches: tuple[bytes, ...]
    weights: NDArray[np.float32]

    def encode(self) -> bytes:
        header = {
            "kind": "round",
            "run": self.run,
            "round": self.round_number,
            "attempt": self.attempt,
            "cosigned": self.cosigned,
            "roster": list(self.roster),
            "seen": list(self.seen),
            "proof_sizes": [len(proof) for proof in self.proofs],
        }
        proofs = b"".join(step for proof in self.proofs for step in proof)
        weights, words = self.weights.astype("<f4").tobytes(), b"".join(self.cosignatures)
        fixed = [weights, b"".join(self.keys), proofs, self.log.blob(), words]
        return pack_frame(header, [*fixed, *self.batches])

    def attempt_under(self, terms: bytes, *, origin: str) -> Attempt:
        """The attempt that this message is about, under terms with the digest ``terms``."""
        return Attempt(
            terms=terms,
            run=self.run,
            round_number=self.round_number,
            attempt=self.attempt,
            model=model_digest(self.weights),
            checkpoint=self.log.checkpoint(origin),
            roster=tuple(
                RosterKey(firm=firm, key=key, proof=proof)
                for firm, key, proof in zip(self.roster, self.keys, self.proofs, strict=True)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The coordinator ends a run."""

    run: str
    seen: int

    def encode(self) -> bytes:
        return pack_frame({"kind": "close", "run": self.run, "seen": self.seen})


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """The coordinator shows its log outside of a run's messages; ``run`` is the last one."""

    run: str
    log: LogView

    def encode(self) -> bytes:
        return pack_frame({"kind": "show", "run": self.run}, [self.log.blob()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A firm that has just started wants other firms' words about it, under its nonce (hex), and
    to be shown the log from ``log_size`` entries on; its own chain has ``seq``."""

    run: str
    nonce: str
    log_size: int
    seq: int

    def encode(self) -> bytes:
        header = {"nonce": self.nonce, "log_size": self.log_size, "seq": self.seq}
        return pack_frame({"kind": "asking", "run": self.run, **header})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A firm's signed words about others (``peers.Seen``)."""

    run: str
    statements: tuple[bytes, ...]

    def encode(self) -> bytes:
        return pack_frame({"kind": "seen", "run": self.run}, self.statements)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A firm takes part: its chain entries since ``seen`` (the acceptance among them) and keys.
    It was shown ``log_size`` entries of the log."""

    run: str
    log_size: int
    cosignature: bytes
    entries: tuple[bytes, ...]
    batch: SignedBatch

    def encode(self) -> bytes:
        header = {"log_size": self.log_size, "entries": len(self.entries)}
        return pack_frame(
            {"kind": "accepted", "run": self.run, **header},
            [
                self.cosignature,
                *self.entries,
                self.batch.statement,
                b"".join(self.batch.keys),
            ],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """A firm's masked, noisy vector for one attempt, its receipts, and new keys when due."""

    run: str
    attempt: int
    vector: NDArray[np.uint32]
    cosignature: bytes
    entries: tuple[bytes, ...]
    batch: SignedBatch | None

    def encode(self) -> bytes:
        new = [] if self.batch is None else [self.batch.statement, b"".join(self.batch.keys)]
        header = {
            "kind": "contribution",
            "run": self.run,
            "attempt": self.attempt,
            "entries": len(self.entries),
        }
        fixed = [self.vector.astype("<u4").tobytes(), self.cosignature]
        return pack_frame(header, [*fixed, *self.entries, *new])


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A firm has closed the run: its chain entries since ``seen``."""

    run: str
    entries: tuple[bytes, ...]

    def encode(self) -> bytes:
        return pack_frame(
            {"kind": "closed", "run": self.run, "entries": len(self.entries)}, self.entries
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """A firm saw the log at ``log_size`` entries. Without a cosignature it was not shown what came
    after those."""

    run: str
    log_size: int
    cosignature: bytes

    def encode(self) -> bytes:
        header = {"kind": "cosigned", "run": self.run, "log_size": self.log_size}
        return pack_frame(header, [self.cosignature])


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A firm declines; the class is all that it tells."""

    run: str
    refusal_class: RefusalClass
    statement: bytes

    def encode(self) -> bytes:
        header = {"kind": "refusal", "run": self.run, "class": self.refusal_class}
        return pack_frame(header, [self.statement])


FirmMessage = Asking | Seen | Accepted | Contribution | Closed | Cosigned | Refusal
CoordinatorMessage = Offer | Ask | Round | Close | Show
