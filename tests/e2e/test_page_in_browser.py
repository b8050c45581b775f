"""The firm's page in a real browser: what it loads, what clicks do, who can use it, and that a
click stops a real agent."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from consortium_of_processes import World
from firm_with_page import Office, office, small_terms
from greylag_client.page.link_file import read_link
from greylag_client.page.serve import PageServer
from greylag_client.pause import pause, read_pause, resume
from greylag_lab.processes import background
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
)

pytestmark = pytest.mark.e2e

PAUSE = {"en": "Pause", "zh": "暂停参与"}
RESUME = {"en": "Resume", "zh": "恢复参与"}


@pytest.fixture
def firm(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path, time.time()) as made:
        made.newer_list("firm-b", "firm-c", "firm-d")
        made.allow_much()
        made.accept(small_terms(made.firm.settings.consortium), charged=3)
        made.refuse("other-1", "policy", "policy.toml: max_epsilon_per_run = 4, the run asks 6")
        made.see_peers(firm_b=7)
        yield made


@dataclass
class Visit:
    """A browser's window, and everything that it asked for or complained about."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        self.complaints.append(f"{message.type}: {message.text}")


Open = Callable[..., Visit]


@pytest.fixture
def open_page(chromium: Browser, firm: Office) -> Iterator[Open]:
    """Opens windows at the firm's page; at the end each of them must have kept to its server."""
    server = PageServer([firm.house])
    server.start()
    visits: list[Visit] = []
    contexts: list[BrowserContext] = []

    def open_one(*, language: str = "en", width: int = 1280, **options: object) -> Visit:
        viewport = {"width": width, "height": 900}
        context = chromium.new_context(viewport=viewport, locale=language, **options)  # type: ignore
        contexts.append(context)
        visit = Visit(context.new_page())
        visits.append(visit)
        visit.page.on("request", lambda request: visit.asked.append(request.url))
        visit.page.on("console", visit.note)
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.goto(read_link(firm.root))
        return visit

    try:
        yield open_one
        for context in contexts:
            context.close()
    finally:
        server.stop()
    for visit in visits:
        places = {urlsplit(url).netloc for url in visit.asked}
        assert places == {f"127.0.0.1:{server.port}"}
        assert visit.complaints == []  # a breach of the content security policy would be one


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_everybody_can_use_it(open_page: Open, language: str, width: int, scheme: str) -> None:
    visit = open_page(language=language, width=width, color_scheme=scheme, bypass_csp=True)
    page = visit.page
    assert "token" not in page.url
    for summary in page.locator("summary").all():
        summary.click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("link", name="English" if language == "zh" else "中文").click()
    expect(page.locator("html")).to_have_attribute(
        "lang", re.compile("en" if language == "zh" else "zh")
    )


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_pause_and_resume_by_clicking(
    open_page: Open, firm: Office, language: str, script: bool
) -> None:
    page = open_page(language=language, java_script_enabled=script).page
    page.get_by_role("button", name=PAUSE[language], exact=True).click()
    expect(page.get_by_role("status")).to_be_visible()
    assert read_pause(firm.root) is not None
    page.get_by_role("button", name=RESUME[language]).click()
    expect(page.get_by_role("button", name=PAUSE[language], exact=True)).to_be_visible()
    assert read_pause(firm.root) is None
    # With the script the address stays; without it the answer is a page of its own.
    assert ("said=" in page.url) is not script


@pytest.mark.parametrize("script", [True, False])
def test_approve_a_list_by_clicking(open_page: Open, firm: Office, script: bool) -> None:
    page = open_page(java_script_enabled=script).page
    digest = firm.firm.memberships.latest().digest().hex()
    page.get_by_label("I have compared").check()
    page.get_by_label("Type the first").fill("00000000")
    page.get_by_role("button", name="Approve this list").click()
    expect(page.get_by_role("status")).to_contain_text("Not approved")
    assert digest not in firm.firm.approved()
    page.get_by_label("I have compared").check()
    page.get_by_label("Type the first").fill(digest[:8])
    page.get_by_role("button", name="Approve this list").click()
    expect(page.get_by_role("status")).to_contain_text("The list is approved")
    expect(page.get_by_role("button", name="Approve this list")).to_have_count(0)
    assert digest in firm.firm.approved()


def test_what_changes_is_shown_and_what_somebody_types_stays(open_page: Open, firm: Office) -> None:
    page = open_page().page
    page.get_by_label("Type the first").fill("12ab")
    columns = page.locator("#runs details").first
    columns.locator("summary").first.click()
    pause(firm.root, by="test", now_s=time.time())
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    firm.accept(small_terms(firm.firm.settings.consortium, "small-2"))
    expect(page.locator("#runs")).to_contain_text("small-2")
    expect(page.locator("#columns-small-1")).to_have_attribute("open", "")
    expect(page.get_by_label("Type the first")).to_have_value("12ab")
    resume(firm.root)
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()


def test_signing_out_ends_the_session(open_page: Open, firm: Office) -> None:
    page = open_page(java_script_enabled=False).page
    address = page.url
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("body")).not_to_contain_text("firm-a")
    page.get_by_label("token").fill(read_link(firm.root).partition("=")[2])
    page.get_by_role("button", name="Open").click()
    assert page.url == address


def until(holds: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end_s, what
        time.sleep(0.05)


@pytest.mark.slow
def test_a_click_stops_a_real_agent(chromium: Browser, world: World) -> None:
    name, *others = world.tables
    world.set_pace(rounds=100)
    root, log_file = world.firm(name), world.root / "paged.log"
    command = ["run", str(root), "--page", "--approve-members", world.digest]
    world.stack.enter_context(background("greylag-client", command, log_file))
    world.start_agent(*others)
    until(lambda: (root / "page.link").is_file(), log_file.read_text())
    assert "token" not in log_file.read_text()
    page = chromium.new_page()
    page.goto(read_link(root))
    world.start_training()

    def charged() -> int:
        return sum(item.charged for item in world.ledger(name).accounts())

    until(lambda: charged() > 3, "the run does not begin")
    expect(page.locator("#runs")).to_contain_text("attempts charged", timeout=20_000)
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    at_pause = charged()
    until(world.ledger(name).refusals.newest, "nothing was refused")
    (refused, *_) = world.ledger(name).refusals.newest()
    assert refused.refusal_class == "policy"
    assert "paused" in refused.reason
    expect(page.locator("#refusals")).to_contain_text("Participation was paused")
    reached = world.rounds_done()
    world.wait_for_rounds(reached + 3)  # the others go on
    assert charged() == at_pause
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    assert world.wait_for_end()["status"] == "done"
    run = world.start_training()
    until(lambda: charged() > at_pause, "the firm does not take part again")
    expect(page.locator("#runs")).to_contain_text(run, timeout=60_000)
    page.close()
