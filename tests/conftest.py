"""Lets the tests of all parts import the builders that stand beside this file."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Behind everything else, so that no directory here can shadow a package.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A fresh directory, in memory where the machine has such a disk: databases that wait for a
    real one make runs of many rounds slow."""
    memory = "/dev/shm"  # noqa: S108 - the directory below it is private
    fast = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="greylag-test-", dir=fast) as name:
        yield Path(name)
