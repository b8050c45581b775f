"""Firms' words about each other's ledgers: asked for after every start, and given when asked."""

from greylag_protocols.membership import Membership
from greylag_protocols.messages import Ask, Offer, Seen
from greylag_protocols.peers import Seen as SeenStatement
from greylag_protocols.peers import count_peers

from greylag_client.ledger import Ledger
from greylag_client.session import Identity

NONCE_BYTES = 32


class PeerWords:
    """One firm's side of it.

    Attributes:
        nonce: of this start, hex.
        vouched_for: the largest max_colluding for which enough peers confirmed this ledger since
            this start.
    """

    def __init__(self, identity: Identity, ledger: Ledger, *, nonce: str) -> None:
        self.nonce = nonce
        self.vouched_for = 0
        self._identity = identity
        self._ledger = ledger

    def answer(self, ask: Ask) -> Seen:
        """Say what was seen last of other firms that have just started."""
        identity, statements = self._identity, []
        for firm, nonce in zip(ask.firms, ask.nonces, strict=True):
            tip = self._ledger.peers.tip(firm)
            seen = SeenStatement(
                firm=identity.firm,
                consortium=identity.consortium,
                about=firm,
                nonce=nonce,
                seq=tip.seq,
            )
            statements.append(seen.sign(identity.signer, tip.head))
        return Seen(run=ask.run, statements=tuple(statements))

    def agree(self, offer: Offer, membership: Membership, max_colluding: int) -> bool:
        """Whether enough other firms vouch, since this start, that nothing is missing here.

        Enough for one run need not be enough for another, whose noise is to survive more liars.
        """
        if max_colluding > self.vouched_for and max_colluding < count_peers(
            offer.peers,
            membership=membership,
            firm=self._identity.firm,
            nonce=self.nonce,
            tip=self._ledger.tip(),
            head_at=self._ledger.head_at,
            max_colluding=max_colluding,
        ):
            self.vouched_for = max_colluding
        return max_colluding <= self.vouched_for
