"""The commands about versions, on a lead's real directory."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from greylag_protocols import log
from greylag_protocols.errors import ConfigError
from greylag_server.cli import app
from greylag_server.consortium import Consortium
from greylag_server.service import open_store
from typer.testing import CliRunner

MODEL = b"m" * 32


@pytest.fixture(scope="module")
def lead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lead that has released twice as leads did before there was a gate."""
    root = tmp_path_factory.mktemp("lead") / "lead"
    Consortium.create(
        root,
        name="metals",
        operator="acme",
        host="localhost",
        port=1,
        enrol_port=2,
        now_s=time.time(),
    )
    consortium = Consortium.open(root)
    store = open_store(consortium)
    facts = {"terms": "0" * 64, "rounds": 1, "attempts": 1, "state": "0" * 64}
    with store.transaction():
        for run in ("alloys-1", "alloys-2"):
            store.queue_run(run, b"{}", firms=3)
            store.append([consortium.signer.sign(log.RELEASE_KIND, run, MODEL, facts)])
    store.close()
    return root


def say(lead: Path, *arguments: str) -> dict[str, Any]:
    asked = [*arguments, "--dir", str(lead), "--format", "json"]
    done = CliRunner().invoke(app, asked)
    if done.exception is not None:
        raise done.exception
    return dict(json.loads(done.stdout))


def versions(lead: Path) -> list[tuple[int, bool, str | None]]:
    rows = say(lead, "releases", "alloys")["releases"]
    return [(item["version"], item["current"], item["withdrawn"]) for item in rows]


def test_versions_are_listed_made_current_and_withdrawn(lead: Path, tmp_path: Path) -> None:
    assert versions(lead) == [(1, False, None), (2, True, None)]
    assert say(lead, "rollback", "alloys", "--to", "v1")["version"] == 1
    assert versions(lead) == [(1, True, None), (2, False, None)]
    out = tmp_path / "withdrawal.json"
    said = say(lead, "withdraw", "alloys-1", "--because", "drift", "--out", str(out))
    assert (said["versions"], said["statement"]) == ([1], str(out))
    assert versions(lead) == [(1, False, "drift"), (2, False, None)]
    text = CliRunner().invoke(app, ["releases", "--dir", str(lead)]).stdout
    assert "alloys v1" in text
    assert "withdrawn: drift" in text
    with pytest.raises(ConfigError, match="alloys v1 is withdrawn"):
        say(lead, "rollback", "alloys", "--to", "1")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["releases", "steels"], "no release of 'steels'; released plans: alloys"),
        (["rollback", "alloys", "--to", "latest"], "--to is a version's number"),
        (["rollback", "alloys", "--to", "99999999999"], "--to is a version's number"),
        (["rollback", "alloys", "--to", "7"], "no v7"),
        (["rollback", "alloys", "--to", "2", "--because", "x" * 401], "current: because"),
        (["withdraw", "alloys-2", "--because", " "], "--because is empty"),
        (["withdraw", "alloys-2", "--because", "x" * 401], "withdraw: because"),
        (["withdraw", "alloys-9", "--because", "x"], "no single run"),
    ],
)
def test_what_cannot_be_done(lead: Path, arguments: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        say(lead, *arguments)
