"""The firm's side of a run: a state machine that trusts nobody's word for anything it can check.

    no session --Offer--> asking --peers vouch, Offer--> open --Close--> closed for ever
                            (only after a start)          |
                                                          +--Round--> paid, answered --> open

Every message is answered by exactly one; every refusal changes nothing (but what a ledger
lacked it may have got back before: ``rebuild``). Rules of an attempt:

1. Everything public is checked (roster, keys, model, counters); only here may the firm refuse.
2. The one-time key is taken; mask keys are agreed.
3. The debit is durable in the ledger.
4. Sample, clipped sum, noise, masks (``contribution``). **Nothing after the debit may refuse or
   fail because of data**: arithmetic that breaks counts as an empty sample, and the noise is sent.
5. Secrets are erased; the masked bytes alone are kept, for identical retransmission.

Masks are an injected part so that the lab's simulation can leave them out; the agent's own
composition (``greylag_client.composition``) knows only the real ones.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from greylag_protocols import log
from greylag_protocols.errors import (
    ConfigError,
    GreylagError,
    RefusalClass,
    RefusedError,
    VerificationError,
)
from greylag_protocols.membership import Membership, revoked_in
from greylag_protocols.messages import (
    Accepted,
    Ask,
    Asking,
    Close,
    Closed,
    Contribution,
    CoordinatorMessage,
    FirmMessage,
    Offer,
    Refusal,
    Round,
    Show,
)
from greylag_protocols.plan import parse_terms
from greylag_protocols.round import Attempt
from greylag_protocols.terms import Terms, terms_digest

from greylag_client.attempt_rules import check_keys, check_progress, check_roster, read_batches
from greylag_client.closing import close_run
from greylag_client.contribution import make_vector
from greylag_client.datasets import ANY
from greylag_client.ledger import Debit, Ledger, RunAccount
from greylag_client.log_watch import LogWatch, check_cosignatures
from greylag_client.masks import Masker
from greylag_client.peer_words import NONCE_BYTES, PeerWords
from greylag_client.policy import Policy, ReadPolicy
from greylag_client.rebuild import rebuild
from greylag_client.session import DataSource, Identity, LoadedData, Memberships, Session
from greylag_client.witness import Sight

logger = logging.getLogger(__name__)


def _refusal_class(error: GreylagError) -> RefusalClass:
    """What is told of an error: a table or policy that does not fit is the firm's own affair."""
    if isinstance(error, RefusedError):
        return error.refusal_class
    return "policy" if isinstance(error, ConfigError) else "protocol"


class Participant:
    """One firm's side of all its runs.

    Args:
        policy: reads the firm's rules, anew for every message (ConfigError: everything is refused).
        data: the firm's data sets.
        entropy: ``n -> n`` random bytes from the operating system.
        clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        policy: ReadPolicy,
        ledger: Ledger,
        memberships: Memberships,
        data: DataSource,
        masker: Masker,
        entropy: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._policy = policy
        self._ledger = ledger
        self._memberships = memberships
        self._data = data
        self._masker = masker
        self._entropy = entropy
        self._clock = clock
        self._watch = LogWatch(identity, ledger, clock)
        self._peers = PeerWords(identity, ledger, nonce=entropy(NONCE_BYTES).hex())
        self._sessions: dict[str, Session] = {}

    def handle(self, message: CoordinatorMessage) -> FirmMessage:
        """Answer a message. Refusals tell the coordinator a class; the reason stays in this log."""
        try:
            if isinstance(message, Offer):
                return self._accept(message)
            if isinstance(message, Ask):
                return self._peers.answer(message)
            if isinstance(message, Round):
                return self._contribute(message)
            if isinstance(message, Show):
                return self._watch.show(message)
            return self._close(message)
        except GreylagError as error:
            refusal_class = _refusal_class(error)
            self._note_refusal(message.run, refusal_class, error)
        statement = log.sign_refusal(
            self._identity.signer,
            firm=self._identity.firm,
            run=message.run,
            refusal_class=refusal_class,
        )
        return Refusal(run=message.run, refusal_class=refusal_class, statement=statement)

    def _note_refusal(self, run: str, refusal_class: RefusalClass, error: GreylagError) -> None:
        """Tell the firm's own people, once for each reason."""
        new = True
        with suppress(RefusedError):  # a disk that takes no note must not change the answer
            now_s = self._clock()
            new = self._ledger.refusals.note(run, refusal_class, str(error), now_s=now_s)
        level = logging.WARNING if new else logging.DEBUG
        logger.log(level, "%s: refused (%s): %s", run, refusal_class, error)

    def reply_offset_s(self, run: str) -> float:
        """How long after a request its answer leaves at the earliest: public, whatever the data."""
        session = self._sessions.get(run)
        return 0.0 if session is None else session.terms.training.reply_offset_s

    # -- offer ---------------------------------------------------------------------------------

    def _accept(self, offer: Offer) -> Accepted | Asking:
        identity = self._identity
        terms, digest = parse_terms(offer.terms), terms_digest(offer.terms)
        membership = self._approved_membership(offer, terms.privacy.max_colluding)
        if terms.consortium != identity.consortium or terms.run_id != offer.run:
            raise VerificationError("the terms are of another consortium or run; tell the lead")
        if rebuild(offer, self._ledger, identity, self._watch, now_s=self._clock()):
            self._sessions.clear()  # they, and peers' words, were about a shorter ledger
            self._peers.vouched_for = 0
        account = self._ledger.account(offer.run)
        if account is not None and account.closed:
            raise RefusedError("this run was closed here for ever", refusal_class="protocol")
        if account is not None and account.terms != offer.terms:
            raise VerificationError("other terms were accepted under this run id; tell the lead")
        # Also for a run under way: the firm may have changed its mind since.
        policy = self._allow(terms)
        known, seq = self._watch.size, self._ledger.tip().seq
        if (
            offer.seen > seq
            or not self._peers.agree(offer, membership, terms.privacy.max_colluding)
            or offer.log.first > known
        ):
            shown = 0 if offer.seen > seq else known  # what it lacks may stand anywhere
            return Asking(run=offer.run, nonce=self._peers.nonce, log_size=shown, seq=seq)
        sight = self._watch.look(offer.log, held=offer.seen)
        if account is None:
            names = self._ledger.affordable(
                self._data.fitting(terms), terms, policy=policy, now_s=self._clock()
            )
            loaded = self._data.load(terms, names)
            self._reserve(terms, offer.terms, digest, membership, policy, loaded)
        else:
            names = tuple(name for name in account.datasets if name != ANY)
            loaded = self._data.load(terms, names or self._data.fitting(terms))
            for name in self._ledger.rebind(offer.run, loaded.contents):
                logger.warning(
                    "%s: data set %s has changed since the run last read it", offer.run, name
                )
        session = Session(terms=terms, digest=digest, membership=membership, engine=loaded.engine)
        self._sessions[offer.run] = session
        last = account.last_attempt if account is not None else 0
        batch = session.renew_keys(
            identity,
            self._ledger.tip(),
            first=max(offer.next_attempt, last + 1, 1),
            entropy=self._entropy,
        )
        self._ledger.keep_sight(sight)
        return Accepted(
            run=offer.run,
            log_size=sight.edge.size,
            cosignature=self._watch.cosign(sight),
            entries=self._ledger.entries_after(offer.seen),
            batch=batch,
        )

    def _allow(self, terms: Terms) -> Policy:
        """The policy as it stands now, which allows these terms at this hour."""
        policy = self._policy()
        policy.check_terms(terms, datetime.fromtimestamp(self._clock(), UTC).astimezone())
        return policy

    def _approved_membership(self, offer: Offer, max_colluding: int) -> Membership:
        identity = self._identity
        membership = self._memberships.store_seen(offer.membership, now_s=self._clock())
        for envelope in offer.statements:
            if revoked_in(membership, [envelope]):  # others are of firms that are gone, or forged
                self._memberships.store_revocation(envelope, membership)
        own = membership.member(identity.firm)
        if own.identity_key != identity.signer.public_key:
            raise VerificationError(
                "the membership lists another key under this firm's name; take part in nothing "
                "and ask the lead"
            )
        revoked = revoked_in(membership, self._memberships.revocations())
        if identity.firm in revoked:
            raise VerificationError(
                "this firm's identity was revoked with its recovery key; join again as a new one"
            )
        digest, by_hand = membership.digest().hex(), self._memberships.approved()
        if digest not in by_hand:
            self._policy().check_membership(
                membership,
                offer.statements,
                trusted=by_hand.values(),
                firm=identity.firm,
                revoked=revoked,
                max_colluding=max_colluding,
            )
        return membership

    def _reserve(
        self,
        terms: Terms,
        encoded: bytes,
        digest: bytes,
        membership: Membership,
        policy: Policy,
        loaded: LoadedData,
    ) -> None:
        """Reserve the whole run's budget, with a signed acceptance."""
        identity, privacy = self._identity, terms.privacy
        self._ledger.accept(
            terms,
            encoded,
            contents=loaded.contents,
            policy=policy,
            now_s=self._clock(),
            sign=lambda tip: log.sign_acceptance(
                identity.signer,
                tip,
                firm=identity.firm,
                run=terms.run_id,
                terms=digest,
                epoch=membership.epoch,
            ),
        )
        logger.info(
            "%s: accepted on %s; epsilon %g at delta %g per %s reserved for %d releases (%s)",
            terms.run_id,
            ", ".join(loaded.contents),
            privacy.epsilon,
            privacy.delta,
            privacy.unit,
            privacy.max_attempts,
            terms.run.purpose,
        )

    # -- attempt -------------------------------------------------------------------------------

    def _contribute(self, message: Round) -> Contribution:
        session = self._sessions.get(message.run)
        account = self._ledger.account(message.run)
        if session is None or account is None or account.closed:
            raise RefusedError(
                "no open session for this run (the agent was restarted?); an offer is needed, and "
                "the lead makes one by itself",
                refusal_class="protocol",
            )
        attempt = message.attempt_under(session.digest, origin=session.terms.consortium)
        context = attempt.context()
        if session.last_reply is not None and session.last_context == context:
            return session.last_reply  # the same bytes again: nothing new is released
        policy = self._allow(session.terms)
        self._check(session, account, message, attempt, policy)
        own = attempt.firms.index(self._identity.firm)
        sight = self._watch.look(message.log, held=message.seen[own])
        self._watch.check_cosigned(message, session.membership, policy)
        private, secret = session.take_key(message.attempt)
        apply_masks = self._masker.agree(private, attempt.roster, own, context)
        self._debit(session, account, attempt, context, sight, policy)
        # From here on nothing about the data may show: no refusal, no failure.
        vector = make_vector(
            session.terms,
            session.engine,
            weights=message.weights,
            firms=len(attempt.roster),
            secret=secret,
            context=context,
            apply_masks=apply_masks,
        )
        batch = None
        if not session.keys and message.attempt < session.terms.privacy.max_attempts:
            batch = session.renew_keys(
                self._identity,
                self._ledger.tip(),
                first=message.attempt + 1,
                entropy=self._entropy,
            )
        reply = Contribution(
            run=message.run,
            attempt=message.attempt,
            vector=vector,
            cosignature=self._watch.cosign(sight),
            entries=self._ledger.entries_after(message.seen[own]),
            batch=batch,
        )
        session.last_context, session.last_reply = context, reply
        session.last_log = attempt.checkpoint
        return reply

    def _check(
        self,
        session: Session,
        account: RunAccount,
        message: Round,
        attempt: Attempt,
        policy: Policy,
    ) -> None:
        """Everything public that must hold before a debit; see ``attempt_rules``."""
        firm = self._identity.firm
        check_progress(session, account, message, now_s=self._clock())
        revoked = revoked_in(session.membership, self._memberships.revocations())
        check_roster(session, account, message, firm=firm, policy=policy, revoked=revoked)
        batches = read_batches(session, message)
        self._ledger.peers.note({name: batch.facts.tip for name, batch in batches.items()})
        session.batches.update(batches)
        check_keys(session, attempt, firm=firm)
        check_cosignatures(
            message,
            attempt,
            last=session.last_log,
            last_round=account.last_round,
            last_roster=account.roster,
            membership=session.membership,
        )

    def _debit(
        self,
        session: Session,
        account: RunAccount,
        attempt: Attempt,
        context: bytes,
        sight: Sight,
        policy: Policy,
    ) -> None:
        identity, event_type = self._identity, session.terms.mechanism.event_type
        self._ledger.debit(
            Debit(
                run=attempt.run,
                round_number=attempt.round_number,
                attempt=attempt.attempt,
                roster=attempt.firms,
                sight=sight,
            ),
            policy=policy,
            now_s=self._clock(),
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

    # -- close ---------------------------------------------------------------------------------

    def _close(self, message: Close) -> Closed:
        close_run(self._ledger, self._identity, message.run, logged=message.seen)
        self._sessions.pop(message.run, None)
        return Closed(run=message.run, entries=self._ledger.entries_after(message.seen))
