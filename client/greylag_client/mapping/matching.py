"""Which column of a table is which column of the plan; a person is asked only where unsure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import DataTerms

from greylag_client.mapping.cells import is_gap, plain
from greylag_client.mapping.headers import Column
from greylag_client.mapping.questions import CHOICES_SHOWN, Ask, Question
from greylag_client.mapping.units import is_share, parse_unit
from greylag_client.mapping.vocabulary import LIKELY, SURE, Vocabulary

_NONE = "none of them 都不是"
_TIE = 0.015


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Columns of the plan with their sources.

    Attributes:
        found: the source of each plan column that has one.
        absent: plan columns without a source, in the plan's order.
        own_groups: the person said that each row stands for itself.
    """

    found: Mapping[str, Column]
    absent: tuple[str, ...]
    own_groups: bool = False


def match_columns(
    columns: Sequence[Column], data: DataTerms, words: Vocabulary, ask: Ask
) -> Matches:
    """Find every column of the plan; shares that are not listed are left to the caller.

    Raises:
        ConfigError: a target, a group or a feature that cannot be missing has no source.
    """
    wanted = [*([data.group] if data.group else []), *data.target_names, *data.feature_names]
    scores = {name: [words.score(name, column.names) for column in columns] for name in wanted}
    found: dict[str, Column] = {}
    taken: set[int] = set()

    def settle(name: str, index: int) -> None:
        found[name] = columns[index]
        taken.add(index)

    unsure = []
    for name in wanted:
        best = max(scores[name], default=0.0)
        near = [i for i, score in enumerate(scores[name]) if score >= max(SURE, best - _TIE)]
        near = _filled(columns, [i for i in near if i not in taken])
        if len(near) == 1:
            settle(name, near[0])
        else:
            unsure.append(name)
    for name in unsure:
        free = [i for i in range(len(columns)) if i not in taken]
        # A column that is surely something else of the plan is no candidate.
        near = sorted(
            (i for i in free if scores[name][i] >= LIKELY), key=lambda i: -scores[name][i]
        )
        if near:
            index = _choose(_which(name), columns, near[:CHOICES_SHOWN], ask, top=0)
            if index is not None:
                settle(name, index)
    return _ask_for_the_rest(columns, data, found, taken, ask)


def share_names(data: DataTerms) -> tuple[str, ...]:
    """The plan's columns that are shares of a recipe: any of them may be absent, that is 0."""
    return tuple(
        name
        for item in data.features
        if is_share(parse_unit(item.unit)) and item.range is not None and item.range[0] == 0
        for name in item.names
    )


def labels_of(data: DataTerms) -> dict[str, dict[str, str]]:
    """The plan's columns of classes and categories: what each may hold, by its small letters. A
    name spelt as the plan does is found before one that differs in its letters' size."""
    found = {item.name: item.classes for item in data.targets}
    found |= {name: item.categories for name, item in data.by_feature.items()}
    return {
        name: {label.casefold(): label for label in labels} | {label: label for label in labels}
        for name, labels in found.items()
        if labels is not None
    }


def _ask_for_the_rest(
    columns: Sequence[Column], data: DataTerms, found: dict[str, Column], taken: set[int], ask: Ask
) -> Matches:
    own_groups = False
    shares = share_names(data)
    gaps_allowed = {
        *(data.target_names if len(data.target_names) > 1 else ()),
        *(name for name, may in zip(data.feature_names, data.may_miss, strict=True) if may),
    }
    labels = labels_of(data)
    wanted = [*([data.group] if data.group else []), *data.target_names, *data.feature_names]
    for name in wanted:
        if name in found or name in shares:
            continue
        free = [i for i in range(len(columns)) if i not in taken]
        if name == data.group:
            free = [i for i in free if _repeats(columns[i])][: CHOICES_SHOWN - 1]
            last = (
                "each row stands for itself (only if no two are variants of one recipe) "
                "每行自成一组（仅当没有同一配方的变体）"
            )
            text = (
                f"Which column says which rows belong together ({name!r} in the plan)?",
                f"哪一列表明哪些行属于同一组（计划中的 {name!r}）？",
            )
            index = _choose(text, columns, free, ask, last=last)
            own_groups = index is None
        else:
            fits = [i for i in free if _fits(columns[i], labels.get(name))]
            free = fits[: CHOICES_SHOWN - 1]
            index = _choose(_which(name), columns, free, ask)
        if index is not None:
            found[name] = columns[index]
            taken.add(index)
        elif name not in gaps_allowed and name != data.group:
            raise ConfigError(
                f"no column for {name!r}, which the plan needs; add it to the table, or name it "
                "there as the plan does"
            )
    return Matches(
        found=found,
        absent=tuple(name for name in wanted if name not in found and name != data.group),
        own_groups=own_groups,
    )


def _which(name: str) -> tuple[str, str]:
    return f"Which column is {name!r}?", f"哪一列是 {name!r}？"


def _choose(
    text: tuple[str, str],
    columns: Sequence[Column],
    indices: Sequence[int],
    ask: Ask,
    *,
    top: int | None = None,
    last: str = _NONE,
) -> int | None:
    """The chosen column's index, or None for the last choice."""
    if not indices and last == _NONE:
        return None
    choices = (*(repr(columns[i].label) for i in indices), last)
    answer = ask(Question(text=text[0], chinese=text[1], choices=choices, proposal=top))
    return indices[answer] if answer < len(indices) else None


def _filled(columns: Sequence[Column], indices: list[int]) -> list[int]:
    """Without empty columns, where that leaves any."""
    return [i for i in indices if not all(map(is_gap, columns[i].cells))] or indices


def _repeats(column: Column) -> bool:
    texts = [plain(cell) for cell in column.cells if not is_gap(cell)]
    return len(set(texts)) < len(texts) and len(texts) * 2 > len(column.cells)


def _fits(column: Column, labels: Mapping[str, str] | None) -> bool:
    """Whether most cells hold digits, or, where the plan lists names, one of these."""
    texts = [plain(cell) for cell in column.cells if not is_gap(cell)]
    if labels is None:
        return sum(any(map(str.isdigit, text)) for text in texts) * 2 > len(texts)
    return sum(text in labels or text.casefold() in labels for text in texts) * 2 > len(texts)
