"""Releases that must be refused, each with its reason and before any model file is parsed."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from greylag_client.cli import app
from greylag_client.prediction import Predictor
from greylag_client.verify_release.checks import ReleaseRefusedError, Verifier
from greylag_client.verify_release.command import check_before_use
from greylag_client.verify_release.keys import Keys, keys_of_file
from greylag_protocols.errors import ConfigError
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import terms_digest
from made_release import LEAD, Made, make_release
from typer.testing import CliRunner

STRANGER = Ed25519Signer(b"\x09" * 32)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_release(tmp_path_factory.mktemp("good"))


@pytest.fixture
def made(good: Made, tmp_path: Path) -> Made:
    """A copy to tamper with."""
    return replace(good, path=Path(shutil.copytree(good.path, tmp_path / "another-name")))


def verify(made: Made, keys: Keys | None = None, *, signature: bool = False, **options: int) -> str:
    keys = keys or keys_of_file(made.trust)
    verifier = Verifier(root=made.path, keys=keys, now_s=time.time(), **options)
    run, facts = verifier.run(signature=signature)
    return f"{run} {facts.name} v{facts.version}"


def refused(
    made: Made, keys: Keys | None = None, *, signature: bool = False, **options: int
) -> str:
    with pytest.raises(ReleaseRefusedError) as caught:
        verify(made, keys, signature=signature, **options)
    assert "nothing of its model was read" in str(caught.value)
    return str(caught.value)


def write_sums(made: Made) -> None:
    """Checksums as a forger would write them."""
    path = made.path / "SHA256SUMS"
    names = [line.split("  ")[1] for line in path.read_text().splitlines()]
    lines = [f"{hashlib.sha256((made.path / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    path.write_text("".join(lines))


def test_a_release_as_it_was_made_holds_wherever_it_lies(made: Made) -> None:
    assert verify(made, signature=True) == "alloys-1 alloys v1"
    assert Predictor.load(made.path).terms.run_id == "alloys-1"


# -- files -----------------------------------------------------------------------------------------


def tamper(name: str) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        content = bytearray((made.path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (made.path / name).write_bytes(content)

    return change


def grow(made: Made) -> None:
    with (made.path / "model.safetensors").open("ab") as file:
        file.truncate(1 << 40)  # a sparse terabyte is not read


def shrink(made: Made) -> None:
    os.truncate(made.path / "model.onnx", 100)


def link(made: Made) -> None:
    other = made.path.parent / "elsewhere"
    (made.path / "model.onnx").rename(other)
    (made.path / "model.onnx").symlink_to(other)


def add_code(made: Made) -> None:
    (made.path / "modeling.py").write_text("print('hello')")


def drop(name: str) -> Callable[[Made], None]:
    return lambda made: (made.path / name).unlink()


CASES: dict[str, tuple[Callable[[Made], None], str]] = {
    "weights": (tamper("model.safetensors"), "files: model.safetensors is not the file that"),
    "graph": (tamper("model.onnx"), "files: model.onnx is not the file that"),
    "terms": (tamper("terms.json"), "files: terms.json is not the file that"),
    "key": (tamper("model.pub"), "files: model.pub is not the file that"),
    "too long": (grow, "files: model.safetensors is not .* bytes long"),
    "too short": (shrink, "files: model.onnx is not .* bytes long"),
    "a link": (link, "files: model.onnx is no plain file"),
    "code": (add_code, "files: 'modeling.py' belongs to no release"),
    "no weights": (drop("model.safetensors"), "files: model.safetensors is missing"),
    "no proof": (drop("release.tlog-proof"), "files: release.tlog-proof is missing"),
    "no entry": (drop("release.dsse.json"), "lead: release.dsse.json is missing; it was made"),
    "entry": (tamper("release.dsse.json"), "lead: "),
}


@pytest.mark.parametrize("case", CASES)
def test_tampered_files(made: Made, case: str) -> None:
    change, reason = CASES[case]
    change(made)
    with pytest.raises(ReleaseRefusedError, match=reason):
        verify(made)
    if case not in ("no weights", "no proof", "no entry", "a link", "code", "too long"):
        write_sums(made)  # a forger rewrites the checksums too
        with pytest.raises(ReleaseRefusedError, match=reason):
            verify(made)


def test_checksums_that_do_not_agree(made: Made) -> None:
    tamper("SHA256SUMS")(made)
    assert "SHA256SUMS does not agree" in refused(made)


# -- words -----------------------------------------------------------------------------------------


def test_another_leads_release(tmp_path: Path, good: Made) -> None:
    forged = make_release(tmp_path, lead=STRANGER)
    assert "lead: the release/v2 statement is not signed by" in refused(forged)


def test_another_consortiums_release(good: Made) -> None:
    keys = keys_of_file(good.trust)
    other = replace(keys, trust=replace(keys.trust, consortium="woods"))
    assert "of the consortium 'metals', not of 'woods'" in refused(good, other)


def test_a_proof_of_another_entry(made: Made, tmp_path: Path) -> None:
    other = make_release(tmp_path / "other", days=31)
    shutil.copy(other.path / "release.tlog-proof", made.path)
    write_sums(made)
    assert "proof: " in refused(made)


def test_a_proof_that_is_none(made: Made) -> None:
    (made.path / "release.tlog-proof").write_bytes(b"trust me\n")
    write_sums(made)
    assert "proof: " in refused(made)


def test_too_few_firms_that_were_approved_here(good: Made, tmp_path: Path) -> None:
    alone = make_release(tmp_path, cosigners=1)
    assert "1 firms that were approved here cosigned" in refused(alone)
    assert verify(alone, cosigners=1)
    assert "5 are wanted" in refused(good, cosigners=5)
    keys = keys_of_file(good.trust)
    one = {"firm-a": keys.trust.firms["firm-a"]}
    assert "1 count; 2 are wanted" in refused(
        good, replace(keys, trust=replace(keys.trust, firms=one))
    )


def test_firms_of_one_operator_count_together(good: Made) -> None:
    keys = keys_of_file(good.trust)
    host = {name: replace(item, operator="host") for name, item in keys.trust.firms.items()}
    hosted = replace(keys, trust=replace(keys.trust, firms=host))
    assert "4 firms that were approved here cosigned the log with it, of which 1 count" in refused(
        good, hosted
    )
    # One of them is the lead's own: the other three still count as one.
    host["firm-a"] = replace(host["firm-a"], operator="acme")
    mixed = replace(keys, lead_operator="acme", trust=replace(keys.trust, firms=host))
    assert "of which 1 count" in refused(good, mixed)


def test_terms_that_this_firm_did_not_accept(good: Made) -> None:
    keys = keys_of_file(good.trust)
    encoded = (good.path / "terms.json").read_bytes()
    assert verify(good, replace(keys, accepted={"alloys-1": terms_digest(encoded)}))
    assert "accepted other terms" in refused(good, replace(keys, accepted={"alloys-1": bytes(32)}))


def test_an_expired_licence(tmp_path: Path) -> None:
    old = make_release(tmp_path, age_days=31, days=30)
    assert "licence: the licence of alloys v1 expired on" in refused(old)


def test_a_withdrawn_release(good: Made) -> None:
    keys = replace(keys_of_file(good.trust), withdrawals=(good.withdrawal() + b"\n",))
    assert "licence: alloys v1 was withdrawn on" in refused(good, keys)
    assert "a wrong unit" in refused(good, keys)


def test_a_strangers_withdrawal_is_no_word_of_the_lead(good: Made) -> None:
    keys = keys_of_file(good.trust)
    forged = replace(keys, withdrawals=(good.withdrawal(lead=STRANGER),))
    assert "not signed by" in refused(good, forged)


# -- model.sig -------------------------------------------------------------------------------------


def test_a_signature_of_other_files(made: Made, tmp_path: Path) -> None:
    other = make_release(tmp_path / "other")
    for content in ((other.path / "model.sig").read_bytes(), b"{}", b"\xff" * 10):
        (made.path / "model.sig").write_bytes(content)
        assert "signature: model.sig does not hold" in refused(made, signature=True)
    (made.path / "model.sig").write_bytes(b" " * ((1 << 20) + 1))
    assert "longer than" in refused(made, signature=True)


# -- the commands ----------------------------------------------------------------------------------


def test_the_command_tells_each_check(made: Made, tmp_path: Path) -> None:
    asked = ["verify-release", str(made.path), "--trust", str(made.trust), "--format", "json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0
    facts = json.loads(done.stdout)
    assert facts["verified"]
    assert [(item["name"], item["ok"]) for item in facts["checks"]] == [
        ("lead", True),
        ("files", True),
        ("terms", True),
        ("proof", True),
        ("licence", True),
        ("signature", True),
        ("withdrawal", None),
    ]
    tamper("model.safetensors")(made)
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 1
    facts = json.loads(done.stdout)
    assert not facts["verified"]
    assert facts["checks"][-1]["name"] == "files"
    statement = tmp_path / "withdrawal.json"
    statement.write_bytes(made.withdrawal() + b"\n")
    done = CliRunner().invoke(app, [*asked[:-2], "--withdrawal", str(statement)])
    assert "FAILED  files" in done.stdout  # what is wrong first is told


def test_keys_have_to_be_named_once(good: Made) -> None:
    for more in ([], ["--trust", "a", "--dir", "b"]):
        done = CliRunner().invoke(app, ["verify-release", str(good.path), *more])
        assert isinstance(done.exception, ConfigError)


def test_without_keys_a_release_is_used_with_a_note(
    good: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    check_before_use(good.path, None)
    assert "not verified" in capsys.readouterr().err
    (tmp_path / "personal.json").write_text("{}")
    check_before_use(tmp_path, None)
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError, match="own version"):
        check_before_use(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"[]", "trust file"), (b"{", "not acceptable"), (b" " * ((8 << 20) + 1), "longer than")],
)
def test_a_trust_file_that_is_none(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "trust.json").write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        keys_of_file(tmp_path / "trust.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        keys_of_file(tmp_path / "absent.json")


def test_the_leads_key_is_the_trust_files(good: Made) -> None:
    assert keys_of_file(good.trust).lead_key == LEAD.public_key
