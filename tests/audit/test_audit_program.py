"""`greylag-audit` as it is typed: exit codes, one JSON document, texts, and what it imports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from audit_evidence import Evidence
from greylag_audit import texts
from greylag_audit.cli import app
from greylag_audit.findings import Finding
from typer.testing import CliRunner

BLOCKED = ("torch", "flwr", "grpc", "opacus", "sqlite3", "polars", "sklearn", "randomgen")


@pytest.fixture(scope="module")
def trust_file(real: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "trust.json"
    write_trust(real, path)
    return path


def write_trust(evidence: Evidence, path: Path) -> None:
    facts = {
        "version": "trust/v1",
        "consortium": "glass",
        "lead": evidence.lead.public_key.hex(),
        "firms": {
            name: {"identity": signer.public_key.hex(), "operator": name}
            for name, signer in evidence.firms.items()
        },
    }
    path.write_text(json.dumps(facts))


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_a_bundle_that_holds_ends_with_0(real_bundle: Path, trust_file: Path) -> None:
    code, text = call("verify", real_bundle, "--trust", trust_file)
    assert code == 0
    assert "RESULT: every promise that can be checked is kept" in text
    assert "BROKEN" not in text
    for title in ("PROVED", "SIGNED CLAIMS", "CANNOT BE CHECKED"):
        assert title in text


def test_json_is_one_document(real_bundle: Path, trust_file: Path, real: Evidence) -> None:
    code, text = call("verify", real_bundle, "--trust", trust_file, "--quick", "--format", "json")
    facts = json.loads(text)
    assert (code, facts["holds"], facts["broken"], facts["quick"]) == (0, True, 0, True)
    assert {item["evidence"] for item in facts["findings"]} == {
        "proved",
        "signed claim",
        "cannot be checked",
    }
    spent = {item["firm"]: (item["charged"], item["closed"]) for item in facts["budgets"]}
    assert spent == {**dict.fromkeys(real.firms, (7, True)), "firm-e": (3, True)}


def test_without_trust_it_ends_with_1(real_bundle: Path) -> None:
    code, text = call("verify", real_bundle)
    assert code == 1
    assert "RESULT: signed by someone unknown" in text


def test_a_broken_promise_ends_with_1_and_is_told_first(
    evidence: Evidence, trust_file: Path, tmp_path: Path
) -> None:
    at = evidence.find("receipt/v1", firm="firm-c", attempt=2)
    del evidence.entries[at]
    root = evidence.write(tmp_path / "bundle")
    code, text = call("verify", root, "--trust", trust_file)
    assert code == 1
    first = text.split("BROKEN\n")[1].splitlines()[0]
    assert first.startswith(f"  ✗ entry {evidence.find('round/v1', round=2)}, firm-c: ")
    assert "promises are broken" in text


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["verify", "nowhere"], "does not exist"),
        (["replay", "nowhere"], "does not exist"),
        (["verify", "nowhere", "--trust", "nothing"], "export-trust"),
        (["verify", "nowhere", "--ledger", "nothing"], "export-trust"),
        (["verify", "nowhere", "--format", "xml"], "text or json"),
    ],
)
def test_wrong_input_ends_with_2(arguments: list[str], why: str, tmp_path: Path) -> None:
    ended = run(*arguments, where=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert why in " ".join(ended.stderr.replace("'", "").split())


@pytest.mark.parametrize("content", ["{}", "[", '{"version":"trust/v2"}', "\ud83d"])
def test_a_trust_file_that_is_none_ends_with_2(
    content: str, real_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trust.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    ended = run("verify", str(real_bundle), "--trust", str(path), where=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "trust file" in ended.stderr


def run(*arguments: str, where: Path) -> "subprocess.CompletedProcess[str]":
    code = "from greylag_audit.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=where,
    )


def test_it_needs_no_training_stack(
    real_bundle: Path, trust_file: Path, evidence: Evidence, tmp_path: Path
) -> None:
    """A whole audit and a replay where none of these can be imported, as with greylag[audit]."""
    archive = evidence.write(tmp_path / "bundle.tar.zst")
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from greylag_audit.cli import app
for command in (
    ["verify", {str(archive)!r}, "--trust", {str(trust_file)!r}, "--format", "json"],
    ["replay", {str(real_bundle)!r}, "--format", "json"],
):
    try:
        app(command)
    except SystemExit as ended:
        assert ended.code == 0, command
loaded = {{name.partition(".")[0] for name in sys.modules}}
assert not loaded & {{*{BLOCKED!r}, "greylag_server", "greylag_client"}}, loaded
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    documents = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [item["holds"] for item in documents] == [True, True]


def test_replay_is_told_in_a_sentence(real_bundle: Path) -> None:
    code, text = call("replay", real_bundle)
    assert code == 0
    assert "Replayed: 6 rounds" in text


def test_every_message_belongs_to_a_check_and_says_something() -> None:
    for message, text in texts.ENGLISH.items():
        assert message == "more" or message.partition(":")[0] in texts.CHECKS
        assert text.endswith((".", ")", "more of this kind")), message
    for check in texts.CHECKS.values():
        assert not check.always or check.id in texts.ENGLISH
    finding = Finding(
        check="chain", state="broken", evidence="proved", message="chain:gap", facts=()
    )
    assert "?" in finding.text(), "a fact that is missing costs no sentence"
    assert finding.text("zh")
