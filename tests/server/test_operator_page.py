"""What the operator's page shows and does, without a browser."""

import hashlib
import re
import string
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from greylag_server.page import accounts, texts
from greylag_server.page.app import STATIC
from greylag_server.page.serve import OperatorPage
from greylag_server.page.source import Desk
from lead_with_page import PASSWORD, RUN, LeadHouse, with_history
from starlette.testclient import TestClient

HOSTILE = "<script>alert(1)</script>'\"&"
PAGES = ("/", "/firms", "/runs", f"/runs/{RUN}", "/log", "/releases", "/journal")


class Visitor:
    """A browser at the page."""

    def __init__(self, page: OperatorPage, language: str = "en") -> None:
        page.desk.follow(threading.Event())
        self.page = page
        self.client = TestClient(
            page.app,
            base_url=f"http://127.0.0.1:{page.port}",
            follow_redirects=False,
            headers={"accept-language": language},
        )

    def enter(self, name: str = "olga", password: str = PASSWORD) -> "Visitor":
        answer = self.client.post(
            "/login", data={"word": self.word("/login"), "name": name, "password": password}
        )
        assert answer.status_code == 303, answer.text
        return self

    def word(self, path: str = "/") -> str:
        found = re.search(r'name="word" value="([0-9a-f]{64})"', self.client.get(path).text)
        assert found is not None
        return found[1]

    def read(self, path: str) -> str:
        self.page.desk.follow(threading.Event())
        answer = self.client.get(path)
        assert answer.status_code == 200
        return answer.text

    def act(self, action: str, **form: str) -> str:
        """Sends a form; the page that it leads to."""
        answer = self.client.post(f"/act/{action}", data={"word": self.word(), **form})
        assert answer.status_code == 303, answer.text
        return self.read(answer.headers["location"])


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """argon2id with less work: these tests sign in again and again."""
    monkeypatch.setattr(accounts, "HASHER", PasswordHasher(1, 8, 1))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> LeadHouse:
    made = with_history(LeadHouse(tmp_path_factory.mktemp("page") / "lead", firms=4))
    made.add_accounts()
    return made


@pytest.fixture
def page(house: LeadHouse) -> Iterator[OperatorPage]:
    with house.page() as unserved:
        yield unserved


@pytest.fixture
def olga(page: OperatorPage) -> Visitor:
    return Visitor(page).enter()


def test_without_a_session_nothing_is_told(page: OperatorPage, house: LeadHouse) -> None:
    visitor = Visitor(page)
    paths = [*PAGES, "/firms/firm-001/remove", f"/runs/{RUN}/cancel", "/part/firms/firms"]
    for path in [*paths, "/events/firms"]:
        answer = visitor.client.get(path)
        assert answer.status_code in (204, 303, 404)
        assert answer.text == ""
    answer = visitor.client.post("/act/invite", data={"word": "", "firm": "x"})
    assert answer.headers["location"] == "/login"
    assert house.consortium.settings.id not in visitor.client.get("/login").text


def test_the_cookie_and_wrong_passwords(page: OperatorPage, house: LeadHouse) -> None:
    visitor = Visitor(page)
    wrong = {"word": visitor.word("/login"), "name": "olga", "password": "wrong"}
    assert visitor.client.post("/login", data=wrong | {"word": ""}).status_code == 403
    answer = visitor.client.post("/login", data=wrong)
    assert answer.status_code == 403
    assert "do not belong together" in answer.text
    unknown = wrong | {"name": "my secret passphrase"}
    assert visitor.client.post("/login", data=unknown).text == answer.text
    told = [(item.who, item.outcome) for item in house.accounts.journal(5)]
    assert told.count(("olga", "failed")) == 1
    assert not any("secret" in str(item) for item in house.accounts.journal(50))
    answer = visitor.client.post("/login", data=wrong | {"password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie  # a browser would not send it back to plain http


def test_guessing_is_slowed_down(page: OperatorPage) -> None:
    visitor = Visitor(page)
    form = {"word": visitor.word("/login"), "name": "olga", "password": "wrong"}
    statuses = [visitor.client.post("/login", data=form).status_code for _ in range(4)]
    assert statuses == [403, 403, 403, 429]
    answer = visitor.client.post("/login", data=form | {"password": PASSWORD})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


def test_a_session_of_an_account_that_is_gone_is_gone(house: LeadHouse, page: OperatorPage) -> None:
    house.accounts.add("piet", "operator", PASSWORD)
    piet = Visitor(page).enter("piet")
    assert piet.client.get("/").status_code == 200
    house.accounts.add("piet", "viewer", PASSWORD)
    assert piet.client.get("/").headers["location"] == "/login"
    piet.enter("piet")
    house.accounts.remove("piet")
    assert piet.client.get("/").headers["location"] == "/login"


def test_signing_out(olga: Visitor) -> None:
    kept = dict(olga.client.cookies)
    assert olga.client.post("/leave", data={"word": "0" * 64}).status_code == 403
    assert olga.client.post("/leave", data={"word": olga.word()}).status_code == 200
    for name, value in kept.items():
        olga.client.cookies.set(name, value)
    assert olga.client.get("/").status_code == 303


def test_what_is_shown(olga: Visitor) -> None:
    overview = olga.read("/")
    assert "Firms connected: 3 of 4." in overview
    assert f"Run {RUN} trains: 10 of 40 rounds." in overview
    firms = olga.read("/firms")
    assert firms.count('<th scope="row">') == 4
    assert ">out of the run<" in firms  # firm-001 was missing twice
    run = olga.read(f"/runs/{RUN}")
    assert "12 of 80 attempts used" in run
    assert "about 1 min 15 s left" in run
    assert "from the first answer to the last" in run
    assert "void attempts: 2" in run
    assert "refusals (policy): 1" in run
    assert "Attempt 11, round 9, roster of 4: missing firm-001" in run
    charged = dict(
        re.findall(r'<th scope="row">(firm-\d+)</th>.*?"Releases charged">(\d+)<', run, re.S)
    )
    assert charged == {"firm-001": "10", "firm-002": "12", "firm-003": "12", "firm-004": "12"}
    log = olga.read("/log")
    assert olga.page.desk.look().log_root in log
    assert ">never<" in log  # the last firm never cosigned
    assert "small v1" in olga.read("/releases")


def test_nothing_of_firms_budgets_or_data_is_known(olga: Visitor) -> None:
    for path in PAGES:
        assert not re.search(r"budget left|records_held|remaining", olga.read(path), re.I)


def test_filters(olga: Visitor) -> None:
    for query, count in [("", 4), ("firm-002", 1), ("away", 1), ("离线", 1), ("FIRM online", 3)]:
        answer = olga.client.get("/part/firms/firms", params={"q": query})
        assert answer.text.count('<th scope="row">') == count
        assert olga.client.get("/firms", params={"q": query}).text.count('scope="row"') == count
    nothing = olga.client.get("/firms", params={"q": HOSTILE}).text
    assert "Nothing fits the filter." in nothing
    assert HOSTILE not in nothing


def test_an_invite_is_shown_once(olga: Visitor, house: LeadHouse) -> None:
    shown = olga.act("invite", firm="firm-new")
    (line,) = re.findall(r'<code id="once">([^<]+)</code>', shown)
    assert len(line) > 100
    assert line not in olga.read("/firms")
    assert "firm-new" in olga.read("/firms")
    assert house.accounts.journal(1)[0].about == "firm-new"
    assert line not in str(house.accounts.journal(200))
    refused = olga.act("invite", firm="firm-002")
    assert "is a member already" in refused
    assert house.accounts.journal(1)[0].outcome == "failed"
    assert HOSTILE not in olga.act("invite", firm=HOSTILE)


def test_a_firm_is_removed_only_as_it_was_meant(olga: Visitor, house: LeadHouse) -> None:
    house.admit("firm-900")
    assert "not firm-900" in olga.act("remove", firm="firm-900", typed="firm-90")
    assert "firm-900" in [item.name for item in house.enrolment.members()]
    assert "firm-900 was removed" in olga.act("remove", firm="firm-900", typed="firm-900")
    assert "firm-900" not in [item.name for item in house.enrolment.members()]
    assert olga.client.get("/firms/firm-900/remove").status_code == 404


def test_a_run_is_steered(olga: Visitor, house: LeadHouse) -> None:
    assert "is being paused" in olga.act("pause", run=RUN)
    paused = olga.read(f"/runs/{RUN}")
    assert f"/runs/{RUN}/resume" in paused
    assert f"/runs/{RUN}/pause" not in paused
    assert house.store.last_wish(RUN).who == "olga"  # type: ignore[union-attr]
    olga.act("resume", run=RUN, because="all is well")
    assert "say why" in olga.act("cancel", run="later-2")
    olga.act("cancel", run="later-2", because="the wrong plan")
    house.obey("later-2")
    assert ">cancelled<" in olga.read("/runs")
    assert "Something waits for you" not in olga.read("/")
    done = [item for item in house.accounts.journal(9) if item.what == "cancel"]
    assert [(item.about, item.outcome) for item in done] == [("later-2: the wrong plan", "done")]


def test_a_viewer_looks_and_cannot_act(page: OperatorPage, house: LeadHouse) -> None:
    victor, before = Visitor(page).enter("victor"), house.store.last_wish(RUN)
    for path in PAGES:
        content = victor.read(path)
        assert "/act/" not in content
        assert "/remove" not in content
        assert "/cancel" not in content
    for path in ("/firms/firm-002/remove", f"/runs/{RUN}/pause"):
        assert victor.client.get(path).status_code == 403
    for action, form in [
        ("invite", {"firm": "firm-x"}),
        ("remove", {"firm": "firm-002", "typed": "firm-002"}),
        ("pause", {"run": RUN}),
        ("cancel", {"run": RUN, "because": "x"}),
    ]:
        answer = victor.client.post(f"/act/{action}", data={"word": victor.word(), **form})
        assert answer.status_code == 403
        assert house.accounts.journal(1)[0].outcome == "refused"
    assert house.store.last_wish(RUN) == before
    assert "firm-002" in [item.name for item in house.enrolment.members()]


def test_forms_need_their_word(olga: Visitor, house: LeadHouse) -> None:
    before = house.store.last_wish(RUN)
    for word in ("", "0" * 64):
        answer = olga.client.post("/act/pause", data={"run": RUN, "word": word})
        assert answer.status_code == 403
    assert olga.client.get("/act/pause").status_code == 405
    answer = olga.client.post("/act/format", data={"word": olga.word()})
    assert answer.status_code == 404
    assert house.store.last_wish(RUN) == before


def test_without_steering_its_buttons_are_absent(house: LeadHouse) -> None:
    with house.page(steering=None, live=None) as served:
        visitor = Visitor(served).enter()
        assert "/pause" not in visitor.read(f"/runs/{RUN}")
        assert visitor.client.get(f"/runs/{RUN}/pause").status_code == 404
        assert "not known here" in visitor.read("/firms")
        assert "connected:" not in visitor.read("/firms")


def test_what_does_not_exist(olga: Visitor) -> None:
    for path in (
        "/runs/none",
        "/runs/none/cancel",
        "/firms/none/remove",
        "/x",
        "/static/../app.py",
    ):
        assert olga.client.get(path).status_code == 404
    assert olga.client.get("/part/firms/runs").status_code == 404
    assert olga.client.get("/part/none/runs").status_code == 404
    assert olga.client.get("/events/none").status_code == 204


def test_pages_are_the_same_until_something_happens(page: OperatorPage, house: LeadHouse) -> None:
    desk: Desk = page.desk
    Visitor(page)
    stamp, facts = desk.stamp(), desk.look()
    assert desk.stamp() == stamp
    assert desk.look() is facts
    house.refuse("firm-002", "policy")
    assert desk.stamp() != stamp
    desk.follow(threading.Event())
    assert desk.look() is not facts


def test_attempts_are_timed_once_two_were_seen(tmp_path: Path) -> None:
    house = LeadHouse(tmp_path / "lead", firms=3)
    house.queue()
    house.begin()
    house.attempt()
    now = iter([100.0, 110.0, 112.0])
    desk = Desk(
        house.consortium, log_path=house.log_path, enrolment=house.enrolment,
        accounts=house.accounts, live=None, clock=lambda: next(now, 120.0),
    )  # fmt: skip
    never = threading.Event()
    desk.follow(never)
    house.attempt()
    desk.follow(never)
    house.attempt(missing=house.names[:1])
    house.attempt()
    desk.follow(never)
    assert [item.seconds for item in desk.look().runs[0].seen.attempts] == [0.0, 0.0, 1.0, 1.0]
    desk.close()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_in_every_language(page: OperatorPage, language: str) -> None:
    visitor = Visitor(page, language).enter()
    for path in [*PAGES, "/firms/firm-002/remove", f"/runs/{RUN}/cancel"]:
        content = visitor.read(path)
        assert f'lang="{"zh-Hans" if language == "zh" else "en"}"' in content
        assert "style=" not in content
        assert not re.search(r"<script(?! src=\"/static/)|\son[a-z]+=|https?://", content)


def test_both_languages_say_the_same() -> None:
    def names(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    english, chinese = texts.LANGUAGES["en"], texts.LANGUAGES["zh"]
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert names(text) == names(chinese[key]), key
    assert texts.choose_language("zh", "en", "en") == "zh"
    assert texts.choose_language("xx", "zh", "en") == "zh"
    assert texts.choose_language(None, None, "zh-CN,zh;q=0.9,en;q=0.8") == "zh"
    assert texts.choose_language(None, None, "de-DE") == "en"


def test_what_is_not_our_own_is_unchanged() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", (STATIC / "ORIGIN.md").read_text(), re.M
    )
    assert len(rows) == 3
    for name, digest in rows:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest
