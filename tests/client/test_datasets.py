"""Budgets follow rows, not files: names, marks, overlaps, and what a run under way may find."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from consortium_in_memory import make_terms
from greylag_client.data_files import FirmData
from greylag_client.datasets import Dataset
from greylag_client.ledger import YEAR_S, Debit, Ledger
from greylag_client.policy import DatasetPolicy, Policy
from greylag_client.spending import accounts_of
from greylag_client.witness import Sight
from greylag_protocols import log
from greylag_protocols.accounting import POISSON_GAUSSIAN
from greylag_protocols.errors import BudgetExceededError, ConfigError
from greylag_protocols.log import ChainTip
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Terms, Unit, terms_digest

SIGNER = Ed25519Signer(b"\x05" * 32)
EPSILON = make_terms().privacy.epsilon
ONE_RUN = Policy(lifetime_epsilon=1.5 * EPSILON, lifetime_delta=9e-3)
Row = tuple[float, float, float, float, float, str]  # a, b, c; y, z; group


def rows(seed: int, count: int = 20, group: str = "g") -> list[Row]:
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, (count, 5)).round(6)
    return [(*row, f"{group}{at // 3}") for at, row in enumerate(values.tolist())]


def write(path: Path, table: list[Row], *, order: str = "abcyzg") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(order)
        writer.writerows([[row["abcyzg".index(name)] for name in order] for row in table])
    return path


class Firm:
    """A firm's files and ledger, and runs that it accepts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "keys").mkdir()
        self.main = write(root / "main.csv", rows(1))
        self.ledger = Ledger(root / "ledger.sqlite")
        self.data = FirmData(root / "keys", self.main, self.ledger)
        self.now_s = 1_800_000_000.0

    def reopen(self) -> None:
        self.ledger.close_file()
        self.ledger = Ledger(self.root / "ledger.sqlite")
        self.data = FirmData(self.root / "keys", self.main, self.ledger)

    def open(self, name: str, table: list[Row], standard: str = "") -> Path:
        path = write(self.root / f"{name}.csv", table)
        dataset = Dataset(name=name, path=str(path), standard=standard, opened_s=int(self.now_s))
        self.ledger.datasets.open(dataset)
        return path

    def accept(
        self, run: str, policy: Policy = ONE_RUN, *, unit: Unit = "record", only: str = ""
    ) -> tuple[str, ...]:
        """What the participant does with an offer; returns the data sets that the run reads."""
        terms = terms_of(run, unit)
        encoded = terms.encode()
        fitting = (only,) if only else self.data.fitting(terms)
        names = self.ledger.affordable(fitting, terms, policy=policy, now_s=self.now_s)
        self.ledger.accept(
            terms,
            encoded,
            contents=self.data.load(terms, names).contents,
            policy=policy,
            now_s=self.now_s,
            sign=lambda tip: log.sign_acceptance(
                SIGNER, tip, firm="a", run=run, terms=terms_digest(encoded), epoch=1
            ),
        )
        return names

    def release(self, run: str, policy: Policy = ONE_RUN) -> None:
        account = self.ledger.account(run)
        assert account is not None
        attempt = account.last_attempt + 1

        def sign(tip: ChainTip) -> bytes:
            return log.sign_receipt(
                SIGNER, tip, firm="a", run=run, round_number=attempt, attempt=attempt,
                context=bytes(32), roster_size=3, event_type=POISSON_GAUSSIAN, charged=attempt,
            )  # fmt: skip

        release = Debit(
            run=run, round_number=attempt, attempt=attempt, roster=("a", "b", "c"), sight=Sight()
        )
        self.ledger.debit(release, policy=policy, now_s=self.now_s, sign=sign)


def terms_of(run: str, unit: Unit = "record") -> Terms:
    terms = make_terms(run=run, unit=unit)
    return replace(terms, data=replace(terms.data, group="g"))


@pytest.fixture
def firm(memory_path: Path) -> Iterator[Firm]:
    firm = Firm(memory_path)
    yield firm
    firm.ledger.close_file()


def test_new_rows_open_a_budget_of_their_own(firm: Firm) -> None:
    assert firm.accept("r-1") == ("main",)
    firm.release("r-1")
    with pytest.raises(BudgetExceededError, match=r"lifetime_epsilon .* 'main'"):
        firm.accept("r-2")
    firm.open("fresh", rows(2))
    assert firm.accept("r-2") == ("fresh",)  # main is used up and left out
    with pytest.raises(BudgetExceededError):
        firm.accept("r-3")


def test_a_renamed_file_is_the_same_data_set(firm: Firm) -> None:
    firm.accept("r-1")
    firm.open("other-name", rows(1))
    with pytest.raises(BudgetExceededError, match=r"'main'|'other-name'"):
        firm.accept("r-2", only="other-name")
    firm.reopen()
    with pytest.raises(BudgetExceededError):
        firm.accept("r-2", only="other-name")


@pytest.mark.parametrize(
    "edit",
    [
        lambda row: (*row[:3], 0.5, *row[4:]),  # measured again
        lambda row: (*row[:5], "renamed"),
        lambda row: row,
    ],
)
def test_an_edited_row_is_known_by_its_recipe(firm: Firm, edit: object) -> None:
    firm.accept("r-1")
    one = [edit(row) for row in rows(1)[:1]]  # type: ignore[operator]
    path = firm.open("edited", one + rows(2))
    assert firm.data.shared_rows(path, without="edited") == {"main": 1}
    with pytest.raises(BudgetExceededError):
        firm.accept("r-2", only="edited")


def test_the_order_of_rows_and_columns_does_not_matter(firm: Firm) -> None:
    firm.accept("r-1")
    path = write(firm.root / "other.csv", rows(1)[::-1], order="gzcbay")
    assert firm.data.shared_rows(path, without="") == {"main": 20}


def test_spending_stays_with_rows_that_were_taken_out(firm: Firm) -> None:
    firm.accept("r-1")
    write(firm.main, rows(3))
    again = firm.data.load(terms_of("r-1"), ("main",))
    assert firm.ledger.rebind("r-1", again.contents) == ["main"]
    assert firm.ledger.rebind("r-1", again.contents) == []
    for seed in (1, 3):  # the rows of before and those of now
        path = firm.open(f"rows-{seed}", rows(seed))
        assert firm.data.shared_rows(path, without="") == {"main": 20}


def test_overlapping_data_sets_are_both_charged(firm: Firm) -> None:
    firm.open("mixed", rows(1)[:1] + rows(2))
    policy = Policy(lifetime_epsilon=2.5 * EPSILON, lifetime_delta=9e-3)
    firm.accept("r-1", policy, only="main")
    firm.accept("r-2", policy, only="mixed")
    for name in ("main", "mixed"):
        with pytest.raises(BudgetExceededError):
            firm.accept("r-3", policy, only=name)
    accounts = {
        item.name: item
        for item in accounts_of(firm.ledger, policy, ["main", "mixed"], now_s=firm.now_s)
    }
    assert [accounts[name].held for name in ("main", "mixed")] == pytest.approx([2 * EPSILON] * 2)
    assert accounts["main"].shares_with == ("mixed",)


def test_a_shared_group_counts_for_groups_and_not_for_records(firm: Firm) -> None:
    """New rows of an old family."""
    firm.accept("r-1", only="main")
    firm.open("family", rows(2, group="g"))
    firm.open("strangers", rows(3, group="h"))
    assert firm.accept("r-2", only="family") == ("family",)
    policy = Policy(lifetime_epsilon=10 * EPSILON, lifetime_delta=9e-3)
    firm.accept("g-1", policy, unit="group", only="main")
    names = ["main", "family", "strangers"]
    accounts = {
        item.name: item.held for item in accounts_of(firm.ledger, policy, names, now_s=firm.now_s)
    }
    group = terms_of("g-1", "group").privacy.epsilon
    assert accounts["main"] == pytest.approx(EPSILON + 2 * group)  # a record pays twice
    assert accounts["family"] == pytest.approx(max(EPSILON, group))
    assert accounts["strangers"] == 0.0


def test_a_run_that_protects_the_firm_is_charged_to_all_data_sets(firm: Firm) -> None:
    firm.open("fresh", rows(2, group="h"))
    policy = Policy(
        lifetime_epsilon=1e3,
        lifetime_delta=9e-3,
        datasets={"fresh": DatasetPolicy(lifetime_epsilon=1e-3)},
    )
    with pytest.raises(BudgetExceededError, match="'fresh'"):
        firm.accept("f-1", policy, unit="firm", only="main")
    firm.accept("r-1", policy, only="main")


def test_several_data_sets_train_together_and_a_shared_row_once(firm: Firm) -> None:
    terms = terms_of("r-1")
    firm.open("mixed", rows(1)[:5] + rows(2))
    alone = firm.data.load(terms, ("main",)).contents["main"]
    table, contents = firm.data.read(
        {"main": firm.main, "mixed": firm.root / "mixed.csv"}, terms.data
    )
    assert len(table) == 40
    assert contents["main"] == alone
    assert len(contents["mixed"].records) == 25
    assert firm.accept("r-1", Policy(lifetime_epsilon=1e3)) == ("main", "mixed")


def test_a_data_set_is_for_its_standard(firm: Firm) -> None:
    firm.open("metals", rows(2), standard="metals@1")
    firm.open("glass", rows(3), standard=terms_of("r").data.standard)
    assert firm.data.fitting(terms_of("r")) == ("main", "glass")


def test_a_data_set_that_a_run_reads_keeps_its_file(firm: Firm) -> None:
    firm.open("fresh", rows(2))
    firm.accept("r-1", Policy(lifetime_epsilon=1e3), only="fresh")
    moved = (firm.root / "fresh.csv").rename(firm.root / "moved.csv")
    with pytest.raises(ConfigError, match=r"fresh\.csv"):
        firm.data.load(terms_of("r-1"), ("fresh",))
    firm.ledger.datasets.move("fresh", str(moved))
    assert firm.ledger.rebind("r-1", firm.data.load(terms_of("r-1"), ("fresh",)).contents) == []
    with pytest.raises(ConfigError, match="no data set 'missing'"):
        firm.ledger.datasets.move("missing", str(moved))
    with pytest.raises(ConfigError, match="exists"):
        firm.open("fresh", rows(2))


def test_marks_of_two_keys_are_never_compared(firm: Firm) -> None:
    firm.accept("r-1")
    key = firm.root / "keys" / "data.key"
    assert key.stat().st_mode & 0o777 == 0o600
    for damaged, reason in ((bytes(32), "is not the key"), (b"short", "is damaged")):
        key.write_bytes(damaged)
        with pytest.raises(ConfigError, match=reason):
            firm.data.load(terms_of("r-1"), ("main",))


def test_the_ledger_holds_marks_and_no_data(firm: Firm) -> None:
    """Without the key, a guess at a row cannot be checked against the ledger."""
    firm.accept("r-1")
    tags = {row[0] for row in firm.ledger._db.execute("SELECT tag FROM units_of_data")}
    stranger = firm.root / "stranger"
    (stranger / "keys").mkdir(parents=True)
    other = FirmData(stranger / "keys", firm.main, Ledger(stranger / "ledger.sqlite"))
    found = other.load(terms_of("r-1"), ("main",)).contents["main"]
    assert len(tags) == len(found.records | found.groups)
    assert not tags & (found.records | found.groups)


def test_a_year_later_the_yearly_budget_is_free_again(firm: Firm) -> None:
    policy = Policy(lifetime_epsilon=1e3, lifetime_delta=9e-3, yearly_epsilon=1.5 * EPSILON)
    firm.accept("r-1", policy)
    firm.now_s += YEAR_S / 2
    firm.release("r-1", policy)
    firm.ledger.close_run("r-1", sign=lambda tip: b"{}")
    firm.now_s += YEAR_S - 10  # of the acceptance it is long past; of the release, not quite
    with pytest.raises(BudgetExceededError, match="yearly_epsilon"):
        firm.accept("r-2", policy)
    firm.now_s += 20
    firm.accept("r-2", policy)
    firm.now_s -= 2 * YEAR_S  # a clock that was set back frees nothing
    with pytest.raises(BudgetExceededError, match="yearly_epsilon"):
        firm.accept("r-3", policy)


def test_a_limit_that_is_lowered_acts_at_the_next_release(firm: Firm) -> None:
    firm.accept("r-1")
    firm.release("r-1")
    with pytest.raises(BudgetExceededError, match="lifetime_epsilon"):
        firm.release("r-1", Policy(lifetime_epsilon=0.5 * EPSILON, lifetime_delta=9e-3))
    firm.release("r-1")


def test_odds_stand_beside_epsilon(firm: Firm) -> None:
    policy = Policy(lifetime_epsilon=1e3, lifetime_delta=9e-3)
    firm.accept("r-1", policy)
    firm.accept("r-2", policy)
    (before,) = accounts_of(firm.ledger, policy, [], now_s=firm.now_s)
    firm.release("r-1", policy)
    (after,) = accounts_of(firm.ledger, policy, [], now_s=firm.now_s)
    assert before.odds_spent == 50.0
    assert 50.0 < after.odds_spent < after.odds_held == before.odds_held < 100.0
    assert after.spent == EPSILON
    assert after.reserved == pytest.approx(EPSILON)
