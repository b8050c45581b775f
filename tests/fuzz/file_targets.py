"""Parsers of files: tables, releases, settings, what the firm keeps of its consortium.

They are read from a directory in memory that goes when the process ends.
"""

import functools
import gzip
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy
from fuzz import seeds
from fuzz.party_targets import NOW_S, open_lead, scratch
from fuzz.targets import Target
from greylag_client.firm import FirmDirectory, FirmSettings, TlsCredentials
from greylag_client.firm_membership import MembershipStore, found_store
from greylag_client.policy import DEFAULT_POLICY, read_policy
from greylag_client.prediction import CHECKSUMS_FILE, MODEL_FILE, TERMS_FILE, Predictor
from greylag_client.table import load_table
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.membership import SignedMembership
from greylag_server.consortium import SETTINGS_FILE, Consortium

CSV = """patent,a,b,y,z,note
p1,0.5,-1,0.25,NA,"free, text"
p1,1,,-0.5,1e-3,
p2, 0.125 ,NA,,0.75,"two
lines"
"""


def _file(name: str, data: bytes) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path


def _table(data: bytes) -> object:
    return load_table(_file("table.csv", data), seeds.make_terms()[0].data)


def _zipped_table(data: bytes) -> object:
    return load_table(_file("table.csv.gz", data), seeds.make_terms()[0].data)


def _classes(data: bytes) -> object:
    return load_table(_file("classes.csv", data), seeds.make_terms()[1].data)


def _release(**changed: bytes) -> Predictor:
    """A release with right checksums around files that may be anything."""
    files = {TERMS_FILE: seeds.make_terms()[0].encode(), MODEL_FILE: _model()}
    files |= {{"terms": TERMS_FILE, "model": MODEL_FILE}[name]: changed[name] for name in changed}
    for name, content in files.items():
        _file(name, content)
    _file(CHECKSUMS_FILE, _checksums(files))
    return Predictor.load(scratch())


def _checksums(files: dict[str, bytes]) -> bytes:
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()]
    return "".join(lines).encode()


@functools.cache
def _model() -> bytes:
    parameters = seeds.make_terms()[0].parameters
    return safetensors.numpy.save(
        {item.name: np.ones(item.shape, dtype=np.float32) for item in parameters}
    )


def _release_model(data: bytes) -> object:
    return _release(model=data).predict(np.zeros((1, 2)))


def _release_checksums(data: bytes) -> object:
    _release()
    _file(CHECKSUMS_FILE, data)
    return Predictor.load(scratch())


def _listed() -> list[bytes]:
    return [_checksums({TERMS_FILE: seeds.make_terms()[0].encode(), MODEL_FILE: _model()})]


@functools.cache
def _firm_directory() -> Path:
    root = scratch() / "firm"
    settings = FirmSettings(
        consortium=seeds.CONSORTIUM, firm="firm-a", operator="firm-a", host="localhost", port=9443,
        enrol_port=8443, server_pin="0" * 64, lead_key=seeds.LEAD.public_key.hex(),
    )  # fmt: skip
    FirmDirectory.create(
        root,
        settings=settings,
        identity_key=b"\x0a" * 32,
        tls=TlsCredentials(ca=b"", key=b"", certificate=b""),
        seen=SignedMembership.sign(seeds.make_membership(), seeds.LEAD),
        approve=True,
    )
    return root


def _firm_settings(data: bytes) -> object:
    (_firm_directory() / "firm.toml").write_bytes(data)
    return FirmDirectory.open(_firm_directory()).settings


@functools.cache
def _firm_file() -> bytes:
    return (_firm_directory() / "firm.toml").read_bytes()


def _consortium_settings(data: bytes) -> object:
    open_lead()
    root = scratch() / "other-lead"
    if not root.exists():
        shutil.copytree(scratch() / "lead", root)
    (root / SETTINGS_FILE).write_bytes(data)
    return Consortium.open(root, now_s=NOW_S).settings


def _consortium_seeds() -> list[bytes]:
    open_lead()
    return [(scratch() / "lead" / SETTINGS_FILE).read_bytes()]


def _memberships(data: bytes) -> object:
    root = scratch() / "memberships"
    root.mkdir(exist_ok=True)
    (root / "seen.json").write_bytes(data)
    key = seeds.LEAD.public_key
    return MembershipStore(root, lead_key=key, consortium=seeds.CONSORTIUM).seen()


def _stored_memberships() -> list[bytes]:
    root = scratch() / "found"
    root.mkdir(exist_ok=True)
    signed = SignedMembership.sign(seeds.make_membership(), seeds.LEAD)
    found_store(root, seen=signed, approve=True)
    return [(root / "seen.json").read_bytes()]


def _csv() -> Sequence[bytes]:
    return [CSV.encode(), b"patent,a,b,y,z\np,0,0,0,0\n", CSV.replace("\n", "\r\n").encode()]


TARGETS = (
    Target(name="table", parse=_table, seeds=_csv, form="text", allowed=(ConfigError,)),
    Target(
        name="table-of-classes",
        parse=_classes,
        seeds=lambda: [b"patent,a,b,y\np,1,0.5,good\nq,2,1,bad\n"],
        form="text",
        allowed=(ConfigError,),
    ),
    Target(
        name="zipped-table",
        parse=_zipped_table,
        seeds=lambda: [gzip.compress(CSV.encode(), mtime=0)],
        allowed=(ConfigError,),
    ),
    Target(
        name="release-model",
        parse=_release_model,
        seeds=lambda: [_model()],
        allowed=(VerificationError,),
    ),
    Target(
        name="release-checksums",
        parse=_release_checksums,
        seeds=_listed,
        form="text",
        allowed=(VerificationError,),
    ),
    Target(
        name="policy-file",
        parse=lambda data: read_policy(_file("policy.toml", data)),
        seeds=lambda: [DEFAULT_POLICY.encode(), b"lifetime_epsilon = 10.0\n"],
        form="text",
        allowed=(ConfigError,),
    ),
    Target(
        name="firm-file",
        parse=_firm_settings,
        seeds=lambda: [_firm_file()],
        form="text",
        allowed=(ConfigError,),
    ),
    Target(
        name="consortium-file",
        parse=_consortium_settings,
        seeds=_consortium_seeds,
        form="text",
        allowed=(ConfigError,),
    ),
    Target(
        name="membership-file",
        parse=_memberships,
        seeds=_stored_memberships,
        form="json",
    ),
)
