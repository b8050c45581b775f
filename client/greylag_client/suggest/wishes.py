"""What is asked for on the command line: bands of targets, fixed columns, a total, prices."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import DataTerms, Feature

from greylag_client.table import Problems, check_columns, read_cells

SHARES = ("mol%", "wt%", "at%", "vol%", "mass%", "%")
POINT_SHARE = 0.01  # NAME=VALUE means VALUE and this share of the public range on either side
Span = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Where a target is wanted, in its unit; inside its public range."""

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """All that a recipe has to keep to, and what it is wanted for.

    Attributes:
        bands: one for each target that was named.
        fixes: the span of each column that was named; of a category its number, twice.
        total: what the columns of ``summed`` add up to, or None.
        most: how many of them may be other than zero, or None.
        prices: of one unit of a column; empty where cost does not matter.
    """

    bands: tuple[Band, ...]
    fixes: Mapping[str, Span]
    total: float | None
    summed: tuple[str, ...]
    most: int | None
    prices: Mapping[str, float]


def parse_wishes(
    data: DataTerms,
    *,
    targets: Sequence[str],
    fixes: Sequence[str],
    total: float | None,
    sum_of: str | None,
    most: int | None,
    prices: Mapping[str, float],
) -> Wishes:
    """The options of one call, checked against the terms.

    Raises:
        ConfigError: an unknown column (with the nearest name), a span that is none or leaves the
            public range, a name twice, or options that need each other.
    """
    if data.task != "regression":
        raise ConfigError(
            f"the release predicts by {data.task}; suggest works with numbers (regression) only"
        )
    if not targets:
        raise ConfigError("name what is wanted: --target NAME=LOW..HIGH")
    bands: dict[str, Band] = {}
    for text in targets:
        band = _parse_band(text, data)
        if band.name in bands:
            raise ConfigError(f"--target {band.name} is given twice; give one span for it")
        bands[band.name] = band
    spans: dict[str, Span] = {}
    for text in fixes:
        name, span = _parse_fix(text, data)
        if name in spans:
            raise ConfigError(f"--fix {name} is given twice; give one span for it")
        spans[name] = span
    if total is None and (sum_of is not None or most is not None):
        raise ConfigError("--sum-of and --max-components need --sum, the total to keep to")
    if total is not None and not (math.isfinite(total) and total > 0):
        raise ConfigError("--sum: a positive number is needed, such as 100")
    summed = () if total is None else _summed(data, sum_of)
    return Wishes(
        bands=tuple(bands.values()), fixes=spans, total=total, summed=summed, most=most,
        prices=prices,
    )  # fmt: skip


def _parse_band(text: str, data: DataTerms) -> Band:
    name, wanted = _split(text, data.target_names, "--target", "target")
    target = next(item for item in data.targets if item.name == name)
    lowest, highest = target.range or (0.0, 1.0)
    low, high = _parse_span(wanted, f"--target {name}", lowest, highest)
    if low == high:
        margin = POINT_SHARE * (highest - lowest)
        low, high = low - margin, high + margin
    if high < lowest or low > highest:
        raise ConfigError(
            f"--target {name}: the terms know it from {lowest:g} to {highest:g} {target.unit}; "
            "the model can say nothing beyond"
        )
    return Band(name=name, unit=target.unit, low=max(low, lowest), high=min(high, highest))


def _parse_fix(text: str, data: DataTerms) -> tuple[str, Span]:
    name, wanted = _split(text, data.feature_names, "--fix", "column")
    kind = data.by_feature[name]
    if kind.categories is not None:
        return name, _parse_label(wanted, name, kind)
    lowest, highest = kind.bounds
    low, high = _parse_span(wanted, f"--fix {name}", lowest, highest)
    if low < lowest or high > highest:
        raise ConfigError(
            f"--fix {name}: the terms allow {lowest:g} to {highest:g} {kind.unit}, and the model "
            "can say nothing beyond"
        )
    return name, (low, high)


def _parse_label(wanted: str, name: str, kind: Feature) -> Span:
    labels = kind.categories or ()
    if wanted not in labels:
        raise ConfigError(f"--fix {name}: no such category{near(wanted, labels)}")
    return float(labels.index(wanted)), float(labels.index(wanted))


def _split(text: str, names: Sequence[str], option: str, what: str) -> tuple[str, str]:
    """A known name and what stands behind its ``=``; names may hold ``=`` themselves."""
    fitting = [name for name in names if text.startswith(f"{name}=")]
    if not fitting:
        name, sign, _ = text.partition("=")
        if not sign:
            raise ConfigError(f"{option} {name[:60]!r}: write NAME=LOW..HIGH or NAME=VALUE")
        raise ConfigError(f"{option}: no {what} {name[:60]!r} in the terms{near(name, names)}")
    name = max(fitting, key=len)
    return name, text[len(name) + 1 :].strip()


def _parse_span(text: str, what: str, lowest: float, highest: float) -> Span:
    first, dots, last = text.partition("..")
    try:
        low = float(first) if first.strip() else lowest
        high = (float(last) if last.strip() else highest) if dots else low
    except ValueError:
        raise ConfigError(f"{what}: write LOW..HIGH, LOW.., ..HIGH or one number") from None
    if not (text.strip(". ") and math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"{what}: write LOW..HIGH, LOW.., ..HIGH or one number")
    if low > high:
        raise ConfigError(f"{what}: {low:g} is above {high:g}; the lower end comes first")
    return low, high


def near(name: str, names: Iterable[str]) -> str:
    """The nearest names, as the end of an error."""
    folded = {item.casefold(): item for item in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=2)
    if close:
        return "; did you mean " + " or ".join(repr(folded[item]) for item in close) + "?"
    shown = list(folded.values())[:12]
    return f"; it has {', '.join(shown)}{', ...' if len(folded) > len(shown) else ''}"


def _summed(data: DataTerms, sum_of: str | None) -> tuple[str, ...]:
    numbers = [name for name, kind in data.by_feature.items() if kind.categories is None]
    if sum_of is not None:
        named = [name.strip() for name in sum_of.split(",") if name.strip()]
        for name in named:
            if name not in numbers:
                raise ConfigError(f"--sum-of: no numeric column {name!r}{near(name, numbers)}")
        return tuple(dict.fromkeys(named))
    shares = {name: data.by_feature[name].unit.replace(" ", "").lower() for name in numbers}
    shares = {name: unit for name, unit in shares.items() if unit in SHARES}
    units = set(shares.values())
    if len(units) != 1:
        found = f"several such units ({', '.join(sorted(units))})" if units else "no such unit"
        raise ConfigError(
            f"--sum is over the columns whose unit is a share ({', '.join(SHARES)}); the terms "
            f"have {found}: name the columns with --sum-of A,B,C"
        )
    return tuple(shares)


def read_prices(path: Path, data: DataTerms) -> dict[str, float]:
    """Prices of columns from a CSV file with the columns ``column`` and ``cost``.

    Raises:
        ConfigError: another shape, an unknown column, no number, or a price twice.
    """
    cells = read_cells(path)
    problems = Problems(path.name)
    check_columns(cells, ["column", "cost"], problems)
    problems.raise_if_any()
    numbers = [name for name, kind in data.by_feature.items() if kind.categories is None]
    prices: dict[str, float] = {}
    pairs = zip(cells["column"], cells["cost"], strict=True)
    for row, (name, text) in enumerate(pairs, start=2):
        if name not in numbers:
            hint = near(name or "", numbers)
            raise ConfigError(f"{path.name}, row {row}: no numeric column of the terms{hint}")
        try:
            price = float(text)
        except (TypeError, ValueError):
            price = math.nan
        if not (math.isfinite(price) and price >= 0):
            raise ConfigError(f"{path.name}, row {row}: the cost is no number from 0 on")
        if name in prices:
            raise ConfigError(f"{path.name}, row {row}: {name} has a price already; keep one")
        prices[name] = price
    if not prices:
        raise ConfigError(f"{path.name}: no prices; each row is a column's name and its cost")
    return prices
