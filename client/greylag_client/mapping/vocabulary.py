"""Which heading means which column of a plan, and how sure that is."""

import difflib
import functools
import re
import tomllib
import unicodedata
from collections.abc import Sequence
from importlib.resources import files

from greylag_protocols.terms import DataTerms

from greylag_client.mapping.units import parse_unit

SURE = 0.9  # from here on nobody is asked
LIKELY = 0.6  # from here on it is proposed
_FUZZY = 0.8  # least similarity of two spellings of one word
_FORMULA = re.compile(r"(?:[A-Z][a-z]?\d{0,2}){1,6}")
_UNIT_SUFFIXES = {  # how plans end their columns' names
    "K": ("k",),
    "degC": ("c", "degc"),
    "%": ("pct", "percent"),
}


def normalise(name: str) -> str:
    """Letters and digits alone, in small letters and of one width."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(character for character in folded if character.isalnum())


def is_formula(name: str) -> bool:
    """Whether one letter makes another substance of it: SnO2 is no misspelt SiO2."""
    plain = unicodedata.normalize("NFKC", name).strip()
    return len(normalise(plain)) <= 3 or _FORMULA.fullmatch(plain) is not None


class Vocabulary:
    """The columns of a plan, under all names that they are known by."""

    def __init__(self, data: DataTerms) -> None:
        units = {name: item.unit for item in data.features for name in item.names}
        units |= {target.name: target.unit for target in data.targets}
        if data.group is not None:
            units[data.group] = ""
        concepts = _concepts()
        self._exact: dict[str, frozenset[str]] = {}
        self._synonyms: dict[str, frozenset[str]] = {}
        self._words: dict[str, tuple[str, ...]] = {}  # those that may be misspelt
        for name, unit in units.items():
            own = _without_unit(name, unit)
            concept = next((concepts[key] for key in map(normalise, own) if key in concepts), ())
            self._exact[name] = frozenset(map(normalise, own))
            spellings = (*own, *concept)
            self._synonyms[name] = frozenset(map(normalise, spellings))
            self._words[name] = tuple(normalise(text) for text in spellings if not is_formula(text))
        self._all = frozenset().union(*self._synonyms.values())

    def known(self, name: str) -> bool:
        """Whether a name is, letter by letter, one of those that are wanted."""
        return normalise(name) in self._all

    def score(self, wanted: str, names: Sequence[str]) -> float:
        """How likely it is that a column with these names is the wanted one, from 0 to 1."""
        return max(
            self._score(wanted, name) - 0.03 * bool(place) for place, name in enumerate(names)
        )

    def _score(self, wanted: str, name: str) -> float:
        key = normalise(name)
        if not key:
            return 0.0
        if key in self._exact[wanted]:
            return 1.0
        if key in self._synonyms[wanted]:
            return 0.97
        if self.known(name) or is_formula(name):
            return 0.0
        near = 0.0
        for word in self._words[wanted]:
            if len(word.encode()) >= 8 and word in key:  # three Chinese characters, or a long word
                near = max(near, 0.8)
            ratio = difflib.SequenceMatcher(None, key, word).ratio()
            near = max(near, 0.85 * ratio if ratio >= _FUZZY else 0.0)
        return near


def _without_unit(name: str, unit: str) -> tuple[str, ...]:
    """A plan's own name, and the same without the unit at its end: tg_k is tg."""
    suffixes = [re.sub(r"[^0-9a-z]+", "_", unit.casefold()).strip("_")]
    suffixes += _UNIT_SUFFIXES.get(parse_unit(unit) or "", ())
    for suffix in suffixes:
        if suffix and name.casefold().endswith("_" + suffix):
            return name, name[: -len(suffix) - 1]
    return (name,)


@functools.cache
def _concepts() -> dict[str, tuple[str, ...]]:
    """Every normalised synonym, with all names of its concept."""
    text = files(__package__).joinpath("synonyms.toml").read_text(encoding="utf-8")
    found: dict[str, tuple[str, ...]] = {}
    for concepts in tomllib.loads(text).values():
        for name, others in concepts.items():
            names = (name, *others)
            found |= {normalise(item): names for item in names}
    return found
