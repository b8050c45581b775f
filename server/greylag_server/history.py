"""What the log holds of a firm's chain, for a firm whose ledger has lost it."""

from collections.abc import Iterator

from greylag_protocols import log
from greylag_protocols.parsing import MAX_HISTORY
from greylag_protocols.signing import fingerprint, parse_statement

from greylag_server.roster import Firm
from greylag_server.store import Store


def history_of(store: Store, firm: Firm) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The log's entries of a firm's chain after those that it said it has, and the terms that they
    accept; nothing, unless it lacks some. The whole log is read: machines are rarely set back."""
    if firm.held is None or firm.held >= store.tip(firm.name).seq:
        return (), ()
    entries: list[bytes] = []
    past: list[bytes] = []
    for envelope in _chain(store, firm, after=firm.held):
        if len(entries) == MAX_HISTORY:
            break  # it says so when it has these, and is given the rest
        entries.append(envelope)
        statement = parse_statement(envelope)
        if statement.kind == log.ACCEPTANCE_KIND:
            terms = store.artefact(statement.digest)
            past += [] if terms is None else [terms]
    return tuple(entries), tuple(past)


def _chain(store: Store, firm: Firm, *, after: int) -> Iterator[bytes]:
    name = fingerprint(firm.identity_key).encode()  # a signature's key id
    for envelope in store.entries():
        if name in envelope:  # cheap: other firms' entries are never parsed
            statement = parse_statement(envelope)
            if statement.kind in log.CHAINED_KINDS and statement.predicate["seq"] > after:
                yield envelope
