"""The vectors of ``protocols/spec`` are what the slow reference writes, byte by byte."""

import subprocess
import sys
from pathlib import Path

import pytest

SPEC = Path(__file__).parents[2] / "protocols" / "spec"


@pytest.mark.e2e
def test_the_slow_reference_writes_the_same_vectors_again(tmp_path: Path) -> None:
    # -S and -E: nothing that is installed can be imported, neither the package nor its parts.
    command = [sys.executable, "-B", "-S", "-E", str(SPEC / "gen_vectors.py"), str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=120)
    written = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert written == {path.name: path.read_bytes() for path in (SPEC / "vectors").glob("*.json")}
