"""One real run for all of the auditor's tests."""

import os
import tempfile
from pathlib import Path

import pytest
from audit_evidence import Evidence, make_evidence


@pytest.fixture(scope="session")
def real() -> Evidence:
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a private one in it
    with tempfile.TemporaryDirectory(prefix="greylag-test-", dir=fast) as name:
        return make_evidence(Path(name))


@pytest.fixture(scope="session")
def real_bundle(real: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed; tests that damage files copy it."""
    return real.write(tmp_path_factory.mktemp("real") / "bundle")


@pytest.fixture
def evidence(real: Evidence) -> Evidence:
    """A copy to forge."""
    return real.copy()
