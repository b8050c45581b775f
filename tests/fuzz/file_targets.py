"""Parsers of files: tables, releases, settings, what the firm keeps of its consortium.

They are read from a directory in memory that goes when the process ends.
"""

import functools
import gzip
import hashlib
import io
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openpyxl
import polars as pl
import safetensors.numpy
from fuzz import seeds
from fuzz.party_targets import NOW_S, open_lead, scratch
from fuzz.targets import Target
from greylag_client.firm import FirmDirectory, FirmSettings, TlsCredentials
from greylag_client.firm_membership import MembershipStore, found_store
from greylag_client.mapping.document import read_mapping, write_mapping
from greylag_client.mapping.questions import Question
from greylag_client.mapping.table_files import map_file
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


def _mixed(data: bytes) -> object:
    """Whatever is read can be encoded, and lies within the public bounds."""
    table = load_table(_file("mixed.csv", data), seeds.make_terms()[3].data)
    records = table.records(np.arange(len(table)))
    if not (np.abs(records.inputs) <= 2).all() or np.isnan(records.targets).all(axis=1).any():
        raise AssertionError("inputs beyond their bounds, or a row without a target")
    return records


def _agree(question: Question) -> int:
    """The proposal, or the first choice."""
    return question.proposal or 0


def _messy(name: str, data: bytes) -> object:
    """From a file in any state to a table that fits, and the mapping once more."""
    source = _file(name, data)
    written = source.with_name(f"{source.stem}.mapping.toml")
    written.unlink(missing_ok=True)
    terms = seeds.make_terms()[0].data
    given = {"out": None, "normalise": True, "ask": _agree}
    first = map_file(source, terms, mapping_path=None, **given)
    again = map_file(source, terms, mapping_path=first.mapping_path, **given)
    if again.table.text != first.table.text:
        raise AssertionError("the mapping does not repeat what it was written of")
    return first


def _zipped_workbook(parts: bytes) -> object:
    """A workbook from its parts, one behind the other: damage to compressed bytes ends at the
    checksum, and would never reach the XML."""
    named = [part.partition(b"\n") for part in parts.split(PART)[1:]]
    contents = {name.decode("latin-1").replace("\0", "") or "-": text for name, _, text in named}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return _messy("parts.xlsx", file.getvalue())


PART = b"\n=== "


def _messy_rows() -> list[list[object]]:
    head = ["Patent No.", "a", "b [-]", "Y (1)", "z", "备注", "date"]
    return [
        ["Report", None], [], head,
        ["p1", 0.5, "-0,5", "<0.25", "n.d.", "10 %", "2024-05-06"],
        ["p1", 0.4, "0,25", "1e-3", 0.75, "３．５", None],
        ["p2", "0.125", "½", "12 K", 1, "=1+1", True],
        ["Total", 1, 2, 3, 4, None, None],
    ]  # fmt: skip


@functools.cache
def _workbook() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in _messy_rows():
        sheet.append(row)
    sheet.merge_cells("A1:C1")
    sheet["B4"].number_format = "0.0%"
    sheet.row_dimensions[5].hidden = True
    book.create_sheet("empty")
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def _workbook_parts() -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(_workbook())) as archive:
        return [
            b"".join(
                PART + name.encode() + b"\n" + archive.read(name) for name in archive.namelist()
            )
        ]


def _messy_texts() -> list[bytes]:
    lines = [";".join("" if cell is None else str(cell) for cell in row) for row in _messy_rows()]
    text = "\r\n".join(lines)
    return [text.encode(), text.replace("½", "1").encode("gb18030"), text.encode("utf-16")]


def _parquet() -> list[bytes]:
    file = io.BytesIO()
    names = ["patent", "a", "b", "y", "z"]
    rows = [["p1", 0.5, 0.25, 0.5, None], ["p2", 0.75, 0.5, None, 1.0]]
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(file)
    return [file.getvalue()]


def _mapping_seeds() -> list[bytes]:
    _messy("messy.txt", _messy_texts()[0])
    return [(scratch() / "messy.mapping.toml").read_bytes()]


def _mapping(data: bytes) -> object:
    """A mapping in any state, written again and followed."""
    path = _file("given.toml", data)
    read_mapping(_file("copy.toml", write_mapping(read_mapping(path)).encode()))
    source, terms = _file("messy.txt", _messy_texts()[0]), seeds.make_terms()[0].data
    return map_file(source, terms, out=None, mapping_path=path, normalise=False, ask=_agree)


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
        name="table-of-kinds",
        parse=_mixed,
        seeds=lambda: [b"a,b,c,y,z\nlow,A,1,0.5,?\nhigh,D,100,-99,3\nhigh,?,5e1,0,-99.0\n"],
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
        name="messy-text",
        parse=lambda data: _messy("messy.txt", data),
        seeds=_messy_texts,
        form="text",
        allowed=(ConfigError,),
    ),
    Target(
        name="messy-workbook",
        parse=lambda data: _messy("messy.xlsx", data),
        seeds=lambda: [_workbook()],
        allowed=(ConfigError,),
    ),
    Target(
        name="messy-workbook-parts",
        parse=_zipped_workbook,
        seeds=_workbook_parts,
        form="text",
        allowed=(ConfigError,),
    ),
    Target(
        name="messy-parquet",
        parse=lambda data: _messy("messy.parquet", data),
        seeds=_parquet,
        allowed=(ConfigError,),
    ),
    Target(
        name="mapping-file",
        parse=_mapping,
        seeds=_mapping_seeds,
        form="text",
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
