"""A ledger that was put back from an old copy, or lost, catches up from the lead's log.

The log holds the firm's own signed entries. Those that the ledger lacks are taken from an offer if
they follow its own last entry, are signed by the firm, and stand in the log that it is shown; a log
that goes on otherwise than the ledger is a fork, and stays refused. Nothing is ever lowered. What
entries do not tell is taken at its worst:

- When a run was accepted or last answered: now, so that it counts for the present year.
- Which data sets it read: all, also those opened later (``datasets.ANY``).
- The roster of its last answer: unknown, so the next one counts as a change. Which receipts before
  it changed the roster shows from their sizes and rounds, since this firm's own rules held then.
- What the log never got: every run that is open counts in full from now on, receipts or none.

Whether the lead held the newest entries back is not for this module: other firms' words tell.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from greylag_protocols.encoding import EXACT_INT
from greylag_protocols.errors import VerificationError
from greylag_protocols.log import ACCEPTANCE_KIND, RECEIPT_KIND, ChainTip
from greylag_protocols.messages import Offer
from greylag_protocols.plan import parse_terms
from greylag_protocols.signing import Statement, parse_statement
from greylag_protocols.terms import REJOIN_EVERY, terms_digest

from greylag_client.datasets import ANY
from greylag_client.ledger import Ledger, RunAccount
from greylag_client.log_watch import LogWatch
from greylag_client.session import Identity

logger = logging.getLogger(__name__)


def rebuild(
    offer: Offer, ledger: Ledger, identity: Identity, watch: LogWatch, *, now_s: float
) -> bool:
    """Take from an offer what this ledger lacks. Returns whether anything was.

    Raises:
        VerificationError: what the lead hands over is not how this ledger goes on; nothing was
            written.
    """
    start = ledger.tip()
    if offer.seen <= start.seq or not offer.entries or offer.log.first > 0:
        return False
    tip = _follow(offer.entries, start, identity)
    if tip.seq > offer.seen:
        raise VerificationError("the lead hands over more entries than it says the log holds")
    sight = watch.look_anew(offer.log, offer.entries)
    runs = fold(
        [parse_statement(envelope) for envelope in offer.entries],
        {item.run: item for item in ledger.accounts()},
        past={terms_digest(encoded): encoded for encoded in offer.past},
        consortium=identity.consortium,
        now_s=now_s,
    )
    complete = tip.seq == offer.seen
    ledger.rebuild(offer.entries, runs, after=start, sight=sight, complete=complete)
    told = (
        f"the ledger was {len(offer.entries)} entries behind the lead's log and was rebuilt from "
        f"them ({', '.join(item.run for item in runs)}): it had been restored from an old copy, or "
        "was lost. Budget that reached no log is charged at its worst: every run that is open here "
        "counts in full, and the runs named count for every data set. Find out who put it back"
    )
    logger.warning("%s: %s", offer.run, told)
    ledger.refusals.note(offer.run, "protocol", told, now_s=now_s)
    return True


def _follow(entries: Sequence[bytes], tip: ChainTip, identity: Identity) -> ChainTip:
    key = identity.signer.public_key
    try:
        for envelope in entries:
            tip = tip.follow(envelope, firm=identity.firm, identity_key=key)
    except VerificationError as error:
        raise VerificationError(
            f"the ledger cannot be rebuilt from what the lead hands over ({error}). A copy of this "
            "firm ran elsewhere, its machine was set back or copied, or the lead drops entries. "
            "Take part in nothing until that is cleared up"
        ) from None
    return tip


def fold(
    entries: Sequence[Statement],
    accounts: Mapping[str, RunAccount],
    *,
    past: Mapping[bytes, bytes],
    consortium: str,
    now_s: float,
) -> list[RunAccount]:
    """The accounts that ``entries`` change, as they are after them.

    Args:
        entries: this firm's own, checked, in order.
        accounts: the runs before them.
        past: terms by digest.

    Raises:
        VerificationError: the terms of an acceptance are missing or others, or an entry belongs to
            no run.
    """
    changed: dict[str, RunAccount] = {}
    sizes = {item.run: len(item.roster) for item in accounts.values() if item.roster}
    answered = set()
    for entry in entries:
        run = str(entry.predicate.get("run"))
        account = changed.get(run) or accounts.get(run)
        if entry.kind == ACCEPTANCE_KIND:
            changed[run] = _accepted(run, entry, account, past, consortium, now_s)
        elif account is None:
            raise VerificationError(
                f"entry {entry.predicate.get('seq')} is of no run ever accepted"
            )
        elif entry.kind == RECEIPT_KIND:
            size = _number(entry, "roster_size")
            moved = run in sizes and (
                # A new member needs such a round; without one, a roster that changed is smaller.
                size != sizes[run] or (_number(entry, "round") - 1) % REJOIN_EVERY == 0
            )
            sizes[run] = size
            answered.add(run)
            changed[run] = _charged(account, entry, moved, now_s)
        else:
            changed[run] = replace(account, closed=True)
    for run in answered:
        account = changed[run]
        changed[run] = replace(account, roster=(), roster_changes=account.roster_changes + 1)
    return list(changed.values())


def _accepted(
    run: str,
    entry: Statement,
    account: RunAccount | None,
    past: Mapping[bytes, bytes],
    consortium: str,
    now_s: float,
) -> RunAccount:
    encoded = past.get(entry.digest) if account is None else account.terms
    if encoded is None:
        raise VerificationError(f"the lead keeps back the terms of {run}, which this firm accepted")
    terms = parse_terms(encoded)
    if terms_digest(encoded) != entry.digest or (terms.run_id, terms.consortium) != (
        run,
        consortium,
    ):
        raise VerificationError(f"the terms of {run} are not those that this firm accepted")
    if account is not None:
        return account
    privacy = terms.privacy
    return RunAccount(
        run=run,
        terms=encoded,
        datasets=(ANY,),
        unit=privacy.unit,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        max_attempts=privacy.max_attempts,
        accepted_s=int(now_s),
        last_s=int(now_s),
        charged=0,
        last_attempt=0,
        last_round=0,
        roster=(),
        roster_changes=0,
        closed=False,
    )


def _charged(account: RunAccount, entry: Statement, moved: bool, now_s: float) -> RunAccount:
    charged = max(account.charged + 1, _number(entry, "charged"))
    return replace(
        account,
        datasets=tuple(sorted({*account.datasets, ANY})),
        last_s=int(now_s),
        charged=min(charged, account.max_attempts),
        last_attempt=max(account.last_attempt, _number(entry, "attempt")),
        last_round=max(account.last_round, _number(entry, "round")),
        roster_changes=account.roster_changes + moved,
    )


def _number(entry: Statement, key: str) -> int:
    value = entry.predicate.get(key)
    if type(value) is not int or not 0 < value <= EXACT_INT:
        raise VerificationError(f"a receipt of this firm without its {key}")
    return value
