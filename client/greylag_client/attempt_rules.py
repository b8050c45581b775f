"""What must hold of an attempt before a firm charges its budget. Public facts only.

Each rule refuses with an error of the tree; none of them changes anything.
"""

from collections.abc import Set

import numpy as np
from greylag_protocols.errors import RefusedError, VerificationError
from greylag_protocols.keys import VerifiedBatch, claimed_firm, verify_batch
from greylag_protocols.messages import Round
from greylag_protocols.round import Attempt
from greylag_protocols.terms import REJOIN_EVERY

from greylag_client.ledger import RunAccount
from greylag_client.policy import Policy
from greylag_client.session import Session

MAX_WEIGHT = 1e4  # weights beyond this are no model


def check_progress(session: Session, account: RunAccount, message: Round, *, now_s: float) -> None:
    """The run goes forwards, under a valid membership, with a key left and a usable model."""
    terms = session.terms
    if now_s >= session.membership.expires_s:
        raise VerificationError(
            f"membership epoch {session.membership.epoch} has expired; approve a newer one with "
            "`greylag-client members DIR --approve DIGEST`, or ask the lead to issue one"
        )
    if not 1 <= message.round_number <= terms.training.rounds:
        raise VerificationError(f"round {message.round_number} is outside the terms")
    if message.attempt not in session.keys:
        raise VerificationError(f"no one-time key for attempt {message.attempt} is left")
    if message.round_number < account.last_round:
        raise VerificationError("the run goes backwards: an earlier round")
    weights = message.weights
    if weights.shape != (terms.dimension,) or not np.all(np.abs(weights) <= MAX_WEIGHT):
        raise VerificationError("the weights have another shape or are out of range")


def check_roster(
    session: Session,
    account: RunAccount,
    message: Round,
    *,
    firm: str,
    policy: Policy,
    revoked: Set[str],
) -> None:
    """The roster is one that this firm can hide in, and changes rarely enough."""
    terms, privacy = session.terms, session.terms.privacy
    firms, round_number = message.roster, message.round_number
    if firm not in firms:
        raise VerificationError("this firm is not in the roster that it was sent")
    if len(firms) < max(privacy.min_firms, policy.min_firms):
        raise VerificationError(
            f"a roster of {len(firms)} firms is too small (min_firms is {privacy.min_firms} in the "
            f"terms, {policy.min_firms} in policy.toml); this firm goes on by itself when more are "
            "there"
        )
    if lost := revoked & set(firms):
        raise VerificationError(
            f"{', '.join(sorted(lost))}: identity revoked with the recovery key; whoever holds the "
            "old key could sit in this roster. Ask the lead for a member list without that key"
        )
    together = session.membership.coalition(firms)  # raises for a firm that is no member
    if together > privacy.max_colluding:
        raise VerificationError(
            f"the lead and one operator run {together} firms of the roster, the noise "
            f"survives only max_colluding = {privacy.max_colluding} of {terms.run_id}. The lead "
            "must leave some of them out, or make a plan with a larger max_colluding"
        )
    policy.check_company(session.membership, firms)
    before, now = set(account.roster), set(firms)
    if round_number == account.last_round and not now < before:
        raise VerificationError("a repeated round needs a strictly smaller roster")
    if not before or before == now:
        return
    if account.roster_changes >= policy.max_roster_changes:
        raise RefusedError(
            f"policy.toml: max_roster_changes = {policy.max_roster_changes} is used up for this "
            "run, which this firm now sits out; to go on, raise it in policy.toml",
            refusal_class="policy",
        )
    if now - before and (round_number - 1) % REJOIN_EVERY:
        raise VerificationError(
            f"firms may rejoin only at every {REJOIN_EVERY}th round; {round_number} is not one"
        )


def read_batches(session: Session, message: Round) -> dict[str, VerifiedBatch]:
    """The key batches that came along, each signed by the member that it names."""
    batches = {}
    for envelope in message.batches:
        claimed = claimed_firm(envelope)
        member = session.membership.member(claimed)
        batch = verify_batch(envelope, member.identity_key)
        facts = batch.facts
        expected = (claimed, message.run, session.digest.hex(), session.terms.consortium)
        found = (facts.firm, facts.run, facts.terms, facts.consortium)
        if expected != found or facts.epoch != session.membership.epoch:
            raise VerificationError(f"{claimed}: its keys are for another run or membership")
        batches[claimed] = batch
    return batches


def check_keys(session: Session, attempt: Attempt, *, firm: str) -> None:
    """Every key of the roster stands under its firm's signed batch; this firm's is its own."""
    for entry in attempt.roster:
        if entry.firm not in session.batches:
            raise VerificationError(f"{entry.firm}: its signed key batch was not sent")
        session.batches[entry.firm].check_key(entry.key, entry.proof, attempt=attempt.attempt)
        if entry.firm == firm and entry.key != session.keys[attempt.attempt].public:
            raise VerificationError("the roster holds another key under this firm's name")
