"""The model card for machines: a CycloneDX 1.6 bill of materials (``ml-bom.cdx.json``).

The library writes everything but the ``modelCard``, which it does not know yet; that is put in
here. The same release gives the same bytes: number and time come from the release itself.
"""

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from greylag_protocols.terms import Feature, Terms

MODEL_REF = "model"


def make_ml_bom(
    terms: Terms, facts: Mapping[str, Any], *, issued_s: int, model_sha256: str
) -> bytes:
    """The bill of materials of one release. ``facts`` are those of ``release.json``."""
    component = Component(
        name=facts["name"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=str(facts["version"]),
        bom_ref=MODEL_REF,
        description=terms.run.purpose,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model_sha256)],
        licenses=[DisjunctiveLicense(name=facts["licence"])],
        properties=[
            Property(name=f"greylag:{key}", value=str(facts[key]))
            for key in ("run", "model", "terms", "firms", "rounds", "attempts", "expires")
        ],
    )
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"urn:greylag:{facts['model']}"))
    bom.metadata = BomMetaData(
        component=component, timestamp=datetime.fromtimestamp(issued_s, UTC), properties=()
    )
    bom.version = facts["version"]
    written = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    document = json.loads(written)
    document["metadata"]["component"]["modelCard"] = _model_card(terms, facts)
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def _model_card(terms: Terms, facts: Mapping[str, Any]) -> dict[str, Any]:
    data, model = terms.data, terms.model
    dataset = {
        "type": "dataset",
        "name": data.standard,
        "classification": "confidential",
        "description": (
            f"Tables of {facts['firms']} firms in the data standard {data.standard}; they stayed "
            f"at the firms. About {data.expected_records} rows in all were expected."
        ),
    }
    return {
        "bom-ref": "model-card",
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": data.task,
            "architectureFamily": model.family,
            "modelArchitecture": _architecture(terms),
            "datasets": [dataset],
            "inputs": [
                {"format": f"{name}: {_input_form(feature)}"}
                for name, feature in data.by_feature.items()
            ],
            "outputs": [
                {"format": f"{item.name}: {_output_form(item.classes, item.unit)}"}
                for item in data.targets
            ],
        },
        "quantitativeAnalysis": {"performanceMetrics": _metrics(facts["holdout"])},
        "considerations": {
            "users": ["members of the consortium"],
            "useCases": list(facts["permitted_uses"]),
            "technicalLimitations": [
                "predictions outside the public ranges of the terms are for the nearest value "
                "inside, and are not to be relied on"
            ],
            "performanceTradeoffs": [
                f"differential privacy: epsilon {facts['epsilon']:.4g} at delta "
                f"{facts['delta']:.1g} for one {facts['unit']}, with {facts['max_colluding']} "
                "colluding firms; the noise costs accuracy"
            ],
        },
        "properties": [
            {"name": f"greylag:{key}", "value": repr(facts[key])}
            for key in ("epsilon", "epsilon_used", "delta", "noise_multiplier", "max_colluding")
        ],
    }


def _architecture(terms: Terms) -> str:
    if terms.model.plugin is not None:
        return f"{terms.model.plugin.distribution} {terms.model.plugin.version}"
    widths = (terms.data.input_width, *terms.model.hidden, terms.data.outputs)
    return f"{'-'.join(map(str, widths))}, {terms.model.activation}"


def _input_form(feature: Feature) -> str:
    if feature.categories is not None:
        return f"one of {len(feature.categories)} categories"
    low, high = feature.bounds
    return f"number from {low:g} to {high:g} {feature.unit}".rstrip()


def _output_form(classes: tuple[str, ...] | None, unit: str) -> str:
    return f"one of {len(classes)} classes" if classes else f"number {unit}".rstrip()


def _metrics(holdout: Mapping[str, Any] | None) -> list[dict[str, str]]:
    if holdout is None:
        return []
    rows = f"{holdout['rows']} rows of the lead's own, outside every guarantee"
    return [{"type": holdout["metric"], "value": f"{holdout['value']:.6g}", "slice": rows}]
