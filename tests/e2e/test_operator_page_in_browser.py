"""The operator's page in a real browser: what it loads, what clicks do, who can use it, how soon it
is there with 200 firms, and that it speaks TLS wherever it is not on the loopback."""

import re
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from axe_playwright_python.sync_playwright import Axe
from greylag_protocols.invite import parse_invite
from greylag_server.page.serve import OperatorPage
from lead_with_page import PASSWORD, RUN, LeadHouse, with_history
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
)

pytestmark = pytest.mark.e2e

FIRMS = 200
PAGES = ("", "firms", "runs", f"runs/{RUN}", "log", "releases", "journal")
FORMS = ("firms/firm-002/remove", f"runs/{RUN}/pause", f"runs/{RUN}/cancel")
TABLES = {"": "#status", "firms": "#firms", f"runs/{RUN}": "#charges", "log": "#cosigners"}
FIRST_PAINT_MS = 1000
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> LeadHouse:
    made = with_history(LeadHouse(tmp_path_factory.mktemp("lead") / "lead", firms=FIRMS))
    made.add_accounts()
    return made


@dataclass
class Visit:
    """A browser's window, and everything that it asked for or complained about."""

    page: Page
    home: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        if message.type != "info":  # such as that a field was not focused, since another is
            self.complaints.append(f"{message.type}: {message.text}")

    def enter(self, name: str = "olga", password: str = PASSWORD) -> "Visit":
        self.page.goto(self.home)
        self.page.locator("#name").fill(name)
        self.page.locator("#password").fill(password)
        self.page.locator("form button").click()
        return self

    def go(self, path: str) -> Page:
        self.page.goto(self.home + path)
        return self.page


Open = Callable[..., Visit]


@pytest.fixture
def server(house: LeadHouse) -> Iterator[OperatorPage]:
    with house.serving() as served:
        yield served


@pytest.fixture
def open_page(chromium: Browser, server: OperatorPage) -> Iterator[Open]:
    """Opens windows; at the end each of them must have kept to its server."""
    visits: list[Visit] = []
    contexts: list[BrowserContext] = []

    def open_one(*, language: str = "en", width: int = 1280, **options: object) -> Visit:
        viewport = {"width": width, "height": 900}
        context = chromium.new_context(viewport=viewport, locale=language, **options)  # type: ignore
        contexts.append(context)
        visit = Visit(context.new_page(), server.address)
        visits.append(visit)
        visit.page.on("request", lambda request: visit.asked.append(request.url))
        visit.page.on("console", visit.note)
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        return visit

    yield open_one
    for context in contexts:
        context.close()
    for visit in visits:
        assert {urlsplit(url).netloc for url in visit.asked} == {f"127.0.0.1:{server.port}"}
        assert visit.complaints == []  # a breach of the content security policy would be one


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_everybody_can_use_it(open_page: Open, language: str, width: int, scheme: str) -> None:
    visit = open_page(language=language, width=width, color_scheme=scheme, bypass_csp=True)
    visit.page.goto(visit.home)
    axe = Axe()
    found = axe.run(visit.page)
    assert found.violations_count == 0, found.generate_report()
    visit.enter()
    for path in (*PAGES, *FORMS):
        page = visit.go(path + ("?q=firm-00" if path in TABLES else ""))
        found = axe.run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.get_by_role("link", name="English" if language == "zh" else "中文").click()
    other = re.compile("en" if language == "zh" else "zh")
    expect(page.locator("html")).to_have_attribute("lang", other)
    expect(visit.go("log").locator("html")).to_have_attribute("lang", other)


def test_the_first_paint_with_200_firms(
    open_page: Open, record_property: Callable[..., None]
) -> None:
    visit = open_page().enter()
    for path, table in TABLES.items():
        painted = []
        for _ in range(3):
            page = visit.go(path)
            expect(page.locator(table)).to_be_visible()
            end_s = time.monotonic() + 10
            while (paint_ms := page.evaluate(PAINTED)) is None and time.monotonic() < end_s:
                time.sleep(0.02)
            painted.append(paint_ms or 1e9)
        if path:
            assert page.locator(f"{table} tbody tr").count() == FIRMS
        record_property(f"first paint of /{path}, ms", min(painted))
        print(f"first paint of /{path}: {', '.join(f'{item:.0f}' for item in painted)} ms")
        assert min(painted) < FIRST_PAINT_MS, path  # the best of three: others use this machine


@pytest.mark.parametrize("script", [True, False])
def test_invite_and_remove_by_clicking(open_page: Open, house: LeadHouse, script: bool) -> None:
    visit = open_page(java_script_enabled=script, permissions=["clipboard-read", "clipboard-write"])
    name = f"firm-80{int(script)}"
    page = visit.enter().page
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Firms").click()
    page.get_by_label("Firm (short name)").fill(name)
    page.get_by_role("button", name="Make an invite").click()
    line = page.locator("#once").inner_text()
    assert parse_invite(line).firm == name
    if script:
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == line
    page.reload()
    expect(page.locator("#once")).to_have_count(0)
    expect(page.locator("#invites")).to_contain_text(name)
    house.admit(name)
    page.reload()
    page.get_by_label("Filter").fill(name)
    if not script:
        page.get_by_role("button", name="Show").click()
    expect(page.locator("#firms tbody tr")).to_have_count(1)
    for typed, says in [("firm-999", "Nothing was removed"), (name, f"{name} was removed")]:
        visit.go(f"firms?q={name}").get_by_role("link", name=f"Remove {name}").click()
        page.get_by_label("Type the firm's name").fill(typed)
        page.get_by_role("button", name="Remove").click()
        expect(page.get_by_role("status").first).to_contain_text(says)
    assert name not in [item.name for item in house.enrolment.members()]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_steer_a_run_by_clicking(open_page: Open, house: LeadHouse, language: str) -> None:
    run = f"steered-{language}"
    house.queue(run)
    words = {
        "en": ("Pause", "Resume", "Cancel the run", "the wrong plan"),
        "zh": ("暂停", "恢复", "取消任务", "计划有误"),
    }[language]
    visit = open_page(language=language).enter()
    for word in words[:2]:
        page = visit.go(f"runs/{run}")
        page.get_by_role("link", name=word, exact=True).click()
        page.get_by_role("button", name=word, exact=True).click()
        expect(page.get_by_role("status").first).to_be_visible()
    assert house.store.last_wish(run).wish == "resume"  # type: ignore[union-attr]
    page.get_by_role("link", name=words[2]).click()
    page.locator("#because").fill(words[3])
    page.get_by_role("button", name=words[2]).click()
    expect(page.get_by_role("status").first).to_be_visible()
    wished = house.store.last_wish(run)
    assert wished is not None
    assert (wished.wish, wished.because, wished.who) == ("cancel", words[3], "olga")
    house.obey(run)
    journal = visit.go("journal").locator("#deeds")
    expect(journal).to_contain_text(f"{run}: {words[3]}")


def test_a_viewer_sees_no_buttons(open_page: Open) -> None:
    visit = open_page().enter("victor")
    for path in ("firms", f"runs/{RUN}"):
        page = visit.go(path)
        expect(page.locator("main form:not(.filter)")).to_have_count(0)
        expect(page.locator("main a[href*=remove], main .button")).to_have_count(0)


def test_what_changes_is_shown_and_what_somebody_types_stays(
    open_page: Open, house: LeadHouse
) -> None:
    visit = open_page().enter()
    page = visit.go("firms?q=firm-001")
    row = page.locator("#firms tbody tr")
    expect(row).to_contain_text("away")
    page.get_by_label("Filter").fill("firm-001 ")
    house.online["firm-001"] = "0.2.0"
    expect(row).to_contain_text("0.2.0")
    expect(row).to_have_count(1)
    expect(page.get_by_label("Filter")).to_have_value("firm-001 ")
    del house.online["firm-001"]
    page = visit.go(f"runs/{RUN}")
    before = house.store.run(RUN).rounds_done
    for _ in range(3):
        house.attempt()
        time.sleep(0.7)
    expect(page.locator("#run")).to_contain_text(f"{before + 3} of 40 rounds")
    expect(page.locator("#pace canvas")).to_be_visible(timeout=15_000)
    label = page.locator(".chart").get_attribute("aria-label")
    assert label is not None
    assert "Seconds of each attempt" in label


def test_a_session_that_ends_is_seen(open_page: Open, house: LeadHouse) -> None:
    house.accounts.add("piet", "operator", PASSWORD)
    visit = open_page().enter("piet")
    expect(visit.page.locator("#status")).to_be_visible()
    house.accounts.remove("piet")
    expect(visit.page.locator("#password")).to_be_visible(timeout=15_000)
    assert house.consortium.settings.id not in visit.page.content()


def test_elsewhere_than_on_the_loopback_it_speaks_tls(house: LeadHouse, tmp_path: Path) -> None:
    with house.page(bind="127.0.0.2") as page:  # a machine's own address, but not the loopback's
        page.start()
        assert page.address.startswith("https://")
        (tmp_path / "ca.pem").write_bytes(house.consortium.ca_pem)
        trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        trust.check_hostname = False  # the certificate is for the name that firms dial
        with urlopen(page.address + "login", context=trust, timeout=20) as answer:  # noqa: S310
            cookie = answer.headers["set-cookie"].lower()
        assert cookie.startswith("__host-")
        assert "secure" in cookie
        with pytest.raises((URLError, ConnectionError)):
            urlopen(page.address.replace("https", "http"), timeout=20)  # noqa: S310
