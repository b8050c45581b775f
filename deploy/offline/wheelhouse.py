"""Build a wheelhouse: all that one program needs, for a machine without network.

    python -m offline.wheelhouse OUT [--extra client|server] [--windows]

``OUT`` gets ``wheels/``, ``requirements.txt`` with a hash for every file, ``sbom.cdx.json`` and
``README.txt``; it appears whole or not at all. Run by ``make wheelhouse``, on a machine of the kind
that it is for; ``--windows`` fetches for Windows from anywhere.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from greylag_protocols.errors import ConfigError, GreylagError
from offline.sbom import Wheel, read_wheels, write_sbom

ROOT = Path(__file__).parents[2]
CONSTRAINTS = str(ROOT / "constraints.txt")
DISTRIBUTION, EXTRAS = "greylag", ("client", "server")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LAST_LINES = 20  # of a failed program's output
ONLY_WHEELS = ["--only-binary", ":all:"]

README = """\
What greylag-{extra} needs on {machine} with Python {python}, to be installed without network:
1. python -m venv greylag, then activate it
2. pip install --no-index --find-links wheels --require-hashes -r requirements.txt
3. greylag-{extra} --help
requirements.txt holds a SHA-256 for every file of wheels/; sbom.cdx.json (CycloneDX) its licence.
"""


def write_requirements(wheels: Sequence[Wheel], *, extra: str) -> str:
    """Every wheel with its hash, in the form that ``pip --require-hashes`` wants."""
    lines = [
        f"{wheel.key}{f'[{extra}]' if wheel.key == DISTRIBUTION else ''}=={wheel.version} "
        f"--hash=sha256:{wheel.sha256}"
        for wheel in wheels
    ]
    return "\n".join(lines) + "\n"


def build(out: Path, *, extra: str, windows: bool) -> int:
    """Build the wheelhouse ``out`` anew; the number of its wheels.

    Raises:
        ConfigError: ``out`` holds something else, pip or uv failed, or a licence is not allowed.
    """
    if out.exists() and not (out / "sbom.cdx.json").is_file():
        raise ConfigError(f"{out} exists and is no wheelhouse; move it away or name another")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".wheelhouse-") as parent:
        staged = Path(parent) / "house"
        wheels = staged / "wheels"
        wheels.mkdir(parents=True)
        _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
        (own,) = wheels.iterdir()
        if windows:
            _fetch_for_windows(wheels, extra, Path(parent))
        else:
            _fetch(wheels, own, extra)
        found = read_wheels(wheels)
        bill = write_sbom(found, root=DISTRIBUTION, extra=extra, windows=windows)
        machine = "Windows (x86-64)" if windows else sys.platform
        pins = write_requirements(found, extra=extra)
        (staged / "requirements.txt").write_text(pins, encoding="utf-8")
        (staged / "sbom.cdx.json").write_text(bill, encoding="utf-8")
        readme = README.format(extra=extra, machine=machine, python=PYTHON)
        (staged / "README.txt").write_text(readme, encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        staged.replace(out)
    return len(found)


def _fetch(wheels: Path, own: Path, extra: str) -> None:
    wanted = f"{DISTRIBUTION}[{extra}] @ {own.resolve().as_uri()}"
    _pip("download", *ONLY_WHEELS, "--constraint", CONSTRAINTS, "--dest", str(wheels), wanted)


def _fetch_for_windows(wheels: Path, extra: str, scratch: Path) -> None:
    """uv resolves, since pip asks this machine, not the other, what a requirement's marker says."""
    resolved = scratch / "windows.txt"
    target = ["--python-platform", "x86_64-pc-windows-msvc", "--python-version", PYTHON]
    sources = ["--constraints", CONSTRAINTS, "--extra", extra, str(ROOT / "pyproject.toml")]
    _run("uv", "pip", "compile", "--quiet", *target, *ONLY_WHEELS, *sources, "-o", str(resolved))
    machine = ["--platform", "win_amd64", "--python-version", PYTHON]
    _pip("download", "--no-deps", *machine, *ONLY_WHEELS, "-d", str(wheels), "-r", str(resolved))


def _pip(command: str, *arguments: str) -> None:
    _run("pip", command, "--quiet", "--disable-pip-version-check", *arguments)


def _run(module: str, *arguments: str) -> None:
    ended = subprocess.run(  # noqa: S603 - this interpreter's own modules, arguments as a list
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,  # pip writes what a build said there, and why it failed
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        last = ended.stdout.strip().splitlines()[-LAST_LINES:]
        raise ConfigError(f"{module} {arguments[0]} failed:\n" + "\n".join(last))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Build a wheelhouse of one of greylag's programs.")
    parser.add_argument("out", type=Path, help="directory to make or to replace")
    parser.add_argument("--extra", choices=EXTRAS, default="client", help="which program")
    parser.add_argument("--windows", action="store_true", help="for Windows, from any machine")
    options = parser.parse_args()
    try:
        count = build(options.out, extra=options.extra, windows=options.windows)
    except GreylagError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stderr.write(f"{count} wheels in {options.out}: see README.txt there\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
