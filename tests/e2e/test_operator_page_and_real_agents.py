"""A click on the operator's page holds a real run of real agents, and another one lets it go on."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from consortium_of_processes import World
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.e2e

PASSWORD = "four words of grey"  # noqa: S105 - of an account that lives as long as a test


def page_address(log_file: Path) -> str:
    """Where `serve` says the page is."""
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        text = re.sub(r"\s+", " ", log_file.read_text())
        if found := re.search(r"operator's page is at (http://127\.0\.0\.1:\d+/)", text):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(log_file.read_text())


@pytest.mark.slow
def test_a_click_holds_a_real_run(world: World, chromium: Browser) -> None:
    window = chromium.new_page()
    command = [str(Path(sys.executable).with_name("greylag-server")), "user", "add", "olga"]
    command += ["--role", "operator", "--dir", str(world.lead)]
    subprocess.run(command, input=PASSWORD.encode(), check=True, capture_output=True, timeout=120)
    world.set_pace(rounds=60, reply_offset_s=0.1)
    world.start_agent(*world.tables)
    home = page_address(world.root / "server.log")
    window.goto(home)
    window.locator("#name").fill("olga")
    window.locator("#password").fill(PASSWORD)
    window.get_by_role("button", name="Sign in").click()
    expect(window.locator("#status")).to_contain_text("All firms are connected: 5.", timeout=60_000)
    run = world.start_training()
    world.wait_for_rounds(5)
    window.goto(f"{home}runs/{run}")
    expect(window.locator("#run")).to_contain_text("accepted by 5 of 5 firms")
    window.get_by_role("link", name="Pause", exact=True).click()
    window.get_by_role("button", name="Pause", exact=True).click()
    expect(window.locator("#run-title")).to_contain_text("paused", timeout=20_000)
    time.sleep(1.0)  # the attempt under way ends first
    held = world.rounds_done()
    time.sleep(2.0)
    assert world.rounds_done() == held
    window.get_by_role("link", name="Resume", exact=True).click()
    window.get_by_role("button", name="Resume", exact=True).click()
    world.wait_for_rounds(held + 3)
    expect(window.locator("#pace table")).to_contain_text("the lead: sum", timeout=60_000)
    assert world.wait_for_end()["status"] == "done"
    expect(window.locator("#run-title")).to_contain_text("done", timeout=20_000)
    charged = window.locator("#charges td[data-head='Releases charged']")
    expect(charged).to_have_text(["60"] * 5, timeout=20_000)
    window.goto(f"{home}log")
    expect(window.locator("#cosigners tbody tr")).to_have_count(5)
    expect(window.locator("#cosigners")).not_to_contain_text("never")
