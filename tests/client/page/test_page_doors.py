"""Whom the firm's page lets in."""

import hashlib
import re
from pathlib import Path

import pytest
from firm_with_page import Office
from greylag_client.page import texts
from greylag_client.page.door import MOST_WRONG, SESSION_S, WRONG_WITHIN_S, TooManyError
from greylag_client.page.guard import HEADERS
from greylag_client.pause import read_pause
from page_client import HERE, PORT, Browser
from starlette.testclient import TestClient


def test_a_link_opens_one_session_and_leaves_the_address(firm: Office) -> None:
    browser = Browser(firm)
    link = browser.links[-1]
    answer = browser.client.get("/", params={"token": link})
    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert link not in answer.text + str(answer.headers)
    assert "firm-a" in browser.page()
    other = TestClient(browser.client.app, base_url=HERE, follow_redirects=False)
    assert other.get("/", params={"token": link}).status_code == 403
    assert other.get("/", params={"token": browser.links[-1]}).status_code == 303


def test_the_token_may_be_typed(firm: Office) -> None:
    browser = Browser(firm)
    assert browser.client.post("/enter", data={"token": "x"}).status_code == 403
    assert browser.client.post("/enter", content=b"token=" + b"x" * 9999).status_code == 403
    assert browser.client.post("/enter", data={"token": browser.links[-1]}).status_code == 303
    assert "firm-a" in browser.page()


def test_without_a_session_nothing_is_told(firm: Office) -> None:
    browser = Browser(firm)
    for path in ("/", "/firm/firm-a", "/firm/firm-a/part/runs", "/firm/firm-a/events", "/firm/x"):
        answer = browser.client.get(path)
        assert answer.status_code in (401, 404)
        assert firm.firm.settings.consortium not in answer.text
        assert "firm-a" not in answer.text
    browser.client.cookies.set(f"greylag-page-{PORT}", "0" * 64)
    assert browser.client.get("/firm/firm-a").status_code == 401


def test_sessions_end(browser: Browser) -> None:
    browser.now_s = SESSION_S - 1.0
    assert browser.client.get("/firm/firm-a").status_code == 200
    browser.now_s = SESSION_S
    assert browser.client.get("/firm/firm-a").status_code == 401
    browser.enter()
    kept = browser.client.cookies.get(f"greylag-page-{PORT}")
    assert browser.client.post("/leave", data={"word": browser.word()}).status_code == 200
    assert kept is not None
    browser.client.cookies.set(f"greylag-page-{PORT}", kept)
    assert browser.client.get("/firm/firm-a").status_code == 401


def test_wrong_tokens_are_slowed_down(firm: Office) -> None:
    browser = Browser(firm)
    for _ in range(MOST_WRONG):
        assert browser.door.enter("wrong") is None
    with pytest.raises(TooManyError):
        browser.door.enter(browser.links[-1])
    assert browser.client.get("/", params={"token": "wrong"}).status_code == 429
    browser.now_s = WRONG_WITHIN_S
    assert browser.door.enter(browser.links[-1]) is not None


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (f"127.0.0.1:{PORT}", 200),
        (f"localhost:{PORT}", 200),
        ("127.0.0.1", 403),
        (f"127.0.0.1:{PORT + 1}", 403),
        (f"evil.example:{PORT}", 403),
        (f"127.0.0.1.evil.example:{PORT}", 403),
        ("", 403),
    ],
)
def test_only_its_own_names_lead_to_the_page(browser: Browser, host: str, status: int) -> None:
    cookie = browser.client.cookies.get(f"greylag-page-{PORT}")
    headers = {"host": host, "cookie": f"greylag-page-{PORT}={cookie}"}
    assert browser.client.get("/firm/firm-a", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"origin": HERE, "sec-fetch-site": "same-origin"}, 303),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, 303),
        ({"origin": "null"}, 403),
        ({"origin": "null", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": f"http://127.0.0.1:{PORT + 1}"}, 403),
        ({"origin": f"http://localhost:{PORT}"}, 403),
        ({"origin": HERE, "sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
    ],
)
def test_forms_of_other_pages_are_refused(
    browser: Browser, headers: dict[str, str], status: int
) -> None:
    form = {"word": browser.word()}
    answer = browser.client.post("/firm/firm-a/act/pause", data=form, headers=headers)
    assert answer.status_code == status
    assert (read_pause(browser.office.root) is not None) == (status == 303)


def test_a_form_needs_the_word_of_its_own_session(browser: Browser) -> None:
    other = Browser(browser.office)
    other.count = 100  # another stream of random bytes
    other.enter()
    for form in ({}, {"word": ""}, {"word": other.word()}, {"word": "é" * 64}):
        assert browser.client.post("/firm/firm-a/act/pause", data=form).status_code == 403
    files = {"word": (None, browser.word())}
    assert browser.client.post("/firm/firm-a/act/pause", files=files).status_code == 403
    assert read_pause(browser.office.root) is None
    assert browser.client.get("/firm/firm-a/act/pause").status_code == 405
    assert browser.client.post("/firm/firm-a/act/x", data={"word": browser.word()}).is_error


def test_every_answer_carries_the_headers(browser: Browser) -> None:
    for path in ("/", "/firm/firm-a", "/firm/none", "/none", "/static/page.css", "/static/none"):
        headers = browser.client.get(path).headers
        assert {key: headers.get(key) for key in HEADERS} == HEADERS
    refused = browser.client.get("/", headers={"host": "evil.example"}).headers
    assert {key: refused.get(key) for key in HEADERS} == HEADERS
    assert browser.client.get("/static/../app.py").status_code == 404
    assert browser.client.get("/static/%2e%2e/app.py").status_code == 404


def test_htmx_is_the_file_that_the_note_says() -> None:
    static = Path(texts.__file__).parent / "static"
    (name, digest) = re.findall(r"`(htmx-[\d.]+\.min\.js)`.*`([0-9a-f]{64})`", _origin(static))[0]
    assert hashlib.sha256((static / name).read_bytes()).hexdigest() == digest
    assert "PROVIDED" in (static / name.replace(".min.js", ".LICENSE")).read_text()


def _origin(static: Path) -> str:
    return (static / "ORIGIN.md").read_text()
