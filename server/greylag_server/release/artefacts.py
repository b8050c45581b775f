"""The files of a release: made once, kept with the log entry that names them, written as one.

What the entry names by digest is made before it, stored in the same transaction, and the same bytes
ever after. Only the log's proof and ``model.sig`` are made when a directory is written.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from greylag_protocols.errors import ConfigError
from greylag_protocols.optimiser import ModelState, model_digest
from greylag_protocols.parameters import split
from greylag_protocols.plan import parse_terms
from greylag_protocols.releases import (
    BOM_FILE,
    CARD_FILE,
    CHECKSUMS_FILE,
    ENTRY_FILE,
    FACTS_FILE,
    KEY_FILE,
    LICENCE_FILE,
    MODEL_FILE,
    ONNX_FILE,
    PROOF_FILE,
    TERMS_FILE,
    Holdout,
    ReleasedFile,
    ReleaseFacts,
    Version,
)
from greylag_protocols.terms import Terms, terms_digest
from safetensors.numpy import save

from greylag_server.consortium import stage_directory
from greylag_server.model_graph import FAMILY, onnx_graph
from greylag_server.release.card import make_card, make_licence
from greylag_server.release.facts import release_facts
from greylag_server.release.ml_bom import make_ml_bom
from greylag_server.release.signing import key_digest, sign_directory
from greylag_server.store import RunRecord, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """What the release may be used for, and until when (Unix seconds)."""

    text: str
    permitted_uses: tuple[str, ...]
    issued_s: int
    expires_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A finished run's model in the forms that are released."""

    terms: Terms
    encoded_terms: bytes
    state: ModelState
    digest: bytes
    weights: bytes  # safetensors
    graph: bytes | None  # ONNX, where the family has one


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A release before it is in the log, or as it was put there."""

    run: str
    model: bytes
    facts: ReleaseFacts
    files: Mapping[str, bytes]


def make_model(record: RunRecord, state: ModelState) -> Model:
    """The model of a run whose last state is ``state``."""
    terms, vector = parse_terms(record.terms), state.released()
    tensors = {name: item.copy() for name, item in split(vector, terms.parameters).items()}
    return Model(
        terms=terms,
        encoded_terms=record.terms,
        state=state,
        digest=model_digest(vector),
        weights=save(tensors),
        graph=onnx_graph(terms, tensors) if terms.model.family == FAMILY else None,
    )


def make_draft(
    record: RunRecord,
    model: Model,
    *,
    consortium: str,
    version: int,
    firms: int,
    licence: Licence,
    public_key: bytes,
    cosigners: int,
    holdout: Holdout | None,
    because: str,
) -> Draft:
    """All files of a new version, and the log entry's words about them."""
    terms = model.terms
    bare = ReleaseFacts(
        consortium=consortium,
        name=terms.run.name,
        version=version,
        terms=terms_digest(model.encoded_terms).hex(),
        rounds=record.rounds_done,
        attempts=record.attempts,
        state=model.state.digest().hex(),
        issued_s=licence.issued_s,
        expires_s=licence.expires_s,
        licence=licence.text,
        permitted_uses=licence.permitted_uses,
        files=(),
        signing_key=key_digest(public_key),
        cosigners=cosigners,
        holdout=holdout,
        because=because,
    )
    shown = release_facts(
        terms, record.run, model.digest, bare, firms=firms, roster=len(record.roster)
    )
    weights_digest = hashlib.sha256(model.weights).hexdigest()
    files = {
        MODEL_FILE: model.weights,
        **({} if model.graph is None else {ONNX_FILE: model.graph}),
        TERMS_FILE: model.encoded_terms,
        FACTS_FILE: json.dumps(shown, indent=2, ensure_ascii=False).encode() + b"\n",
        CARD_FILE: make_card(terms, shown).encode(),
        BOM_FILE: make_ml_bom(terms, shown, issued_s=licence.issued_s, model_sha256=weights_digest),
        LICENCE_FILE: make_licence(shown).encode(),
        KEY_FILE: public_key,
    }
    named = tuple(
        ReleasedFile(name=name, sha256=hashlib.sha256(item).hexdigest(), bytes=len(item))
        for name, item in files.items()
    )
    facts = replace(bare, files=named)
    return Draft(run=record.run, model=model.digest, facts=facts, files=files)


def keep_files(store: Store, draft: Draft) -> None:
    """Store the files under the digests that the entry names; inside its transaction."""
    for item in draft.facts.files:
        store.keep(bytes.fromhex(item.sha256), draft.files[item.name])


def stored_draft(store: Store, version: Version, facts: ReleaseFacts) -> Draft:
    """A release that is in the log, with its files.

    Raises:
        ConfigError: the database lacks a file.
    """
    files = {}
    for item in facts.files:
        content = store.artefact(bytes.fromhex(item.sha256))
        if content is None:
            raise ConfigError(
                f"the lead's database lacks {item.name} of {facts.name} v{facts.version}, which "
                "its log names; restore it from a backup"
            )
        files[item.name] = content
    return Draft(run=version.run, model=version.model, facts=facts, files=files)


def write_release(
    out: Path, draft: Draft, *, entry: bytes, proof: bytes, private_key: Path
) -> None:
    """Write the directory: all of it, signed, or nothing.

    Raises:
        ConfigError: ``out`` exists or cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; name a new directory")
    files = {**draft.files, ENTRY_FILE: entry, PROOF_FILE: proof}
    sums = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()
    )
    try:
        with stage_directory(out, last=CHECKSUMS_FILE) as staged:
            for name, content in {**files, CHECKSUMS_FILE: sums.encode()}.items():
                (staged / name).write_bytes(content)
            sign_directory(staged, private_key)
            staged.chmod(0o755)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from None
