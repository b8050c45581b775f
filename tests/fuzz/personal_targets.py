"""A firm's own version of a model, as its two files tell it."""

import functools

import numpy as np
from fuzz import seeds
from fuzz.targets import Target
from greylag_client.local_models.trees import fit_residual, fit_trees
from greylag_client.personal.artefact import (
    FACTS_FILE,
    PARTS_FILE,
    Intervals,
    Personal,
    encode_personal,
    facts_of,
    parse_personal,
)
from greylag_client.personal.parts import Blend, Part
from greylag_protocols.errors import VerificationError

SHARED = b"the shared model's weights"


@functools.cache
def _files(which: int) -> dict[str, bytes]:
    """A version for the terms of numbers (0) or of classes (1)."""
    terms = seeds.make_terms()[which]
    data, rng = terms.data, np.random.default_rng(0)
    values = rng.uniform(0, 1, (40, data.columns_width))
    layers = tuple(
        (rng.normal(size=weight.shape), rng.normal(size=bias.shape))
        for weight, bias in zip(terms.parameters[::2], terms.parameters[1::2], strict=True)
    )
    targets = rng.integers(0, 2, (40, 1)).astype(float)
    if data.task == "regression":
        targets = rng.normal(size=(40, data.outputs))
    wide = np.concatenate([values, np.zeros((40, data.outputs))], axis=1)
    residual = fit_residual(wide, rng.normal(size=(40, data.outputs)), data, 0).first(2)
    blend = Blend(
        parts=(
            Part(name="shared", layers=layers, forest=None),
            Part(name="trees on residual", layers=layers, forest=residual),
            Part(
                name="own trees", layers=None, forest=fit_trees(values, targets, data, 0).first(2)
            ),
        ),
        weights=(0.5, 0.25, 0.25),
    )
    reach = (0.1,) if data.task == "classification" else (0.5,) * data.outputs
    intervals = Intervals(coverage=0.9, reach=reach)
    return encode_personal(
        Personal(facts=facts_of(blend, SHARED, rows=40, groups=9, intervals=intervals), blend=blend)
    )


def _parse(which: int, **changed: bytes) -> object:
    """Whatever is read predicts finite numbers."""
    terms = seeds.make_terms()[which]
    files = {"facts": _files(which)[FACTS_FILE], "parts": _files(which)[PARTS_FILE]} | changed
    found = parse_personal(files["facts"], files["parts"], terms, SHARED)
    data = terms.data
    said = found.blend.predict(data, "tanh", np.full((2, len(data.feature_names)), 0.5))
    if not np.isfinite(said).all():
        raise AssertionError("predictions that are no numbers")
    return found


TARGETS = (
    Target(
        name="personal-facts",
        parse=lambda data: _parse(0, facts=data),
        seeds=lambda: [_files(0)[FACTS_FILE]],
        form="json",
        allowed=(VerificationError,),
    ),
    Target(
        name="personal-parts",
        parse=lambda data: _parse(0, parts=data),
        seeds=lambda: [_files(0)[PARTS_FILE]],
        allowed=(VerificationError,),
        max_bytes=1 << 16,
    ),
    Target(
        name="personal-parts-of-classes",
        parse=lambda data: _parse(1, parts=data),
        seeds=lambda: [_files(1)[PARTS_FILE]],
        allowed=(VerificationError,),
        max_bytes=1 << 16,
    ),
)
