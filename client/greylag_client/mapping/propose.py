"""A mapping for a table that nobody has described: names, units, gaps and what is not listed."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import DataTerms, Range

from greylag_client.mapping.cells import (
    DecimalMark,
    Numbers,
    decimal_mark,
    declared_gaps,
    read_numbers,
)
from greylag_client.mapping.document import Mapping, Rule
from greylag_client.mapping.headers import Column, Located, locate, names_down
from greylag_client.mapping.matching import Matches, labels_of, match_columns, share_names
from greylag_client.mapping.questions import YES_ZERO, Ask, Question, shortened
from greylag_client.mapping.reading import Sheet
from greylag_client.mapping.units import (
    DEGREES,
    FRACTION,
    SHARES,
    Line,
    candidates,
    conversion,
    is_share,
    parse_unit,
    shown,
)
from greylag_client.mapping.vocabulary import Vocabulary

_FITS = 0.99  # of the values, for a unit to be possible
_WHOLE = 1.5  # percent that a whole recipe may be off 100
_UNITY = 0.05  # that recipes given in fractions may be off 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A mapping, and what was decided without asking."""

    mapping: Mapping
    located: Located
    notes: tuple[str, ...]


def best_table(sheets: Sequence[Sheet], words: Vocabulary, *, what: str) -> Located:
    """The sheet, or the way to cut the text, that names most of what the plan wants.

    Raises:
        ConfigError: no sheet has a heading row.
    """
    named = {"parquet": (1, 1), "sql": (1, 1)}  # their columns have names, and none is looked for
    found = [
        located
        for sheet in sheets
        if (located := locate(sheet, words.known, named.get(sheet.kind)))
    ]
    # Of equals the one with most rows: copies and summaries are shorter than the table itself.
    best = max(
        found, key=lambda item: (item.known, len(item.columns) > 1, len(item.numbers)), default=None
    )
    down = max(names_down(sheet, words.known) for sheet in sheets)
    if down > (best.known if best else 0) + 2:
        raise ConfigError(
            f"{what}: the table lies on its side, with names below each other and a recipe in each "
            "column; turn it in a spreadsheet program (copy, paste special, transpose) and save it"
        )
    if best is None:
        raise ConfigError(
            f"{what}: no row that names columns was found; put the names in one row above the data"
        )
    return best


def propose(located: Located, data: DataTerms, words: Vocabulary, ask: Ask) -> Proposal:
    """A whole mapping.

    Raises:
        ConfigError: something that the plan needs is not there, or is in another kind of share.
    """
    if not located.numbers:
        raise ConfigError("the table has headings but no rows; export it again with its data")
    mark = decimal_mark(cell for column in located.columns for cell in column.cells)
    matches = match_columns(located.columns, data, words, ask)
    maker = _Maker(located, data, matches, mark, ask)
    rules = maker.rules()
    sheet = located.sheet
    mapping = Mapping(
        standard=data.standard,
        kind=sheet.kind,
        sheet=sheet.name,
        encoding=sheet.encoding,
        separator=sheet.separator,
        decimal=mark,
        header_rows=located.header_rows,
        columns=rules,
    )
    return Proposal(mapping=mapping, located=located, notes=tuple(maker.notes))


class _Maker:
    """Turns matched columns into rules, with notes on what was taken for granted."""

    def __init__(
        self, located: Located, data: DataTerms, matches: Matches, mark: DecimalMark, ask: Ask
    ) -> None:
        self._located = located
        self._data = data
        self._matches = matches
        self._ask = ask
        self._shares = share_names(data)
        self._units = {name: item.unit for item in data.features for name in item.names}
        self._units |= {target.name: target.unit for target in data.targets}
        self._ranges: dict[str, Range | None] = {
            name: item.range for item in data.features for name in item.names
        }
        self._ranges |= {target.name: target.range for target in data.targets}
        labels = labels_of(data)
        self._numbers: dict[str, Numbers] = {}
        self._declared: dict[str, frozenset[int]] = {}  # rows that the plan declares missing
        for name, column in matches.found.items():
            if name not in labels and name != data.group:
                gaps = declared_gaps(column.cells, mark, data.missing_values)
                self._declared[name] = gaps
                self._numbers[name] = read_numbers(
                    [None if row in gaps else cell for row, cell in enumerate(column.cells)], mark
                )
        self._texts = frozenset(labels)
        self.notes: list[str] = []

    def rules(self) -> tuple[Rule, ...]:
        """One rule for each column of the plan."""
        data, found = self._data, self._matches.found
        made = {}
        for name, column in found.items():
            if name in self._numbers:
                made[name] = self._number_rule(name, column)
            else:
                made[name] = Rule(name=name, source=column.label, text=True)
        self._check_shares(made)
        listed = [name for name in self._shares if name in found]
        made = self._scaled_fractions(made, listed)
        whole = self._whole_rows(made, listed)
        made |= self._absent_rules(listed, whole)
        made |= self._gap_rules(made, listed, whole)
        unused = [c.label for c in self._located.columns if c not in found.values()]
        if unused:
            self.notes.append(f"not used: {shortened(unused)}")
        order = [*([data.group] if data.group in made else []), *data.target_names]
        return tuple(made[name] for name in [*order, *data.feature_names])

    def _number_rule(self, name: str, column: Column) -> Rule:
        wanted = parse_unit(self._units[name])
        # Who names a column as the plan does, with its unit in the name, means the plan's unit.
        unit = wanted if column.label == name else column.unit or self._unit_in_cells(name)
        if wanted is None:
            return Rule(name=name, source=column.label, unit=unit or "")
        if unit is not None and is_share(unit) == is_share(wanted):
            line = conversion(unit, wanted)
            if line is not None or is_share(unit):  # shares of another kind: told all at once
                line = line or Line()
                return Rule(
                    name=name,
                    source=column.label,
                    unit=unit,
                    factor=line.factor,
                    offset=line.offset,
                )
        unit = wanted if is_share(wanted) else self._guess_unit(name, column, wanted)
        line = conversion(unit, wanted) or Line()
        return Rule(
            name=name, source=column.label, unit=unit, factor=line.factor, offset=line.offset
        )

    def _unit_in_cells(self, name: str) -> str | None:
        units = {parse_unit(text) for text in self._numbers[name].units}
        return units.pop() if len(units) == 1 else None

    def _guess_unit(self, name: str, column: Column, wanted: str) -> str:
        """A unit for a column without one, by the plan's public range; asked where several fit."""
        bounds = self._ranges[name]
        values = [value for value in self._numbers[name].values if value is not None]
        possible = [
            unit
            for unit in candidates(wanted)
            if (line := conversion(unit, wanted)) and _share_inside(values, line, bounds) >= _FITS
        ]
        # Degrees lie close together, so that several fit one range; a thousandfold mistake does
        # not fit by chance.
        if possible == [wanted] or (wanted in possible and wanted not in DEGREES):
            self.notes.append(
                f"{column.label!r} gives no unit: taken as {shown(wanted)}, which fits"
            )
            return wanted
        choices = tuple(possible) if len(possible) > 1 else candidates(wanted)
        if len(choices) == 1:
            return wanted  # what does not fit is told when the rows are checked
        likely = possible[0] if len(possible) == 1 else None
        typical = (
            f" (values around {float(f'{statistics.median(values):.2g}'):g})" if values else ""
        )
        question = Question(
            text=f"In which unit is {column.label!r}{typical}? The plan wants {shown(wanted)}.",
            chinese=f"该列的单位是什么？计划要求 {shown(wanted)}。",
            choices=tuple(map(shown, choices)),
            proposal=choices.index(likely) if likely else None,
        )
        return choices[self._ask(question)]

    def _check_shares(self, made: dict[str, Rule]) -> None:
        clash = [
            name
            for name in self._shares
            if name in made
            and made[name].unit in SHARES
            and (wanted := parse_unit(self._units[name])) in SHARES
            and wanted != made[name].unit
        ]
        if clash:
            raise ConfigError(
                f"{shortened(clash)}: given in {made[clash[0]].unit}, but the plan wants "
                f"{self._units[clash[0]]}; convert the whole recipe where it is made, or correct "
                "the heading if that is wrong"
            )

    def _scaled_fractions(self, made: dict[str, Rule], listed: list[str]) -> dict[str, Rule]:
        """Shares between 0 and 1 become percent."""
        sums = self._sums(made, listed)
        percent = any("%" in self._numbers[name].units for name in listed)
        # Only a whole is known by its size: half a percent of additives is no fraction.
        if percent or len(listed) < 2 or abs(statistics.median(sums or [0.0]) - 1) > _UNITY:
            return made
        self.notes.append("shares lie between 0 and 1: multiplied by 100")
        scaled = {name: replace(made[name], unit=FRACTION, factor=100.0) for name in listed}
        return made | scaled

    def _whole_rows(self, made: dict[str, Rule], listed: list[str]) -> list[bool]:
        """Which rows add up to 100 if what is not there is nothing."""
        return [abs(total - 100) <= _WHOLE for total in self._sums(made, listed)]

    def _sums(self, made: dict[str, Rule], listed: list[str]) -> list[float]:
        """What the listed shares of each row add up to, a gap being nothing."""
        columns = [
            [(value or 0.0) * made[name].factor for value in self._numbers[name].values]
            for name in listed
        ]
        return [sum(row) for row in zip(*columns, strict=True)]

    def _absent_rules(self, listed: list[str], whole: list[bool]) -> dict[str, Rule]:
        absent = self._matches.absent
        shares = [name for name in absent if name in self._shares]
        # Gaps, where the plan allows them:
        rules = {name: Rule(name=name, text=name in self._texts) for name in absent}
        zero = bool(shares)
        if shares and len(listed) >= 2 and sum(whole) * 2 > len(whole):
            self.notes.append(f"not in the table, so 0: {shortened(shares)}")
        elif shares:
            question = Question(
                text=f"The table does not list {shortened(shares)}. Are they 0 in every row?",
                chinese="表中没有这些列。它们在每一行都为 0 吗？",
                choices=YES_ZERO,
                proposal=0,
            )
            zero = self._ask(question) == 0
            may_miss = dict(zip(self._data.feature_names, self._data.may_miss, strict=True))
            needed = [name for name in shares if not may_miss[name]]
            if not zero and needed:
                raise ConfigError(
                    f"the plan needs {shortened(needed)}; add what is known to the table"
                )
        if zero:
            rules |= {name: Rule(name=name, constant=0.0) for name in shares}
        if self._matches.own_groups and self._data.group:
            rules[self._data.group] = Rule(name=self._data.group, text=True)
            self.notes.append("each row is a group of its own")
        return rules

    def _gap_rules(
        self, made: dict[str, Rule], listed: list[str], whole: list[bool]
    ) -> dict[str, Rule]:
        """Whether blanks among the shares are zeros."""
        gappy = {}
        for name in listed:
            unread = {*self._numbers[name].unread, *self._declared[name]}
            values = self._numbers[name].values
            gappy[name] = [v is None and row not in unread for row, v in enumerate(values)]
        names = [name for name in listed if any(gappy[name])]
        rows = [  # of a recipe that is there at all
            any(gappy[name][row] for name in names) and not all(gappy[name][row] for name in listed)
            for row in range(len(whole))
        ]
        if not names:
            return {}
        complete = sum(w for w, r in zip(whole, rows, strict=True) if r)
        if complete < 0.9 * sum(rows):
            question = Question(
                text=f"Rows with empty cells among {shortened(names)}: {sum(rows)}. Are these 0?",
                chinese="这些列中有空单元格。空单元格表示 0 吗？",
                choices=YES_ZERO,
                proposal=0,
            )
            if self._ask(question) != 0:
                return {}
        else:
            self.notes.append(
                f"empty cells of {shortened(names)} are 0: the rest of the row makes up the whole"
            )
        return {name: replace(made[name], gaps="zero") for name in names}


def _share_inside(values: Sequence[float], line: Line, bounds: Range | None) -> float:
    if not values or bounds is None:
        return 1.0
    return sum(bounds[0] <= line(value) <= bounds[1] for value in values) / len(values)
