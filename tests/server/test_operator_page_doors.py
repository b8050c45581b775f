"""Whom the operator's page lets in, and for how long: accounts, sessions, guard."""

import hashlib
import re
import sqlite3
import stat
from pathlib import Path

import pytest
from greylag_protocols.errors import ConfigError
from greylag_server.page import accounts_command
from greylag_server.page.accounts import FILE, Accounts
from greylag_server.page.door import (
    FIRST_WAIT_S,
    FREE_TRIES,
    IDLE_S,
    LONGEST_WAIT_S,
    MAX_SESSIONS,
    MAX_TRIERS,
    WHOLE_S,
    Door,
    same,
)
from greylag_server.page.guard import HEADERS, Guard
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

PASSWORD = "four words of grey"  # noqa: S105 - of accounts that live as long as a test


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Door:
    drawn = iter(range(10**6))

    def entropy(count: int) -> bytes:
        return hashlib.sha256(next(drawn).to_bytes(4)).digest()[:count]

    return Door(entropy=entropy, clock=clock)


# -- accounts --------------------------------------------------------------------------------------


def test_an_account_opens_by_its_own_password_alone(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    accounts.add("olga", "operator", PASSWORD)
    found = accounts.check("olga", PASSWORD)
    assert found is not None
    assert found.role == "operator"
    assert accounts.check("olga", PASSWORD + "!") is None
    assert accounts.check("nobody", PASSWORD) is None
    assert accounts.check("nobody", "nobody has this password") is None
    assert (tmp_path / FILE).stat().st_mode & 0o777 == stat.S_IRUSR | stat.S_IWUSR
    content = b"".join(item.read_bytes() for item in tmp_path.glob(f"{FILE}*"))
    assert b"$argon2id$" in content
    assert PASSWORD.encode() not in content


def test_an_account_given_anew_is_another_one(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    accounts.add("olga", "operator", PASSWORD)
    first = accounts.find("olga")
    accounts.add("olga", "viewer", PASSWORD)
    second = accounts.find("olga")
    assert first is not None
    assert second is not None
    assert (first.number, second.role) != (second.number, "operator")
    accounts.remove("olga")
    assert accounts.find("olga") is None
    with pytest.raises(ConfigError, match="no account"):
        accounts.remove("olga")


@pytest.mark.parametrize(
    ("name", "role", "password", "why"),
    [
        ("Olga", "viewer", PASSWORD, "usable name"),
        ("terminal", "viewer", PASSWORD, "usable name"),
        ("olga", "admin", PASSWORD, "--role"),
        ("olga", "viewer", "short", "12 to 256"),
        ("olga", "viewer", "x" * 257, "12 to 256"),
        ("olga", "viewer", "OlgaOlgaOlga", "account's name"),
    ],
)
def test_what_makes_no_account(
    tmp_path: Path, name: str, role: str, password: str, why: str
) -> None:
    accounts = Accounts(tmp_path)
    with pytest.raises(ConfigError, match=why) as caught:
        accounts.add(name, role, password)
    assert password not in str(caught.value)
    assert accounts.all() == ()


def test_the_journal_only_grows_and_tells_of_failures(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    with accounts.deed("olga", "invite", "firm-a"):
        pass
    with pytest.raises(ConfigError), accounts.deed("olga", "remove", "firm-b"):
        raise ConfigError("no such firm")
    accounts.note("victor", "cancel", "x" * 1000, "refused")
    told = [(item.who, item.what, item.outcome) for item in accounts.journal(10)]
    assert told == [
        ("victor", "cancel", "refused"),
        ("olga", "remove", "failed"),
        ("olga", "invite", "done"),
    ]
    assert len(accounts.journal(1)[0].about) == 200
    with sqlite3.connect(tmp_path / FILE) as db:
        for words in ("DELETE FROM journal", "UPDATE journal SET who = 'x'"):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                db.execute(words)


def test_the_two_passwords_of_a_terminal_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["one password", "another password"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: next(typed))
    with pytest.raises(ConfigError, match="differ"):
        accounts_command._read_password()


# -- sessions --------------------------------------------------------------------------------------


def test_a_session_ends_when_nobody_does_anything(door: Door, clock: Clock) -> None:
    cookie = door.enter("olga", 1)
    clock.now_s += IDLE_S - 1
    assert door.session(cookie, busy=False) is not None  # the page by itself
    clock.now_s += 1
    assert door.session(cookie, busy=False) is None
    cookie = door.enter("olga", 1)
    clock.now_s += IDLE_S - 1
    assert door.session(cookie, busy=True) is not None
    clock.now_s += IDLE_S - 1
    assert door.session(cookie, busy=True) is not None


def test_a_session_ends_after_a_day_of_work(door: Door, clock: Clock) -> None:
    cookie, began_s = door.enter("olga", 1), clock.now_s
    while clock.now_s + 600 < began_s + WHOLE_S:
        clock.now_s += 600
        assert door.session(cookie, busy=True) is not None
    clock.now_s = began_s + WHOLE_S
    assert door.session(cookie, busy=True) is None


def test_signing_out_and_strange_cookies(door: Door) -> None:
    cookie = door.enter("olga", 1)
    session = door.session(cookie, busy=True)
    assert session is not None
    assert same(session.word, session.word)
    assert not same(session.word, "")
    door.leave(cookie)
    for other in (cookie, None, "", "0" * 64, "\ud800"):
        assert door.session(other, busy=True) is None


def test_sessions_and_tries_are_bounded(door: Door, clock: Clock) -> None:
    first = door.enter("olga", 1)
    for _ in range(MAX_SESSIONS):
        door.enter("olga", 1)
    assert door.session(first, busy=True) is None
    for number in range(MAX_TRIERS + 50):
        clock.now_s += 0.01
        door.wait_s(f"address {number}")
    assert len(door._tries) <= MAX_TRIERS


def test_each_failure_makes_the_next_try_wait_longer(door: Door, clock: Clock) -> None:
    who = ("account olga", "address 10.0.0.1")
    for _ in range(FREE_TRIES):
        assert door.wait_s(*who) == 0.0
    waits = []
    for _ in range(12):
        wait_s = door.wait_s(*who)
        waits.append(wait_s)
        clock.now_s += wait_s
        assert door.wait_s(*who) == 0.0  # the wait is over: this is a try, and fails again
    assert waits[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waits[-1] == LONGEST_WAIT_S
    # The account waits at every address, the address for every account; others do not.
    assert door.wait_s("account olga", "address 10.0.0.2") > 0
    assert door.wait_s("account piet", "address 10.0.0.1") > 0
    assert door.wait_s("account piet", "address 10.0.0.2") == 0.0
    clock.now_s += LONGEST_WAIT_S
    assert door.wait_s(*who) == 0.0
    door.enter("olga", 1, *who)
    assert [door.wait_s(*who) for _ in range(FREE_TRIES)] == [0.0] * FREE_TRIES


def test_many_tries_at_once_gain_nothing(door: Door) -> None:
    tried = [door.wait_s("account olga", f"address {number}") for number in range(100)]
    assert tried.count(0.0) == FREE_TRIES


# -- guard -----------------------------------------------------------------------------------------


def guarded(*, secure: bool = False) -> TestClient:
    app = Guard(PlainTextResponse("in"), secure=secure, hosts=frozenset({"lead.example"}))
    return TestClient(app, base_url="https://lead.example" if secure else "http://127.0.0.1:7803")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7803", 200),
        ("localhost:9000", 200),  # the near end of a tunnel
        ("[::1]:7803", 200),
        ("lead.example", 200),
        ("evil.example:7803", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil@127.0.0.1", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_the_name_it_is_asked_under(host: str, status: int) -> None:
    assert guarded().get("/", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:7803", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "null"}, 403),
        ({"origin": "https://127.0.0.1:7803"}, 403),
        ({"origin": "http://127.0.0.1:1234"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "multipart/form-data; boundary=x"}, 403),
        ({"content-type": "application/json"}, 403),
        ({"content-length": "4097"}, 403),
        ({"content-length": "00004"}, 403),
        ({"content-length": "-1"}, 403),
    ],
)
def test_whence_a_form_comes(headers: dict[str, str], status: int) -> None:
    answer = guarded().post("/", data={"a": "b"}, headers=headers)
    assert answer.status_code == status
    for name, value in HEADERS.items():
        assert answer.headers[name] == value


def test_the_policy_lets_nothing_foreign_in() -> None:
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert not re.search(r"unsafe|https?:|\*|data:", policy)
