"""The auditor's report in a real browser: it asks for nothing, complains of nothing, and everybody
can read it."""

import json
import subprocess
from dataclasses import asdict
from typing import Any

import pytest
from audit_evidence import make_evidence
from axe_playwright_python.sync_playwright import Axe
from greylag_lab.processes import program
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.e2e

TAGS = {"en": "en", "zh": "zh-Hans"}
VERDICTS = {"en": "Every promise that can be checked was kept", "zh": "凡可查验的承诺均已兑现"}
HEADINGS = {"en": "How much could be found out?", "zh": "能查出多少？"}
SECTIONS = 10


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Reports on a real run, by the program itself: the three files of each language, and what it
    said on stdout."""
    root = tmp_path_factory.mktemp("audited")
    (root / "run").mkdir()
    evidence = make_evidence(root / "run")
    bundle = evidence.write(root / "bundle")
    trust = root / "trust.json"
    trust.write_text(json.dumps(asdict(evidence.trust())))
    made = {}
    for lang in TAGS:
        out = root / lang
        out.mkdir()
        options = ["--trust", str(trust), "--lang", lang, "--out", str(out), "--format", "json"]
        command = [program("greylag-audit"), "report", str(bundle), *options]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        made[lang] = {"out": out, "told": json.loads(ended.stdout)}
    return made


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_everybody_can_read_it(
    chromium: Browser, reports: dict[str, dict[str, Any]], lang: str, width: int, scheme: Any
) -> None:
    viewport: Any = {"width": width, "height": 900}
    context = chromium.new_context(viewport=viewport, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()  # the checker is a script, which the page's own policy refuses
    page.goto((reports[lang]["out"] / "report.html").as_uri())
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_it_asks_for_nothing(
    chromium: Browser, reports: dict[str, dict[str, Any]], lang: str
) -> None:
    place = (reports[lang]["out"] / "report.html").as_uri()
    context = chromium.new_context(offline=True)
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(place)
    expect(page.locator("html")).to_have_attribute("lang", TAGS[lang])
    expect(page.locator(".verdict")).to_contain_text(VERDICTS[lang])
    expect(page.locator("section")).to_have_count(SECTIONS)
    expect(page.locator(".dots circle")).to_have_count(100)
    # The policy lets the page's own style through: an unstyled verdict has no bar beside it.
    expect(page.locator(".verdict")).to_have_css("border-left-style", "solid")
    page.get_by_role("link", name=HEADINGS[lang]).click()
    expect(page.get_by_role("heading", name=HEADINGS[lang])).to_be_in_viewport()
    assert asked == [place]
    assert complaints == []
    context.close()


def test_a_keyboard_and_a_screen_reader_find_their_way(
    chromium: Browser, reports: dict[str, dict[str, Any]]
) -> None:
    page = chromium.new_page()
    page.goto((reports["en"]["out"] / "report.html").as_uri())
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    expect(page.get_by_role("img", name="Right at most 60 times in 100")).to_be_visible()
    table = page.get_by_role("table", name="Epsilon by firm")
    expect(table.get_by_role("columnheader", name="Spent")).to_be_visible()
    expect(table.get_by_role("rowheader", name="firm-a")).to_be_visible()
    page.close()


def test_it_prints_in_full(chromium: Browser, reports: dict[str, dict[str, Any]]) -> None:
    page = chromium.new_page()
    page.goto((reports["en"]["out"] / "report.html").as_uri())
    page.emulate_media(media="print")
    expect(page.locator("nav")).to_be_hidden()
    for section in page.locator("section").all():
        assert section.is_visible()
    page.close()


def test_the_program_says_the_same_everywhere(reports: dict[str, dict[str, Any]]) -> None:
    for report in reports.values():
        assert json.loads((report["out"] / "report.json").read_bytes()) == report["told"]
        assert (report["out"] / "report.pdf").read_bytes().startswith(b"%PDF-")
    english, chinese = (reports[lang]["told"] for lang in ("en", "zh"))
    assert english["odds"] == chinese["odds"]
    assert english["firms"] == chinese["firms"]
    assert [item["id"] for item in english["sections"]] == [
        item["id"] for item in chinese["sections"]
    ]
