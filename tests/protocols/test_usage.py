"""Usage statements: what a range of the log shows, what it is worth, and whose word it is."""

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from greylag_protocols import log
from greylag_protocols.accounting import EventType
from greylag_protocols.errors import VerificationError
from greylag_protocols.log import AttemptRecord, ChainTip
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.usage import (
    Predictions,
    RunUse,
    Tariff,
    UsageStatement,
    compare_with_own,
    count_entries,
    money,
    parse_usage,
    priced,
    state_use,
    usage_digest,
    verify_usage,
)
from hypothesis import given
from hypothesis import strategies as st

LEAD = Ed25519Signer(b"\x09" * 32)
FIRMS = {name: Ed25519Signer(bytes([at + 1] * 32)) for at, name in enumerate(("acme", "bolt"))}
EVENT: EventType = "gaussian/v1"
TARIFF = Tariff(
    thousand_rows="2.5", release="10", attempt="0.1", shared_part="0.5", sharing="attempts"
)


class Book:
    """A log that grows."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.tips = dict.fromkeys(FIRMS, ChainTip())

    def accept(self, firm: str) -> None:
        self._chain(
            firm,
            log.sign_acceptance(
                FIRMS[firm], self.tips[firm], firm=firm, run="r", terms=bytes(32), epoch=1
            ),
        )

    def charge(self, firm: str, attempt: int) -> None:
        self._chain(
            firm,
            log.sign_receipt(
                FIRMS[firm],
                self.tips[firm],
                firm=firm,
                run="r",
                round_number=1,
                attempt=attempt,
                context=bytes(32),
                roster_size=2,
                event_type=EVENT,
                charged=attempt,
            ),
        )

    def complete(self, *firms: str) -> None:
        record = AttemptRecord(
            run="r",
            round_number=1,
            attempt=1,
            context=bytes(32),
            roster=firms,
            tips=[self.tips[name] for name in firms],
        )
        self.entries.append(
            log.sign_round(
                LEAD,
                record,
                model_in=bytes(32),
                state_out=bytes(32),
                sum_digest=bytes(32),
                grid_step="0x1p-10",
                event_type=EVENT,
            )
        )

    def release(self) -> None:
        self.entries.append(LEAD.sign("release/v1", "r", b"\x07" * 32, {}))

    def _chain(self, firm: str, entry: bytes) -> None:
        self.entries.append(entry)
        self.tips[firm] = ChainTip(seq=self.tips[firm].seq + 1, head=log.entry_head(entry))


def month() -> tuple[Book, list[UsageStatement]]:
    """Two firms accepted before the period; acme charged three attempts in it, bolt one."""
    book = Book()
    for name in FIRMS:
        book.accept(name)
    start = len(book.entries)
    before = dict(book.tips)
    book.entries.append(LEAD.sign("terms/v1", "r", bytes(32), {}))  # nobody's account
    book.charge("acme", 1)
    book.charge("bolt", 1)
    book.complete("acme", "bolt")
    book.charge("acme", 2)
    book.charge("acme", 3)
    book.release()
    counted, releases = count_entries(book.entries[start:], before)
    statements = state_use(
        "glass-1",
        "2026-11",
        (start, len(book.entries)),
        {name: (before[name], counted[name]) for name in counted},
        releases,
        {"bolt": Predictions(rows_before=500, rows_after=8_501, requests_after=2)},
        TARIFF,
    )
    return book, statements


def own_entries(book: Book, statement: UsageStatement) -> list[bytes]:
    """What the firm's ledger holds of the period."""
    key = FIRMS[statement.firm].public_key
    own = []
    for entry in book.entries:
        try:
            log.verify_chained(entry, key)
        except VerificationError:
            continue
        own.append(entry)
    return own[statement.seq_before : statement.seq]


def test_what_the_log_shows_is_counted_and_priced() -> None:
    _, (acme, bolt) = month()
    assert acme.runs == (RunUse(run="r", attempts=3, rounds=1),)
    assert bolt.runs == (RunUse(run="r", attempts=1, rounds=1),)
    assert acme.releases == bolt.releases == ((b"\x07" * 32).hex(),)
    assert (acme.seq_before, acme.seq) == (1, 4)
    # bolt pays for 8,001 rows: 20.0025, so 20.00; half of it is shared 3 to 1
    assert [(line.what, line.count, line.amount) for line in bolt.lines] == [
        ("predictions", 8001, "20.00"),
        ("releases", 1, "10.00"),
        ("attempts", 1, "-0.10"),
        ("share", 1, "-2.50"),
    ]
    assert (acme.total, bolt.total) == ("2.20", "27.40")  # 10 - 0.30 - 7.50; the sum of the lines


def test_a_firm_that_begins_in_the_period() -> None:
    book = Book()
    book.accept("acme")
    counted, releases = count_entries(book.entries, {})
    assert (counted["acme"].tip, releases) == (book.tips["acme"], ())
    assert counted["acme"].runs() == ()


def test_equal_shares_and_a_free_tariff() -> None:
    _, statements = month()
    equal = replace(TARIFF, sharing="equal")
    counted = {item.firm: item for item in statements}
    shares = {
        name: priced(replace(item, tariff=equal, shares=1, all_shares=2)).lines[3].amount
        for name, item in counted.items()
    }
    assert shares == {"acme": "-5.00", "bolt": "-5.00"}
    book = Book()
    book.charge("acme", 1)
    after, _ = count_entries(book.entries, {})
    for tariff, share in ((Tariff(sharing="equal"), 1), (Tariff(), 1)):
        (item,) = state_use(
            "glass-1", "2026-12", (0, 1), {"acme": (ChainTip(), after["acme"])}, (), {}, tariff
        )
        assert (item.shares, item.total) == (share, "0.00")


def test_both_sides_agree_or_say_where_not() -> None:
    book, (acme, _) = month()
    own = own_entries(book, acme)
    head = bytes.fromhex(acme.head)
    assert compare_with_own(acme, own, head) == []
    (less,) = compare_with_own(acme, own[:-1], head)
    assert "counts 3 charged attempts, this firm's ledger 2" in less
    (unknown,) = compare_with_own(replace(acme, runs=()), own, head)
    assert "counts 0 charged attempts, this firm's ledger 3" in unknown
    for other in (None, bytes(32)):
        (lost,) = compare_with_own(acme, own, other)
        assert "not what the statement ends with" in lost


def test_a_firm_without_entries_has_nothing_to_differ_in() -> None:
    _, (acme, _) = month()
    empty = replace(acme, seq_before=0, seq=0, head=bytes(32).hex(), runs=())
    assert compare_with_own(empty, [], None) == []


def test_only_the_leads_word_about_this_document_counts() -> None:
    _, (acme, bolt) = month()
    entry = acme.sign(LEAD)
    assert verify_usage(acme.encode(), entry, LEAD.public_key) == acme
    with pytest.raises(VerificationError, match="another statement"):
        verify_usage(bolt.encode(), entry, LEAD.public_key)
    with pytest.raises(VerificationError, match="not signed by"):
        verify_usage(acme.encode(), entry, FIRMS["acme"].public_key)
    foreign = LEAD.sign("usage/v1", "bolt", usage_digest(acme.encode()), {})
    with pytest.raises(VerificationError, match="another firm"):
        verify_usage(acme.encode(), foreign, LEAD.public_key)


def test_sums_that_do_not_follow_are_refused() -> None:
    _, (acme, _) = month()
    for wrong in (replace(acme, total="0.00"), replace(acme, shares=4), replace(acme, lines=())):
        with pytest.raises(VerificationError, match="do not follow"):
            parse_usage(wrong.encode())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("period", "2026-13"),
        ("total", "1.2"),
        ("paid_by_all", "1e3"),
        ("end_entry", -1),
        ("head", "00"),
        ("extra", 1),
    ],
)
def test_a_document_of_another_form_is_refused(key: str, value: object) -> None:
    _, (acme, _) = month()
    document = {**json.loads(acme.encode()), key: value}
    with pytest.raises(VerificationError, match="usage statement"):
        parse_usage(json.dumps(document).encode())


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=4))
def test_money_is_cut_toward_nought(amount: Decimal) -> None:
    text = money(amount)
    assert abs(Decimal(text)) <= abs(amount) < abs(Decimal(text)) + Decimal("0.01")
    assert text != "-0.00"
