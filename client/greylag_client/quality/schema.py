"""A draft of a plan's [data] section from a table.

Bounds are read off the data, rounded outward to two digits, only to give a person something to
replace: published as they are they would tell the firm's extremes. Every one is marked.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from greylag_protocols.errors import ConfigError

from greylag_client.quality.columns import GAP, Numbers, parse_numbers
from greylag_client.quality.copies import suggest_group
from greylag_client.quality.findings import plain

MARK = "replace by public knowledge"
NUMERIC = 0.9  # of a column's filled cells; the rest is for `check` to name
FEW_VALUES = 10  # whole numbers with at most so many values are classes
MAX_CLASSES = 50
MAX_NAME = 400
MAX_LABEL = 100
ROWS_PER_CATEGORY = 3  # on average at least; with fewer the texts rather name rows
# Whole numbers under such a name tell things apart instead of measuring them.
IDENTIFIER = re.compile(
    r"(^|[_\W])(id|no|nr|key|group|batch|lot|ref|patent|family|recipe|serial|sample)($|[_\W])"
    r"|^(heat|melt|[批组炉])$|[批组炉][号次别]|分组|编号|序号",
    re.IGNORECASE,
)
PARTY = re.compile(  # who, and not what
    r"(^|[_\W])(firm|silo|supplier|customer|client|vendor|company|operator|name)($|[_\W])"
    r"|企业|公司|客户|供应商|姓名|名称",
    re.IGNORECASE,
)
HEADER = f"""\
# A draft, read off one firm's table. Do not hand it on before every line marked
# "{MARK}" holds what the trade knows: as drafted, the bounds tell about your rows.
# Add [run], [model], [privacy] and [training] as in docs/bring-your-own-table.md.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What was drafted.

    Attributes:
        text: the [data] section, TOML.
        group: the group column that was named or suggested.
        left_out: names of columns that are neither feature, target nor group.
    """

    text: str
    task: str
    features: tuple[str, ...]
    targets: tuple[str, ...]
    group: str | None
    left_out: tuple[str, ...]


def draft_schema(cells: pl.DataFrame, *, targets: tuple[str, ...], group: str | None) -> Draft:
    """Draft the section from text cells as ``read_cells`` gives them.

    Raises:
        ConfigError: no rows, no such column, no feature, or targets that do not go together.
    """
    if cells.height == 0:
        raise ConfigError("the table has no rows to draft from; export it with its data")
    for name in (*targets, *([group] if group else [])):
        if name not in cells.columns:
            raise ConfigError(f"there is no column {plain(name)!r}; see the table's first row")
    if len(set(targets)) != len(targets) or group in targets:
        raise ConfigError("a column can be one target, or the group, and only once")
    guessed = not targets
    targets = targets or (cells.columns[-1],)
    task = _task_of(cells, targets)
    numbers = {
        name: values
        for name in cells.columns
        if name not in targets and name != group
        if (values := _numbers(cells[name])) is not None
    }
    numbers = {name: values for name, values in numbers.items() if not _tells_apart(name, values)}
    suggested = group is None
    if group is None:
        group = _suggest(cells, numbers, targets)
    texts = {
        name: found
        for name in cells.columns
        if name not in targets and name != group and name not in numbers
        if (found := _categories(cells[name]))
    }
    features = [name for name in cells.columns if name in numbers or name in texts]
    if not features:
        raise ConfigError(
            "no further column holds numbers or a few texts again and again; features must be "
            "either"
        )
    used = {*features, *targets, group}
    left_out = tuple(name for name in cells.columns if name not in used)
    group_line = f"group = {toml_string(group)}" if group else '# group = "..."'
    group_note = "suggested: its rows resemble each other" if suggested else "as asked"
    lines = [
        HEADER.rstrip(),
        "[data]",
        'standard = "my-standard@1.0"  # a name and version for this set of columns',
        f'task = "{task}"',
        "targets = [",
        *(_target_line(cells[name], task, guessed=guessed) for name in targets),
        "]",
        "features = [",
        *(_feature_line(cells[name], numbers.get(name), texts.get(name)) for name in features),
        "]",
        'missing = "refuse"  # refuse | zero-and-flag; a feature may say otherwise',
        '# missing_values = ["-99"]  # cells that mean "missing", besides empty ones and NA',
        f"{group_line}  # {group_note if group else 'no column tells rows that belong together'}",
        "holdout = 0.2",
        "split_seed = 0",
        "expected_records = 10000  # placeholder: training rows of all firms, roughly; "
        "a public guess, never counted",
        f"max_records_per_firm = {_room(cells.height)}  # placeholder: no firm's table is larger",
        '# For unit = "group": expected_groups, max_groups_per_firm, max_records_per_group.',
        '# For unit = "firm": expected_firms.',
        *(
            "# left out, since it names rows or parties, or holds neither numbers nor a few texts: "
            + toml_string(name[:MAX_NAME])
            for name in left_out
        ),
    ]
    return Draft(
        text="\n".join(lines) + "\n",
        task=task,
        features=tuple(features),
        targets=targets,
        group=group,
        left_out=left_out,
    )


def toml_string(text: str) -> str:
    """A TOML basic string on one line, safe inside a comment too."""
    return '"' + "".join(map(_escaped, text)) + '"'


def outward(low: float, high: float) -> tuple[float, float]:
    """Bounds rounded outward to about two digits of their width; never equal."""
    width = high - low or abs(high) or 1.0
    step = 10.0 ** (math.floor(math.log10(width)) - 1) if math.isfinite(width) else 0.0
    if not step:
        return low, high
    # Through text, or 3 * 0.1 would be 0.30000000000000004.
    bounds = [
        float(f"{turned * step:.12g}")
        for turned in (math.floor(low / step), math.ceil(high / step))
    ]
    if bounds[0] == bounds[1]:
        bounds[1] = float(f"{bounds[0] + 10 * step:.12g}")
    return min(bounds[0], low), max(bounds[1], high)


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    return f"\\u{ord(char):04X}" if ord(char) < 0x10000 else f"\\U{ord(char):08X}"


def _numbers(column: pl.Series) -> Numbers | None:
    """The column as numbers, if nearly all that it holds are; names a plan refuses are left out."""
    if not column.name or len(column.name) > MAX_NAME:
        return None
    values = parse_numbers(column)
    filled = len(column) - column.null_count()
    read = np.count_nonzero(~np.isnan(values))
    if not filled or read < NUMERIC * filled:
        return None
    known = values[~np.isnan(values)]
    return values if math.isfinite(4 * (known.max() - known.min() + 1)) else None


def _categories(column: pl.Series) -> tuple[str, ...]:
    """The texts that a column repeats, sorted; none if there are too many, or they name parties."""
    name = column.name
    if not name or len(name) > MAX_NAME or IDENTIFIER.search(name) or PARTY.search(name):
        return ()
    found = tuple(sorted(set(column.drop_nulls())))
    rows = len(column) - column.null_count()
    few = 2 <= len(found) <= MAX_CLASSES and ROWS_PER_CATEGORY * len(found) <= rows
    return found if few and max(map(len, found)) <= MAX_LABEL else ()


def _tells_apart(name: str, values: Numbers) -> bool:
    """Whether the column names rows: it counts them, or holds whole numbers under such a name."""
    if len(values) > 2 and (np.abs(np.diff(values)) == 1).all():
        return True
    known = values[~np.isnan(values)]
    return bool((known == np.round(known)).all()) and IDENTIFIER.search(name) is not None


def _suggest(
    cells: pl.DataFrame, numbers: dict[str, Numbers], targets: tuple[str, ...]
) -> str | None:
    spans = []
    for values in numbers.values():
        low, high = np.nanmin(values), np.nanmax(values)
        if high > low:
            spans.append(np.where(np.isnan(values), GAP, (values - low) / (high - low)))
    if not spans:
        return None
    return suggest_group(cells, np.stack(spans, axis=1), {*numbers, *targets})


def _task_of(cells: pl.DataFrame, targets: tuple[str, ...]) -> str:
    kinds = set()
    for name in targets:
        column, values = cells[name], _numbers(cells[name])
        whole = False
        if values is not None and column.n_unique() <= FEW_VALUES:
            known = values[~np.isnan(values)]
            whole = bool((known == np.round(known)).all())
        kinds.add("classification" if values is None or whole else "regression")
    if kinds == {"classification"} and len(targets) == 1:
        if not 2 <= cells[targets[0]].drop_nulls().n_unique() <= MAX_CLASSES:
            raise ConfigError(
                f"column {plain(targets[0])!r} is neither a number nor one of 2 to {MAX_CLASSES} "
                "classes; name another with --target"
            )
        return "classification"
    if kinds == {"regression"}:
        return "regression"
    raise ConfigError("several targets must all be numbers; a class stands alone")


def _target_line(column: pl.Series, task: str, *, guessed: bool) -> str:
    guess = "a guess: the last column; " if guessed else ""
    name = toml_string(column.name)
    if task == "classification":
        classes = _list(sorted(set(column.drop_nulls())))
        return f"  {{ name = {name}, classes = {classes} }},  # {guess}classes: {MARK}"
    values = parse_numbers(column)
    return f'  {{ name = {name}, unit = "", range = {_range(values)} }},  # {guess}{MARK}'


def _feature_line(column: pl.Series, values: Numbers | None, texts: tuple[str, ...] | None) -> str:
    gaps = ', missing = "zero-and-flag"' if column.null_count() else ""
    name = toml_string(column.name)
    if values is None:
        return (
            f"  {{ names = [{name}], categories = {_list(texts or ())}{gaps} }},  "
            f"# categories: {MARK}"
        )
    known = values[~np.isnan(values)]
    constant = "the same in every row here; " if (known == known[0]).all() else ""
    line = f'  {{ names = [{name}], unit = "", range = {_range(values)}{gaps} }},'
    return f"{line}  # {constant}{MARK}"


def _list(labels: Sequence[str]) -> str:
    return f"[{', '.join(map(toml_string, labels))}]"


def _range(values: Numbers) -> str:
    low, high = outward(float(np.nanmin(values)), float(np.nanmax(values)))
    return f"[{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _room(rows: int) -> int:
    """A round number with room: the next of 1, 2, 5 times a power of ten beyond twice the rows."""
    power: int = 10 ** max(2, len(str(2 * rows)) - 1)
    return next(times * power for times in (1, 2, 5, 10) if times * power >= 2 * rows)
