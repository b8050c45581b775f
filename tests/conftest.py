"""Lets the tests of all parts import the builders that stand beside this file."""

import sys
from pathlib import Path

import pytest

# Behind everything else, so that no directory here can shadow a package.
sys.path.append(str(Path(__file__).parent))


def pytest_configure(config: pytest.Config) -> None:
    """Repeat what the trainer's module does, since pytest resets the warning filters per test."""
    config.addinivalue_line("filterwarnings", "ignore:Full backward hook is firing:UserWarning")
