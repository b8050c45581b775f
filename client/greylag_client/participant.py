"""The firm's side of a run: a state machine that trusts nobody's word for anything it can check.

Order within an attempt, and why:

1. Everything public is checked (roster, keys, model, counters); only here may the firm refuse.
2. The one-time key is taken; mask keys are agreed.
3. The debit is durable in the ledger.
4. Sample, clipped sum, noise, masks. **Nothing after the debit may refuse or fail because of
   data**: arithmetic that breaks counts as an empty sample, and the noise is sent all the same.
5. Secrets are erased; the masked bytes alone are kept, for identical retransmission.

Masks are an injected part so that the lab's simulation can leave them out; the agent's own
composition (``greylag_client.agent``) knows only the real ones.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from greylag_protocols import log, masking
from greylag_protocols.errors import (
    ConfigError,
    GreylagError,
    RefusalClass,
    RefusedError,
    VerificationError,
)
from greylag_protocols.keys import (
    MAX_BATCH,
    sign_batch,
)
from greylag_protocols.membership import Membership, SignedMembership
from greylag_protocols.messages import (
    Accepted,
    Close,
    Closed,
    Contribution,
    CoordinatorMessage,
    FirmMessage,
    Offer,
    Refusal,
    Round,
    SignedBatch,
)
from greylag_protocols.plan import parse_terms
from greylag_protocols.round import Attempt
from greylag_protocols.signing import Signer
from greylag_protocols.terms import Terms, terms_digest
from numpy.typing import NDArray

from greylag_client.attempt_rules import check_keys, check_progress, check_roster, read_batches
from greylag_client.ledger import Debit, Ledger, RunAccount
from greylag_client.masks import Masker
from greylag_client.policy import Policy
from greylag_client.sampling import draw_normals, sample_units
from greylag_client.session import ClippedSums, OneTimeKey, Session

logger = logging.getLogger(__name__)

DATASET = "main"


class Memberships(Protocol):
    """Which membership epochs this firm's security officer approved (``FirmDirectory``)."""

    def approved(self) -> dict[str, Membership]:
        """The approved epochs by digest (hex)."""

    def store_seen(self, signed: SignedMembership, *, now_s: float) -> Membership:
        """Verify an epoch under the pinned lead key and keep it, so that it can be approved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this firm is."""

    firm: str
    consortium: str
    signer: Signer


def _refusal_class(error: GreylagError) -> RefusalClass:
    """What is told of an error: a table or policy that does not fit is the firm's own affair."""
    if isinstance(error, RefusedError):
        return error.refusal_class
    return "policy" if isinstance(error, ConfigError) else "protocol"


class Participant:
    """One firm's side of all its runs.

    Args:
        load_engine: reads the firm's table for given terms and checks it (ConfigError when it does
            not fit), and builds the training engine.
        entropy: ``n -> n`` random bytes from the operating system.
        clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        policy: Policy,
        ledger: Ledger,
        memberships: Memberships,
        load_engine: Callable[[Terms], ClippedSums],
        masker: Masker,
        entropy: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._policy = policy
        self._ledger = ledger
        self._memberships = memberships
        self._load_engine = load_engine
        self._masker = masker
        self._entropy = entropy
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def handle(self, message: CoordinatorMessage) -> FirmMessage:
        """Answer a message. Refusals tell the coordinator a class; the reason stays in this log."""
        try:
            if isinstance(message, Offer):
                return self._accept(message)
            if isinstance(message, Round):
                return self._contribute(message)
            return self._close(message)
        except GreylagError as error:
            refusal_class = _refusal_class(error)
            logger.warning("%s: refused (%s): %s", message.run, refusal_class, error)
        statement = log.sign_refusal(
            self._identity.signer,
            firm=self._identity.firm,
            run=message.run,
            refusal_class=refusal_class,
        )
        return Refusal(run=message.run, refusal_class=refusal_class, statement=statement)

    def reply_offset_s(self, run: str) -> float:
        """How long after a request its answer leaves at the earliest: public, whatever the data."""
        session = self._sessions.get(run)
        return 0.0 if session is None else session.terms.training.reply_offset_s

    # -- offer ---------------------------------------------------------------------------------

    def _accept(self, offer: Offer) -> Accepted:
        identity = self._identity
        membership = self._approved_membership(offer.membership)
        terms, digest = parse_terms(offer.terms), terms_digest(offer.terms)
        if terms.consortium != identity.consortium or terms.run_id != offer.run:
            raise VerificationError("the terms are of another consortium or run")
        account = self._ledger.account(offer.run)
        if account is not None and account.closed:
            raise RefusedError("this run was closed here for ever", refusal_class="protocol")
        if account is not None and account.terms != offer.terms:
            raise VerificationError("other terms were accepted under this run id before")
        # Also for a run under way: the firm may have changed its mind since.
        self._policy.check_terms(terms)
        engine = self._load_engine(terms)
        if account is None:
            self._ledger.accept(
                terms,
                offer.terms,
                dataset=DATASET,
                policy=self._policy,
                sign=lambda tip: log.sign_acceptance(
                    identity.signer,
                    tip,
                    firm=identity.firm,
                    run=offer.run,
                    terms=digest,
                    epoch=membership.epoch,
                ),
            )
            logger.info(
                "%s: accepted; epsilon %g at delta %g reserved for %d releases (%s)",
                offer.run,
                terms.privacy.epsilon,
                terms.privacy.delta,
                terms.privacy.max_attempts,
                terms.run.purpose,
            )
        session = Session(terms=terms, digest=digest, membership=membership, engine=engine)
        self._sessions[offer.run] = session
        last = account.last_attempt if account is not None else 0
        batch = self._new_batch(session, first=max(offer.next_attempt, last + 1, 1))
        return Accepted(run=offer.run, entries=self._ledger.entries_after(offer.seen), batch=batch)

    def _approved_membership(self, signed: SignedMembership) -> Membership:
        identity = self._identity
        membership = self._memberships.store_seen(signed, now_s=self._clock())
        own = membership.member(identity.firm)
        if own.identity_key != identity.signer.public_key:
            raise VerificationError("the membership lists another key under this firm's name")
        digest = membership.digest().hex()
        if digest not in self._memberships.approved():
            raise RefusedError(
                f"membership epoch {membership.epoch} is not approved here. Look at it with "
                f"`greylag-client members DIR` and approve it with --approve {digest}",
                refusal_class="policy",
            )
        return membership

    def _new_batch(self, session: Session, *, first: int) -> SignedBatch:
        """Fresh one-time keys for ``first`` onwards; whatever was left of older ones is dropped."""
        identity, terms = self._identity, session.terms
        for stale in session.keys.values():
            stale.take()
        count = max(1, min(MAX_BATCH, terms.privacy.max_attempts - first + 1))
        session.keys = {}
        for attempt in range(first, first + count):
            private = self._entropy(32)
            session.keys[attempt] = OneTimeKey(
                private=bytearray(private),
                secret=bytearray(self._entropy(32)),
                public=masking.public_key(private),
            )
        public = tuple(key.public for key in session.keys.values())
        statement = sign_batch(
            identity.signer,
            public,
            firm=identity.firm,
            consortium=identity.consortium,
            epoch=session.membership.epoch,
            run=terms.run_id,
            terms=session.digest,
            first=first,
            tip=self._ledger.tip(),
        )
        return SignedBatch(statement=statement, keys=public)

    # -- attempt -------------------------------------------------------------------------------

    def _contribute(self, message: Round) -> Contribution:
        session = self._sessions.get(message.run)
        account = self._ledger.account(message.run)
        if session is None or account is None or account.closed:
            raise RefusedError(
                "no open session for this run (the agent was restarted?); an offer is needed",
                refusal_class="protocol",
            )
        attempt = message.attempt_under(session.digest, origin=session.terms.consortium)
        context = attempt.context()
        if session.last_reply is not None and session.last_context == context:
            return session.last_reply  # the same bytes again: nothing new is released
        self._check(session, account, message, attempt)
        terms, grid = session.terms, session.terms.grid(len(attempt.roster))
        own = attempt.firms.index(self._identity.firm)
        private, secret = session.keys.pop(message.attempt).take()
        apply_masks = self._masker.agree(private, attempt.roster, own, context)
        self._debit(session, account, attempt, context)
        # From here on nothing about the data may show: no refusal, no failure.
        vector = grid.encode(
            self._clipped_sum(session, message, secret, context),
            draw_normals(secret, context, terms.dimension),
        ).view(np.uint32)
        apply_masks(vector)
        last_key = not session.keys or message.attempt >= max(session.keys)
        more = last_key and message.attempt < terms.privacy.max_attempts
        reply = Contribution(
            run=message.run,
            attempt=message.attempt,
            vector=vector,
            entries=self._ledger.entries_after(message.seen[own]),
            batch=self._new_batch(session, first=message.attempt + 1) if more else None,
        )
        session.last_context, session.last_reply = context, reply
        session.log_size = message.log_size
        return reply

    def _check(
        self, session: Session, account: RunAccount, message: Round, attempt: Attempt
    ) -> None:
        """Everything public that must hold before a debit; see ``attempt_rules``."""
        firm = self._identity.firm
        check_progress(session, account, message, now_s=self._clock())
        check_roster(session, account, message, firm=firm, policy=self._policy)
        for name, batch in read_batches(session, message).items():
            self._ledger.note_peer(name, batch.facts.seq)
            session.batches[name] = batch
        check_keys(session, attempt, firm=firm)
        own = attempt.firms.index(firm)
        if message.seen[own] > self._ledger.tip().seq:
            raise VerificationError(
                "the log holds entries of this firm that its ledger lacks: the ledger was "
                "restored from an old copy. Rebuild it before going on"
            )

    def _debit(
        self, session: Session, account: RunAccount, attempt: Attempt, context: bytes
    ) -> None:
        identity, event_type = self._identity, session.terms.mechanism.event_type
        self._ledger.debit(
            Debit(
                run=attempt.run,
                round_number=attempt.round_number,
                attempt=attempt.attempt,
                roster=attempt.firms,
            ),
            sign=lambda tip: log.sign_receipt(
                identity.signer,
                tip,
                firm=identity.firm,
                run=attempt.run,
                round_number=attempt.round_number,
                attempt=attempt.attempt,
                context=context,
                roster_size=len(attempt.roster),
                event_type=event_type,
                charged=account.charged + 1,
            ),
        )

    def _clipped_sum(
        self, session: Session, message: Round, secret: bytes, context: bytes
    ) -> NDArray[np.float64]:
        """The firm's signal; zeros if the arithmetic breaks: it must look like an empty sample."""
        terms = session.terms
        try:
            units = sample_units(
                secret,
                context,
                units=len(session.engine),
                rate=terms.training.sampling_rate,
                cap=terms.batch_cap,
            )
            return session.engine.clipped_sum(message.weights, units)
        except Exception:  # whatever breaks after the debit, the noise must be sent
            logger.exception("%s: the gradient failed; noise alone was sent", message.run)
            return np.zeros(terms.dimension)

    # -- close ---------------------------------------------------------------------------------

    def _close(self, message: Close) -> Closed:
        account = self._ledger.account(message.run)
        if account is None:
            raise RefusedError("this run was never accepted here", refusal_class="protocol")
        identity = self._identity
        self._ledger.close_run(
            message.run,
            sign=lambda tip: log.sign_closed(
                identity.signer,
                tip,
                firm=identity.firm,
                run=message.run,
                terms=terms_digest(account.terms),
                charged=account.charged,
            ),
        )
        self._sessions.pop(message.run, None)
        return Closed(run=message.run, entries=self._ledger.entries_after(message.seen))
