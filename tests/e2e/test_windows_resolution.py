"""Everything that the client needs has a wheel for Windows, in the pinned version.

uv resolves for Windows on any machine; nothing is downloaded but metadata. Where no registry
answers, or one that has no Windows wheels at all, the tests skip and say so.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WINDOWS = ["--python-platform", "x86_64-pc-windows-msvc", "--only-binary", ":all:"]
OFFLINE = re.compile(r"error sending request|dns error|failed to (?:fetch|connect)|timed out", re.I)
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", re.M)


def _resolve(*arguments: str, stdin: str = "", python: str = "3.11") -> tuple[bool, str]:
    """Whether there is a resolution for Windows, and the resolution or the reason."""
    pytest.importorskip("uv", reason="uv resolves for other platforms; install it")
    options = ["--quiet", "--no-header", "--no-annotate", *WINDOWS, "--python-version", python]
    options += ["--constraints", str(ROOT / "constraints.txt")]
    ended = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", *options, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    if ended.returncode and OFFLINE.search(ended.stderr):
        pytest.skip("no package registry answers here, so nothing can be resolved for Windows")
    return ended.returncode == 0, ended.stdout or ended.stderr


def _pins(text: str) -> dict[str, str]:
    return {_normal(name): version for name, version in PIN.findall(text)}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def registry() -> None:
    """A registry that has Windows wheels of what surely has some."""
    found, _ = _resolve("-", stdin="numpy\n")
    if not found:
        pytest.skip("the package registry here has no Windows wheels, not even of numpy")


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_client_resolves_to_windows_wheels_all_of_them_pinned(python: str) -> None:
    found, text = _resolve("--extra", "client", str(ROOT / "pyproject.toml"), python=python)
    assert found, text
    resolved = _pins(text)
    assert {"torch", "grpcio", "cryptography", "polars", "randomgen", "flwr"} <= set(resolved)
    pinned = _pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    loose = {name: version for name, version in resolved.items() if pinned.get(name) != version}
    assert loose == {}, "pin these in constraints.txt"


@pytest.mark.usefixtures("registry")
def test_what_has_no_windows_wheel_is_noticed() -> None:
    found, reason = _resolve("-", stdin="numpy\nuvloop\n")
    assert not found
    assert "uvloop" in reason
