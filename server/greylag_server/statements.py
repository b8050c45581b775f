"""Monthly statements: what flowed between the lead and each firm, signed and in the log.

A period is a range of the log that begins where the last closed one ended; predictions are counted
by a meter that only grows. So nothing is counted twice or lost, whenever a period is closed.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from greylag_protocols.encoding import parse_as, parse_toml
from greylag_protocols.errors import ConfigError
from greylag_protocols.log import ChainTip
from greylag_protocols.membership import Membership
from greylag_protocols.signing import Signer, parse_statement
from greylag_protocols.usage import (
    USAGE_KIND,
    Predictions,
    Tariff,
    UsageStatement,
    count_entries,
    parse_usage,
    state_use,
    usage_digest,
)

from greylag_server.consortium import Consortium, stage_directory
from greylag_server.release.cosigned import Cosigned, find_cosigned, make_proofs
from greylag_server.store import Store

TARIFF_FILE = "tariff.toml"

Totals = Mapping[str, tuple[int, int]]  # by firm: rows and requests answered since the beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A statement, and the place of its entry in the log."""

    position: int
    envelope: bytes
    statement: UsageStatement


def read_tariff(consortium: Consortium) -> Tariff:
    """What the consortium agreed on, from ``tariff.toml`` in its directory; free without one.

    Raises:
        ConfigError: a file with other keys or values.
    """
    path = consortium.root / TARIFF_FILE
    if not path.exists():
        return Tariff()
    return parse_as(Tariff, parse_toml(path.read_bytes(), what=str(path)), what=str(path))


def read_statements(store: Store) -> list[Logged]:
    """All statements, in the log's order. The whole log is read: some seconds for a large one."""
    found = []
    for position, envelope in enumerate(store.entries()):
        entry = parse_statement(envelope)
        if entry.kind == USAGE_KIND:
            document = store.artefact(entry.digest)
            if document is None:
                raise ConfigError(
                    f"the statement of log entry {position} is not in this database: it was put "
                    "together from parts; restore a whole backup"
                )
            statement = parse_usage(document)
            found.append(Logged(position=position, envelope=envelope, statement=statement))
    return found


def open_period(
    store: Store,
    consortium: str,
    period: str,
    totals: Totals,
    tariff: Tariff,
    past: Sequence[Logged] | None = None,
) -> list[UsageStatement]:
    """What every firm's statement would say if the period were closed now.

    Args:
        consortium: its id.
        period: such as ``2026-11``.
        past: what ``read_statements`` found, if the caller has it.
    """
    found = read_statements(store) if past is None else past
    last = {item.statement.firm: item.statement for item in found}
    start = max((item.end_entry for item in last.values()), default=0)
    end = store.checkpoint().size
    # Every firm that was ever heard of has a statement of the last period.
    tips = {
        firm: ChainTip(seq=item.seq, head=bytes.fromhex(item.head)) for firm, item in last.items()
    }
    tips |= {firm: ChainTip() for firm in totals if firm not in tips}
    counted, releases = count_entries(itertools.islice(store.entries(start), end - start), tips)
    none, predictions = Predictions(), {}
    for firm, (rows, requests) in totals.items():
        before = last[firm].predictions if firm in last else none
        predictions[firm] = Predictions(
            rows_before=before.rows_after,
            rows_after=rows,
            requests_before=before.requests_after,
            requests_after=requests,
        )
    return state_use(
        consortium,
        period,
        (start, end),
        {firm: (tips.get(firm, ChainTip()), item) for firm, item in counted.items()},
        releases,
        predictions,
        tariff,
    )


def close_period(
    store: Store,
    consortium: str,
    period: str,
    totals: Totals,
    tariff: Tariff,
    signer: Signer,
) -> list[UsageStatement]:
    """Close a period for all firms: their statements are signed and in the log.

    Raises:
        ConfigError: it, or a later one, is closed already; or nothing has happened yet.
    """
    past = read_statements(store)
    closed = max((item.statement.period for item in past), default="")
    if period <= closed:
        raise ConfigError(
            f"{closed} is closed already; name a later period, the entries since then are in it"
        )
    statements = open_period(store, consortium, period, totals, tariff, past)
    if not statements:
        raise ConfigError("nothing has happened yet: there is nobody to state anything to")
    with store.transaction():
        since = (parse_statement(item).kind for item in store.entries(statements[0].end_entry))
        if USAGE_KIND in since:
            raise ConfigError("another process has just closed a period; look at `statement`")
        for item in statements:
            document = item.encode()
            store.keep(usage_digest(document), document)
        store.append([item.sign(signer) for item in statements])
    return statements


def write_statements(
    chosen: Sequence[Logged], out: Path, *, store: Store, signer: Signer, membership: Membership
) -> None:
    """A file for each firm in a new directory: the statement, the lead's word, and the proof that
    it is in the log.

    Raises:
        ConfigError: there is something already, or it cannot be written.
    """
    positions = [item.position for item in chosen]
    found = find_cosigned(store, membership, position=max(positions))
    best = max(found, key=lambda item: len(item.words), default=None)
    cosigned = best or Cosigned(checkpoint=store.checkpoint(), words={})
    proofs = make_proofs(store, signer, membership, cosigned, positions=positions)
    with stage_directory(out, last="") as staged:
        for logged, proof in zip(chosen, proofs, strict=True):
            content = {
                "statement": logged.statement.encode().decode(),
                "entry": logged.envelope.decode(),
                "proof": proof.decode(),
            }
            path = staged / f"{logged.statement.firm}-{logged.statement.period}.json"
            text = json.dumps(content, indent=1, ensure_ascii=False)
            path.write_text(text, encoding="utf-8")
