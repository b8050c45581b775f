"""Closing a run for ever, on the lead's word or by the firm's own decision."""

from greylag_protocols import log
from greylag_protocols.errors import RefusedError
from greylag_protocols.terms import terms_digest

from greylag_client.ledger import Ledger, RunAccount
from greylag_client.session import Identity


def close_run(ledger: Ledger, identity: Identity, run: str, *, logged: int = 0) -> RunAccount:
    """Close a run for ever: on the lead's word, or by the firm's own decision.

    Args:
        logged: how many of this firm's entries the lead says the log holds.

    Raises:
        RefusedError: the run was never accepted here, or the ledger lacks entries: a closed entry
            in the place of one of them would fork the firm's chain.
    """
    if logged > ledger.tip().seq:
        raise RefusedError(
            "the log holds entries of this firm that its ledger lacks; it is rebuilt from them "
            "when the lead next offers a run",
            refusal_class="protocol",
        )
    account = ledger.account(run)
    if account is None:
        raise RefusedError(f"run {run} was never accepted here", refusal_class="protocol")
    ledger.close_run(
        run,
        sign=lambda tip: log.sign_closed(
            identity.signer,
            tip,
            firm=identity.firm,
            run=run,
            terms=terms_digest(account.terms),
            charged=account.charged,
        ),
    )
    return account
