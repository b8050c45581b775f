"""What the firm's page shows."""

import re
import sqlite3
from dataclasses import replace

import pytest
from firm_with_page import Office, small_terms
from greylag_client.page import view
from greylag_client.page.rendering import PARTS, dots, number
from page_client import HOSTILE, PORT, Browser


def test_runs_budgets_refusals_and_members_are_shown(browser: Browser) -> None:
    at = browser.office
    at.allow_much()
    terms = small_terms(at.firm.settings.consortium)
    at.accept(terms, charged=3)
    at.refuse("other-1", "policy", "policy.toml: paused = true", times=3)
    at.see_peers(firm_b=7)
    page = browser.page()
    look = at.house.look(now_s=at.lead.now_s)
    (run,) = look.runs
    assert (run.rounds_done, run.charged, run.roster[0]) == (3, 3, "firm-a")
    for text in (terms.run.purpose, "a, b, c", "3 of 4 done; 3 of 8 attempts", "3 times"):
        assert text in page
    (budget,) = look.budgets
    assert f"{number(budget.left)}</dd>" in page
    assert look.refusals[0].cause == "cause_paused"
    assert look.members is not None
    assert look.members.approved
    assert look.members.members[0].fingerprint[:8] in page
    assert look.checks is not None
    assert (look.checks.checked, look.checks.entries, look.checks.broken) == (4, 4, "")
    kinds = [kind for _, _, kind in dots(budget)]
    assert kinds.count("coin") == 50
    assert 50 + kinds.count("spent") == -(-budget.odds_spent // 1)
    assert "预算" in browser.page(lang="zh")
    assert 'lang="zh-Hans"' in browser.page()  # kept in a cookie
    assert 'lang="en"' in browser.page(lang="en")


def test_hostile_names_stay_text(browser: Browser) -> None:
    at = browser.office
    at.allow_much()
    terms = small_terms(at.firm.settings.consortium)
    hostile = replace(terms, run=replace(terms.run, purpose=HOSTILE))
    at.accept(hostile)
    at.refuse("run-1", "protocol", HOSTILE)
    page = browser.page(said=HOSTILE)
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)") == 2
    assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|javascript:", page)


def test_no_secret_is_on_the_page(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://someone:pass-of-proxy@proxy.example:3128")
    at = browser.office
    pages = [browser.page(), browser.page(lang="zh")]
    pages += [browser.client.get(f"/firm/firm-a/part/{part}").text for part in PARTS]
    secrets = [browser.links[0], browser.links[-1], "pass-of-proxy", "PRIVATE KEY"]
    secrets.append(str(browser.client.cookies.get(f"greylag-page-{PORT}")))
    for path in (at.root / "keys").iterdir():
        secrets += path.read_text(errors="replace").splitlines()[1:3]
    for page in pages:
        assert not [item for item in secrets if item and item in page]


def test_a_broken_chain_is_said(browser: Browser) -> None:
    at = browser.office
    at.allow_much()
    at.accept(small_terms(at.firm.settings.consortium), charged=3)
    with sqlite3.connect(at.firm.ledger_path) as db:
        db.execute("DROP TRIGGER entries_stay")
        db.execute(
            "UPDATE entries SET envelope = (SELECT envelope FROM entries WHERE seq = 1) "
            "WHERE seq = 3"
        )
    db.close()
    look = at.house.look(now_s=at.lead.now_s)
    assert look.checks is not None
    assert (look.checks.checked, look.checks.entries) == (2, 4)
    assert look.status.verdict == "verdict_act"
    assert "does not hold. Pause" in browser.page()


def test_a_ledger_that_was_exchanged_meanwhile_is_said(browser: Browser) -> None:
    at = browser.office
    at.allow_much()
    at.accept(small_terms(at.firm.settings.consortium), charged=2)
    assert at.house.look(now_s=at.lead.now_s).status.verdict == "verdict_good"
    for path in at.root.glob("ledger.sqlite*"):
        path.unlink()
    look = at.house.look(now_s=at.lead.now_s)
    assert look.checks is not None
    assert "not the one" in look.checks.broken


def test_a_long_chain_is_followed_piece_by_piece(
    firm: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greylag_client.page.source.ENTRIES_AT_ONCE", 3)
    firm.allow_much()
    firm.accept(small_terms(firm.firm.settings.consortium), charged=4)
    seen = []
    for _ in range(3):
        checks = firm.house.look(now_s=firm.lead.now_s).checks
        assert checks is not None
        seen.append((checks.checked, checks.broken))
    assert seen == [(3, ""), (5, ""), (5, "")]


def test_what_waits_for_somebody_comes_first(browser: Browser) -> None:
    at = browser.office
    at.newer_list("firm-b")
    at.connection = view.Connection(state="trying")
    findings = at.house.look(now_s=at.lead.now_s).status.findings
    assert [item.text.key for item in findings][:2] == ["members_waiting", "connection_trying"]
    levels = [item.level for item in findings]
    assert levels == ["act", "look", *["good"] * (len(levels) - 2)]


def test_a_policy_that_cannot_be_read_is_said(browser: Browser) -> None:
    browser.office.firm.policy_path.write_text("lifetime_epsilon = much")
    page = browser.page()
    assert "everything is refused" in page
    assert "policy.toml" in page
    assert "which cannot be read" in page


def test_a_damaged_directory_gives_an_error_page(browser: Browser) -> None:
    (browser.office.root / "ledger.sqlite").write_bytes(b"not a database" * 100)
    answer = browser.client.get("/firm/firm-a")
    assert answer.status_code == 503
    assert "restore it" in answer.text


def test_a_certificate_that_ends_soon_is_said(browser: Browser) -> None:
    at, day_s = browser.office, view.DAY_S
    keys = [
        [
            item.text.key
            for item in at.house.look(now_s=at.lead.now_s + days * day_s).status.findings
        ]
        for days in (1, 80, 91)
    ]
    assert "certificate_good" in keys[0]
    assert "certificate_soon" in keys[1]
    assert "certificate_expired" in keys[2]
