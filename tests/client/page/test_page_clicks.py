"""What a click on the firm's page changes, and what it serves."""

import re
import socket
import stat
from dataclasses import replace
from urllib.request import urlopen

import pytest
from firm_with_page import Office
from greylag_client.composition import make_participant
from greylag_client.page import view
from greylag_client.page.connection import SURELY_HELD_S, LinkWatch
from greylag_client.page.link_file import LINK_FILE, read_link
from greylag_client.page.serve import PageServer
from greylag_client.pause import PAUSE_FILE, Pause, current_policy, pause, read_pause, resume
from greylag_protocols.errors import ConfigError, GreylagError
from page_client import Browser


def test_pause_and_resume(browser: Browser) -> None:
    at = browser.office
    before = at.firm.policy_path.read_bytes()
    participant = make_participant(at.firm)
    assert browser.act("pause") == "paused"
    assert (at.root / PAUSE_FILE).stat().st_mode & 0o777 == stat.S_IRUSR | stat.S_IWUSR
    assert current_policy(at.firm).paused
    assert participant._policy().paused  # as the agent's own composition reads it
    assert "Paused: this firm takes part in nothing" in browser.page()
    since = read_pause(at.root)
    assert browser.act("pause") == "paused"
    assert read_pause(at.root) == since  # a second click does not move it
    assert browser.act("resume") == "resumed"
    assert not participant._policy().paused
    assert at.firm.policy_path.read_bytes() == before


def test_a_pause_of_policy_stays(browser: Browser) -> None:
    at = browser.office
    path = at.firm.policy_path
    path.write_text(path.read_text().replace("paused = false", "paused = true"))
    page = browser.page()
    assert "Only an edit of that file" in page
    assert "act/pause" not in page
    assert browser.act("resume") == "still"
    assert current_policy(at.firm).paused


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"since_s":1,"by":"a","x":1}', b"{" * 99]
)
def test_whatever_lies_there_is_a_pause(firm: Office, content: bytes) -> None:
    (firm.root / PAUSE_FILE).write_bytes(content)
    assert read_pause(firm.root) == Pause(since_s=0, by="")
    assert current_policy(firm.firm).paused
    resume(firm.root)
    assert not current_policy(firm.firm).paused


def test_a_directory_is_a_pause_too(firm: Office) -> None:
    (firm.root / PAUSE_FILE).mkdir()
    assert current_policy(firm.firm).paused
    with pytest.raises(ConfigError, match="cannot be removed"):
        resume(firm.root)
    pause(firm.root, by="page", now_s=1.0)  # it is one already
    assert Browser(firm).enter().act("resume") == "failed"


def test_a_list_is_approved_only_as_it_was_meant(browser: Browser) -> None:
    at = browser.office
    digest = at.newer_list("firm-b", "firm-c")
    good = {"digest": digest, "prefix": digest[:8], "compared": "yes"}
    page = browser.page()
    assert digest in page
    assert page.count(">new</span>") == 2
    for wrong, said in [
        ({"prefix": digest[1:9]}, "prefix"),
        ({"prefix": digest[:7]}, "prefix"),
        ({"prefix": ""}, "prefix"),
        ({"compared": ""}, "unconfirmed"),
        ({"digest": at.approved, "prefix": at.approved[:8]}, "other"),
        ({"digest": ""}, "other"),
        ({"digest": "é"}, "other"),
    ]:
        assert browser.act("approve", **(good | wrong)) == said
    assert digest not in at.firm.approved()
    newer = at.newer_list("firm-d")
    assert browser.act("approve", **good) == "other"
    assert browser.act(
        "approve", digest=newer, prefix=f" {newer[:8].upper()} ", compared="yes"
    ) == ("approved")
    assert newer in at.firm.approved()
    assert digest not in at.firm.approved()
    assert "act/approve" not in browser.page()


def test_changed_keys_operators_and_firms_are_marked(firm: Office) -> None:
    firm.newer_list("firm-b", "firm-c")
    latest = firm.firm.memberships.latest()
    own, second, third = latest.members
    changed = replace(
        latest,
        epoch=latest.epoch + 1,
        members=(
            own,
            replace(second, recovery="ab" * 32),
            replace(third, name="firm-d", operator="other"),
        ),
    )
    shown = view.view_members(
        changed,
        {latest.digest().hex(): latest},
        own="firm-a",
        revoked=frozenset({"firm-b"}),
        now_s=0.0,
    )
    assert [item.change for item in shown.members] == ["same", "new_key", "new"]
    assert [item.revoked for item in shown.members] == [False, True, False]
    assert shown.gone == ("firm-c",)
    moved = replace(changed, members=(replace(own, operator="host"), second, third))
    shown = view.view_members(
        moved, {latest.digest().hex(): latest}, own="firm-a", revoked=frozenset(), now_s=0.0
    )
    assert [item.change for item in shown.members] == ["new_operator", "same", "same"]


def test_changes_are_named_as_they_come(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greylag_client.page.app.LOOK_S", 0.01)
    found = re.search(r'data-events="([^"]+)"', browser.page())
    assert found is not None
    browser.looks_left = 1
    assert "event: part" not in browser.client.get(found[1]).text  # the page is as new
    pause(browser.office.root, by="page", now_s=1.0)
    browser.looks_left = 1
    stream = browser.client.get(found[1])
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert re.findall(r"data: (\w+)", stream.text) == ["status"]
    (seen,) = re.findall(r"id: (\S+)", stream.text)
    browser.looks_left = 1
    again = browser.client.get(found[1], headers={"last-event-id": seen}).text
    assert "event: part" not in again
    assert "Resume" in browser.client.get("/firm/firm-a/part/status").text


def test_the_connection_is_told_from_dials_and_answers() -> None:
    now_s = [0.0]
    watch = LinkWatch(lambda: now_s[0])
    dial, hear = watch.dialling(lambda: "tls"), watch.hearing(lambda frame: frame + b"!")  # type: ignore

    def state() -> str:
        return watch.connection(runs=True, error=None).state

    assert state() == "direct"
    assert dial() == "tls"
    assert state() == "dialling"
    dial()
    assert state() == "trying"
    now_s[0] = SURELY_HELD_S + 1
    assert state() == "connected"  # or it would have been dialled again
    dial()
    assert state() == "trying"
    assert hear(b"a") == b"a!"
    assert state() == "connected"
    away = watch.connection(runs=False, error=GreylagError("no disk"))
    assert (away.state, away.reason) == ("away", "no disk")
    assert watch.connection(runs=False, error=ValueError("inside")).reason == ""


def test_the_server_listens_on_loopback_and_hides_its_link(
    firm: Office, capfd: pytest.CaptureFixture[str]
) -> None:
    server = PageServer([firm.house])
    server.start()
    try:
        link = read_link(firm.root)
        assert link.startswith(f"http://127.0.0.1:{server.port}/?token=")
        assert (firm.root / LINK_FILE).stat().st_mode & 0o777 == stat.S_IRUSR | stat.S_IWUSR
        with urlopen(f"http://127.0.0.1:{server.port}/static/page.css") as answer:
            assert answer.headers["server"] is None
        with pytest.raises(ConfigError, match="name another port"):
            PageServer([firm.house], port=server.port)
        assert read_link(firm.root) == link  # the second one did not take it
        assert link.partition("=")[2] not in "".join(capfd.readouterr())
    finally:
        server.stop()
    with pytest.raises(ConfigError, match="--page"):
        read_link(firm.root)
    with pytest.raises(ConnectionRefusedError), socket.socket() as probe:
        probe.connect(("127.0.0.1", server.port))
