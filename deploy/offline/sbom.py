"""The bill of materials of a directory of wheels: CycloneDX 1.6, with licences and hashes."""

import email
import hashlib
import itertools
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from greylag_protocols.errors import ConfigError
from offline.licences import check_licences, stated_licences
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

MAX_METADATA_BYTES = 4 << 20
WHEEL_PROPERTY = "greylag:wheel"
# What a Windows machine would say of itself where a wheel asks (PEP 508).
WINDOWS = {"os_name": "nt", "sys_platform": "win32", "platform_system": "Windows"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One file of the wheelhouse.

    Attributes:
        sha256: hex.
        licences: as ``licences.stated_licences``.
        requires: the ``Requires-Dist`` lines.
    """

    file: str
    name: str
    version: str
    sha256: str
    licences: tuple[str, ...]
    requires: tuple[str, ...]

    @property
    def key(self) -> str:
        return canonicalize_name(self.name)


def read_wheels(directory: Path) -> list[Wheel]:
    """All wheels of a directory, by name.

    Raises:
        ConfigError: a file is no wheel, a distribution stands there twice, or one's licence is
            unknown or not allowed.
    """
    wheels = [_read_wheel(path) for path in sorted(directory.iterdir(), key=lambda p: p.name)]
    wheels.sort(key=lambda wheel: wheel.key)
    for former, wheel in itertools.pairwise(wheels):
        if former.key == wheel.key:
            raise ConfigError(f"{wheel.name} is there twice: {former.file} and {wheel.file}")
    for wheel in wheels:
        check_licences(wheel.name, wheel.licences)
    return wheels


def _read_wheel(path: Path) -> Wheel:
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        metadata = _metadata_of(path)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path.name} is no wheel: {error}") from None
    if canonicalize_name(str(metadata["Name"])) != name:
        raise ConfigError(f"{path.name} calls itself {metadata['Name']!r:.100} inside")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Wheel(
        file=path.name,
        name=str(metadata["Name"]),
        version=str(version),
        sha256=digest,
        licences=stated_licences(metadata),
        requires=tuple(str(item) for item in metadata.get_all("Requires-Dist", [])),
    )


def _metadata_of(path: Path) -> Message:
    """A wheel's own ``METADATA``: the one at its top, not those of what it carries inside."""
    with zipfile.ZipFile(path) as archive:
        (info,) = [
            item
            for item in archive.infolist()
            if item.filename.endswith(".dist-info/METADATA") and item.filename.count("/") == 1
        ]
        if info.file_size > MAX_METADATA_BYTES:
            raise ValueError(f"metadata of {info.file_size} bytes")
        return email.message_from_bytes(archive.read(info))


def write_sbom(wheels: Sequence[Wheel], *, root: str, extra: str, windows: bool) -> str:
    """The bill of materials as JSON.

    Args:
        root: name of the distribution that all others are there for.
        extra: its extra that is installed.
        windows: whether the wheels are for Windows, else for this machine.
    """
    components = {wheel.key: _component(wheel) for wheel in wheels}
    top = components[root]
    # Two bills of the same files are the same bill.
    content = "".join(wheel.sha256 for wheel in wheels)
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, content))
    bom.metadata.component = top
    for wheel in wheels:
        if wheel.key != root:
            bom.components.add(components[wheel.key])
        needed = _needed(wheel, extra if wheel.key == root else "", windows=windows)
        bom.register_dependency(
            components[wheel.key], [components[name] for name in needed if name in components]
        )
    return str(JsonV1Dot6(bom).output_as_string(indent=1)) + "\n"


def _needed(wheel: Wheel, extra: str, *, windows: bool) -> list[str]:
    environment = {"extra": extra, **(WINDOWS if windows else {})}
    requirements = [Requirement(line) for line in wheel.requires]
    return [
        canonicalize_name(item.name)
        for item in requirements
        if item.marker is None or item.marker.evaluate(environment)
    ]


def _component(wheel: Wheel) -> Component:
    purl = PackageURL("pypi", name=wheel.key, version=wheel.version)
    return Component(
        type=ComponentType.LIBRARY,
        name=wheel.name,
        version=wheel.version,
        purl=purl,
        bom_ref=str(purl),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=wheel.sha256)],
        licenses=_licences(wheel.licences),
        properties=[Property(name=WHEEL_PROPERTY, value=wheel.file)],
    )


def _licences(stated: tuple[str, ...]) -> list[DisjunctiveLicense | LicenseExpression]:
    """One SPDX expression stands alone; plain ids and names stand in a list."""
    if len(stated) == 1 and any(word in stated[0] for word in (" AND ", " OR ", " WITH ")):
        return [LicenseExpression(stated[0])]
    return [
        DisjunctiveLicense(name=item) if " " in item else DisjunctiveLicense(id=item)
        for item in stated
    ]
