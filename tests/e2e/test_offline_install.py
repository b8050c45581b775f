"""The wheelhouse: built as `make wheelhouse` does, installed without network, tampered with."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from greylag_protocols.errors import ConfigError
from offline.licences import check_licences, stated_licences
from offline.sbom import read_wheels, write_sbom
from offline.wheelhouse import write_requirements

ROOT = Path(__file__).parents[2]
OFFLINE = re.compile(r"NewConnectionError|Temporary failure|timed out|Retrying \(", re.I)


def _make_wheel(directory: Path, name: str, *lines: str, version: str = "1.0") -> Path:
    path = directory / f"{name}-{version}-py3-none-any.whl"
    metadata = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{name}-{version}.dist-info/METADATA", metadata + "\n")
    return path


def _metadata(**fields: str | list[str]) -> Message:
    message = Message()
    for name, value in fields.items():
        for item in [value] if isinstance(value, str) else value:
            message[name.replace("_", "-")] = item
    return message


def _classified(*names: str) -> list[str]:
    return [f"License :: OSI Approved :: {name}" for name in names]


@pytest.mark.parametrize(
    ("metadata", "licences"),
    [
        (_metadata(License_Expression="MIT OR GPL-3.0-only"), ("MIT OR GPL-3.0-only",)),
        (_metadata(License="Apache 2.0"), ("Apache-2.0",)),
        (_metadata(License="UNKNOWN", Classifier=_classified("MIT License")), ("MIT",)),
        (_metadata(License="see\nbelow", Classifier=_classified("BSD License")), ("BSD License",)),
        (_metadata(Classifier=_classified("MIT License", "ISC License (ISCL)")), ("MIT", "ISC")),
    ],
)
def test_allowed_licences(metadata: Message, licences: tuple[str, ...]) -> None:
    assert stated_licences(metadata) == licences
    check_licences("thing", licences)


@pytest.mark.parametrize(
    "metadata",
    [
        _metadata(),
        _metadata(License="UNKNOWN"),
        _metadata(License="free for research"),
        _metadata(License="a long text\nof a licence"),
        _metadata(License_Expression="CC-BY-NC-4.0"),
        _metadata(License_Expression="MIT AND CC-BY-NC-4.0"),
        _metadata(License_Expression="GPL-3.0-only WITH GCC-exception-3.1"),
        _metadata(License_Expression="LicenseRef-ours"),
        _metadata(License_Expression="MIT AND"),
        _metadata(Classifier=_classified("MIT License", "GNU Affero General Public License v3")),
        _metadata(Classifier=["License :: Free for non-commercial use"]),
    ],
)
def test_other_licences_are_refused(metadata: Message) -> None:
    with pytest.raises(ConfigError, match=r"^thing: .*leave (it|thing) out"):
        check_licences("thing", stated_licences(metadata))


def test_a_small_wheelhouse_is_described(tmp_path: Path) -> None:
    needs = ["Requires-Dist: Odd.Name; extra == 'client'", "Requires-Dist: absent; extra == 'x'"]
    needs += ["Requires-Dist: only_there; sys_platform == 'win32'"]
    _make_wheel(tmp_path, "greylag", "License-Expression: Apache-2.0", *needs)
    _make_wheel(tmp_path, "odd_name", "License-Expression: MIT OR Apache-2.0")
    _make_wheel(tmp_path, "only_there", "License: BSD")
    wheels = read_wheels(tmp_path)
    lines = write_requirements(wheels, extra="client").splitlines()
    assert [line.split(" ")[0] for line in lines] == [
        "greylag[client]==1.0",
        "odd-name==1.0",
        "only-there==1.0",
    ]
    for windows in (False, True):
        bill = json.loads(write_sbom(wheels, root="greylag", extra="client", windows=windows))
        assert bill["specVersion"] == "1.6"
        depends = {item["ref"]: item.get("dependsOn", []) for item in bill["dependencies"]}
        there = ["pkg:pypi/only-there@1.0"] if windows else []
        assert depends["pkg:pypi/greylag@1.0"] == ["pkg:pypi/odd-name@1.0", *there]
        (odd, only) = bill["components"]
        assert odd["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
        assert only["licenses"] == [{"license": {"name": "BSD License"}}]


def test_what_does_not_belong_into_a_wheelhouse(tmp_path: Path) -> None:
    _make_wheel(tmp_path, "thing", "License: MIT")
    _make_wheel(tmp_path, "thing", "License: MIT", version="2.0")
    with pytest.raises(ConfigError, match="thing is there twice"):
        read_wheels(tmp_path)
    (tmp_path / "thing-2.0-py3-none-any.whl").rename(tmp_path / "other-2.0-py3-none-any.whl")
    with pytest.raises(ConfigError, match="calls itself 'thing' inside"):
        read_wheels(tmp_path)
    (tmp_path / "other-2.0-py3-none-any.whl").write_bytes(b"no zip")
    with pytest.raises(ConfigError, match="is no wheel"):
        read_wheels(tmp_path)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's real wheelhouse."""
    out = tmp_path_factory.mktemp("offline") / "wheelhouse"
    ended = subprocess.run(
        [sys.executable, "-m", "offline.wheelhouse", str(out)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if ended.returncode and OFFLINE.search(ended.stderr):
        pytest.skip("no package registry answers here, so no wheelhouse can be built")
    assert ended.returncode == 0, ended.stderr
    return out


def _install(
    house: Path, python: Path, requirements: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    # The command of README.txt, and nothing of this machine's own settings, which name registries.
    command = [str(python), "-m", "pip", "install", "--isolated", "--quiet", "--no-compile"]
    command += ["--no-index", "--find-links", "wheels", "--require-hashes"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    return subprocess.run(
        [*command, "-r", str(requirements), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=house,
        env=clean | {"PIP_CONFIG_FILE": os.devnull},
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_client_installs_without_network(house: Path, tmp_path: Path) -> None:
    files = {path.name for path in (house / "wheels").iterdir()}
    pins = re.findall(r"--hash=sha256:(\w{64})", (house / "requirements.txt").read_text("utf-8"))
    bill = json.loads((house / "sbom.cdx.json").read_text(encoding="utf-8"))
    components = [bill["metadata"]["component"], *bill["components"]]
    listed = {item["properties"][0]["value"]: item["hashes"][0]["content"] for item in components}
    assert set(listed) == files
    assert sorted(listed.values()) == sorted(pins)
    assert {wheel.file: wheel.sha256 for wheel in read_wheels(house / "wheels")} == listed
    assert all(item["licenses"] for item in components)
    assert "--no-index --find-links wheels --require-hashes" in (house / "README.txt").read_text()

    venv.create(tmp_path / "fresh", with_pip=True, symlinks=True)
    binaries = tmp_path / "fresh" / "bin"
    ended = _install(house, binaries / "python", house / "requirements.txt")
    assert ended.returncode == 0, ended.stderr
    for arguments, word in ((["--help"], "predict"), (["join", "--help"], "INVITE")):
        text = subprocess.run(
            [binaries / "greylag-client", *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={"PATH": str(binaries), "HOME": str(tmp_path), "COLUMNS": "100"},
        ).stdout
        assert word in text


@pytest.mark.slow
def test_a_tampered_wheel_is_refused(house: Path, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (path,) = (house / "wheels").glob("rfc8785-*.whl")
    copy = Path(shutil.copy(path, tmp_path / "wheels"))
    lines = (house / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = tmp_path / "one.txt"
    requirements.write_text(next(line for line in lines if "rfc8785" in line), encoding="utf-8")
    python = Path(sys.executable)
    target = ["--no-deps", "--target", str(tmp_path / "target")]
    fine = _install(tmp_path, python, requirements, *target)
    assert fine.returncode == 0, fine.stderr
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("rfc8785/more.py", "print('not what was pinned')")
    refused = _install(tmp_path, python, requirements, *target)
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr
