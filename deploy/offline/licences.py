"""Which licences may go into what a firm installs, and what a wheel says of its own.

What counts is the wheel's metadata: the SPDX expression where there is one, else the one-line
``License``, else the classifiers, all of which must then be allowed. What is not on the list is
refused, and so is a wheel that says nothing: a person reads its licence first (``READ``).
"""

from email.message import Message

from greylag_protocols.errors import ConfigError
from license_expression import ExpressionError, get_spdx_licensing

_ATTRIBUTION = "commercial use allowed; keep the notice"
_NO_CONDITION = "commercial use allowed without condition"
ALLOWED = {
    "0BSD": _NO_CONDITION,
    "Apache-2.0": "commercial use allowed; keep the notice; grants patents",
    "Apache-2.0 WITH LLVM-exception": "Apache-2.0 with fewer conditions",
    "BSD License": "unnamed member of the BSD family: commercial use allowed by each of them",
    "BSD-2-Clause": _ATTRIBUTION,
    "BSD-3-Clause": _ATTRIBUTION,
    "BSL-1.0": _ATTRIBUTION,
    "CC0-1.0": _NO_CONDITION,
    "ISC": _ATTRIBUTION,
    "MIT": _ATTRIBUTION,
    "MIT-0": _NO_CONDITION,
    "MPL-2.0": "commercial use allowed; only changed files of its own must be published, and none "
    "is changed here",
    "NCSA": _ATTRIBUTION,
    "PSF-2.0": _ATTRIBUTION,
    "Public Domain": _NO_CONDITION,
    "Unlicense": _NO_CONDITION,
    "Zlib": _ATTRIBUTION,
}
# What older metadata write, in the words above.
_NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD License",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# Wheels whose metadata say nothing: what a person read in the licence file of that version.
READ = {("sigstore-models", "0.0.6"): "MIT"}
_SPDX = get_spdx_licensing()


def stated_licences(metadata: Message) -> tuple[str, ...]:
    """What a wheel's metadata say, or else a person read: one SPDX expression, or names that all
    apply; maybe nothing."""
    if expression := metadata["License-Expression"]:
        return (str(expression),)
    line = str(metadata["License"] or "").strip()
    if _NAMES.get(line, line) in ALLOWED:
        return (_NAMES.get(line, line),)
    classifiers = [str(item).split(" :: ") for item in metadata.get_all("Classifier", [])]
    names = [item[-1] for item in classifiers if item[0] == "License" and len(item) > 1]
    if not names and line and line != "UNKNOWN" and "\n" not in line:
        names = [line]
    if not names and (read := READ.get((str(metadata["Name"]), str(metadata["Version"])))):
        names = [read]
    return tuple(_NAMES.get(name, name) for name in names)


def check_licences(name: str, licences: tuple[str, ...]) -> None:
    """Refuse what is unknown or not on the list.

    Raises:
        ConfigError: names the distribution and the licence.
    """
    if not licences:
        raise ConfigError(f"{name}: its metadata name no licence; read it, then leave {name} out")
    for licence in licences:
        if not _is_allowed(licence):
            raise ConfigError(
                f"{name}: licence {licence!r:.200} is not among those that are known to allow "
                "commercial use; leave it out, or add the licence to ALLOWED with the reason"
            )


def _is_allowed(licence: str) -> bool:
    if licence in ALLOWED:
        return True
    try:
        parsed = _SPDX.parse(licence, validate=True)
    except ExpressionError:
        return False
    return parsed is not None and _holds(parsed)


def _holds(node: object) -> bool:
    """Of ``OR`` one side must be allowed, of ``AND`` all."""
    if isinstance(node, _SPDX.OR):
        return any(_holds(part) for part in node.args)
    if isinstance(node, _SPDX.AND):
        return all(_holds(part) for part in node.args)
    return str(node) in ALLOWED
