"""Numbers, units and headings as people write them."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from greylag_client.mapping.cells import Percent, decimal_mark, is_gap, read_number, read_numbers
from greylag_client.mapping.headers import split_heading
from greylag_client.mapping.units import Line, conversion, parse_unit
from greylag_client.mapping.vocabulary import LIKELY, SURE, Vocabulary, normalise
from greylag_protocols.plan import parse_plan
from greylag_protocols.terms import DataTerms, Feature, Target

GLASS_PLAN = Path(__file__).parents[2] / "docs/examples/glass.toml"
DATA = DataTerms(
    standard="glasses@1.0",
    task="regression",
    targets=(Target(name="tg_k", unit="K", range=(300, 1300)),),
    features=(
        Feature(names=("SiO2", "Na2O", "CaO", "SnO2"), unit="mol%", range=(0, 100)),
        Feature(names=("density",), unit="g/cm3", range=(1, 9)),
    ),
    expected_records=1000,
    max_records_per_firm=500,
)


@pytest.mark.parametrize(
    ("text", "mark", "value"),
    [
        ("12,5", ",", 12.5),
        ("1.234,5", ",", 1234.5),
        ("1.234", ",", 1234),
        ("1,234.5", ".", 1234.5),
        ("1 234.5", ".", 1234.5),
        ("1'234", ".", 1234),
        ("−5", ".", -5),
        ("１２．５", ".", 12.5),
        ("1e-3", ".", 0.001),
        ("12.5 ± 0.3", ".", 12.5),
        ("560 ℃", ".", 560),
        ("12.5%", ".", 12.5),
        (0.125, ",", 0.125),  # a spreadsheet's own number, whatever its neighbours' commas
    ],
)
def test_reads_numbers_as_people_write_them(text: str | float, mark: Any, value: float) -> None:
    assert read_number(text, mark).value == value


@pytest.mark.parametrize(
    "text", ["1,5", "1.2.3", "2024-01-05", "N-17", "1,23,456.0", "1e999", "5 6"]
)
def test_does_not_guess_at_what_is_no_number(text: str) -> None:
    reading = read_number(text, ".")
    assert reading.unread
    assert reading.value is None


@pytest.mark.parametrize(
    "text", [None, "", "  ", "NA", "n/a", "-", "—", "无", "#N/A", float("nan")]
)
def test_knows_how_people_write_nothing(text: str | float | None) -> None:
    assert is_gap(text)
    assert not read_number(text, ".").unread


def test_below_a_limit_is_half_of_it_and_counted() -> None:
    read = read_numbers(["<0.1", "＜ 0.2", "3", ">5", "~6", "soft"], ".")
    assert read.values == (0.05, 0.1, 3, 5, 6, None)
    assert (read.below, read.about, read.unread) == (2, 2, (5,))


def test_a_spreadsheets_percent_is_one() -> None:
    assert read_numbers([Percent(12.5), "3%"], ".").units == {"%": 2}


def test_the_mark_follows_from_cells_that_allow_one_reading() -> None:
    assert decimal_mark(["1,234", "0,5"]) == ","
    assert decimal_mark(["1,234", "0.5"]) == "."
    assert decimal_mark(["1,234.5"]) == "."
    assert decimal_mark(["1.234,5"]) == ","


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("℃", "degC"),
        ("°C", "degC"),
        ("wt.-%", "wt%"),
        ("质量%", "wt%"),
        ("mol %", "mol%"),
        ("摩尔百分数", "mol%"),
        ("g/cm³", "g/cm**3"),
        ("kJ/m2", "kJ/m**2"),
        ("DSC", None),
        ("N-0", None),
        ("9**9**9**9", None),
        ("__import__('os')", None),
    ],
)
def test_reads_units(text: str, unit: str | None) -> None:
    assert parse_unit(text) == unit


def test_converts_units_and_keeps_kinds_of_shares_apart() -> None:
    assert conversion("degC", "K") == Line(offset=273.15)
    assert conversion("GPa", "MPa") == Line(factor=1000)
    assert conversion("g*cm**-3", "kg/m**3") == Line(factor=1000)
    assert conversion("%", "mol%") == Line()
    assert conversion("fraction", "mol%") == Line(factor=100)
    for odd in ("wt%", "K", "a"):
        assert conversion(odd, "mol%") is None
    assert conversion("a", "K") is None


@pytest.mark.parametrize(
    ("parts", "name", "unit"),
    [
        (["SiO2 (wt%)"], "SiO2", "wt%"),
        (["SiO2 wt %"], "SiO2", "wt%"),
        (["Tg / °C"], "Tg", "degC"),
        (["密度[g/cm3]"], "密度", "g/cm**3"),
        (["玻璃化转变温度(Tg)/℃"], "Tg", "degC"),
        (["Composition (mol%)", "CaO"], "CaO", "mol%"),
        (["Tg", "K"], "Tg", "K"),
        (["Tg (DSC)"], "Tg", None),
        (["SiO2含量"], "SiO2", None),
        (["Density in kg/m³"], "Density", "kg/m**3"),
        (["Density / kg/m3"], "Density", "kg/m**3"),
    ],
)
def test_splits_headings(parts: list[str], name: str, unit: str | None) -> None:
    names, found = split_heading(parts, Vocabulary(DATA).known)
    assert name in names
    assert found == unit


def test_a_letter_makes_another_substance_but_a_slip_does_not_make_another_word() -> None:
    words = Vocabulary(DATA)
    assert words.score("SiO2", ["二氧化硅"]) >= SURE
    assert words.score("SnO2", ["SiO2"]) == words.score("SiO2", ["SnO2"]) == 0
    assert words.score("SnO2", ["SnO3"]) == 0
    glass = Vocabulary(parse_plan(GLASS_PLAN.read_text(encoding="utf-8")).data)
    assert glass.score("MnO", ["manganese dioxide"]) == 0 < glass.score("MnO2", ["MnO2"])
    assert LIKELY <= words.score("tg_k", ["Glas transition temp"]) < SURE


def test_no_synonym_stands_in_two_lines() -> None:
    text = files("greylag_client.mapping").joinpath("synonyms.toml").read_text(encoding="utf-8")
    seen: dict[str, str] = {}
    for things in tomllib.loads(text).values():
        for name, others in things.items():
            for spelling in {normalise(item) for item in (name, *others)}:
                assert seen.setdefault(spelling, name) == name
