"""The firm's ledger: what was promised, what was spent, durably, before anything leaves.

Entries are the firm's own signed statements (see ``greylag_protocols.log``), chained and
append-only; the other tables can be derived from them and from the data, but are kept in the same
transactions. When a method returns, the disk has what it wrote (``ledger_file``). What runs cost
together is ``budget``'s affair.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from greylag_protocols.errors import BudgetExceededError, ConfigError, RefusedError
from greylag_protocols.log import ChainTip, entry_head
from greylag_protocols.signing import parse_statement
from greylag_protocols.terms import Terms, Unit

from greylag_client.budget import Charge, check_limits
from greylag_client.datasets import ANY, Content, Datasets
from greylag_client.ledger_file import LedgerFile
from greylag_client.peer_notes import PeerNotes
from greylag_client.policy import Policy
from greylag_client.refusals import Refusals
from greylag_client.witness import Sight, Witness

YEAR_S = 365 * 24 * 3600
GROWING = ("charged", "last_s", "last_attempt", "last_round", "roster_changes", "closed")
RAISED = tuple(f"{name} = max({name}, excluded.{name})" for name in GROWING)
RUN_COLUMNS = (
    *("run", "terms", "unit", "epsilon", "delta", "max_attempts", "accepted_s"),
    *(*GROWING, "roster"),
)

SignEntry = Callable[[ChainTip], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccount:
    """A run as the ledger knows it. ``roster`` is that of the last attempt answered; ``datasets``
    are those that it reads; ``accepted_s`` and ``last_s`` (of the last debit) are Unix seconds."""

    run: str
    terms: bytes
    datasets: tuple[str, ...]
    unit: Unit
    epsilon: float
    delta: float
    max_attempts: int
    accepted_s: int
    last_s: int
    charged: int
    last_attempt: int
    last_round: int
    roster: tuple[str, ...]
    roster_changes: int
    closed: bool

    @property
    def spent(self) -> bool:
        """Whether anything was released, or may have been (``Ledger.rebuild``)."""
        return self.last_attempt > 0

    @property
    def holds(self) -> bool:
        """Whether this run's epsilon counts against the limit: reserved, or spent."""
        return self.spent or not self.closed

    def charge(self, now_s: float) -> Charge:
        """What it holds of the budgets. It counts for a year after its last release."""
        return Charge(
            unit=self.unit,
            epsilon=self.epsilon,
            delta=self.delta,
            datasets=frozenset(self.datasets),
            recent=not self.closed or self.last_s >= now_s - YEAR_S,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Debit:
    """What one attempt changes in a run's account, and what is then seen of the lead's log."""

    run: str
    round_number: int
    attempt: int
    roster: tuple[str, ...]
    sight: Sight


class Ledger:
    """One firm's ledger. Every method is one transaction.

    Args:
        path: the SQLite file, or ``:memory:`` (only the lab's simulation keeps nothing).
        copied: work on a copy in memory; the file is only read.

    Attributes:
        datasets: names, budgets and marks of the firm's data sets.
        peers: how far other firms' ledgers were.
        refusals: what was refused here and why.
        witness: what was seen of the lead's log.
    """

    def __init__(self, path: Path | str, *, copied: bool = False) -> None:
        self._file = LedgerFile(path, copied=copied)
        self._db = self._file.db
        self.datasets = Datasets(self._file)
        self.peers = PeerNotes(self._file)
        self.refusals = Refusals(self._file)
        self.witness = Witness(self._file)

    def close_file(self) -> None:
        """Close the database."""
        self._db.close()

    def tip(self) -> ChainTip:
        """Where the firm's chain stands."""
        row = self._db.execute(
            "SELECT seq, envelope FROM entries ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        return ChainTip() if row is None else ChainTip(seq=row[0], head=entry_head(row[1]))

    def entries_after(self, seq: int) -> tuple[bytes, ...]:
        """The envelopes of the chain behind ``seq``, in order."""
        rows = self._db.execute("SELECT envelope FROM entries WHERE seq > ? ORDER BY seq", (seq,))
        return tuple(row[0] for row in rows)

    def account(self, run: str) -> RunAccount | None:
        """One run's account, if the firm ever accepted it."""
        return next(self._accounts("WHERE run = ?", run), None)

    def accounts(self) -> list[RunAccount]:
        """All runs, in the order of acceptance."""
        return list(self._accounts("ORDER BY rowid"))

    def _accounts(self, clause: str, *values: str) -> Iterator[RunAccount]:
        columns = ", ".join(RUN_COLUMNS)
        datasets = "(SELECT group_concat(dataset, ' ') FROM run_data WHERE run_data.run = runs.run)"
        for row in self._db.execute(f"SELECT {columns}, {datasets} FROM runs {clause}", values):
            fields = dict(zip([*RUN_COLUMNS, "datasets"], row, strict=True))
            fields["roster"] = tuple(fields["roster"].split())
            fields["datasets"] = tuple(sorted((fields["datasets"] or "").split()))
            fields["closed"] = bool(fields["closed"])
            yield RunAccount(**fields)

    def held(self, *, now_s: float, without: str = "") -> list[Charge]:
        """What all runs but ``without`` hold: reserved, or spent."""
        return [
            item.charge(now_s) for item in self.accounts() if item.holds and item.run != without
        ]

    def affordable(
        self, names: Sequence[str], terms: Terms, *, policy: Policy, now_s: float
    ) -> tuple[str, ...]:
        """Those of the data sets ``names`` whose budgets allow another run with these terms.

        Raises:
            BudgetExceededError: none does; names the limit of the last one.
        """
        fitting, refused = [], BudgetExceededError("no data set fits; see: greylag-client data")
        for name in names:
            try:
                self._check_limits([name], _new_charge(terms, [name]), policy, now_s)
                fitting.append(name)
            except BudgetExceededError as error:
                refused = error
        if not fitting:
            raise refused
        return tuple(fitting)

    def _check_limits(
        self, names: Sequence[str], charge: Charge, policy: Policy, now_s: float, run: str = ""
    ) -> None:
        """Every data set that shares anything with ``names`` can bear ``charge`` besides all that
        other runs hold."""
        charges = [*self.held(now_s=now_s, without=run), charge]
        reach: Unit = "firm" if charge.unit == "firm" else "group"
        touched = [self.datasets.overlap(name)[reach] for name in names]
        for name in sorted(frozenset().union(*touched) - {ANY}):
            check_limits(name, charges, self.datasets.overlap(name), policy.limits(name))

    def accept(
        self,
        terms: Terms,
        encoded: bytes,
        *,
        contents: Mapping[str, Content],
        policy: Policy,
        now_s: float,
        sign: SignEntry,
    ) -> None:
        """Reserve the run's whole budget and write the acceptance.

        Args:
            contents: the data sets that the run reads, and what they hold.

        Raises:
            BudgetExceededError: the reservation would pass a limit of one of them, or of a data
                set that shares records with one of them; nothing was written.
        """
        privacy = terms.privacy
        if not contents:
            raise ConfigError("a run must read a data set; none was given")
        with self._file.transaction():
            self.datasets.bind(terms.run_id, contents)
            self._check_limits(
                sorted(contents), _new_charge(terms, contents), policy, now_s, terms.run_id
            )
            self._append(terms.run_id, sign)
            self._db.execute(
                "INSERT INTO runs (run, terms, unit, epsilon, delta, max_attempts, accepted_s, "
                "last_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    terms.run_id,
                    encoded,
                    privacy.unit,
                    privacy.epsilon,
                    privacy.delta,
                    privacy.max_attempts,
                    int(now_s),
                    int(now_s),
                ),
            )

    def rebind(self, run: str, contents: Mapping[str, Content]) -> list[str]:
        """A run under way reads its data sets again. Returns those that have changed since."""
        with self._file.transaction():
            return self.datasets.bind(run, contents)

    def debit(self, debit: Debit, *, policy: Policy, now_s: float, sign: SignEntry) -> None:
        """Charge one release and write its receipt. Only after this may anything leave.

        The limits are looked at again, since policy may have changed.

        Raises:
            RefusedError: the run is closed or unknown, the attempt is old, or the disk is full.
            BudgetExceededError: all attempts of the terms are used up, or a limit was lowered.
        """
        with self._file.transaction():
            account = self.account(debit.run)
            if account is None or account.closed:
                raise RefusedError(f"run {debit.run} is not open", refusal_class="protocol")
            if debit.attempt <= account.last_attempt:
                raise RefusedError(
                    f"attempt {debit.attempt} of {debit.run} was answered before",
                    refusal_class="protocol",
                )
            if account.charged >= account.max_attempts:
                raise BudgetExceededError(
                    f"all {account.max_attempts} attempts are used up; to train on, the lead needs "
                    "a new run, with a budget of its own"
                )
            self._check_limits(
                account.datasets, account.charge(now_s), policy, now_s, run=debit.run
            )
            changed = bool(account.roster) and account.roster != debit.roster
            self._append(debit.run, sign)
            self.witness.keep(debit.sight)
            self._db.execute(
                "UPDATE runs SET charged = charged + 1, last_s = ?, last_attempt = ?, "
                "last_round = ?, roster = ?, roster_changes = roster_changes + ? WHERE run = ?",
                (
                    int(now_s),
                    debit.attempt,
                    debit.round_number,
                    " ".join(debit.roster),
                    int(changed),
                    debit.run,
                ),
            )

    def keep_sight(self, sight: Sight) -> None:
        """Remember what was seen of the lead's log."""
        if sight != self.witness.sight():
            with self._file.transaction():
                self.witness.keep(sight)

    def close_run(self, run: str, sign: SignEntry) -> None:
        """Write the closed entry: the reservation ends, the run id is refused for ever."""
        with self._file.transaction():
            account = self.account(run)
            if account is None or account.closed:
                return
            self._append(run, sign)
            self._db.execute("UPDATE runs SET closed = 1 WHERE run = ?", (run,))

    def rebuild(
        self,
        entries: Sequence[bytes],
        runs: Iterable[RunAccount],
        *,
        after: ChainTip,
        sight: Sight,
        complete: bool,
    ) -> None:
        """Take up entries of this firm's own that its ledger had lost; see ``rebuild``.

        Args:
            entries: checked; they follow ``after``.
            runs: the accounts that they change. Of what stands here already nothing is lowered.
            complete: nothing more is to come, so what is still open may have lost receipts.

        Raises:
            RefusedError: the ledger has grown meanwhile.
        """
        with self._file.transaction():
            if self.tip() != after:
                raise RefusedError("the ledger changed meanwhile", refusal_class="protocol")
            for seq, envelope in enumerate(entries, start=after.seq + 1):
                run = parse_statement(envelope).predicate["run"]
                self._db.execute("INSERT INTO entries VALUES (?, ?, ?)", (seq, run, envelope))
            for item in runs:
                if ANY in item.datasets:
                    self.datasets.bind_unknown(item.run)
                row = {name: getattr(item, name) for name in RUN_COLUMNS}
                self._db.execute(
                    f"INSERT INTO runs ({', '.join(RUN_COLUMNS)}) "
                    f"VALUES ({', '.join('?' for _ in RUN_COLUMNS)}) ON CONFLICT (run) DO UPDATE "
                    f"SET roster = excluded.roster, {', '.join(RAISED)}",
                    tuple({**row, "roster": " ".join(item.roster)}.values()),
                )
            self.witness.keep(sight)
            if complete:
                self._db.execute(
                    "UPDATE runs SET last_attempt = 1 WHERE charged = 0 AND NOT closed"
                )

    def head_at(self, seq: int) -> bytes | None:
        """The hash of an entry of the firm's own chain, if it is there."""
        row = self._db.execute("SELECT envelope FROM entries WHERE seq = ?", (seq,)).fetchone()
        return None if row is None else entry_head(row[0])

    def _append(self, run: str, sign: SignEntry) -> None:
        tip = self.tip()
        self._db.execute(
            "INSERT INTO entries (seq, run, envelope) VALUES (?, ?, ?)",
            (tip.seq + 1, run, sign(tip)),
        )


@contextmanager
def copied_ledger(path: Path) -> Iterator[Ledger]:
    """A copy of a firm's ledger, to be looked at or played with; also from a read-only disk.

    Raises:
        ConfigError: it cannot be read.
    """
    ledger = Ledger(path, copied=True)
    try:
        yield ledger
    finally:
        ledger.close_file()


def _new_charge(terms: Terms, datasets: Iterable[str]) -> Charge:
    privacy = terms.privacy
    return Charge(privacy.unit, privacy.epsilon, privacy.delta, frozenset(datasets))
