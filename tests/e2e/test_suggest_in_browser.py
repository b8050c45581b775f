"""The page of proposals in a real browser, made by the program itself: it asks for nothing,
everybody can read it, and what it draws is what the document says."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from axe_playwright_python.sync_playwright import Axe
from greylag_client.personal.artefact import (
    Intervals,
    Personal,
    checksums,
    encode_personal,
    facts_of,
)
from greylag_client.personal.parts import Blend, Part
from greylag_lab.processes import program
from greylag_protocols.plan import parse_plan, settle_terms
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.e2e

PLAN = """
[run]
name = "plastics"
purpose = "numbers made up for a test"
[data]
standard = "made-up@1.0"
task = "regression"
targets = [ { name = "modulus", unit = "MPa", range = [0, 20000] },
            { name = "impact", unit = "kJ/m2", range = [0, 120] } ]
features = [
  { names = ["pa6", "pa66", "fibre", "mineral", "stabiliser"], unit = "wt%", range = [0, 100] },
  { names = ["melt_c"], unit = "degC", range = [200, 300] },
  { names = ["grade"], categories = ["natural", "black"] },
]
group = "family"
expected_records = 1000
max_records_per_firm = 1000
[model]
hidden = []
[privacy]
noise_multiplier = 2.0
delta = 1e-5
max_colluding = 1
min_firms = 3
[training]
rounds = 2
sampling_rate = 0.5
"""
WEIGHTS = np.array([[0.0, 0.1, 0.7, 0.4, 0.0, 0.0, 0.0, 0.0],
                    [0.1, 0.0, -0.3, -0.6, 0.0, 0.1, 0.0, -0.2]])  # fmt: skip
BIASES = np.array([0.5, -0.6])
COUNT = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The program's document, and the page that it wrote beside."""
    root = tmp_path_factory.mktemp("suggested")
    terms = settle_terms(parse_plan(PLAN), consortium="makers", run_id="plastics-1")
    tensors = {"0.weight": WEIGHTS.astype(np.float32), "0.bias": BIASES.astype(np.float32)}
    weights = safetensors.numpy.save(tensors)
    blend = Blend(
        parts=(Part(name="shared", layers=((WEIGHTS, BIASES),), forest=None),), weights=(1.0,)
    )
    intervals = Intervals(coverage=0.9, reach=(1200.0, 9.0))
    facts = facts_of(blend, weights, rows=60, groups=20, intervals=intervals)
    files = {"terms.json": terms.encode(), "model.safetensors": weights}
    files |= encode_personal(Personal(facts=facts, blend=blend))
    own = root / "own"
    own.mkdir()
    for name, content in (files | {"SHA256SUMS": checksums(files)}).items():
        (own / name).write_bytes(content)
    table, rng = root / "own.csv", np.random.default_rng(0)
    lines = [",".join([*terms.data.feature_names, "modulus", "impact", "family"])]
    for row in range(60):
        shares = ",".join(f"{100 * share:.4f}" for share in rng.dirichlet([3, 3, 3, 1, 0.3]))
        grade = ("natural", "black")[row % 2]
        lines.append(f"{shares},250,{grade},{rng.uniform(3000, 9000):.0f},40,f{row // 3}")
    table.write_text("\n".join(lines), encoding="utf-8")
    page = root / "page.html"
    command = [program("greylag-client"), "suggest", str(own), "--target", "modulus=8000..9000",
               "--target", "impact=30..50", "--sum", "100", "--from", str(table),
               "--count", str(COUNT), "--page", str(page), "--format", "json"]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return {"page": page, "told": json.loads(ended.stdout)}


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark")])
def test_everybody_can_read_it(
    chromium: Browser, made: dict[str, Any], width: int, scheme: Any
) -> None:
    viewport: Any = {"width": width, "height": 900}
    context = chromium.new_context(viewport=viewport, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()  # the checker is a script, which the page's own policy refuses
    page.goto(Path(made["page"]).as_uri())
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_it_asks_for_nothing_and_draws_what_was_found(
    chromium: Browser, made: dict[str, Any]
) -> None:
    place = Path(made["page"]).as_uri()
    context = chromium.new_context(offline=True)
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(place)
    expect(page.locator("article")).to_have_count(COUNT)
    expect(page.locator("svg .dot")).to_have_count(2 * COUNT)  # two targets
    expect(page.locator("svg .reach")).to_have_count(2 * COUNT)
    expect(page.locator(".note")).to_contain_text("to be measured in the lab")
    expect(page.locator(".note")).to_have_css(
        "border-left-style", "solid"
    )  # its style came through
    # A prediction inside the band is drawn inside it.
    plot = page.get_by_role("img", name="modulus: predictions")
    band = plot.locator(".band").bounding_box()
    assert band is not None
    for at, item in enumerate(made["told"]["proposals"]):
        dot = plot.locator(".dot").nth(at).bounding_box()
        assert dot is not None
        middle = dot["x"] + dot["width"] / 2
        drawn_inside = band["x"] - 1 <= middle <= band["x"] + band["width"] + 1
        assert drawn_inside == (8000 <= item["predictions"]["modulus"]["predicted"] <= 9000)
    # The bars of a proposal are as wide as its shares.
    first = made["told"]["proposals"][0]["recipe"]
    bars = page.get_by_role("img", name="composition of proposal 1 ")
    widths = [float(item.get_attribute("width") or 0) for item in bars.locator("rect").all()]
    shares = [value for name, value in first.items()
              if name not in ("melt_c", "grade") and value > 0]  # fmt: skip
    np.testing.assert_allclose(widths[: len(shares)], np.array(shares) * 7.0, atol=0.06)
    assert asked == [place]
    assert complaints == []
    context.close()
