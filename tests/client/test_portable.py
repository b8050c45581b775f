"""The client and the protocol core run on Windows, as far as one can tell without Windows.

Two lints share the work. Names that Windows' Python lacks (``os.fork``, ``signal.SIGKILL``,
``socket.AF_UNIX``, ``fcntl.flock``, ``Path.owner``) are found by ``mypy --platform win32``, which
``make lint`` runs: typeshed knows all of them, and mypy understands ``if sys.platform``. What mypy
lets pass, since it is there but fails or means something else, is found by the rules below: modules
that cannot be imported, text files in the machine's own code page, modes, POSIX paths.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [ROOT / "client", ROOT / "protocols/greylag_protocols", ROOT / "protocols/greylag_audit"]
# fmt: off
POSIX_MODULES = {
    "crypt", "curses", "fcntl", "grp", "nis", "posix", "pty", "pwd", "readline", "resource", "spwd",
    "syslog", "termios", "tty", "uvloop",
}
# fmt: on
TEXT_CALLS = {"open", "read_text", "write_text", "fdopen", "TextIOWrapper", "NamedTemporaryFile"}
CALLS = {
    "add_signal_handler": "asyncio on Windows has no signal handlers; use signal.signal",
    "chmod": "modes say nothing on Windows; use greylag_client.file_access.restrict",
    "kill": "on Windows this ends the process at once, whatever the signal",
    "rename": "fails on Windows if the target exists; use replace",
    "fork": "Windows cannot fork",
}
POSIX_PATHS = ("/dev/", "/etc/", "/proc/", "/tmp", "/var/")  # noqa: S108 - looked for, not used


def faults_in(source: str, name: str) -> list[str]:
    """``file:line: reason`` for each fault; nothing below a test of the platform counts."""
    tree = ast.parse(source)
    guarded = {id(node) for guard in _guarded(tree) for node in ast.walk(guard)}
    found = [
        (node.lineno, reason)
        for node in ast.walk(tree)
        if id(node) not in guarded and isinstance(node, ast.stmt | ast.expr)
        for reason in _reasons(node)
    ]
    return [f"{name}:{line}: {reason}" for line, reason in sorted(set(found))]


def _guarded(tree: ast.AST) -> Iterator[ast.AST]:
    """What stands in an ``if`` about the platform, or behind one that leaves the function."""
    for parent in ast.walk(tree):
        body: object = getattr(parent, "body", None)
        statements = body if isinstance(body, list) else []
        for at, statement in enumerate(statements):
            if isinstance(statement, ast.If) and _tests_platform(statement.test):
                yield statement
                if isinstance(statement.body[-1], ast.Return | ast.Raise):
                    yield from statements[at + 1 :]


def _tests_platform(test: ast.expr) -> bool:
    return any(text in ast.unparse(test) for text in ("sys.platform", "os.name"))


def _reasons(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [item.name for item in node.names]
        modules = names if isinstance(node, ast.Import) else [node.module or ""]
        yield from (f"{item} is POSIX only" for item in modules if item in POSIX_MODULES)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        if node.value.startswith(POSIX_PATHS):
            yield f"{node.value!r:.30} is a path of POSIX systems"
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in CALLS and not (name == "rename" and node.keywords):  # polars' own takes a dict
            yield f"{name}: {CALLS[name]}"
        if any(keyword.arg in ("preexec_fn", "pass_fds") for keyword in node.keywords):
            yield f"{name}: preexec_fn and pass_fds are POSIX only"
        if name in TEXT_CALLS and _is_text_without_encoding(node, name):
            yield f"{name}: give the encoding; Windows' default is its own code page (GBK, cp1252)"


def _is_text_without_encoding(node: ast.Call, name: str) -> bool:
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if "encoding" in keywords or None in keywords:
        return False
    if name in ("read_text", "write_text", "TextIOWrapper"):
        return len(node.args) < (1 if name == "read_text" else 2)
    given = [*node.args, *([keywords["mode"]] if "mode" in keywords else [])]
    modes = [item.value for item in given if isinstance(item, ast.Constant)]
    text = [item for item in modes if isinstance(item, str) and set(item) <= set("rwaxt+")]
    on_path = isinstance(node.func, ast.Attribute)
    if name == "open" and on_path and not text:
        return not node.args and not keywords  # path.open(); other ``open``s take arguments
    return bool(text) or (name in ("open", "fdopen") and len(given) == 1 and not modes)


def test_the_client_and_the_protocols_have_no_posix_only_code() -> None:
    paths = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]
    assert len(paths) > 50
    found = [
        fault
        for path in paths
        for fault in faults_in(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import fcntl", "fcntl is POSIX only"),
        ("from pwd import getpwuid", "pwd is POSIX only"),
        ("def f():\n    import resource", "resource is POSIX only"),
        ("loop.add_signal_handler(15, stop)", "use signal.signal"),
        ("path.chmod(0o600)", "restrict"),
        ("os.chmod(path, 0o600)", "restrict"),
        ("os.kill(1, 9)", "ends the process"),
        ("path.rename(other)", "use replace"),
        ("subprocess.run(x, preexec_fn=y)", "POSIX only"),
        ("path.read_text()", "encoding"),
        ("path.write_text(text)", "encoding"),
        ("path.open()", "encoding"),
        ("path.open('w')", "encoding"),
        ("open(path)", "encoding"),
        ("open(path, mode='a')", "encoding"),
        ("os.fdopen(handle, 'w')", "encoding"),
        ("x = '/proc/self/fd'", "path of POSIX"),
        ("x = f'/dev/fd/{y}'", "path of POSIX"),
        ("if x:\n    path.chmod(0)\nif sys.platform == 'win32':\n    pass", "restrict"),
    ],
)
def test_planted_faults_are_found(line: str, reason: str) -> None:
    (fault,) = faults_in("\n" + line, "planted.py")
    assert fault.startswith("planted.py:"), fault
    assert reason in fault


@pytest.mark.parametrize(
    "line",
    [
        "path.read_text(encoding='utf-8')",
        "path.open('rb')",
        "open(path, 'wb')",
        "os.fdopen(handle, 'wb')",
        "FirmDirectory.open(root)",
        "path.replace(other)",
        "frame.rename(mapping, strict=True)",
        "if sys.platform != 'win32':\n    import fcntl",
        "def f():\n    if sys.platform == 'win32':\n        return\n    path.chmod(0o600)",
        "def f():\n    if os.name == 'nt':\n        pass\n    else:\n        path.chmod(0o600)",
    ],
)
def test_portable_and_guarded_code_passes(line: str) -> None:
    assert faults_in(line, "fine.py") == []


PLANTED = """\
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path

os.fork()
os.getuid()
os.sync()
os.O_DIRECTORY
os.chown("x", 0, 0)
signal.SIGKILL
signal.SIGHUP
socket.AF_UNIX
fcntl.flock(1, fcntl.LOCK_EX)
if sys.platform != "win32":
    os.geteuid()
"""


def test_mypy_finds_every_name_that_windows_lacks(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(PLANTED, encoding="utf-8")
    options = ["--config-file=", "--no-incremental", "--no-error-summary"]
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "--platform", "win32", *options, str(planted)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    lines = {int(line.split(".py:")[1].split(":")[0]) for line in ended.stdout.splitlines()}
    assert lines == {*range(8, 17)}, ended.stdout + ended.stderr
