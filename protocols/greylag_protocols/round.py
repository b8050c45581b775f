"""An attempt's context: everything that all of its parties must have seen alike.

Masks are derived from the context, so a coordinator that shows two firms different rosters, models,
terms or logs gets noise instead of a sum.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.encoding import tagged_hash
from greylag_protocols.errors import VerificationError


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterKey:
    """A firm of the roster and its one-time key for this attempt."""

    firm: str
    key: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at one round. Rounds and attempts count from 1; attempts over the whole run."""

    terms: bytes  # digest
    run: str
    round_number: int
    attempt: int
    model: bytes  # digest of the published weights
    checkpoint: Checkpoint
    roster: tuple[RosterKey, ...]

    @property
    def firms(self) -> tuple[str, ...]:
        return tuple(entry.firm for entry in self.roster)

    def keys_digest(self) -> bytes:
        """A hash over all one-time keys of the roster: bytes that no party picks alone."""
        return roster_keys_digest(entry.key for entry in self.roster)

    def context(self) -> bytes:
        """The 32 bytes that bind this attempt.

        Raises:
            VerificationError: the roster is not sorted by name, or holds a name or key twice.
        """
        if list(self.firms) != sorted(set(self.firms)):
            raise VerificationError("the roster is not sorted and free of doubles")
        # Two firms under one key would add one mask with both signs, that is, none at all.
        if len({entry.key for entry in self.roster}) != len(self.roster):
            raise VerificationError("a one-time key stands twice in the roster")
        return tagged_hash(
            "greylag/context/v1",
            self.terms,
            self.run.encode(),
            self.round_number.to_bytes(8, "big"),
            self.attempt.to_bytes(8, "big"),
            self.model,
            self.checkpoint.text().encode(),
            *(part for entry in self.roster for part in (entry.firm.encode(), entry.key)),
        )


def roster_keys_digest(keys: Iterable[bytes]) -> bytes:
    """A hash over an attempt's one-time keys, in the roster's order."""
    return tagged_hash("greylag/roster-keys/v1", *keys)


def initial_seed(terms: bytes, acceptances: Sequence[bytes]) -> bytes:
    """The public seed of the first weights: terms digest and acceptance entries, sorted.

    No party alone picks it: every firm's signature is in it.
    """
    return tagged_hash("greylag/initial-seed/v1", terms, *sorted(acceptances))
