"""``greylag-server backup`` and ``restore``: the lead's directory, whole, while it is served."""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from greylag_protocols.errors import ConfigError
from greylag_protocols.merkle import Frontier, hash_leaf

from greylag_server.consortium import SETTINGS_FILE, Consortium, stage_directory, write_private
from greylag_server.serving_lock import is_served
from greylag_server.settings import SERVER_FILE
from greylag_server.store import LOG_FILE, Store
from greylag_server.terminal import Dir, Format, errors, say

MEMBERS_FILE = "enrolment.sqlite"
KEYS = "keys"


def backup(
    out: Annotated[Path, typer.Argument(help="a new directory")],
    directory: Dir,
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="leave the keys out; keep them elsewhere")
    ] = False,
    every_s: Annotated[
        float | None, typer.Option(min=1, help="stay, and replace the copy when there is more")
    ] = None,
    output: Format = "text",
) -> None:
    """Copy the lead's directory, also while `serve` runs. The copy holds the lead's keys: whoever
    has it can speak for the consortium, so keep it as you keep the lead's machine."""

    size = back_up(directory, out, keys=not without_keys)
    facts = {"backup": str(out), "log_size": size, "keys": not without_keys}
    say(facts, f"{out}: the log's {size} entries, members and runs", output)
    while every_s is not None:
        time.sleep(every_s)
        with _said(out):
            more = log_size(directory / LOG_FILE) != size
        if more:
            size = _replace(directory, out, keys=not without_keys)
            errors.print(f"{out}: {size} entries")


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="what `backup` wrote")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="a new directory")],
    keys: Annotated[
        Path | None, typer.Option(help="the directory `keys`, for a backup without them")
    ] = None,
    output: Format = "text",
) -> None:
    """Put a backup back into a new directory, checked. `serve` then asks the firms how much of the
    log they saw, and stops if that is more than the backup holds."""

    size = put_back(source, directory, keys=keys)
    facts = {"directory": str(directory), "log_size": size}
    say(
        facts,
        f"{directory}: {size} entries of the log, unbroken.\nNever run the old directory again: "
        "two leads of one log are what every firm would hold against you.\n"
        f"Next: greylag-server serve --dir {directory}",
        output,
    )


def back_up(root: Path, out: Path, *, keys: bool = True) -> int:
    """Copy the lead in ``root`` to ``out``; returns the number of log entries in the copy.

    The log comes first and the members after it: a member list that the log lacks is logged when
    the copy is served, while one that only the log knew would be issued a second time.

    Raises:
        ConfigError: ``root`` is no lead's directory, or ``out`` is not empty or not writable.
    """
    if not (root / SETTINGS_FILE).is_file():
        raise ConfigError(f"{root} holds no consortium; name the lead's directory with --dir")
    with _said(out), stage_directory(out, last=SETTINGS_FILE) as staged:
        rest = sorted(path.name for path in root.glob("*.sqlite") if path.name != LOG_FILE)
        for name in (LOG_FILE, *rest):
            if (root / name).exists():
                _copy_database(root / name, staged / name)
        if (staged / MEMBERS_FILE).exists():
            with closing(sqlite3.connect(staged / MEMBERS_FILE)) as db, db:
                db.execute("UPDATE epochs SET delivered = 0")
        for name in (SETTINGS_FILE, SERVER_FILE):
            if (root / name).exists():
                write_private(staged / name, (root / name).read_bytes())
        if keys:
            _copy_keys(root / KEYS, staged / KEYS)
        return log_size(staged / LOG_FILE)


def put_back(source: Path, root: Path, *, keys: Path | None = None) -> int:
    """Make ``root`` from the backup in ``source``; returns the number of log entries.

    Raises:
        ConfigError: the backup is damaged or lacks its keys, or ``root`` is not empty.
    """
    if is_served(source):
        raise ConfigError(f"{source} is being served; it is no backup")
    if keys is None and not (source / KEYS).is_dir():
        raise ConfigError(f"{source} was made without keys; name them with --keys")
    with _said(root), stage_directory(root, last=SETTINGS_FILE) as staged:
        for path in sorted(source.glob("*.sqlite")):
            _copy_database(path, staged / path.name)
        for name in (SETTINGS_FILE, SERVER_FILE):
            if (source / name).exists():
                write_private(staged / name, (source / name).read_bytes())
        _copy_keys(source / KEYS if keys is None else keys, staged / KEYS)
        consortium = Consortium.open(staged)
        size = log_size(staged / LOG_FILE)
        if (staged / LOG_FILE).exists():
            check_log(staged / LOG_FILE, origin=consortium.settings.id)
    return size


def check_log(path: Path, *, origin: str) -> None:
    """The file is sound, and the log's entries lead to the tree that was signed.

    Raises:
        ConfigError: not so.
    """
    try:
        with closing(Store(path, origin=origin)) as store:
            store.check_file()
            frontier = Frontier()
            for envelope in store.entries():
                frontier = frontier.append(hash_leaf(envelope))
            checkpoint = store.checkpoint()
    except sqlite3.Error as error:
        raise ConfigError(f"{path} is damaged ({error}); take another backup") from None
    if (frontier.size, frontier.root) != (checkpoint.size, checkpoint.root):
        raise ConfigError(f"{path}: entries and tree differ; take another backup")


def log_size(path: Path) -> int:
    """Number of log entries in a lead's database; 0 if there is none."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path, timeout=30)) as db:
        found = db.execute("SELECT size FROM frontier").fetchone()
    return 0 if found is None else int(found[0])


def _replace(root: Path, out: Path, *, keys: bool) -> int:
    new, old = out.with_name(f"{out.name}.new"), out.with_name(f"{out.name}.old")
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    size = back_up(root, new, keys=keys)
    out.replace(old)
    new.replace(out)
    shutil.rmtree(old, ignore_errors=True)
    return size


def _copy_database(source: Path, target: Path) -> None:
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with (
        closing(sqlite3.connect(source, timeout=30)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new, pages=-1)  # in one go: in steps, every commit would begin it anew


def _copy_keys(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for path in sorted(source.iterdir()):
        write_private(target / path.name, path.read_bytes())


@contextmanager
def _said(out: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ConfigError(f"a database could not be copied to {out}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{out} could not be written: {error}") from None
