"""Watching the lead's log: what is looked at whenever it is shown, and the cosignature."""

from collections.abc import Callable, Sequence

from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.errors import VerificationError
from greylag_protocols.log_view import LogView, choose_cosigners
from greylag_protocols.membership import Membership
from greylag_protocols.messages import Cosigned, Round, Show
from greylag_protocols.notes import cosign, verify_cosignature
from greylag_protocols.round import Attempt

from greylag_client.ledger import Ledger
from greylag_client.policy import Policy
from greylag_client.session import Identity
from greylag_client.witness import Past, Sight


class LogWatch:
    """One firm's watch over its lead's log."""

    def __init__(self, identity: Identity, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._identity = identity
        self._ledger = ledger
        self._clock = clock
        self._past = self._looked = Past()  # as it was cosigned; with what was looked at last
        self._waited: frozenset[tuple[str, int]] = frozenset()

    @property
    def size(self) -> int:
        """Entries of the log that this firm has seen."""
        return self._ledger.witness.sight().edge.size

    def look(self, view: LogView, *, held: int | None) -> Sight:
        """What is seen after ``view``; nothing is written yet.

        Args:
            held: how many of this firm's entries the lead says the log holds, if it does.

        Raises:
            VerificationError: see ``Sight.grown``.
        """
        known = self._ledger.witness.sight()
        sight = known.grown(
            view,
            origin=self._identity.consortium,
            lead_key=self._identity.lead_key,
            held=held,
            entries=self._ledger.entries_after(known.own),
        )
        self._looked = self._past.grown(known.edge, view)
        return sight

    def look_anew(self, view: LogView, behind: Sequence[bytes]) -> Sight:
        """The same of the whole log, with entries that the ledger lacks: a firm that was set back
        may since have been shown the part of the log that holds them."""
        origin, lead_key = self._identity.consortium, self._identity.lead_key
        view.extend(self._ledger.witness.sight().edge, origin=origin, lead_key=lead_key)
        own = (*self._ledger.entries_after(0), *behind)
        return Sight().grown(view, origin=origin, lead_key=lead_key, held=len(own), entries=own)

    def cosign(self, sight: Sight) -> bytes:
        """This firm's word for what it saw last, which is on the disk."""
        self._past = self._looked
        checkpoint = sight.checkpoint(self._identity.consortium)
        return cosign(self._identity.signer, checkpoint, time_s=max(0, int(self._clock())))

    def check_cosigned(self, message: Round, membership: Membership, policy: Policy) -> None:
        """So many other firms vouch for the log as this firm's policy wants; after ``look``.

        Unlike ``check_cosignatures`` this also holds where the lead says that nothing can be shown:
        after a new offer, in another roster.

        Raises:
            RefusedError: class ``policy``: too few, for too many rounds.
        """
        own, state = self._identity.firm, None
        if policy.min_cosignatures:
            state = self._looked.at(message.cosigned, origin=self._identity.consortium)
        count = 0 if state is None else count_cosigners(message, state, membership, own=own)
        if count >= policy.min_cosignatures:
            self._waited = frozenset()
            return
        waited = self._waited | {(message.run, message.round_number)}
        others = len(message.roster) - 1
        policy.check_cosigned(count, waited=len(waited), others=others)
        self._waited = waited

    def show(self, message: Show) -> Cosigned:
        """Answer a lead that only shows its log."""
        known = self._ledger.witness.sight()
        word, sight = b"", known
        if message.log.first <= known.edge.size:
            sight = self.look(message.log, held=None)
            self._ledger.keep_sight(sight)
            word = self.cosign(sight)
        return Cosigned(run=message.run, log_size=sight.edge.size, cosignature=word)


def count_cosigners(message: Round, state: Checkpoint, membership: Membership, *, own: str) -> int:
    """How many firms of the roster besides ``own`` cosigned ``state``.

    The words come without names but in the order of the firms', so that one pass finds whose they
    are. Behind one that is nobody's, none is counted.
    """
    words, count = list(message.cosignatures), 0
    for firm in sorted(message.roster):
        if not words:
            break
        try:
            verify_cosignature(state, words[0], membership.member(firm).identity_key)
        except VerificationError:
            continue
        del words[0]
        count += firm != own
    return count


def check_cosignatures(
    message: Round,
    attempt: Attempt,
    *,
    last: Checkpoint | None,
    last_round: int,
    last_roster: Sequence[str],
    membership: Membership,
) -> None:
    """Other firms saw the same log as this one at the last completed round.

    That was the last attempt that this firm answered, if the run has come a round further since and
    the roster is the same (else a round was completed without this firm, or the attempt is a retry
    of one that nobody knows the cosignatures of).

    Args:
        last: the log that the last attempt answered was bound to, if it is known.
        last_round: its round.
        last_roster: its firms.

    Raises:
        VerificationError: a word is missing, or is about another log.
    """
    if last is None or message.round_number == last_round:
        return
    if message.cosigned != last.size:
        if set(message.roster) == set(last_roster):
            raise VerificationError("cosignatures on another state of the lead's log")
        return
    both = [firm for firm in message.roster if firm in last_roster]
    chosen = choose_cosigners(both, context=attempt.keys_digest())
    if len(chosen) != len(message.cosignatures):
        raise VerificationError("cosignatures of other firms on the lead's log are missing")
    for firm, word in zip(chosen, message.cosignatures, strict=True):
        try:
            verify_cosignature(last, word, membership.member(firm).identity_key)
        except VerificationError:
            raise VerificationError(
                f"{firm} has not cosigned the log that this firm was shown: the lead may be "
                "showing firms different logs. Take part in nothing, and compare logs with them"
            ) from None
