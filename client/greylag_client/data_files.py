"""The firm's data sets on its disk: which files they are, and reading them for a run."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_terms
from greylag_protocols.terms import DataTerms, Terms

from greylag_client.data_tags import KEY_BYTES, content_of, key_tag, record_tags
from greylag_client.datasets import MAIN, Content, Dataset
from greylag_client.engine import make_engine
from greylag_client.firm import FirmDirectory
from greylag_client.firm_files import read_file, write_private
from greylag_client.ledger import Ledger
from greylag_client.session import LoadedData
from greylag_client.table import Table, load_table, parse_table, read_cells


class FirmData:
    """The data sets of a firm's directory: the one in firm.toml, and those opened besides.

    Args:
        keys: the directory of the firm's keys.
        main: the file that firm.toml names, if any.
    """

    def __init__(self, keys: Path, main: Path | None, ledger: Ledger) -> None:
        self._keys = keys
        self._main = main
        self._ledger = ledger

    @classmethod
    def of(cls, firm: FirmDirectory, ledger: Ledger) -> "FirmData":
        """The data sets of an open directory."""
        return cls(firm.root / "keys", firm.data_path, ledger)

    def datasets(self) -> list[Dataset]:
        """All data sets that have a file, ``main`` first."""
        opened = self._ledger.datasets.opened()
        if self._main is None or any(item.name == MAIN for item in opened):
            return opened
        return [
            Dataset(name=MAIN, path=str(self._main), standard="", opened_s=0),
            *opened,
        ]

    def fitting(self, terms: Terms) -> tuple[str, ...]:
        """Names of the data sets that are meant for such terms.

        Raises:
            ConfigError: there is none.
        """
        standard = terms.data.standard
        names = [item.name for item in self.datasets() if item.standard in ("", standard)]
        if not names:
            raise ConfigError(
                f"no data set for {standard}: set `data` in firm.toml to a CSV file, or open one "
                "with: greylag-client data DIR --open NAME FILE"
            )
        return tuple(names)

    def load(self, terms: Terms, names: Sequence[str]) -> LoadedData:
        """Read and check data sets together; a record that stands in several is taken once.

        Raises:
            ConfigError: a file is missing, or they do not fit the terms.
        """
        paths = {item.name: Path(item.path) for item in self.datasets()}
        if missing := [name for name in names if name not in paths]:
            raise ConfigError(
                f"the run reads data set {missing[0]!r}, which has no file here any more; name it "
                f"with: greylag-client data DIR --move {missing[0]} FILE"
            )
        table, contents = self.read({name: paths[name] for name in names}, terms.data)
        return LoadedData(engine=make_engine(terms, table.records(table.train)), contents=contents)

    def read(self, paths: dict[str, Path], data: DataTerms) -> tuple[Table, dict[str, Content]]:
        """One table of all the files, and what each of them holds.

        Raises:
            ConfigError: see ``load_table``.
        """
        key = self.key()
        tables = {name: load_table(path, data) for name, path in paths.items()}
        contents = {name: content_of(table, key) for name, table in tables.items()}
        if len(tables) == 1:
            return next(iter(tables.values())), contents
        return self._join(paths, tables, data), contents

    def shared_rows(self, path: Path, *, without: str) -> dict[str, int]:
        """How many rows of a file other data sets than ``without`` have held in earlier runs.

        The file is read as those runs' terms say; where it does not fit them, no run can have read
        its rows under them.
        """
        counts: dict[str, int] = {}
        for data in {parse_terms(item.terms).data for item in self._ledger.accounts()}:
            with suppress(ConfigError):
                tags = record_tags(load_table(path, data), self.key())
                for name, count in self._ledger.datasets.shared_records(tags).items():
                    counts[name] = max(count, counts.get(name, 0))
        counts.pop(without, None)
        return counts

    def _join(self, paths: dict[str, Path], tables: dict[str, Table], data: DataTerms) -> Table:
        import polars as pl

        key, seen, parts = self.key(), set[bytes](), []
        columns = [*data.feature_names, *data.target_names, *([data.group] if data.group else [])]
        for name, path in paths.items():
            tags = record_tags(tables[name], key)
            new = pl.Series([tag not in seen for tag in tags])
            parts.append(read_cells(path).select(columns).filter(new))
            seen.update(tags)
        return parse_table(pl.concat(parts), data, what=" + ".join(paths))

    def key(self) -> bytes:
        """The key of this firm's marks, made when it is first needed.

        Raises:
            ConfigError: it is damaged, or not the one that the ledger knows.
        """
        path = self._keys / "data.key"
        if not path.exists():
            write_private(path, os.urandom(KEY_BYTES))
        key = read_file(path)
        if len(key) != KEY_BYTES:
            raise ConfigError(f"{path} is damaged; restore it from a backup")
        self._ledger.datasets.check_key(key_tag(key))
        return key
