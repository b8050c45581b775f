"""A release: the trained model as a directory that explains itself.

model.safetensors   named float32 tensors, in the terms' order
terms.json          the terms' exact bytes
card.md             what this is, what is promised and what is not, in plain words
release.json        the same facts for programs
SHA256SUMS          checksums of all of these
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from greylag_protocols import accounting, log
from greylag_protocols.errors import ConfigError
from greylag_protocols.optimiser import ModelState, model_digest
from greylag_protocols.parameters import split
from greylag_protocols.plan import parse_terms
from greylag_protocols.signing import Signer
from greylag_protocols.terms import Terms, terms_digest
from safetensors.numpy import save

from greylag_server.store import RunRecord, Store

COPIES = (2, 5, 10)
UNIT_MEANINGS = {
    "record": "one row of one firm's table",
    "group": "all rows of one firm's table that share a key",
    "firm": "everything that one firm holds",
}


def privacy_facts(terms: Terms, *, attempts: int) -> dict[str, Any]:
    """What a run costs one unit: ``epsilon`` is the price of all planned attempts, which budgets
    are charged; ``epsilon_used`` of those that took place."""
    privacy = terms.privacy
    return {
        "unit": privacy.unit,
        "epsilon": privacy.epsilon,
        "delta": privacy.delta,
        "noise_multiplier": privacy.noise_multiplier,
        "max_colluding": privacy.max_colluding,
        "epsilon_used": terms.epsilon_after(attempts),
    }


def wider_facts(terms: Terms, *, firms: int) -> dict[str, Any]:
    """What the promise does not cover, as numbers: epsilon of several equal units (not of firms,
    which are told apart by name), and of one unit if all other firms colluded, so that a firm's own
    noise alone protected it."""
    privacy, mechanism = terms.privacy, terms.mechanism
    honest = max(1, firms - privacy.max_colluding)
    counts = () if privacy.unit == "firm" else COPIES
    return {
        "epsilon_for_copies": {
            str(copies): accounting.epsilon_of_copies(
                mechanism, copies=copies, releases=privacy.max_attempts, delta=privacy.delta
            )
            for copies in counts
        },
        "epsilon_if_all_collude": accounting.epsilon_of(
            mechanism.scaled(honest**-0.5), releases=privacy.max_attempts, delta=privacy.delta
        ),
    }


def write_release(record: RunRecord, out: Path, *, signer: Signer, store: Store) -> dict[str, Any]:
    """Write a finished run's model to ``out`` and enter the release in the log.

    Raises:
        ConfigError: the run has no model yet, or ``out`` exists.
    """
    if record.state is None or record.status not in ("done", "failed") or not record.rounds_done:
        raise ConfigError(
            f"run {record.run} is {record.status} after {record.rounds_done} rounds; only a "
            "finished run can be released. See `greylag-server status`"
        )
    if out.exists():
        raise ConfigError(f"{out} exists already; name a new directory")
    terms, weights = parse_terms(record.terms), record.state.released()
    digest = model_digest(weights)
    firms = len(store.participants(record.run))
    facts = {
        "run": record.run,
        "purpose": terms.run.purpose,
        "rounds": record.rounds_done,
        "attempts": record.attempts,
        "firms": firms,
        "model": digest.hex(),
        "terms": terms_digest(record.terms).hex(),
        "audit": "by_bundle",
        **privacy_facts(terms, attempts=record.attempts),
        **wider_facts(terms, firms=len(record.roster)),
    }
    with store.transaction():
        predicate = {
            "terms": facts["terms"],
            "rounds": record.rounds_done,
            "attempts": record.attempts,
            "state": record.state.digest().hex(),
        }
        store.append([signer.sign(log.RELEASE_KIND, record.run, digest, predicate)])
    files = {
        "model.safetensors": _tensors(terms, record.state),
        "terms.json": record.terms,
        "release.json": json.dumps(facts, indent=2).encode() + b"\n",
        "card.md": _card(terms, facts).encode(),
    }
    sums = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()
    )
    _write_directory(out, {**files, "SHA256SUMS": sums.encode()})
    return facts


def _tensors(terms: Terms, state: ModelState) -> bytes:
    named = split(state.released(), terms.parameters)
    return save({name: tensor.copy() for name, tensor in named.items()})


def _write_directory(out: Path, files: dict[str, bytes]) -> None:
    """All files or no directory."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for name, content in files.items():
            (staged / name).write_bytes(content)
        staged.chmod(0o755)
        staged.replace(out)
    except OSError:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def _card(terms: Terms, facts: dict[str, Any]) -> str:
    targets = ", ".join(
        f"`{item.name}`" + (f" ({item.unit})" if item.unit else "") for item in terms.data.targets
    )
    unit = terms.privacy.unit
    copies = "; ".join(
        f"{count} copies: {value:.2f}" for count, value in facts["epsilon_for_copies"].items()
    )
    if copies:
        copies = (
            f"A {unit} whose content stands in the data several times is protected less: epsilon "
            f"for {copies}. "
        )
    return f"""# {facts["run"]}

{terms.run.purpose}. Predicts {targets} from {len(terms.data.feature_names)} columns of the data
standard `{terms.data.standard}`; trained by {facts["firms"]} firms together in {facts["rounds"]}
rounds. No firm's table left the firm, and no single firm's update was ever opened.

## What is promised

Whoever sees everything that the coordinator saw, and the updates of any
{terms.privacy.max_colluding} firms besides, can hardly tell whether one **{unit}**
({UNIT_MEANINGS[unit]}) was used at all: epsilon {facts["epsilon"]:.3g} at delta
{facts["delta"]:.1g}, add/remove neighbours, for all {terms.privacy.max_attempts} releases that were
planned ({facts["attempts"]} took place: {facts["epsilon_used"]:.3g}). The noise multiplier was
{facts["noise_multiplier"]}.

{copies}If all other firms colluded, a firm's own noise alone would leave epsilon
{facts["epsilon_if_all_collude"]:.3g}.

## What is not promised

* That firms told the truth, or really added their noise: both are signed claims, not proofs.
* Anything about more than one {unit} at a time, or about data used elsewhere.
* That predictions are right outside the ranges in `terms.json`.

## Evidence

Audit state: `{facts["audit"]}`: nothing here proves itself. The lead writes a bundle
(`greylag-server bundle {facts["run"]} OUT`), and anyone with keys from elsewhere checks it:
`greylag-audit verify` says which promises were kept, `greylag-audit replay` whether these weights
follow, bit by bit, from the logged sums.

| digest | value |
|---|---|
| model | `{facts["model"]}` |
| terms | `{facts["terms"]}` |
"""
