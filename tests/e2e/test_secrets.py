"""Secrets stay where they are: a whole consortium by its commands, logging all, and then a scan.

Looked through: everything that any program printed, every file of the lead's, every process's
command line, the firm's page. Looked for: keys (also those that a renewal or leaving did away
with), tokens, passwords and cells of the firms' tables, in all the forms that a program would write
them in.
"""

import base64
import http.client
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import polars as pl
import pytest
from connect_proxy import connect_proxy
from consortium_of_processes import World
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from greylag_client.enrolment_client import make_csr
from greylag_client.firm import FirmDirectory, TlsCredentials
from greylag_lab.processes import background, program
from greylag_server.consortium import Consortium

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(480)]

PASSWORD = "quiet-Heron-5309"  # noqa: S105 - the test's own
CELL = 1234.56789012345  # of a target; no program has a reason to know it but its firm's agent
NAME_IN_TABLE = "zeppelin-recipe-77"
# Logs as loud as they get, in every program of the test's.
LOUD = """
import logging
logging.basicConfig = lambda **_: None
logging.root.setLevel(1)
handler = logging.StreamHandler()
handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
logging.root.addHandler(handler)
"""


def forms(secret: bytes) -> set[bytes]:
    """A secret as it is, in hex, in base64 of both alphabets, and as Python shows it."""
    plain, safe = base64.b64encode(secret), base64.urlsafe_b64encode(secret)
    hexed = secret.hex().encode()
    shown = repr(secret)[2:-1].encode()
    listed = str(list(secret)).encode()
    return {
        *(secret, hexed, hexed.upper(), plain, plain.rstrip(b"="), safe, safe.rstrip(b"=")),
        *(shown, listed),
    }


def found(secrets: dict[str, bytes], places: Iterable[tuple[str, bytes]]) -> list[str]:
    """Which secrets stand where."""
    wanted = {name: forms(secret) for name, secret in secrets.items()}
    return [
        f"{name} in {place}"
        for place, content in places
        for name, written in wanted.items()
        if any(form in content for form in written)
    ]


def files(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(root)), path.read_bytes()


def private_keys(directory: Path, name: str) -> dict[str, bytes]:
    """What a firm's directory holds of keys, by what they are."""
    keys = directory / "keys"
    secrets = {f"{name}: identity key": (keys / "identity.key").read_bytes()}
    pem = (keys / "tls.credentials.pem").read_bytes()
    key = load_pem_private_key(pem, None)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    number = key.private_numbers().private_value  # type: ignore[union-attr]
    secrets[f"{name}: TLS key"] = number.to_bytes(32, "big")
    secrets[f"{name}: TLS key file"] = der
    body = re.search(rb"-----BEGIN PRIVATE KEY-----\n(.+?)\n", pem)
    assert body is not None
    secrets[f"{name}: TLS key, first line"] = body[1]
    if (keys / "data.key").exists():
        secrets[f"{name}: data key"] = (keys / "data.key").read_bytes()
    return secrets


def expire(lead: Path, directory: Path) -> None:
    """Give a firm's own TLS key a certificate of 100 days ago."""
    firm = FirmDirectory.open(directory)
    tls, name = firm.read_tls(), firm.settings.firm
    key = load_pem_private_key(tls.key, None)
    old = Consortium.open(lead).authority.sign_firm(
        make_csr(key, name),  # type: ignore[arg-type]
        firm=name,
        now_s=time.time() - 100 * 24 * 3600,
    )
    firm.write_tls(
        TlsCredentials(ca=tls.ca, key=tls.key, certificate=old.public_bytes(Encoding.PEM))
    )


def wait_for(condition: Callable[[], object], log: Path) -> None:
    until_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until_s, log.read_text(errors="replace")[-2000:]
        time.sleep(0.1)


class Page:
    """A firm's page in its owner's browser.

    Attributes:
        secrets: what opens it.
        bodies: all that it showed, by address.
    """

    def __init__(self, link: str, firm: str) -> None:
        address = urlsplit(link)
        self._host, self._firm = address.netloc, firm
        token = address.query.removeprefix("token=")
        self.bodies: dict[str, bytes] = {}
        status, cookie, _ = self._ask("GET", f"/?{address.query}")
        assert status == http.client.SEE_OTHER
        self._cookie = cookie.partition(";")[0]
        self.secrets = {"token": token.encode(), "cookie": self._cookie.partition("=")[2].encode()}

    def _ask(
        self, method: str, path: str, form: dict[str, str] | None = None
    ) -> tuple[int, str, bytes]:
        headers = {"Cookie": getattr(self, "_cookie", ""), "Origin": f"http://{self._host}"}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        with closing(http.client.HTTPConnection(self._host, timeout=60)) as connection:
            connection.request(method, path, urlencode(form or {}), headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Set-Cookie", ""), answer.read()

    def read(self, path: str) -> bytes:
        status, _, body = self._ask("GET", path)
        assert status == http.client.OK, body
        self.bodies[path] = body
        return body

    def act(self, action: str) -> None:
        found = re.search(rb'name="word" value="([0-9a-f]{64})"', self.read(f"/firm/{self._firm}"))
        assert found is not None
        self.secrets["word on forms"] = found[1]
        form = {"word": found[1].decode()}
        status, _, body = self._ask("POST", f"/firm/{self._firm}/act/{action}", form)
        assert status == http.client.SEE_OTHER, body


class CommandLines:
    """The command lines of all processes, looked at again and again."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._stop = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue  # it ended meanwhile
                if b"greylag" in line:
                    self.seen.add(line)


def test_no_secret_is_written_where_it_does_not_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud = tmp_path / "loud"
    loud.mkdir()
    (loud / "sitecustomize.py").write_text(LOUD)
    monkeypatch.setenv("PYTHONPATH", str(loud))
    printed: dict[str, bytes] = {}
    lines = CommandLines()
    with ExitStack() as stack:
        proxy = stack.enter_context(connect_proxy(account=f"anna:{PASSWORD}"))
        stack.enter_context(lines.watched())
        (tmp_path / "world").mkdir()
        world = World(tmp_path / "world", stack)
        victim = next(iter(world.tables))

        def run(name: str, *command: str, typed: str = "") -> str:
            ended = subprocess.run(
                [program("greylag-client"), *command],
                input=typed,
                capture_output=True,
                text=True,
                check=False,
            )
            key = f"{name} {len(printed)}"
            printed[key] = (ended.stdout + ended.stderr).encode()
            assert ended.returncode == 0, printed[key][-2000:]
            return ended.stdout

        # A newcomer whose join is listened to; the others joined as the world was made.
        invite = world.invite("newcomer")
        (tmp_path / "invite").write_text(invite)
        table = pl.read_csv(world.tables[victim])
        target = "tensile_modulus_mpa"
        column = pl.when(pl.arange(pl.len()) == 3).then(CELL).otherwise(pl.col(target))
        planted = table.with_columns(column.alias(target), pl.lit(NAME_IN_TABLE).alias("note"))
        planted.write_csv(tmp_path / "newcomer.csv")
        new = world.firm("newcomer")
        joined = run(
            *("join", "join", str(tmp_path / "invite"), "--dir", str(new)),
            *("--data", str(tmp_path / "newcomer.csv"), "--format", "json"),
        )
        recovery = re.search(r'"recovery_key": "([0-9a-f]{64})"', joined)
        assert recovery is not None
        world.digest = str(world.status()["membership"])
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("GREYLAG_PROXY_USER", "anna")
        monkeypatch.setenv("GREYLAG_PROXY_PASSWORD", PASSWORD)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        world.set_pace(rounds=10)
        secrets = private_keys(new, "newcomer, before the renewal")
        expire(world.lead, new)
        log = world.root / "newcomer.log"
        command = ["run", str(new), "--page", "--approve-members", world.digest]
        stack.enter_context(background("greylag-client", command, log))
        wait_for(lambda: "connected to the lead" in " ".join(log.read_text().split()), log)
        assert "the certificate was renewed" in " ".join(log.read_text().split())
        hosted = world.start_agent(*world.tables)
        run_id = world.start_training()
        world.wait_for_end()
        run("members", "members", str(new))
        run("budget", "budget", str(new))
        run("doctor", "doctor", str(new), "--format", "json")
        page = Page(run("page", "page", str(new)), "newcomer")
        for language in ("en", "zh"):
            page.read(f"/firm/newcomer?lang={language}")
        for action in ("pause", "resume"):
            page.act(action)
        run("close", "close", str(new), run_id)
        for name in ("newcomer", victim):
            secrets |= private_keys(world.firm(name), name)
        hosted.send_signal(signal.SIGTERM)
        assert hosted.wait(60) == 0
        run("leave", "leave", str(world.firm(victim)), "--yes")
        left = {
            key: secret for key, secret in secrets.items() if re.match(f"{victim}: (id|TLS)", key)
        }
        assert found(left, files(world.firm(victim))) == []
        run(
            *("revoke", "revoke", str(new), "--out", str(tmp_path / "revocation")),
            typed=f"{recovery[1]}\n",
        )
    secrets |= {
        f"{name}: recovery key": bytes.fromhex(key) for name, key in world.recovery_keys.items()
    }
    secrets["newcomer: recovery key"] = bytes.fromhex(recovery[1])
    secrets["proxy password"] = PASSWORD.encode()
    secrets["proxy header"] = f"anna:{PASSWORD}".encode()
    secrets["a cell"] = str(CELL).encode()
    secrets["a name"] = NAME_IN_TABLE.encode()
    # The recovery key is for join's stdout alone; the agents' own lines are in the world's logs.
    (join_key,) = [key for key in printed if key.startswith("join")]
    assert found(secrets, [(join_key, printed.pop(join_key))]) == [
        f"newcomer: recovery key in {join_key}"
    ]
    # So is the page's link for its command's; the word is on the page's own forms.
    (page_key,) = [key for key in printed if key.startswith("page")]
    assert found(page.secrets, [(page_key, printed.pop(page_key))]) == [f"token in {page_key}"]
    shown = list(page.bodies.items())
    assert all(run_id.encode() in body for _, body in shown)
    assert found({**secrets, "token": page.secrets["token"]}, shown) == []
    assert found({"cookie": page.secrets["cookie"]}, shown) == []
    secrets |= page.secrets
    logs = [(path.name, path.read_bytes()) for path in world.root.glob("*.log")]
    assert any(b"DEBUG" in content for _, content in logs), "nothing was loud"
    assert any(b"accepted on main" in content for _, content in logs)
    assert len(lines.seen) > 5
    commands = [("a command line", line) for line in lines.seen]
    lead = list(files(world.lead))
    assert any(name.endswith("log.sqlite") for name, _ in lead)
    places = [*printed.items(), *logs, *commands, *lead]
    assert found(secrets, places) == []
    token = invite.encode()
    assert found({"invite": token}, [*printed.items(), *logs, *commands, *lead]) == []
    # The scan sees what is there, in whatever form.
    for secret in secrets.values():
        for form in forms(secret):
            assert found({"it": secret}, [("there", b"before " + form + b" after")]) == [
                "it in there"
            ]
