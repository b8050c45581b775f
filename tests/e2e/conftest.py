from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from consortium_of_processes import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)
