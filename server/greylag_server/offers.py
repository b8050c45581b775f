"""What a firm is offered: the terms, who belongs, the log, and what its ledger may lack."""

from greylag_protocols.membership import SignedMembership
from greylag_protocols.messages import Offer

from greylag_server.flight import Send
from greylag_server.history import history_of
from greylag_server.roster import Firm
from greylag_server.store import Store
from greylag_server.witnesses import Witnesses


class Offers:
    """The offers of one run."""

    def __init__(
        self,
        store: Store,
        witnesses: Witnesses,
        *,
        run: str,
        terms: bytes,
        membership: SignedMembership,
        membership_digest: bytes,
    ) -> None:
        self._store = store
        self._witnesses = witnesses
        self._run = run
        self._terms = terms
        self._membership = membership
        self._digest = membership_digest
        self._endorsements: tuple[bytes, ...] = ()  # that offers have carried

    def make(self, firm: Firm, *, next_attempt: int, peers: tuple[bytes, ...]) -> Send:
        """An offer, which is outstanding from now on."""
        firm.asked = True
        entries, past = history_of(self._store, firm)
        firm.held = None
        offer = Offer(
            run=self._run,
            next_attempt=next_attempt,
            # What the log holds, which the answers to an attempt under way are not yet in.
            seen=self._store.tip(firm.name).seq,
            terms=self._terms,
            membership=self._membership,
            log=self._witnesses.view([firm.log_size]),
            peers=peers,
            entries=entries,
            past=past,
            statements=self._statements(),
        )
        return Send(firm.name, offer.encode())

    def outdated(self) -> bool:
        """Whether somebody has endorsed the member list since the last offer."""
        return self._store.endorsements(self._digest) != self._endorsements

    def _statements(self) -> tuple[bytes, ...]:
        """What firms are to know of the member list: who was revoked, who endorses it."""
        self._endorsements = self._store.endorsements(self._digest)
        return (*self._store.revocations(), *self._endorsements)
