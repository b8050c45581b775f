"""The command ``doctor``."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from greylag_protocols.errors import ConfigError
from rich.console import Console

from greylag_client.doctor.report import (
    Check,
    as_document,
    as_text,
    in_order,
    make_check,
    try_check,
)
from greylag_client.firm import SETTINGS_FILE, FirmDirectory
from greylag_client.service_manager import quiet_grpc
from greylag_client.terminal import check_format, say


def examine(root: Path) -> list[Check]:
    """All checks of the firm's directory ``root``, of its machine and its way to the lead.

    Raises:
        ConfigError: it is not a firm's directory.
    """
    from greylag_client.doctor.directory import check_directory
    from greylag_client.doctor.machine import check_disk, check_files, check_versions
    from greylag_client.doctor.network import check_network

    checks = [check_versions(), check_disk(root)]
    try:
        firm = FirmDirectory.open(root)
    except ConfigError as error:
        if not (root / SETTINGS_FILE).is_file():
            raise
        return in_order([*checks, make_check("settings", "fail", str(error))])
    checks.append(try_check("files", lambda: check_files(firm)))
    try:
        tls = firm.read_tls()
    except ConfigError:  # told by the check of the certificate
        tls = None
    checks += check_network(firm.settings, tls)
    checks += check_directory(firm, time.time())
    return in_order(checks)


def doctor(
    directory: Annotated[
        Path, typer.Argument(help="the firm's directory; without it, this directory")
    ] = Path(),
    output: Annotated[str, typer.Option("--format", help="text or json")] = "text",
) -> None:
    """Look for what could keep the agent from its work, and say what to do.

    Looks at versions, clock, disk, network, proxy, certificates, membership, policy, data and
    ledger. Nothing is changed, and nothing about data is sent. Exit code 1: a check failed."""
    check_format(output)
    quiet_grpc()
    with Console(stderr=True).status("looking at the machine, the way to the lead, the directory"):
        checks = examine(directory)
    document = as_document(checks)
    say(document, as_text(checks), output)
    if not document["ok"]:
        sys.exit(1)
