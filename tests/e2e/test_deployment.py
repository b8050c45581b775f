"""What `deploy/` ships: each file read by the tool of its kind, and the image built and run.

A tool that is absent skips its test and says so.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
MAX_EXPOSURE = 2.0  # of 10, as systemd rates a unit; below 2 is "OK", its best word
NUMBER = "10001"  # the image's user


def _run(*command: str | Path, seconds: float = 60) -> str:
    ended = subprocess.run(
        [str(item) for item in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout[-3000:]}{ended.stderr[-3000:]}"
    return ended.stdout


def _tool(name: str) -> str:
    """A program's path; without it, the test is skipped."""
    path = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{name} is not on this machine")
    return path


def test_containerfile_is_clean() -> None:
    _run(_tool("hadolint"), DEPLOY / "container" / "Containerfile")


def test_compose_files_fit_their_schema() -> None:
    files = sorted((DEPLOY / "compose").glob("*.yaml"))
    assert len(files) == 2
    _run(_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *files)
    for path in files:
        for service in yaml.safe_load(path.read_text())["services"].values():
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["user"] == f"{NUMBER}:{NUMBER}"


def _render(overlay: str, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What an overlay comes to, by kind, after the API's own schemas have passed it."""
    text = _run(_tool("kubectl"), "kustomize", DEPLOY / "kustomize" / overlay)
    path = tmp_path / f"{overlay}.yaml"
    path.write_text(text)
    _run(_tool("kubernetes-validate"), "--strict", "--quiet", path)
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


@pytest.mark.parametrize("overlay", ["lead", "firm"])
def test_a_pod_may_do_no_more_than_it_must(overlay: str, tmp_path: Path) -> None:
    rendered = _render(overlay, tmp_path)
    assert rendered["Namespace"]["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted"
    }
    pod = rendered["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["image"].startswith("localhost/greylag-")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["livenessProbe"]
    assert container["startupProbe"]
    assert rendered["StatefulSet"]["spec"]["replicas"] == 1


def test_who_may_speak_to_whom(tmp_path: Path) -> None:
    lead = _render("lead", tmp_path)["NetworkPolicy"]["spec"]
    firms, operator = lead["ingress"]
    assert [item["port"] for item in firms["ports"]] == [7800, 7801]
    assert [item["port"] for item in operator["ports"]] == [7802, 7803]
    assert operator["from"] == [{"podSelector": {"matchLabels": {"greylag": "operator"}}}]
    assert lead["egress"] == []
    firm = _render("firm", tmp_path)["NetworkPolicy"]["spec"]
    assert firm["ingress"] == []
    assert [item["port"] for rule in firm["egress"] for item in rule["ports"]] == [
        53,
        53,
        7800,
        7801,
    ]


@pytest.mark.parametrize("program", ["greylag-client", "greylag-server"])
def test_systemd_finds_nothing_wrong(program: str, tmp_path: Path) -> None:
    analyze = _tool("systemd-analyze")
    text = (DEPLOY / "systemd" / f"{program}@.service").read_text()
    assert f"/opt/greylag/bin/{program}" in text
    unit = tmp_path / f"{program}@.service"
    unit.write_text(text.replace(f"/opt/greylag/bin/{program}", str(BIN / program)))
    _run(analyze, "verify", "--recursive-errors=yes", unit)
    rating = _run(analyze, "security", "--offline=yes", unit)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", rating)
    assert found, rating[-500:]
    assert float(found[1]) < MAX_EXPOSURE


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The lead's image, built from its wheelhouse upon a Debian made for this test."""
    podman, mmdebstrap = _tool("podman"), _tool("mmdebstrap")
    if os.geteuid() != 0:
        pytest.skip("a base image can be made here by root only")
    base = "localhost/greylag-test-base"
    house = ROOT / "dist" / "test-image"
    packages = "--include=python3,python3-venv,ca-certificates"
    try:
        tar = house / "base.tar"
        house.mkdir(parents=True, exist_ok=True)
        _run(mmdebstrap, "--variant=minbase", packages, "bookworm", tar, seconds=300)
        _run(podman, "import", tar, base)
        tar.unlink()
        _run("make", "-C", ROOT, "image-server", f"BASE_IMAGE={base}", seconds=900)
        yield "localhost/greylag-server"
    finally:
        subprocess.run([podman, "rmi", "--force", base], capture_output=True, check=False)
        shutil.rmtree(house)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_image_serves_without_root_on_a_read_only_disk(image: str, tmp_path: Path) -> None:
    podman, volume = _tool("podman"), tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, int(NUMBER), int(NUMBER))
    name = f"greylag-test-{os.getpid()}"
    run = [
        *(podman, "run", "--rm", "--name", name, "--read-only"),
        *("--tmpfs", "/tmp"),  # noqa: S108 - the container's own
        *("--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "none"),
        *("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=2048:2048"),
        *("-v", f"{volume}:/data", image),
    ]
    founded = _run(*run, "init", "consortium", "--name", "boxed", "--format", "json")
    assert '"consortium": "boxed-' in founded
    assert (volume / "consortium" / "consortium.toml").stat().st_uid == int(NUMBER)
    _run(*run, "serve", "--check", "--dir", "/data/consortium")
    serving = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    dial = "import socket; socket.create_connection(('127.0.0.1', 7800), 3)"
    try:
        for _ in range(60):
            asked = [podman, "exec", name, "python3", "-c", dial]
            if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.5)
        else:
            pytest.fail("the port for agents does not open")
        who = _run(podman, "exec", name, "python3", "-c", "import os; print(os.getuid())")
        assert who.strip() == NUMBER
        _run(podman, "stop", "-t", "30", name)
        assert serving.wait(timeout=60) == 0, serving.stdout and serving.stdout.read()
    finally:
        subprocess.run([podman, "rm", "--force", name], capture_output=True, check=False)
        serving.wait(timeout=60)
        if serving.stdout:
            serving.stdout.close()
