"""Mapping as a whole: read the table, find or follow a mapping, write the results, check them."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import DataTerms

from greylag_client.firm_files import write_private
from greylag_client.mapping.apply import CleanTable, apply_mapping
from greylag_client.mapping.database import Database, read_database
from greylag_client.mapping.document import Mapping, read_mapping, write_mapping
from greylag_client.mapping.headers import Located, locate
from greylag_client.mapping.propose import best_table, propose
from greylag_client.mapping.questions import Ask, Question
from greylag_client.mapping.reading import Sheet, read_sheets
from greylag_client.mapping.units import shown
from greylag_client.mapping.vocabulary import Vocabulary
from greylag_client.table import load_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What came of it.

    Attributes:
        out, mapping_path: the two files that were written.
        questions: how many were asked.
        unfit: what the plan still refuses, or None.
    """

    out: Path
    mapping_path: Path
    mapping: Mapping
    table: CleanTable
    notes: tuple[str, ...]
    questions: int
    unfit: ConfigError | None

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {
            "out": str(self.out),
            "mapping": str(self.mapping_path),
            "sheet": self.mapping.sheet,
            "encoding": self.mapping.encoding,
            "rows": self.table.rows,
            "left_out": self.table.left_out,
            "off_100": self.table.off_whole,
            "questions": self.questions,
            "notes": list(self.notes),
            "fits": self.unfit is None,
        }

    def describe(self) -> str:
        """For people."""
        lines = [f"{self.out}: {self.table.rows} rows", f"{self.mapping_path}: how they were made"]
        lines += [
            f"  {rule.name} <- {rule.source!r}{f' in {shown(rule.unit)}' if rule.unit else ''}"
            for rule in self.mapping.columns
            if rule.source is not None
        ]
        lines += [f"- {note}" for note in self.notes]
        if self.unfit is None:
            lines.append("The table fits the plan. 表格符合计划。")
        return "\n".join(lines)

    def raise_if_unfit(self) -> None:
        """Raises: ConfigError: the plan refuses the clean table."""
        if self.unfit is not None:
            again = shlex.quote(str(self.mapping_path))
            raise ConfigError(
                f"{self.unfit}\n  Correct {self.mapping_path.name} (unit, factor, source) and run "
                f"it again with --mapping {again}, or correct the file"
            )


def map_file(
    source: Path | Database,
    data: DataTerms,
    *,
    out: Path | None,
    mapping_path: Path | None,
    normalise: bool,
    ask: Ask,
) -> Mapped:
    """Write the clean table and, unless one was given, its mapping.

    Args:
        source: a file; or a database, and then the results lie in the working directory.

    Raises:
        ConfigError: the table cannot be read or understood, or a result would overwrite something
            that is not its own.
    """
    path = source.home if isinstance(source, Database) else source
    out = out or path.with_name(f"{path.stem}.mapped.csv")
    if not out.name.lower().endswith(".csv"):
        raise ConfigError(f"--out {out.name}: the clean table is a CSV file; let it end in .csv")
    if out.resolve() == path.resolve():
        raise ConfigError(f"--out is the table itself; give another name than {out.name}")
    asked = 0

    def count(question: Question) -> int:
        nonlocal asked
        asked += 1
        return ask(question)

    notes: tuple[str, ...] = ()
    if mapping_path is not None:
        mapping = read_mapping(mapping_path)
        mapping = replace(mapping, normalise=mapping.normalise or normalise)
        located = _follow(source, path.name, mapping, data)
    else:
        mapping_path = path.with_name(f"{path.stem}.mapping.toml")
        if mapping_path.exists():
            raise ConfigError(
                f"{mapping_path} exists; reuse it with --mapping {mapping_path}, or remove it to "
                "be asked again"
            )
        words = Vocabulary(data)
        located = best_table(_read(source), words, what=path.name)
        proposal = propose(located, data, words, count)
        mapping, notes = replace(proposal.mapping, normalise=normalise), proposal.notes
        write_private(mapping_path, write_mapping(mapping).encode())
    table = apply_mapping(located, mapping, data)
    write_private(out, table.text.encode())
    unfit = None
    try:
        load_table(out, data)
    except ConfigError as error:
        unfit = error
    return Mapped(
        out=out,
        mapping_path=mapping_path,
        mapping=mapping,
        table=table,
        notes=(*notes, *table.notes),
        questions=asked,
        unfit=unfit,
    )


def _read(source: Path | Database, mapping: Mapping | None = None) -> list[Sheet]:
    """All sheets, or the one that a mapping names."""
    name = mapping.sheet if mapping else ""
    if isinstance(source, Database):
        rows = read_database(source, table=name)
        return [Sheet(kind="sql", name=source.table or name, rows=rows)]
    if mapping is None:
        return read_sheets(source)
    return read_sheets(source, name=name, encoding=mapping.encoding, separator=mapping.separator)


def _follow(source: Path | Database, what: str, mapping: Mapping, data: DataTerms) -> Located:
    if (mapping.kind == "sql") != isinstance(source, Database):
        raise _other_kind(what, mapping)
    sheets = _read(source, mapping)
    if sheets[0].kind != mapping.kind:
        raise _other_kind(what, mapping)
    located = locate(sheets[0], Vocabulary(data).known, mapping.header_rows)
    if located is None:
        first, last = mapping.header_rows
        raise ConfigError(
            f"{what}: no headings in rows {first} to {last}; correct header_rows in the mapping"
        )
    return located


def _other_kind(what: str, mapping: Mapping) -> ConfigError:
    return ConfigError(
        f"{what}: the mapping is for {mapping.kind}; leave --mapping out to make a new one"
    )
