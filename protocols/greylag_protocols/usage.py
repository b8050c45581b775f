"""What flowed between the lead and a firm in a period: counts, and what they are worth.

A period is a range of the log, ``[first_entry, end_entry)``: each begins where the last one ended,
so that nothing is counted twice or left out. The lead signs a document for every firm; the log
holds its digest (``usage/v1``). Whoever holds the log can count again what it shows, as a firm does
with its own entries; what it cannot show (predictions) is a signed claim.

Money is decimal, in hundredths, written as text; shares are rounded down, so that they never add up
to more than there is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Annotated, Literal

from pydantic import Field

from greylag_protocols import log
from greylag_protocols.encoding import canonical_json, parse_as, parse_json, tagged_hash
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.log import GENESIS, ChainTip
from greylag_protocols.signing import Signer, parse_statement, verify_statement
from greylag_protocols.terms import NAME_PATTERN, STRICT

USAGE_KIND = "usage/v1"
MAX_STATEMENT_BYTES = 1 << 20
CENT = Decimal("0.01")

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Period = Annotated[str, Field(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]
Price = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,4})?$")]
Part = Annotated[str, Field(pattern=r"^(0(\.[0-9]{1,4})?|1(\.0{1,4})?)$")]
Amount = Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]{0,14})\.[0-9]{2}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What the consortium agreed on; without one everything is free.

    Attributes:
        thousand_rows: a firm pays for 1,000 predicted rows.
        release: a firm pays for each release of the period.
        attempt: a firm is paid for each attempt that it charged its budget for.
        shared_part: of what all paid for predictions, the part that goes to those who trained.
        sharing: by charged attempts, or equally among those with at least one.
    """

    __pydantic_config__ = STRICT
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "CNY"
    thousand_rows: Price = "0"
    release: Price = "0"
    attempt: Price = "0"
    shared_part: Part = "0"
    sharing: Literal["attempts", "equal"] = "attempts"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUse:
    """A firm in a run: attempts that it charged, and completed rounds that its sum is in."""

    __pydantic_config__ = STRICT
    run: Annotated[str, Field(max_length=200)]
    attempts: Count
    rounds: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Answered by the lead since the consortium began, before the period and at its end."""

    __pydantic_config__ = STRICT
    rows_before: Count = 0
    rows_after: Count = 0
    requests_before: Count = 0
    requests_after: Count = 0

    @property
    def rows(self) -> int:
        return self.rows_after - self.rows_before


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One position: the firm pays where ``amount`` is positive, and is paid where negative."""

    __pydantic_config__ = STRICT
    what: Literal["predictions", "releases", "attempts", "share"]
    count: Count
    amount: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageStatement:
    """One firm's statement.

    Attributes:
        seq_before, seq, head: the firm's chain at the period's bounds; ``head`` hex.
        releases: model digests (hex) that were entered in the period.
        paid_by_all: what all firms owe for predictions; ``shares`` of ``all_shares`` come back.
    """

    __pydantic_config__ = STRICT
    consortium: Annotated[str, Field(max_length=200)]
    firm: Name
    period: Period
    first_entry: Count
    end_entry: Count
    seq_before: Count
    seq: Count
    head: Hex32
    runs: Annotated[tuple[RunUse, ...], Field(max_length=1000)]
    releases: Annotated[tuple[Hex32, ...], Field(max_length=1000)]
    predictions: Predictions
    tariff: Tariff
    paid_by_all: Amount
    shares: Count
    all_shares: Count
    lines: Annotated[tuple[Line, ...], Field(max_length=10)]
    total: Amount

    def encode(self) -> bytes:
        """The canonical document."""
        return canonical_json(self)

    def sign(self, signer: Signer) -> bytes:
        """The log's entry."""
        predicate = {"firm": self.firm, "period": self.period, "end_entry": self.end_entry}
        return signer.sign(USAGE_KIND, self.firm, usage_digest(self.encode()), predicate)


def usage_digest(document: bytes) -> bytes:
    """Hash of a statement's bytes, 32 bytes."""
    return tagged_hash("greylag/usage/v1", document)


def parse_usage(document: bytes) -> UsageStatement:
    """A statement whose own sums are right.

    Raises:
        VerificationError: not one, or its lines do not follow from its counts and tariff.
    """
    value = parse_json(document, max_bytes=MAX_STATEMENT_BYTES)
    try:
        statement = parse_as(UsageStatement, value, what="usage statement")
    except ConfigError as error:
        raise VerificationError(str(error)) from None
    if priced(statement) != statement:
        raise VerificationError(
            "the statement's lines do not follow from its counts and its tariff: ask the lead"
        )
    return statement


def verify_usage(document: bytes, envelope: bytes, lead_key: bytes) -> UsageStatement:
    """The statement, if ``lead_key`` signed ``envelope`` over this very document.

    Raises:
        VerificationError: anything at all is out of order.
    """
    signed = verify_statement(envelope, lead_key, USAGE_KIND)
    if signed.digest != usage_digest(document):
        raise VerificationError("the signed entry is about another statement")
    statement = parse_usage(document)
    if signed.subject != statement.firm:
        raise VerificationError("the signed entry is about another firm")
    return statement


@dataclass(slots=True)
class Counted:
    """What a range of the log shows of one firm."""

    tip: ChainTip
    attempts: dict[str, int]
    rounds: dict[str, int]

    def runs(self) -> tuple[RunUse, ...]:
        return tuple(
            RunUse(run=run, attempts=self.attempts.get(run, 0), rounds=self.rounds.get(run, 0))
            for run in sorted(self.attempts.keys() | self.rounds.keys())
        )


def count_entries(
    entries: Iterable[bytes], tips: Mapping[str, ChainTip]
) -> tuple[dict[str, Counted], tuple[str, ...]]:
    """Count the entries of a period, whose signatures are the caller's matter.

    Args:
        tips: where firms' chains stood before; a firm that is not named began in the period.

    Returns: each firm's counts, and the digests of releases (hex).
    """
    counted = {name: Counted(tip, {}, {}) for name, tip in tips.items()}
    releases = []

    def of(firm: str) -> Counted:
        return counted.setdefault(firm, Counted(ChainTip(), {}, {}))

    for envelope in entries:
        statement = parse_statement(envelope)
        kind, predicate = statement.kind, statement.predicate
        if kind in log.CHAINED_KINDS:
            firm = of(predicate["firm"])
            firm.tip = ChainTip(seq=predicate["seq"], head=log.entry_head(envelope))
            if kind == log.RECEIPT_KIND:
                firm.attempts[predicate["run"]] = firm.attempts.get(predicate["run"], 0) + 1
        elif kind == log.ROUND_KIND:
            for item in predicate["roster"]:
                rounds = of(item["firm"]).rounds
                rounds[predicate["run"]] = rounds.get(predicate["run"], 0) + 1
        elif kind.startswith("release/"):
            releases.append(statement.digest.hex())
    return counted, tuple(releases)


def owed_for_rows(rows: int, tariff: Tariff) -> Decimal:
    """What predictions cost a firm."""
    return (Decimal(tariff.thousand_rows) * rows / 1000).quantize(CENT, ROUND_HALF_UP)


def shares_of(runs: Iterable[RunUse], tariff: Tariff) -> int:
    """How many shares a firm has in what is shared."""
    attempts = sum(item.attempts for item in runs)
    return min(attempts, 1) if tariff.sharing == "equal" else attempts


def priced(statement: UsageStatement) -> UsageStatement:
    """The statement with the lines and the total that follow from its counts."""
    tariff, rows = statement.tariff, statement.predictions.rows
    attempts = sum(item.attempts for item in statement.runs)
    pool = Decimal(statement.paid_by_all) * Decimal(tariff.shared_part)
    share = pool * statement.shares / max(1, statement.all_shares)
    amounts: list[tuple[Literal["predictions", "releases", "attempts", "share"], int, Decimal]] = [
        ("predictions", rows, owed_for_rows(rows, tariff)),
        ("releases", len(statement.releases), Decimal(tariff.release) * len(statement.releases)),
        ("attempts", attempts, -Decimal(tariff.attempt) * attempts),
        ("share", statement.shares, -share),
    ]
    lines = tuple(
        Line(what=what, count=count, amount=money(amount)) for what, count, amount in amounts
    )
    total = sum((Decimal(line.amount) for line in lines), Decimal(0))
    return replace(statement, lines=lines, total=money(total))


def money(amount: Decimal) -> str:
    """An amount in its one accepted form; hundredths, toward nought, and never ``-0.00``."""
    return f"{amount.quantize(CENT, ROUND_DOWN) + Decimal(0):.2f}"


def state_use(
    consortium: str,
    period: str,
    entries: tuple[int, int],
    counted: Mapping[str, tuple[ChainTip, Counted]],
    releases: tuple[str, ...],
    predictions: Mapping[str, Predictions],
    tariff: Tariff,
) -> list[UsageStatement]:
    """Every firm's statement of a period.

    Args:
        entries: the period's range of the log.
        counted: by firm, where its chain stood before, and what was counted.
        predictions: by firm; who is not named asked for none.
    """
    none = Predictions()
    owed = [owed_for_rows(predictions.get(name, none).rows, tariff) for name in counted]
    shares = {name: shares_of(now.runs(), tariff) for name, (_, now) in counted.items()}
    return [
        priced(
            UsageStatement(
                consortium=consortium,
                firm=name,
                period=period,
                first_entry=entries[0],
                end_entry=entries[1],
                seq_before=before.seq,
                seq=now.tip.seq,
                head=now.tip.head.hex(),
                runs=now.runs(),
                releases=releases,
                predictions=predictions.get(name, none),
                tariff=tariff,
                paid_by_all=money(sum(owed, Decimal(0))),
                shares=shares[name],
                all_shares=sum(shares.values()),
                lines=(),
                total="0.00",
            )
        )
        for name, (before, now) in sorted(counted.items())
    ]


def compare_with_own(
    statement: UsageStatement, entries: Iterable[bytes], head: bytes | None
) -> list[str]:
    """What a firm's own chain says against a statement; empty if both agree.

    Args:
        entries: the firm's own entries of numbers ``seq_before + 1`` to ``seq``.
        head: of its entry ``seq``, or None if it has none of that number.
    """
    if statement.seq == 0:
        head = GENESIS if head is None else head
    if head is None or head.hex() != statement.head:
        return [
            f"entry {statement.seq} of this firm's ledger is not what the statement ends with: a "
            "ledger put back from an old copy, or another log"
        ]
    counted, _ = count_entries(entries, {})
    own = {run: count for item in counted.values() for run, count in item.attempts.items()}
    theirs = {item.run: item.attempts for item in statement.runs if item.attempts}
    return [
        f"{run}: the statement counts {theirs.get(run, 0)} charged attempts, this firm's ledger "
        f"{own.get(run, 0)}"
        for run in sorted(own.keys() | theirs.keys())
        if own.get(run, 0) != theirs.get(run, 0)
    ]
