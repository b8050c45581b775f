"""Copies of the lead's directory, and what is made of them."""

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from greylag_protocols.errors import ConfigError
from greylag_server.backup import back_up, check_log, put_back
from greylag_server.checks import check_serving
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.service import open_store
from greylag_server.serving_lock import is_served, lock_directory
from greylag_server.store import Store


@pytest.fixture
def lead(tmp_path: Path) -> Path:
    root = tmp_path / "lead"
    Consortium.create(root, name="glass", operator="acme", host="127.0.0.1", port=0, enrol_port=0)
    return root


@pytest.fixture
def store(lead: Path) -> Iterator[Store]:
    with closing(open_store(Consortium.open(lead))) as store:
        with store.transaction():
            store.append([b"one", b"two"])
        yield store


def test_a_copy_made_while_the_lead_writes_is_whole(
    lead: Path, store: Store, tmp_path: Path
) -> None:
    Enrolment(Consortium.open(lead)).invite("firm-001", now_s=1e9, port=7001)
    assert back_up(lead, tmp_path / "copy") == 2
    with store.transaction():
        store.append([b"three"])  # after the copy, on the same open file
    assert put_back(tmp_path / "copy", tmp_path / "again") == 2
    consortium = Consortium.open(tmp_path / "again")
    assert consortium.signer.public_key == Consortium.open(lead).signer.public_key
    with closing(open_store(consortium)) as restored:
        assert list(restored.entries()) == [b"one", b"two"]
    assert [item.firm for item in Enrolment(consortium).open_invites(1e9)] == ["firm-001"]
    for path in (tmp_path / "copy", *(tmp_path / "copy").rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_keys_may_stay_elsewhere(lead: Path, store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    back_up(lead, copy, keys=False)
    assert not (copy / "keys").exists()
    with pytest.raises(ConfigError, match="--keys"):
        put_back(copy, tmp_path / "again")
    assert put_back(copy, tmp_path / "again", keys=lead / "keys") == store.checkpoint().size


def test_nothing_is_written_over(lead: Path, store: Store, tmp_path: Path) -> None:
    back_up(lead, tmp_path / "copy")
    with pytest.raises(ConfigError, match="not an empty directory"):
        back_up(lead, tmp_path / "copy")
    with pytest.raises(ConfigError, match="not an empty directory"):
        put_back(tmp_path / "copy", lead)
    assert store.checkpoint().size == 2


def test_a_damaged_copy_is_refused(lead: Path, store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    back_up(lead, copy)
    with closing(sqlite3.connect(copy / "log.sqlite")) as db, db:
        db.execute("DROP TRIGGER entries_stay")
        db.execute("UPDATE entries SET envelope = x'00' WHERE position = 1")
    with pytest.raises(ConfigError, match="entries and tree differ"):
        put_back(copy, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    (copy / "log.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError):
        check_log(copy / "log.sqlite", origin="glass")


def test_one_process_serves_a_directory(lead: Path) -> None:
    assert not is_served(lead)
    with lock_directory(lead):
        assert is_served(lead)
        with pytest.raises(ConfigError, match="another process serves"):
            lock_directory(lead)
    assert not is_served(lead)


def test_the_check_names_what_keeps_a_lead_from_serving(lead: Path, store: Store) -> None:
    assert all(item.level != "error" for item in check_serving(lead))
    (lead / "keys" / "lead.key.pem").chmod(0o644)
    (bad,) = [item for item in check_serving(lead) if item.level == "error"]
    assert bad.name == "keys"
    assert "lead.key.pem" in bad.detail
    (lead / "keys" / "lead.key.pem").chmod(0o600)
    (lead / "server.toml").write_text("page_prt = 1\n")
    (bad,) = [item for item in check_serving(lead) if item.level == "error"]
    assert "page_port" in bad.detail
