"""Checks of what lies in the firm's directory: certificate, membership, policy, data, ledger."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from greylag_client.doctor.report import Check, make_check, try_check
from greylag_client.firm import FirmDirectory
from greylag_client.pause import current_policy

DAY_S = 86_400
FEW_DAYS = 14
LEDGER_S = 2.0
STEPS_BETWEEN_LOOKS = 20_000
NEW_INVITE = "ask the lead for a new invite and join again, in a new directory"


def check_directory(firm: FirmDirectory, now_s: float) -> list[Check]:
    """All checks that need neither network nor lead."""
    checks: dict[str, Callable[[], Check]] = {
        "settings": lambda: _check_settings(firm),
        "certificate": lambda: _check_certificate(firm, now_s),
        "membership": lambda: _check_membership(firm, now_s),
        "policy": lambda: _check_policy(firm),
        "data": lambda: _check_data(firm),
        "ledger": lambda: _check_ledger(firm),
    }
    return [try_check(name, work) for name, work in checks.items()]


def _check_settings(firm: FirmDirectory) -> Check:
    firm.check_member()
    settings = firm.settings
    return make_check("settings", "ok", f"{settings.firm} in consortium {settings.consortium}")


def _check_certificate(firm: FirmDirectory, now_s: float) -> Check:
    tls = firm.read_tls()
    try:
        certificate = x509.load_pem_x509_certificate(tls.certificate)
        key = load_pem_private_key(tls.key, password=None)
        belongs = certificate.public_key() == key.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return make_check("certificate", "fail", "it cannot be read", "restore it from a backup")
    if not belongs:
        return make_check("certificate", "fail", "it is for another key", "restore both")
    days = (certificate.not_valid_after_utc.timestamp() - now_s) / DAY_S
    end = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    if days < 0:
        return make_check("certificate", "fail", f"it expired on {end}", NEW_INVITE)
    if certificate.not_valid_before_utc.timestamp() > now_s:
        return make_check("certificate", "fail", "it is not valid yet", "set this machine's clock")
    text = f"{int(days)} days left, until {end}"
    if days < FEW_DAYS:
        return make_check(
            "certificate",
            "warn",
            text,
            "a running agent renews it by itself; see in its log why it did not",
        )
    return make_check("certificate", "ok", text)


def _check_membership(firm: FirmDirectory, now_s: float) -> Check:
    latest = firm.memberships.latest()
    digest = latest.digest().hex()
    end = datetime.fromtimestamp(latest.expires_s, UTC)
    text = f"epoch {latest.epoch}, {len(latest.members)} firms, until {end:%Y-%m-%d}"
    name = firm.settings.firm
    own = [item for item in latest.members if item.name == name]
    if not own or own[0].identity_key != firm.signer.public_key:
        return make_check(
            "membership",
            "fail",
            f"{text}; it does not list {name} with the key in this directory",
            "ask the lead whether this firm was removed or joined anew elsewhere",
        )
    if latest.expires_s <= now_s:
        return make_check("membership", "fail", f"{text}: expired", "ask the lead for a new list")
    if digest not in firm.approved():
        return make_check(
            "membership",
            "warn",
            f"{text}; not approved by this firm",
            f"compare fingerprints: greylag-client members {firm.root}; then --approve {digest}",
        )
    return make_check("membership", "ok", f"{text}, approved")


def _check_policy(firm: FirmDirectory) -> Check:
    policy = current_policy(firm)
    text = f"lifetime epsilon {policy.lifetime_epsilon:g}, engines {', '.join(policy.engines)}"
    if policy.paused:
        advice = f"set paused = false in {firm.policy_path} to take part again"
        return make_check("policy", "warn", f"{text}; paused: all is refused", advice)
    return make_check("policy", "ok", text)


def _check_data(firm: FirmDirectory) -> Check:
    path = firm.data_path
    if path is None:
        return make_check(
            "data", "warn", "no table yet", f"set `data` in {firm.root / 'firm.toml'} to a file"
        )
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            readable = bool(file.read(1))
    except OSError as error:
        return make_check(
            "data",
            "fail",
            f"{path} cannot be read: {error.strerror}",
            "put the file back, give this user the right to read it, or set `data` in firm.toml",
        )
    if not readable:
        return make_check("data", "fail", f"{path} is empty", "export the table again")
    advice = "" if path.is_absolute() else "write the whole path: a service starts elsewhere"
    return make_check("data", "warn" if advice else "ok", f"{path}, {size / 1e6:.2f} MB", advice)


def _check_ledger(firm: FirmDirectory) -> Check:
    path = firm.ledger_path
    if not path.exists():
        return make_check("ledger", "ok", "none yet; the first run of the agent makes it")
    # SQLite would make helper files beside a database that nobody has open; this leaves all as is.
    live = path.with_name(path.name + "-wal").exists()
    mode = "mode=ro" if live else "immutable=1"
    until_s = time.monotonic() + LEDGER_S
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db:
            db.set_progress_handler(
                lambda: int(time.monotonic() > until_s), STEPS_BETWEEN_LOOKS
            )  # a true answer breaks a query off
            (entries,) = db.execute("SELECT count(*) FROM entries").fetchone()
            (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        if time.monotonic() > until_s:
            return make_check("ledger", "skip", "too large to be checked in two seconds")
        return make_check(
            "ledger", "fail", f"it cannot be read: {error}", f"restore {path} from a backup"
        )
    if verdict != "ok":
        return make_check("ledger", "fail", f"damaged: {verdict}", f"restore {path} from a backup")
    return make_check("ledger", "ok", f"{entries} entries, undamaged")
