"""The pure helpers of the utility bench: paired differences and the plot."""

import importlib.util
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def plot() -> ModuleType:
    spec = importlib.util.spec_from_file_location("utility_plot", BENCH / "utility_plot.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def point(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "unit": "K"}


def test_a_panel_for_each_table_and_every_point_inside_its_axes(plot: ModuleType) -> None:
    epsilons = [
        {"epsilon": 0.5, "models": {"alone": point(50, 40, 60), "record": point(45, 1, 900)}},
        {"epsilon": 8.0, "models": {"alone": point(50, 40, 60), "record": point(35, 30, 41)}},
    ]
    facts = {"metric": "rmse < tg & co", "lower_is_better": True, "epsilons": epsilons}
    root = ET.fromstring(plot.draw({"glass": facts, "other": facts}))  # noqa: S314 - our own text
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}g")) == 2
    circles = list(root.iter(f"{space}circle"))
    assert len(circles) == 4
    for circle in circles:
        assert plot.LEFT <= float(circle.attrib["cx"]) <= plot.WIDTH - plot.RIGHT
        assert plot.TOP <= float(circle.attrib["cy"]) <= plot.HEIGHT - plot.BOTTOM
    # A better (lower) error stands lower in the panel; an endless interval squeezes nothing away.
    worse, better = (float(circle.attrib["cy"]) for circle in circles[:2])
    assert better - worse > 50


def test_one_epsilon_alone_can_be_drawn(plot: ModuleType) -> None:
    one = [{"epsilon": 2.0, "models": {"record": point(0.9, 0.9, 0.9)}}]
    text = plot.draw({"digits": {"metric": "m", "lower_is_better": False, "epsilons": one}})
    assert "nan" not in text
    assert ">2</text>" in text
