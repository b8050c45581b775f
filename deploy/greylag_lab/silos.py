"""One table, many firms: rows are dealt to firms by a silo column."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from greylag_client.table import Table, parse_table, read_cells
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import DataTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Silo:
    """One firm's rows. ``name`` is its name in the consortium, ``label`` that in the table."""

    name: str
    label: str
    cells: pl.DataFrame


def read_silos(path: Path, column: str, *, largest: int | None = None) -> list[Silo]:
    """The firms of a CSV file, by falling number of rows.

    Raises:
        ConfigError: no such file or column, or fewer firms than asked for.
    """
    cells = read_cells(path)
    if column not in cells.columns:
        raise ConfigError(f"{path.name} has no silo column {column!r}")
    parts = cells.drop_nulls(column).partition_by(column, as_dict=True, maintain_order=True)
    ranked = sorted(parts.items(), key=lambda item: (-item[1].height, str(item[0][0])))
    if largest is not None:
        if len(ranked) < largest:
            raise ConfigError(f"{path.name} holds {len(ranked)} firms, fewer than {largest}")
        ranked = ranked[:largest]
    width = len(str(len(ranked)))
    return [
        Silo(name=f"firm-{index:0{width}d}", label=str(key[0]), cells=part.drop(column))
        for index, (key, part) in enumerate(ranked, start=1)
    ]


def write_silos(silos: list[Silo], directory: Path) -> dict[str, Path]:
    """Each firm's table as ``directory/<name>.csv``."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = {}
    for silo in silos:
        paths[silo.name] = directory / f"{silo.name}.csv"
        silo.cells.write_csv(paths[silo.name])
    return paths


def parse_silos(silos: list[Silo], data: DataTerms, *, min_train: int) -> Mapping[str, Table]:
    """The firms' checked tables; firms with fewer than ``min_train`` training rows stay away."""
    tables = {
        silo.name: parse_table(silo.cells, data, what=silo.label)
        for silo in silos
        if silo.cells.height >= min_train
    }
    return {name: table for name, table in tables.items() if len(table.train) >= min_train}
