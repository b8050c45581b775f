"""Fixtures of the firm's page."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from firm_with_page import Office, office
from page_client import Browser


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with office(tmp_path_factory.mktemp("page"), time.time()) as made:
        yield made


@pytest.fixture
def firm(joined: Office, tmp_path: Path) -> Office:
    """A firm that has just joined, with a directory of its own."""
    return Office(joined.lead, Path(shutil.copytree(joined.root, tmp_path / "firm-a")))


@pytest.fixture
def browser(firm: Office) -> Browser:
    return Browser(firm).enter()
