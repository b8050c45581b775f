"""Parsers of the auditor: entries, whole logs, archives, trust files and exported ledgers.

An auditor reads what a cheating lead made: nothing in it may end the audit otherwise than by a
finding or an error of the tree.
"""

import functools
import io
import json
import tarfile
import tempfile
from pathlib import Path

import zstandard
from fuzz import seeds
from fuzz.protocol_targets import _payload, sign_payload
from fuzz.targets import Target
from greylag_audit.bundle_files import Bundle, parse_header, parse_label, unpack
from greylag_audit.entries import read_entry
from greylag_audit.ledger_export import parse_export
from greylag_audit.replay import replay
from greylag_audit.shapes import SHAPES, check_shape
from greylag_audit.show import describe, to_json
from greylag_audit.verify import verify
from greylag_protocols import log
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.endorsement import sign_endorsement
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.membership import SignedMembership
from greylag_protocols.merkle import hash_leaf, nodes_of, root_of
from greylag_protocols.notes import cosign, cosigner_name, sign_checkpoint, with_cosignatures
from greylag_protocols.renewal import Leave
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import terms_digest
from greylag_protocols.tiles import encode_entries, entries_path, hash_tiles
from greylag_protocols.trust import parse_trust

RUN = "record-1"


class MemoryBundle(Bundle):
    """A bundle that never was on a disk."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(Path("/nowhere"), {name: len(item) for name, item in files.items()})
        self._files = files

    def read(self, name: str) -> bytes | None:
        return self._files.get(name)


@functools.cache
def make_log() -> tuple[bytes, ...]:
    """The entries of a short run of three firms, of every kind."""
    terms, membership = seeds.make_terms()[0], seeds.make_membership()
    digest = terms_digest(terms.encode())
    signed = SignedMembership.sign(membership, seeds.LEAD)
    tips = dict.fromkeys(seeds.FIRMS, log.ChainTip())
    entries = [
        signed.statement,
        sign_endorsement(seeds.FIRMS["firm-a"], membership, by="firm-a"),
        seeds.LEAD.sign(log.TERMS_KIND, RUN, digest, {"run": RUN}),
    ]

    def chain(firm: str, envelope: bytes) -> bytes:
        tips[firm] = log.ChainTip(seq=tips[firm].seq + 1, head=log.entry_head(envelope))
        entries.append(envelope)
        return envelope

    def receipts(attempt: int) -> log.AttemptRecord:
        for firm, signer in seeds.FIRMS.items():
            envelope = log.sign_receipt(
                signer,
                tips[firm],
                firm=firm,
                run=RUN,
                round_number=1,
                attempt=attempt,
                context=bytes([attempt]) * 32,
                roster_size=3,
                event_type="poisson-gaussian/v1",
                charged=attempt,
            )
            chain(firm, envelope)
        return log.AttemptRecord(
            run=RUN,
            round_number=1,
            attempt=attempt,
            context=bytes([attempt]) * 32,
            roster=tuple(seeds.FIRMS),
            tips=tuple(tips.values()),
        )

    facts = {"run": RUN, "terms": digest}
    accepted = [
        chain(firm, log.sign_acceptance(signer, tips[firm], firm=firm, epoch=1, **facts))
        for firm, signer in seeds.FIRMS.items()
    ]
    entries.append(log.sign_start(seeds.LEAD, acceptances=accepted, state=bytes(32), **facts))
    entries.append(log.sign_void(seeds.LEAD, receipts(1), missing=["firm-c"]))
    entries.append(
        log.sign_round(
            seeds.LEAD,
            receipts(2),
            model_in=bytes(32),
            state_out=bytes(32),
            sum_digest=log.sum_digest(bytes(200)),
            grid_step=terms.grid(3).step.hex(),
            event_type="poisson-gaussian/v1",
        )
    )
    for firm, signer in seeds.FIRMS.items():
        chain(firm, log.sign_closed(signer, tips[firm], firm=firm, charged=2, **facts))
    released = {"terms": digest.hex(), "rounds": 1, "attempts": 2, "state": bytes(32).hex()}
    entries += [
        seeds.LEAD.sign(log.RELEASE_KIND, RUN, bytes(32), released),
        log.sign_refusal(seeds.FIRMS["firm-b"], firm="firm-b", run=RUN, refusal_class="policy"),
        seeds.make_revocation(),
        Leave(consortium=seeds.CONSORTIUM, firm="firm-c", left_s=seeds.NOW_S).sign(
            seeds.FIRMS["firm-c"]
        ),
    ]
    return tuple(entries)


def make_bundle(entries: list[bytes]) -> MemoryBundle:
    """A bundle of any entries, by a lead who signs whatever it logs."""
    terms, membership = seeds.make_terms()[0].encode(), seeds.make_membership()
    leaves = [hash_leaf(item) for item in entries]
    size = len(entries)
    checkpoint = Checkpoint(origin=seeds.CONSORTIUM, size=size, root=root_of(leaves))
    words = [
        (
            cosigner_name(seeds.CONSORTIUM, name),
            signer.public_key,
            cosign(signer, checkpoint, time_s=seeds.NOW_S),
        )
        for name, signer in seeds.FIRMS.items()
    ]
    label = {"version": "bundle/v1", "origin": seeds.CONSORTIUM, "run": RUN, "size": size}
    return MemoryBundle(
        {
            "bundle.json": json.dumps(label).encode(),
            "checkpoint": with_cosignatures(
                sign_checkpoint(seeds.LEAD, checkpoint), words
            ).encode(),
            entries_path(0, size): encode_entries(entries),
            **dict(hash_tiles(nodes_of(leaves), size)),
            f"terms/{terms_digest(terms).hex()}.json": terms,
            f"membership/{membership.digest().hex()}.json": membership.encode(),
            f"sums/{log.sum_digest(bytes(200)).hex()}": bytes(200),
            "weights/initial": b"",
            "weights/released": b"",
        }
    )


@functools.cache
def make_trust() -> bytes:
    firms = {
        name: {"identity": signer.public_key.hex(), "operator": name}
        for name, signer in seeds.FIRMS.items()
    }
    facts = {"version": "trust/v1", "consortium": seeds.CONSORTIUM, "firms": firms}
    return json.dumps({**facts, "lead": seeds.LEAD.public_key.hex(), "bodies": {}}).encode()


def _audit(payload: bytes) -> object:
    """A log with the statement by the lead and by a firm, in the midst and at the end."""
    said = [sign_payload(payload, signer) for signer in (seeds.LEAD, seeds.FIRMS["firm-a"])]
    whole = list(make_log())
    bundle = make_bundle([*whole[:6], *said, *whole[6:], *said])
    verdict = verify(bundle, trust=parse_trust(make_trust()))
    verify(bundle, trust=None, quick=True)
    describe(verdict)
    to_json(verdict)
    return replay(bundle)


def _shaped(signer: Ed25519Signer, payload: bytes) -> object:
    entry = read_entry(sign_payload(payload, signer), 0)
    if entry.kind in SHAPES:
        check_shape(entry)
    return entry


def _archive(data: bytes) -> object:
    """A tar within zstandard, whatever the tar is."""
    with tempfile.TemporaryDirectory() as name:
        return unpack(io.BytesIO(zstandard.compress(data)), Path(name))


def _tar() -> list[bytes]:

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("bundle.json", "sums/" + "0" * 64, "tile/entries/000.p/17"):
            item = tarfile.TarInfo(name)
            item.size = 5
            tar.addfile(item, io.BytesIO(b"hello"))
    return [buffer.getvalue()]


def _export() -> list[bytes]:
    head = {
        "version": "ledger/v1",
        "consortium": seeds.CONSORTIUM,
        "firm": "firm-a",
        "identity": seeds.FIRMS["firm-a"].public_key.hex(),
    }
    lines = [json.dumps(head).encode(), *seeds.make_chain().entries]
    return [b"".join(line + b"\n" for line in lines)]


TARGETS = (
    Target(
        name="audit-entry",
        parse=lambda data: read_entry(data, 0),
        seeds=lambda: make_log()[:12],
        form="json",
        allowed=(VerificationError,),
    ),
    Target(
        name="audit-statement",
        parse=lambda data: _shaped(seeds.LEAD, data),
        seeds=lambda: [_payload(item) for item in make_log()],
        form="json",
        allowed=(VerificationError,),
    ),
    Target(
        name="audit-log",
        parse=_audit,
        seeds=lambda: [_payload(item) for item in make_log()],
        form="json",
        timeout_s=30,
    ),
    Target(
        name="bundle-label",
        parse=parse_label,
        seeds=lambda: [make_bundle(list(make_log())).read("bundle.json") or b""],
        form="json",
        allowed=(ConfigError,),
    ),
    Target(
        name="bundle-archive",
        parse=_archive,
        seeds=_tar,
        allowed=(ConfigError,),
    ),
    Target(
        name="bundle-header",
        parse=lambda data: parse_header(data[:512].ljust(512, b"\0")),
        seeds=lambda: [_tar()[0][:512]],
        allowed=(ConfigError,),
        max_bytes=512,
    ),
    Target(
        name="trust-file",
        parse=parse_trust,
        seeds=lambda: [make_trust()],
        form="json",
        allowed=(ConfigError,),
    ),
    Target(
        name="ledger-export",
        parse=parse_export,
        seeds=_export,
        form="text",
        allowed=(ConfigError,),
    ),
)
