"""Bundles from an enemy: names, links, sizes and archives that no honest lead makes."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from audit_evidence import Evidence, audit, broken
from greylag_audit import bundle_files
from greylag_audit.bundle_files import open_bundle
from greylag_protocols.errors import ConfigError

DIRECTORIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file of another name": (lambda root: (root / "notes.txt").write_text("hi"), "notes.txt"),
    "a hidden file": (lambda root: (root / ".x").write_text("hi"), "no file of a bundle"),
    "a file in a place of its own": (lambda root: (root / "sums/x").write_text("hi"), "sums/x"),
    "a link to a file": (
        lambda root: (root / "sums" / ("0" * 64)).symlink_to("/etc/passwd"),
        "is a link",
    ),
    "a link to a directory": (lambda root: (root / "tile/1").symlink_to("/etc"), "is a link"),
    "a pipe": (lambda root: os.mkfifo(root / "sums" / ("0" * 64)), "is a link or no file"),
    "a label too long": (
        lambda root: (root / "bundle.json").write_bytes(b" " * (1 << 17)),
        "at most 65536",
    ),
    "a label of another version": (
        lambda root: (root / "bundle.json").write_text(
            json.dumps({"version": "bundle/v9", "origin": "x", "run": "y", "size": 1})
        ),
        "newer greylag",
    ),
    "a label that is none": (lambda root: (root / "bundle.json").write_text("[]"), "bundle.json"),
    "no label": (lambda root: (root / "bundle.json").unlink(), "bundle.json"),
    "no checkpoint": (lambda root: (root / "checkpoint").unlink(), "no checkpoint"),
    "a checkpoint that is none": (
        lambda root: (root / "checkpoint").write_text("glass\n"),
        "without signatures",
    ),
}


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_hostile_directory_is_refused(
    name: str, real: Evidence, real_bundle: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(real_bundle, tmp_path / "bundle")
    change, why = DIRECTORIES[name]
    change(root)
    with pytest.raises(ConfigError, match=why):
        audit(root, real.trust())


def pack(
    path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT
) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for item, content in members:
            tar.addfile(item, io.BytesIO(content))
    path.write_bytes(zstandard.compress(buffer.getvalue()))
    return path


def member(name: str, content: bytes = b"x", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    item = tarfile.TarInfo(name)
    item.size = len(content)
    for key, value in changes.items():
        setattr(item, key, value)
    return item, content if item.type == tarfile.REGTYPE else b""


NAMES = [
    "../evil",
    "/etc/evil",
    "tile/../../evil",
    "sums/../bundle.json",
    "tile/0/../../checkpoint",
    "tile//0/000",
    "./bundle.json",
    "bundle.json/",
    "tile/9/000",
    "tile/0/0",
    "terms/x.json",
    "sums/" + "A" * 64,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_bundle_has_are_refused(name: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / "b.tar.zst", member(name))
    with pytest.raises(ConfigError), open_bundle(archive):
        pass
    assert [item.name for item in tmp_path.iterdir()] == ["b.tar.zst"]
    assert not (tmp_path.parent / "evil").exists()


KINDS = {
    "symlink": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
    "hard link": {"type": tarfile.LNKTYPE, "linkname": "bundle.json", "size": 0},
    "directory": {"type": tarfile.DIRTYPE, "size": 0},
    "pipe": {"type": tarfile.FIFOTYPE, "size": 0},
    "device": {"type": tarfile.CHRTYPE, "size": 0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_plain_files_are_unpacked(kind: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / "b.tar.zst", member("checkpoint", **KINDS[kind]))
    with pytest.raises(ConfigError, match="something else than plain files"), open_bundle(archive):
        pass


def test_long_names_and_extended_headers_are_refused(tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        archive = pack(tmp_path / "b.tar.zst", member("sums/" + "0" * 200), form=form)
        with pytest.raises(ConfigError), open_bundle(archive):
            pass


def test_a_file_twice_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "b.tar.zst", member("checkpoint"), member("checkpoint"))
    with pytest.raises(ConfigError, match="twice"), open_bundle(archive):
        pass


def test_a_bomb_is_left_before_it_unfolds(tmp_path: Path) -> None:
    """A gigabyte of nothing in a few kilobytes: its header alone is read."""
    item = tarfile.TarInfo("card.md")
    item.size = 1 << 30
    path = tmp_path / "b.tar.zst"
    compressor = zstandard.ZstdCompressor()
    with path.open("wb") as sink, compressor.stream_writer(sink) as stream:
        stream.write(item.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(64):
            stream.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 17
    with pytest.raises(ConfigError, match="at most"), open_bundle(path):
        pass


def test_many_files_and_bytes_end_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [member(f"checkpoints/{at}", b"x" * 100) for at in range(20)]
    archive = pack(tmp_path / "b.tar.zst", *files)
    with open_bundle(archive) as bundle:
        assert len(list(bundle.names())) == 20
    for name, limit in (("MAX_FILES", 10), ("MAX_TOTAL_BYTES", 1000)):
        with monkeypatch.context() as patch:
            patch.setattr(bundle_files, name, limit)
            with pytest.raises(ConfigError, match="larger than any"), open_bundle(archive):
                pass


def test_an_archive_that_is_none_or_cut_off_is_refused(evidence: Evidence, tmp_path: Path) -> None:
    whole = evidence.write(tmp_path / "whole.tar.zst").read_bytes()
    path = tmp_path / "b.tar.zst"
    for content in (
        b"",
        b"hello",
        whole[:-200],
        whole[: len(whole) // 2],
        zstandard.compress(b"x"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError), open_bundle(path):
            pass


def test_what_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"), open_bundle(tmp_path / "none"):
        pass


def test_directory_and_archive_are_the_same(evidence: Evidence, tmp_path: Path) -> None:
    root = evidence.write(tmp_path / "bundle")
    one = evidence.write(tmp_path / "one.tar.zst")
    other = evidence.write(tmp_path / "other.tar.zst")
    assert one.read_bytes() == other.read_bytes()
    with open_bundle(one) as bundle:
        names = list(bundle.names())
        files = [path for path in root.rglob("*") if path.is_file()]
        assert names == sorted(path.relative_to(root).as_posix() for path in files)
        assert all(bundle.read(name) == (root / name).read_bytes() for name in names)
        assert bundle.read("card.md") == evidence.card
    verdict = audit(one, evidence.trust())
    assert broken(verdict) == []
    assert verdict.holds


def test_an_existing_bundle_is_not_written_over(evidence: Evidence, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        evidence.write(tmp_path / "bundle")
    assert [item.name for item in tmp_path.iterdir()] == ["bundle"]


def test_a_lead_that_lost_a_sum_writes_no_bundle(evidence: Evidence, tmp_path: Path) -> None:
    digest = next(item for item, content in evidence.artefacts.items() if len(content) == 200)
    del evidence.artefacts[digest]
    with pytest.raises(ConfigError, match="restore it from a backup"):
        evidence.write(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
