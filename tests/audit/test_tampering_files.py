"""Somebody without keys, or the lead with its own, changes the files of a real bundle."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_evidence import STRANGER, Evidence, audit, broken
from greylag_protocols import log
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.notes import SignedNote, parse_note, sign_checkpoint, with_cosignatures

Expected = tuple[str, int | None, str | None]
Tamper = Callable[[Evidence, Path], Expected]
CASES: dict[str, Tamper] = {}


def case(tamper: Tamper) -> Tamper:
    CASES[tamper.__name__.replace("_", " ")] = tamper
    return tamper


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def entries_file(root: Path) -> Path:
    return next((root / "tile/entries").rglob("*.p/*"))


def offset_of(evidence: Evidence, entry: int) -> int:
    """Where an entry's first byte lies in the (only) bundle of entries."""
    return sum(len(item) + 2 for item in evidence.entries[:entry]) + 2


def round_at(evidence: Evidence, number: int) -> tuple[int, str]:
    at = evidence.find(log.ROUND_KIND, round=number)
    return at, evidence.statement(at).predicate["sum"]


@case
def a_letter_of_an_entry_is_changed(evidence: Evidence, root: Path) -> Expected:
    at = evidence.find(log.RECEIPT_KIND, firm="firm-c", attempt=3)
    flip(entries_file(root), offset_of(evidence, at) + 40)
    return "log.tree:leaf", at, None


@case
def a_hash_of_an_entry_is_changed(evidence: Evidence, root: Path) -> Expected:
    flip(next((root / "tile/0").rglob("*.p/*")), 32 * 17 + 5)
    return "log.tree:leaf", 17, None


@case
def the_hashes_are_missing(evidence: Evidence, root: Path) -> Expected:
    next((root / "tile/0").rglob("*.p/*")).unlink()
    return "bundle.files:missing", None, None


@case
def the_hashes_are_cut_short(evidence: Evidence, root: Path) -> Expected:
    path = next((root / "tile/0").rglob("*.p/*"))
    path.write_bytes(path.read_bytes()[:-32])
    return "bundle.files:damaged", None, None


@case
def the_entries_are_missing(evidence: Evidence, root: Path) -> Expected:
    entries_file(root).unlink()
    return "log.tree:missing", 0, None


@case
def the_entries_are_cut_short(evidence: Evidence, root: Path) -> Expected:
    path = entries_file(root)
    path.write_bytes(path.read_bytes()[:-100])
    return "bundle.files:damaged", 0, None


@case
def a_sum_is_changed(evidence: Evidence, root: Path) -> Expected:
    at, name = round_at(evidence, 4)
    flip(root / "sums" / name, 9)
    return "sums:other", at, None


@case
def two_sums_are_swapped(evidence: Evidence, root: Path) -> Expected:
    (at, first), (_, second) = round_at(evidence, 2), round_at(evidence, 5)
    one, other = root / "sums" / first, root / "sums" / second
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    return "sums:other", at, None


@case
def a_sum_is_missing(evidence: Evidence, root: Path) -> Expected:
    at, name = round_at(evidence, 6)
    (root / "sums" / name).unlink()
    return "sums:missing", at, None


@case
def a_sum_too_many(evidence: Evidence, root: Path) -> Expected:
    (root / "sums" / ("0" * 64)).write_bytes(b"")
    return "bundle.files:spare", None, None


@case
def a_tile_too_many(evidence: Evidence, root: Path) -> Expected:
    (root / "tile/1").mkdir()
    (root / "tile/1/000").write_bytes(bytes(32))
    return "bundle.files:spare", None, None


@case
def the_released_weights_are_changed(evidence: Evidence, root: Path) -> Expected:
    flip(root / "weights/released", 0)
    return "release.follows:weights", evidence.find(log.RELEASE_KIND), None


@case
def the_released_weights_are_cut_short(evidence: Evidence, root: Path) -> Expected:
    (root / "weights/released").write_bytes(b"abc")
    return "release.follows:weights", evidence.find(log.RELEASE_KIND), None


@case
def the_released_weights_are_missing(evidence: Evidence, root: Path) -> Expected:
    (root / "weights/released").unlink()
    return "bundle.files:missing", None, None


@case
def the_first_weights_are_changed(evidence: Evidence, root: Path) -> Expected:
    flip(root / "weights/initial", 3)
    return "run.start:weights", evidence.find(log.START_KIND), None


@case
def the_first_weights_are_missing(evidence: Evidence, root: Path) -> Expected:
    (root / "weights/initial").unlink()
    return "bundle.files:missing", None, None


@case
def the_terms_are_changed(evidence: Evidence, root: Path) -> Expected:
    path = next((root / "terms").iterdir())
    path.write_bytes(path.read_bytes().replace(b'"min_firms":3', b'"min_firms":4'))
    return "terms.known:other", evidence.find(log.TERMS_KIND), None


@case
def the_terms_are_missing(evidence: Evidence, root: Path) -> Expected:
    next((root / "terms").iterdir()).unlink()
    return "terms.known:missing", evidence.find(log.TERMS_KIND), None


@case
def the_member_list_is_changed(evidence: Evidence, root: Path) -> Expected:
    path = next((root / "membership").iterdir())
    path.write_bytes(path.read_bytes().replace(b'"operator":"firm-a"', b'"operator":"firm-x"'))
    return "members.list:invalid", 0, None


@case
def the_member_list_is_missing(evidence: Evidence, root: Path) -> Expected:
    next((root / "membership").iterdir()).unlink()
    return "bundle.files:missing", 0, None


@case
def the_label_names_another_run(evidence: Evidence, root: Path) -> Expected:
    path = root / "bundle.json"
    path.write_text(path.read_text().replace("small-1", "other-1"))
    return "bundle.files:run", None, None


def sign_anew(path: Path, checkpoint: Checkpoint, signer: object) -> SignedNote:
    note = sign_checkpoint(signer, checkpoint)  # type: ignore[arg-type]
    path.write_bytes(note.encode())
    return note


@case
def the_checkpoint_is_signed_by_somebody_else(evidence: Evidence, root: Path) -> Expected:
    path = root / "checkpoint"
    sign_anew(path, parse_note(path.read_bytes()).checkpoint, STRANGER)
    return "log.signature:forged", None, None


@case
def the_checkpoint_has_another_root(evidence: Evidence, root: Path) -> Expected:
    path = root / "checkpoint"
    size = len(evidence.entries)
    sign_anew(path, Checkpoint(origin="glass", size=size, root=bytes(32)), evidence.lead)
    return "log.tree:root", None, None


@case
def the_checkpoint_is_of_a_shorter_log(evidence: Evidence, root: Path) -> Expected:
    """The lead drops the end and signs that; its earlier signature over more is still here."""
    middle = min(evidence.cosigned_at)
    shutil.copy(root / "checkpoint", root / "checkpoints" / str(len(evidence.entries)))
    shutil.copy(root / "checkpoints" / str(middle), root / "checkpoint")
    return "log.history:longer", None, None


@case
def an_earlier_checkpoint_is_of_another_history(evidence: Evidence, root: Path) -> Expected:
    size = min(evidence.cosigned_at)
    other = Checkpoint(origin="glass", size=size, root=bytes(32))
    sign_anew(root / "checkpoints" / str(size), other, evidence.lead)
    return "log.history:forked", size, None


@case
def an_earlier_checkpoint_is_under_another_name(evidence: Evidence, root: Path) -> Expected:
    (root / "checkpoints" / str(min(evidence.cosigned_at))).rename(root / "checkpoints/7")
    return "bundle.files:damaged", None, None


@case
def an_earlier_checkpoint_is_garbage(evidence: Evidence, root: Path) -> Expected:
    (root / "checkpoints/7").write_bytes(b"nothing")
    return "bundle.files:damaged", None, None


@case
def a_countersignature_is_made_up(evidence: Evidence, root: Path) -> Expected:
    path = root / "checkpoint"
    note = parse_note(path.read_bytes())
    word = ("glass/firm-b", evidence.firms["firm-b"].public_key, bytes(72))
    path.write_bytes(with_cosignatures(note, [word]).encode())
    return "log.cosignatures:forged", None, "firm-b"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])
def test_a_change_is_found(
    name: str, quick: bool, real: Evidence, real_bundle: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(real_bundle, tmp_path / "bundle")
    expected = CASES[name](real, root)
    verdict = audit(root, real.trust(), quick=quick)
    assert expected in broken(verdict)
    assert not verdict.holds


def test_the_real_bundle_passes(real: Evidence, real_bundle: Path) -> None:
    for quick in (False, True):
        verdict = audit(real_bundle, real.trust(), quick=quick)
        assert broken(verdict) == []
        assert verdict.holds
        assert (verdict.run, verdict.size) == (real.run, len(real.entries))


def test_without_trust_everything_is_by_someone_unknown(real_bundle: Path) -> None:
    verdict = audit(real_bundle, None)
    assert broken(verdict) == []
    assert not verdict.holds
    unknown = [item for item in verdict.findings if item.state == "unknown"]
    told = {item.message: item.text() for item in unknown}
    assert "signed by someone unknown" in told["log.signature:unknown"]
    assert "Signed by someone unknown" in told["members.identity:nobody"]
