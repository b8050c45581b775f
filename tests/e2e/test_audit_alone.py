"""The auditor's extra by itself, in an environment of its own, and the same bits in others.

Thread counts are tried with the interpreter at hand; a second numpy is installed beside it.
"""

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "audit" / "golden"
STEPS = ROOT / "tests" / "step_bits.py"
SECOND_NUMPY = "2.3.5"
FOREIGN = ("torch", "flwr", "grpc", "opacus", "sklearn", "polars")
PRESENT = "import sys, importlib.util as u; print(*filter(u.find_spec, sys.argv[1:]))"
OFFLINE = re.compile(r"NewConnectionError|Temporary failure|timed out|Retrying \(", re.I)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if ended.returncode and OFFLINE.search(ended.stderr):
        pytest.skip("no package registry answers here")
    assert ended.returncode == 0, ended.stderr


def say(python: Path, *arguments: object, **environment: str) -> str:
    ended = subprocess.run(
        [str(python), *(str(item) for item in arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def replayed(python: Path, **environment: str) -> object:
    """What a replay of the golden bundle comes to."""
    program = python.parent / "greylag-audit"
    arguments = ("replay", GOLDEN / "bundle.tar.zst", "--format", "json")
    return json.loads(say(python, program, *arguments, **environment))["message"]


def steps(python: Path, **environment: str) -> tuple[str, list[str]]:
    version, *digests = say(python, STEPS, **environment).split()
    assert len(set(digests)) == 3
    return version, digests


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A python with the extra and nothing else."""
    root = tmp_path_factory.mktemp("auditor")
    venv.create(root, with_pip=True, symlinks=True)
    python = root / "bin" / "python"
    pip(python, f"{ROOT}[audit]", "-c", str(ROOT / "constraints.txt"))
    return python


@pytest.mark.slow
def test_the_extra_alone_audits_the_golden_bundle(auditor: Path, tmp_path: Path) -> None:
    assert say(auditor, "-c", PRESENT, *FOREIGN, "typer").split() == ["typer"]
    program = auditor.parent / "greylag-audit"
    trust = ["--trust", GOLDEN / "trust.json"]
    facts = json.loads(
        say(auditor, program, "verify", GOLDEN / "bundle.tar.zst", *trust, "--format", "json")
    )
    assert (facts["holds"], facts["broken"], facts["trusted"]) == (True, 0, True)
    assert replayed(auditor) == "replay.follows:holds"
    out = tmp_path / "report"
    say(auditor, program, "report", GOLDEN / "bundle.tar.zst", *trust, "--out", out)
    assert {path.suffix for path in out.iterdir()} == {".html", ".json", ".pdf"}


def test_the_same_bits_with_other_thread_counts() -> None:
    python = Path(sys.executable)
    found = [steps(python, **dict.fromkeys(THREADS, count)) for count in ("1", "2", "8")]
    assert found[0] == found[1] == found[2]
    for count in ("2", "8"):
        assert replayed(python, **dict.fromkeys(THREADS, count)) == "replay.follows:holds"


@pytest.mark.slow
def test_the_same_bits_with_another_numpy(tmp_path: Path) -> None:
    python = Path(sys.executable)
    pip(python, "--no-deps", "--target", str(tmp_path), f"numpy=={SECOND_NUMPY}")
    version, digests = steps(python)
    other, same = steps(python, PYTHONPATH=str(tmp_path))
    assert other == SECOND_NUMPY
    assert version.split(".")[:2] != other.split(".")[:2]
    assert digests == same
    assert replayed(python, PYTHONPATH=str(tmp_path)) == "replay.follows:holds"
