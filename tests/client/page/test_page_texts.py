"""The words of the firm's page, in both languages."""

import re
import string
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from firm_with_page import small_terms
from greylag_client.page import texts
from greylag_client.page.advice import KINDS, advice_for
from greylag_client.page.rendering import number
from greylag_client.policy import Policy
from greylag_protocols.errors import RefusedError


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_say_the_same_things() -> None:
    english, chinese = texts.LANGUAGES["en"], texts.LANGUAGES["zh"]
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert fields(text) == fields(chinese[key]), key
        assert re.search("[\u4e00-\u9fff]", chinese[key]) or key in ("title", "run_cost"), key
        assert not re.search("[\u4e00-\u9fff]", text), key


def test_every_text_is_used_and_every_used_text_exists() -> None:
    package = Path(texts.__file__).parent
    sources = [*package.glob("*.py"), *package.glob("templates/*.html")]
    code = "\n".join(path.read_text() for path in sources if not path.name.startswith("texts_"))
    made = ("cause_", "next_", "said_", "unit_", "state_", "level_", "change_", "class_")
    made += ("connection_", "dot_", "word_")
    for key in texts.LANGUAGES["en"]:
        assert f"'{key}'" in code or f'"{key}"' in code or key.startswith(made), key
    for key in re.findall(r"\bt\('(\w+)'[),]", code):
        assert key in texts.LANGUAGES["en"]
    for kind in {kind for _, kind in KINDS} | {"policy", "protocol"}:
        assert {f"cause_{kind}", f"next_{kind}"} <= texts.LANGUAGES["en"].keys()


@pytest.mark.parametrize(
    ("asked", "kept", "accepted", "language"),
    [
        ("zh", "en", "en", "zh"),
        (None, "zh", "en-GB", "zh"),
        (None, None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, None, "de, en;q=0.5, zh;q=0.9", "zh"),
        ("xx", "../", "fr;q=zero", "en"),
        (None, None, "", "en"),
    ],
)
def test_language(asked: str | None, kept: str | None, accepted: str, language: str) -> None:
    assert texts.choose_language(asked, kept, accepted) == language


def test_real_refusals_are_told_in_peoples_words() -> None:
    terms = small_terms("c")
    generous = Policy(lifetime_epsilon=1e3, max_epsilon_per_run=1e3)
    for change, kind in [
        ({"paused": True}, "paused"),
        ({"max_epsilon_per_run": 0.1}, "run_limit"),
        ({"min_firms": 40}, "company"),
        ({"purposes": ("*glass*",)}, "purpose"),
        ({"units": ("firm",)}, "unit"),
    ]:
        with pytest.raises(RefusedError) as refused:
            replace(generous, **change).check_terms(terms, datetime(2026, 11, 24))
        assert advice_for(str(refused.value), refused.value.refusal_class) == kind
    assert advice_for("something else", "policy") == "policy"
    assert advice_for("something else", "protocol") == "protocol"


def test_numbers_show_no_more_digits_than_mean_anything() -> None:
    assert [number(x) for x in (0.0, 2.0, 3.14159, 1e-5, 2.34e-6, 20546)] == [
        "0",
        "2",
        "3.14",
        "10⁻⁵",
        "2.34 × 10⁻⁶",
        "20,546",
    ]
