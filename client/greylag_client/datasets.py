"""Data sets as the ledger knows them: names with budgets, and keyed tags of what they ever held.

A tag is a keyed hash of a record or of a group's key, so the ledger holds no data and yet shows
that two data sets share a record, whatever their files are called. Tags are never removed: a row
that was taken out of the file was learned from all the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import Unit

from greylag_client.budget import Overlap
from greylag_client.ledger_file import LedgerFile

MAIN = "main"  # the data set that firm.toml names
ANY = "*"  # what a run read that a rebuilt ledger knows no more of: counts for every data set


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What one data set held when it was read.

    Attributes:
        commitment: keyed hash of the whole content, 32 bytes.
        records, groups: tags, 16 bytes each.
    """

    commitment: bytes
    records: frozenset[bytes] = frozenset()
    groups: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set that somebody at the firm opened. An empty ``standard`` fits every plan."""

    name: str
    path: str
    standard: str
    opened_s: int


class Datasets:
    """The data sets in a ledger's file. What writes without a transaction of its own is called
    within the caller's."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def open(self, dataset: Dataset) -> None:
        """Add a data set.

        Raises:
            ConfigError: there is one of that name, or the name has been charged before.
        """
        with self._file.transaction():
            if dataset.name in self.names():
                raise ConfigError(
                    f"data set {dataset.name!r} exists; take another name, or move its file with "
                    "`greylag-client data DIR --move NAME FILE`"
                )
            self._file.db.execute(
                "INSERT INTO datasets (name, path, standard, opened_s) VALUES (?, ?, ?, ?)",
                (dataset.name, dataset.path, dataset.standard, dataset.opened_s),
            )

    def move(self, name: str, path: str) -> None:
        """Remember another file for a data set; its spending stays.

        Raises:
            ConfigError: there is no such data set.
        """
        with self._file.transaction():
            moved = self._file.db.execute(
                "UPDATE datasets SET path = ? WHERE name = ?", (path, name)
            )
            if moved.rowcount == 0:
                raise ConfigError(f"no data set {name!r} was opened here; see: greylag-client data")

    def opened(self) -> list[Dataset]:
        """The data sets that were opened by hand, oldest first."""
        rows = self._file.db.execute(
            "SELECT name, path, standard, opened_s FROM datasets ORDER BY opened_s, name"
        )
        columns = ("name", "path", "standard", "opened_s")
        return [Dataset(**dict(zip(columns, row, strict=True))) for row in rows]

    def names(self) -> frozenset[str]:
        """All data sets that were opened or that a run read."""
        return self._bound() - {ANY}

    def _bound(self) -> frozenset[str]:
        rows = self._file.db.execute("SELECT name FROM datasets UNION SELECT dataset FROM run_data")
        return frozenset(row[0] for row in rows)

    def overlap(self, name: str) -> Overlap:
        """Which data sets share a unit with ``name``, by unit; itself always among them.

        A group is shared by its key or by any of its records. All data sets share the firm.
        """
        bound = self._bound()
        names = (bound - {ANY}) | {name}
        by_unit: dict[Unit, frozenset[str]] = {
            "record": frozenset({name}),
            "group": frozenset({name}),
            "firm": names,
        }
        if len(names) > 1:
            by_unit["record"] |= self._sharing(name, "record")
            by_unit["group"] |= by_unit["record"] | self._sharing(name, "group")
        return {unit: shared | (bound & {ANY}) for unit, shared in by_unit.items()}

    def _sharing(self, name: str, unit: Unit) -> frozenset[str]:
        rows = self._file.db.execute(
            "SELECT DISTINCT other.dataset FROM units_of_data AS own JOIN units_of_data AS other "
            "ON own.tag = other.tag WHERE own.dataset = ? AND own.unit = ?",
            (name, unit),
        )
        return frozenset(row[0] for row in rows)

    def shared_records(self, tags: Iterable[bytes]) -> dict[str, int]:
        """How many of the given tags each data set knows."""
        counts: dict[str, int] = {}
        for tag in tags:
            rows = self._file.db.execute(
                "SELECT dataset FROM units_of_data WHERE tag = ?", (tag,)
            ).fetchall()
            for (name,) in rows:
                counts[name] = counts.get(name, 0) + 1
        return counts

    def bind(self, run: str, contents: Mapping[str, Content]) -> list[str]:
        """Write down what a run reads. Returns the data sets whose content is not as before."""
        changed = []
        for name, content in contents.items():
            before = self._file.db.execute(
                "SELECT commitment FROM run_data WHERE run = ? AND dataset = ?", (run, name)
            ).fetchone()
            if before is not None and before[0] == content.commitment:
                continue
            if before is not None:
                changed.append(name)
            self._file.db.execute(
                "INSERT INTO run_data (run, dataset, commitment) VALUES (?, ?, ?) "
                "ON CONFLICT (run, dataset) DO UPDATE SET commitment = excluded.commitment",
                (run, name, content.commitment),
            )
            tags = [(tag, name, "record") for tag in content.records]
            tags += [(tag, name, "group") for tag in content.groups]
            self._file.db.executemany(
                "INSERT OR IGNORE INTO units_of_data (tag, dataset, unit) VALUES (?, ?, ?)", tags
            )
        return changed

    def bind_unknown(self, run: str) -> None:
        """What a run read is not known any more; it counts for every data set, now and later."""
        self._file.db.execute(
            "INSERT OR IGNORE INTO run_data (run, dataset, commitment) VALUES (?, ?, ?)",
            (run, ANY, b""),
        )

    def check_key(self, tag: bytes) -> None:
        """Tags of two keys cannot be compared, so a ledger knows its key by a tag of nothing.

        Raises:
            ConfigError: the tags in this ledger were made with another key.
        """
        known = self._file.db.execute("SELECT tag FROM data_key").fetchone()
        if known is None:
            with self._file.transaction():
                self._file.db.execute("INSERT INTO data_key (tag) VALUES (?)", (tag,))
        elif known[0] != tag:
            raise ConfigError(
                "keys/data.key is not the key that this ledger's data sets were marked with; "
                "restore both from one backup"
            )
