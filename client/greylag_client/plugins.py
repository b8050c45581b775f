"""Models from packages that the firm itself installed: ``model.family = "plugin:NAME"``.

A plugin is an entry point of group ``greylag.models``. The terms pin its distribution, version and
a digest of its files; all of it is compared **before** a line of the plugin runs, since importing a
package is running it. The digest is over what lies on disk: ``RECORD`` only says which files those
are, its own hashes are not believed. Nothing that the lead sends is ever imported.

What is compared are files, not what they call: a plugin's own dependencies are the firm's affair.
"""

import hashlib
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from greylag_protocols.encoding import tagged_hash
from greylag_protocols.errors import RefusedError
from greylag_protocols.plan import PLUGIN_PREFIX
from greylag_protocols.terms import PluginTerms, Terms

from greylag_client.terminal import say

GROUP = "greylag.models"
# Written anew by every installation: not the plugin's content.
_OF_INSTALLERS = {"RECORD", "RECORD.jws", "INSTALLER", "REQUESTED", "direct_url.json"}

Build = Callable[..., object]
_imported: dict[str, str] = {}  # what this process runs: digest by top package


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A plugin as it lies on disk; its fields are what a plan pins."""

    name: str
    distribution: str
    version: str
    sha256: str


def import_plugin(terms: Terms) -> Build:
    """The factory of the plugin that the terms name, if what is installed is what they pin.

    Raises:
        RefusedError: class ``policy``; names what differs. Nothing of the plugin was run then, but
            where its own import fails.
    """
    name, pinned = terms.model.family.removeprefix(PLUGIN_PREFIX), terms.model.plugin
    if pinned is None:
        raise _refused(name, "the terms do not pin it")
    entry, distribution = _only_one(name)
    found, files = _inspect(entry, distribution)
    for key, value in asdict(pinned).items():
        if getattr(found, key) != value:
            raise _refused(
                name,
                f"{key} {getattr(found, key)!r} is installed and {value!r:.100} is pinned; install "
                "what the plan pins, or leave the run out",
            )
    top = entry.module.partition(".")[0]
    _check_origin(name, top, files)
    if _imported.get(top, found.sha256) != found.sha256 or (
        top in sys.modules and top not in _imported
    ):
        raise _refused(name, f"another {top!r} is in this process's memory; start the agent again")
    _imported[top] = found.sha256
    return _load(name, entry)


def installed_plugins() -> list[Installed]:
    """All plugins that are installed, by name; two may share one name, and neither is used then.

    Raises:
        RefusedError: the files of one are not as its ``RECORD`` says.
    """
    return [
        _inspect(entry, entry.dist)[0]
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
        if entry.dist is not None
    ]


def _only_one(name: str) -> tuple[EntryPoint, Distribution]:
    entries = list(entry_points(group=GROUP, name=name))
    owners = [entry.dist for entry in entries if entry.dist is not None]
    if not owners:
        raise _refused(name, "it is not installed here; install it, or leave the run out")
    if len(entries) > 1:
        names = ", ".join(sorted(f"{item.name} {item.version}" for item in owners))
        raise _refused(name, f"several offer it: {names}; uninstall all but one")
    return entries[0], owners[0]


def _inspect(entry: EntryPoint, distribution: Distribution) -> tuple[Installed, set[Path]]:
    """A plugin's pins, and the files that they cover."""
    root = Path(str(distribution.locate_file(""))).resolve()
    listed = [PurePosixPath(item.as_posix()) for item in distribution.files or ()]
    # Outside of the root stand programs, whose first line names this machine's Python; in
    # __pycache__ copies of sources, which are not read (see _load).
    covered = sorted(
        str(path)
        for path in listed
        if ".." not in path.parts
        and not path.is_absolute()
        and "__pycache__" not in path.parts
        and not (path.parts[0].endswith(".dist-info") and path.name in _OF_INSTALLERS)
    )
    files = {root / path for path in covered}
    _check_no_more(entry.name, root, files)
    parts: list[bytes] = []
    for path in covered:
        try:
            content = (root / path).read_bytes()
        except OSError as error:
            raise _refused(entry.name, f"{path} cannot be read: {error.strerror}") from None
        parts += [path.encode(), hashlib.sha256(content).digest()]
    digest = tagged_hash("greylag/plugin/v1", *parts).hex()
    found = Installed(
        name=entry.name,
        distribution=distribution.name,
        version=distribution.version,
        sha256=digest,
    )
    return found, files


def _check_no_more(name: str, root: Path, files: set[Path]) -> None:
    """What was put into a package's directory later could be imported by it."""
    tops = {path.relative_to(root).parts[0] for path in files if path.parent != root}
    for top in sorted(item for item in tops if not item.endswith(".dist-info")):
        for path in sorted((root / top).rglob("*")):
            counts = path.is_symlink() or (path.is_file() and "__pycache__" not in path.parts)
            if counts and path not in files:
                raise _refused(name, f"{path} is not in its RECORD; install the plugin again")


def _check_origin(name: str, top: str, files: set[Path]) -> None:
    """A directory that comes earlier on the path may hold another package of that name.

    ``find_spec`` of a top package runs nothing of it.
    """
    spec = find_spec(top) if top not in sys.modules else sys.modules[top].__spec__
    origin = spec.origin if spec is not None else None
    if origin is None or Path(origin).resolve() not in files:
        raise _refused(name, f"{top!r} would be imported from {origin}, which is not its file")


def _load(name: str, entry: EntryPoint) -> Build:
    """Import it from its sources alone: compiled copies beside them are not in the digest."""
    prefix, no_bytecode = sys.pycache_prefix, sys.dont_write_bytecode
    with tempfile.TemporaryDirectory() as empty:
        sys.pycache_prefix, sys.dont_write_bytecode = empty, True
        try:
            importlib.invalidate_caches()
            build = entry.load()
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises, this run is refused
            raise _refused(name, f"importing it failed: {type(error).__name__}") from None
        finally:
            sys.pycache_prefix, sys.dont_write_bytecode = prefix, no_bytecode
    if not callable(build):
        raise _refused(name, f"{entry.value} is no function")
    return build  # type: ignore[no-any-return]  # a plugin's signature is checked by calling it


def _refused(name: str, cause: str) -> RefusedError:
    return RefusedError(f"plugin {name!r:.80}: {cause}", refusal_class="policy")


def paste_text(found: Installed) -> str:
    """What an operator pastes into a plan to pin an installed plugin."""
    pins = PluginTerms(distribution=found.distribution, version=found.version, sha256=found.sha256)
    lines = [f"{key} = {json.dumps(value)}" for key, value in asdict(pins).items()]
    return "\n".join(
        ["[model]", f'family = "{PLUGIN_PREFIX}{found.name}"', "[model.plugin]", *lines]
    )


def plugins(
    output: Annotated[str, typer.Option("--format", help="text or json")] = "text",
) -> None:
    """Models that this machine has installed as plugins, with the pins to paste into a plan.

    A plan also needs [[model.parameters]] with the name and shape of every tensor, and the firm's
    policy.toml must list the family."""
    found = installed_plugins()
    text = "\n\n".join(paste_text(item) for item in found) or "no plugins are installed"
    say({"plugins": [asdict(item) for item in found]}, text, output)
