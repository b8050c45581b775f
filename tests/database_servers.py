"""Real database servers for tests: own directory, own port on the loopback, ended by the test."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from greylag_lab.processes import free_ports

USER, PASSWORD = "engineer", "Swordfish-9!:@/"  # the password has what a URL would trip over
REMOTE = "127.1"  # the loopback under a name that is not taken for it, so that TLS is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server with a database ``lab``."""

    scheme: str
    port: int
    ca: Path

    def url(self, host: str = "127.0.0.1", more: str = "") -> str:
        return f"{self.scheme}://{host}:{self.port}/lab{more}"


@contextmanager
def postgres(script: str, *, tls: bool) -> Iterator[Server]:
    """A PostgreSQL server after ``script``; skips where there is none."""
    initdb = _need("initdb", "PostgreSQL")
    program = _need("postgres", "PostgreSQL")
    psql = _need("psql", "PostgreSQL's client")
    account = _account("postgres")
    with _directory(account) as root:
        (port,) = free_ports(1)
        secret = root / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        data = str(root / "data")
        run = {"check": True, "capture_output": True, "cwd": root, "timeout": 120}
        made = ["-D", data, "-U", USER, "--pwfile", str(secret), "-A", "scram-sha-256", "-N"]
        subprocess.run([initdb, *made, "-E", "UTF8", "--locale=C"], **run, **account)
        secure = ["ssl=on", f"ssl_cert_file={root}/crt", f"ssl_key_file={root}/key"] if tls else []
        settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={root}"]
        _certificate(root, account)
        flags = [flag for item in [*settings, *secure] for flag in ("-c", item)]
        with _background([program, "-D", data, *flags], root, account):
            environment = os.environ | {"PGPASSWORD": PASSWORD, "PGUSER": USER}
            query = [psql, "-h", "127.0.0.1", "-p", str(port), "-v", "ON_ERROR_STOP=1", "-q"]
            _retry([*query, "-d", "postgres", "-c", "CREATE DATABASE lab"], environment, root)
            subprocess.run([*query, "-d", "lab", "-c", script], env=environment, **run)
            yield Server(scheme="postgresql", port=port, ca=root / "crt")


@contextmanager
def mariadb(script: str, *, tls: bool) -> Iterator[Server]:
    """A MariaDB server after ``script``; skips where there is none."""
    program = _need("mariadbd", "MariaDB")
    account = _account("nobody")
    with _directory(account) as root:
        (port,) = free_ports(1)
        (root / "data").mkdir()
        _own(root / "data", account)
        _certificate(root, account)
        common = ["--no-defaults", f"--datadir={root}/data", f"--tmpdir={root}"]
        tables = ["mysql_system_tables.sql", "mysql_system_tables_data.sql"]
        shares = [Path("/usr/share/mysql"), Path("/usr/share/mariadb")]
        share = next((path for path in shares if (path / tables[0]).is_file()), None)
        if share is None:
            pytest.skip("MariaDB's system tables are not installed")
        texts = [(share / name).read_text(encoding="utf-8") for name in tables]
        start = "CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;"
        grants = (
            f"FLUSH PRIVILEGES;\nCREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"CREATE DATABASE lab;\nGRANT ALL ON lab.* TO {USER}@'%';\nUSE lab;"
        )
        subprocess.run(
            [program, *common, "--bootstrap", "--skip-networking"],
            input="\n".join([start, *texts, grants, script]).encode(),
            check=True, capture_output=True, cwd=root, timeout=120, **account,
        )  # fmt: skip
        secure = [f"--ssl-cert={root}/crt", f"--ssl-key={root}/key"] if tls else ["--skip-ssl"]
        listen = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={root}/socket"]
        with _background([program, *common, *listen, *secure], root, account):
            yield Server(scheme="mysql", port=port, ca=root / "crt")


def _need(program: str, what: str) -> str:
    places = [*os.environ["PATH"].split(os.pathsep), "/usr/sbin"]
    places += map(str, Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which(program, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"{what} ({program}) is not installed")
    return found


def _account(name: str) -> dict[str, Any]:
    """Servers refuse to run as root: another account then, as arguments of ``subprocess``."""
    if os.geteuid() != 0:
        return {}
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        pytest.skip(f"this runs as root, and there is no account {name!r} for a server to run as")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _own(path: Path, account: dict[str, Any]) -> None:
    if account:
        os.chown(path, account["user"], account["group"])


@contextmanager
def _directory(account: dict[str, Any]) -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="greylag-db-"))  # pytest's own is closed to that account
    _own(root, account)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _background(command: list[str], root: Path, account: dict[str, Any]) -> Iterator[None]:
    log = root / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=root, stdout=out, stderr=out, **account)
    port = next(item.split("=")[1] for item in command if item.strip("-").startswith("port="))
    try:
        _wait(process, int(port), log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    import socket

    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the database did not start: {log.read_text(errors='replace')[-2000:]}")


def _retry(command: list[str], environment: dict[str, str], root: Path) -> None:
    """A server that listens may still be starting."""
    for last in [False] * 50 + [True]:
        done = subprocess.run(
            command, env=environment, cwd=root, check=last, capture_output=True, timeout=60
        )
        if done.returncode == 0:
            return
        time.sleep(0.1)


def _certificate(root: Path, account: dict[str, Any]) -> None:
    """A certificate of its own for REMOTE, in root/crt and root/key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "database")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(REMOTE)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (root / "crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (root / "key").write_bytes(secret)
    (root / "key").chmod(0o600)
    _own(root / "key", account)
