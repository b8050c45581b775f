"""``greylag-server serve --check``: what would keep this lead from serving, before it does."""

import shutil
import socket
import sqlite3
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from greylag_protocols.errors import ConfigError, GreylagError

from greylag_server.authority import load_certificate
from greylag_server.backup import check_log
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.known_grid import check_ahead
from greylag_server.service import bind_address, open_store
from greylag_server.serving_lock import is_served
from greylag_server.settings import ServerSettings, read_settings
from greylag_server.store import LOG_FILE

Level = Literal["ok", "warning", "error"]
DAY_S = 86_400
ENOUGH_BYTES, LEAST_BYTES = 2 << 30, 200 << 20
SOON_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at."""

    name: str
    level: Level
    detail: str

    def facts(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        return f"{self.level:8}{self.name}: {self.detail}"


def check_serving(root: Path) -> list[Check]:
    """Everything, in the order in which it is best mended.

    Raises:
        ConfigError: there is no consortium in ``root``, or its keys cannot be read.
    """
    consortium = Consortium.open(root)
    found = [_ok("directory", f"consortium {consortium.settings.id}")]
    try:
        settings = read_settings(root)
    except ConfigError as error:
        return [*found, _error("settings", str(error))]
    found.append(_ok("settings", "server.toml and the environment are in order"))
    looks: list[Callable[[], Check]] = [
        lambda: _keys(root),
        lambda: _certificate("server's certificate", consortium.server_cert_pem, renewed=True),
        lambda: _certificate("authority's certificate", consortium.ca_pem, renewed=False),
        lambda: _disk(root),
        lambda: _log(root, consortium),
    ]
    for look in looks:
        try:
            found.append(look())
        except (GreylagError, OSError, sqlite3.Error) as error:
            found.append(_error("log" if look is looks[-1] else "files", str(error)))
    return found + _ports(root, consortium, settings)


def _ok(name: str, detail: str) -> Check:
    return Check(name=name, level="ok", detail=detail)


def _error(name: str, detail: str) -> Check:
    return Check(name=name, level="error", detail=detail)


def _keys(root: Path) -> Check:
    folder = root / "keys"
    open_ones = [
        path.name
        for path in (folder, *sorted(folder.glob("*.key.pem")))
        if stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if open_ones:
        return _error(
            "keys",
            f"{', '.join(open_ones)} can be read by other users; run: chmod 700 {folder} && chmod "
            f"600 {folder}/*",
        )
    return _ok("keys", "only their owner can read them")


def _certificate(name: str, pem: bytes, *, renewed: bool) -> Check:
    until_s = load_certificate(pem).not_valid_after_utc.timestamp()
    days = int((until_s - time.time()) // DAY_S)
    if days < 0:
        return _error(name, "has ended; correct this machine's clock, or restore a backup")
    if days < SOON_DAYS and not renewed:
        return Check(name=name, level="warning", detail=f"ends in {days} days")
    return _ok(name, f"{days} days left" + ("; it renews by itself" if renewed else ""))


def _disk(root: Path) -> Check:
    free = shutil.disk_usage(root).free
    detail = f"{free / (1 << 30):.1f} GiB free"
    if free < LEAST_BYTES:
        return _error("disk", f"{detail}; a full disk stops every round. Make room")
    level: Level = "ok" if free >= ENOUGH_BYTES else "warning"
    return Check(name="disk", level=level, detail=detail)


def _log(root: Path, consortium: Consortium) -> Check:
    path = root / LOG_FILE
    if not path.exists():
        return _ok("log", "none yet")
    check_log(path, origin=consortium.settings.id)
    store = open_store(consortium)
    try:
        check_ahead(store, [item.name for item in Enrolment(consortium).members()])
        return _ok("log", f"{store.checkpoint().size} entries, unbroken")
    finally:
        store.close()


def _ports(root: Path, consortium: Consortium, settings: ServerSettings) -> list[Check]:
    if is_served(root):
        return [_ok("ports", "a process serves this directory now")]
    known = consortium.settings
    bind = bind_address(known.host, settings.bind)
    wanted = [("firms' port", bind, known.port), ("joining", bind, known.enrol_port)]
    if settings.page_port:
        wanted.append(("page", settings.operator_bind, settings.page_port))
    if settings.metrics_port:
        wanted.append(("metrics", settings.metrics_bind, settings.metrics_port))
    return [_port(*item) for item in wanted]


def _port(name: str, bind: str, port: int) -> Check:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    try:
        socket.create_server((bind, port), family=family).close()
    except OSError as error:
        return _error(
            name, f"{bind}:{port} cannot be had ({error.strerror}); end the other program"
        )
    return _ok(name, f"{bind}:{port} is free")
