"""Files for their owner alone: modes here, and for Windows what ``icacls`` would be told.

Windows' own programs are not here. Scripts of their names stand in for them, which write down what
they were asked and how long the file was by then; everything around them is real.
"""

import os
import stat
import sys
from pathlib import Path

import pytest
from greylag_client import file_access
from greylag_client.file_access import restrict, restrict_on_windows, windows_arguments
from greylag_client.firm_files import stage_directory, write_private
from greylag_protocols.errors import ConfigError

SID = "S-1-5-21-1004336348-1177238915-682003330-1001"
WHOAMI = f"""printf '"werk\\\\\\344\\366","{SID}"\\r\\n'"""  # a name in the machine's code page


@pytest.fixture
def windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of stand-ins; ``asked`` in it is what ``icacls`` was asked."""
    root = tmp_path / "windows"
    (root / "System32").mkdir(parents=True)
    _stand_in(root, "whoami", WHOAMI)
    _stand_in(root, "icacls", f'echo "$(stat -c %s "$1") $*" >> {root}/asked')
    monkeypatch.setenv("SYSTEMROOT", str(root))
    file_access._user_sid.cache_clear()
    return root


def _stand_in(root: Path, name: str, script: str) -> None:
    tool = root / "System32" / f"{name}.exe"
    tool.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    tool.chmod(0o755)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_posix_modes(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o644)
    (tmp_path / "directory").mkdir(mode=0o755)
    restrict(tmp_path / "file")
    restrict(tmp_path / "directory")
    assert _mode(tmp_path / "file") == 0o600
    assert _mode(tmp_path / "directory") == 0o700


def test_what_cannot_be_restricted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be kept from other users: No such file"):
        restrict(tmp_path / "absent")


def test_arguments_cut_inheritance_and_name_two(tmp_path: Path) -> None:
    path = tmp_path / "key with space; & name"
    assert windows_arguments(path, user_sid=SID, is_directory=False) == [
        str(path),  # one argument, whatever stands in it
        "/inheritance:r",
        "/grant:r",
        f"*{SID}:F",
        "*S-1-5-18:F",
        "/q",
    ]
    assert f"*{SID}:(OI)(CI)F" in windows_arguments(path, user_sid=SID, is_directory=True)
    as_system = windows_arguments(path, user_sid="S-1-5-18", is_directory=False)
    assert as_system.count("*S-1-5-18:F") == 1
    relative = windows_arguments(Path("-c"), user_sid=SID, is_directory=False)
    assert relative[0] == str(Path.cwd() / "-c")


def test_a_key_file_is_closed_before_its_first_byte(
    windows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    write_private(tmp_path / "key", b"secret")
    assert (tmp_path / "key").read_bytes() == b"secret"
    asked = (windows / "asked").read_text(encoding="utf-8")
    assert asked.startswith(f"0 {tmp_path}/.new-")
    assert asked.endswith(f" /inheritance:r /grant:r *{SID}:F *S-1-5-18:F /q\n")


def test_a_firms_directory_is_closed_before_it_is_filled(
    windows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with stage_directory(tmp_path / "firm", last="last"):
        assert f"*{SID}:(OI)(CI)F" in (windows / "asked").read_text(encoding="utf-8")
    assert (tmp_path / "firm").is_dir()


@pytest.mark.parametrize(
    ("tool", "script", "message"),
    [
        ("icacls", "exit 5", r"icacls failed \(exit code 5\)"),
        ("icacls", None, r"icacls failed \(No such file"),
        ("whoami", "exit 1", r"whoami failed \(exit code 1\)"),
        ("whoami", "echo everyone,S-1-1-0", "names no user"),
        ("whoami", "echo admins,S-1-5-32-544", "names no user"),
    ],
)
def test_nothing_is_written_if_windows_refuses(
    tool: str,
    script: str | None,
    message: str,
    windows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if script is None:
        (windows / "System32" / f"{tool}.exe").unlink()
    else:
        _stand_in(windows, tool, script)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError, match=message):
        write_private(tmp_path / "key", b"secret")
    with pytest.raises(ConfigError, match=message), stage_directory(tmp_path / "firm", last="x"):
        pytest.fail("the directory was handed out")
    assert os.listdir(tmp_path) == ["windows"]  # noqa: PTH208 - names alone


@pytest.mark.parametrize(
    "sid",
    [
        SID,
        "S-1-12-1-4171243421-1234567890-2987654321-123456789",
        "S-1-5-80-3880718306-3832830129-1677859214-2598158968-1052248003",
        "S-1-5-19",
    ],
)
def test_accounts_of_every_kind_are_known(sid: str, windows: Path, tmp_path: Path) -> None:
    _stand_in(windows, "whoami", f"""echo '"S-1-5-18","{sid}"'""")  # a user of a nasty name
    restrict_on_windows(tmp_path)
    assert f"*{sid}:" in (windows / "asked").read_text(encoding="utf-8")
