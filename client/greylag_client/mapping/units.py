"""Units as people write them, and the line that leads from one to another.

Shares are kept apart by kind: nothing here turns wt% into mol%, since that needs the whole recipe.
"""

import functools
import re
import unicodedata
from dataclasses import dataclass

import pint

SHARES = ("wt%", "mol%", "vol%", "at%")
DEGREES = ("K", "degC", "degF")
PERCENT = "%"  # of what is not said
FRACTION = "fraction"  # between 0 and 1, of what is not said
MAX_UNIT_LENGTH = 24

# Written without blanks and in small letters. These win over what pint would make of the text.
_ALIASES = {
    "c": "degC",
    "°c": "degC",
    "degc": "degC",
    "deg.c": "degC",
    "celsius": "degC",
    "摄氏度": "degC",
    "度": "degC",
    "°f": "degF",
    "degf": "degF",
    "华氏度": "degF",
    "k": "K",
    "kelvin": "K",
    "开": "K",
    "开尔文": "K",
    "%": PERCENT,
    "pct": PERCENT,
    "percent": PERCENT,
    "百分比": PERCENT,
    "兆帕": "MPa",
    "吉帕": "GPa",
    "克/立方厘米": "g/cm**3",
    "千克/立方米": "kg/m**3",
    "小时": "h",
    "分钟": "min",
    "天": "d",
    "rpm": "rpm",
    "kgm3": "kg/m**3",
    "gcm3": "g/cm**3",
    "kjm2": "kJ/m**2",
}
_SHARE_PATTERNS = {
    "wt%": r"(wt|weight|mass|w|质量|重量)[.\-_]*(%|pct|percent|分数|百分比|百分数)|%\(?(wt|w)\)?",
    "mol%": r"(mol|mole|molar|摩尔)[.\-_]*(%|pct|percent|分数|百分比|百分数)|%\(?mol\)?",
    "vol%": r"(vol|volume|v|体积)[.\-_]*(%|pct|percent|分数|百分比|百分数)|%\(?vol\)?",
    "at%": r"(at|atomic|原子)[.\-_]*(%|pct|percent|分数|百分比|百分数)|%\(?at\)?",
}
# Only what this grammar lets through reaches pint, so that it meets neither code nor huge powers.
_TERM = r"[a-zµμΩ]+(\*\*-?[1-9])?"
_GRAMMAR = re.compile(rf"{_TERM}([*/]{_TERM})*", re.IGNORECASE)
_NEIGHBOURS = {  # what a number without a unit might also be in, most likely first
    "K": ("K", "degC", "degF"),
    "degC": ("degC", "K", "degF"),
    "MPa": ("MPa", "GPa", "kPa"),
    "GPa": ("GPa", "MPa"),
    "g/cm**3": ("g/cm**3", "kg/m**3"),
    "kg/m**3": ("kg/m**3", "g/cm**3"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """``value * factor + offset``: a conversion of units."""

    factor: float = 1.0
    offset: float = 0.0

    def __call__(self, value: float) -> float:
        return value * self.factor + self.offset


def parse_unit(text: str) -> str | None:
    """The unit that a text names, in one spelling, or None if it names none."""
    plain = unicodedata.normalize("NFKC", text).strip().strip("[]").replace("−", "-")
    plain = re.sub(r"\s+", "", plain).replace("^", "**").replace("·", "*").replace("⋅", "*")
    if not plain or len(plain) > MAX_UNIT_LENGTH:
        return None
    folded = plain.casefold()
    if folded in _ALIASES:
        return _ALIASES[folded]
    for share, pattern in _SHARE_PATTERNS.items():
        if re.fullmatch(pattern, folded):
            return share
    powers = re.sub(r"(?<=[A-Za-zµμ])(-?\d)", r"**\1", plain)  # cm3, cm-3
    return _known_to_pint(powers) if _GRAMMAR.fullmatch(powers) else None


def shown(unit: str) -> str:
    """A unit as people write it."""
    return {"degC": "°C", "degF": "°F"}.get(unit, unit.replace("**", ""))


def is_share(unit: str | None) -> bool:
    """Whether a unit is some kind of percent."""
    return unit in SHARES or unit == PERCENT


def candidates(unit: str) -> tuple[str, ...]:
    """The units in which numbers meant as ``unit`` may also have been written down."""
    if is_share(unit):
        return (unit, FRACTION)
    return _NEIGHBOURS.get(unit, (unit,))


def conversion(source: str, wanted: str) -> Line | None:
    """The line from one unit to another, both as ``parse_unit`` spells them; None: there is none.

    "%" and fractions are taken for whatever share is wanted.
    """
    if source == wanted:
        return Line()
    if source in (PERCENT, FRACTION) or is_share(source) or is_share(wanted):
        if source == FRACTION and is_share(wanted):
            return Line(factor=100.0)
        unsaid = PERCENT in (source, wanted) and is_share(source) and is_share(wanted)
        return Line() if unsaid else None
    registry = _registry()
    try:
        zero = registry.Quantity(0.0, source).to(wanted).magnitude
        one = registry.Quantity(1.0, source).to(wanted).magnitude
    except pint.PintError:
        return None
    return Line(factor=float(f"{one - zero:.10g}"), offset=float(f"{zero:.10g}"))


@functools.cache
def _registry() -> "pint.UnitRegistry[float]":
    return pint.UnitRegistry()


@functools.cache
def _known_to_pint(text: str) -> str | None:
    try:
        _registry().parse_units(text)
    except (pint.PintError, ValueError, AssertionError, KeyError):
        return None
    return text
