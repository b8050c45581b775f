"""What the probe found, for people and as one JSON document."""

from typing import Any

from greylag_lab.probe import bounds
from greylag_lab.probe.findings import Finding, Probe

BLIND_SPOTS = (
    "what other firms run: it tests the code on this machine, so each firm has to run it itself",
    "a malicious firm, which may add no noise or send what it likes; at most max_colluding are "
    "allowed for",
    "side channels: timing, memory, swap, logs, what the machine's operator can read",
    "the accountant: it takes sigma from the plan as given (two accountants check each other "
    "whenever terms are settled)",
    "ledger, roster and key checks of an agent: it starts where an attempt was allowed and paid",
    "a fault that depends on rows or weights that it did not try, or is finer than its figures: "
    "the canaries give a lower bound on epsilon, never an upper one",
)

VERDICTS = {
    "sound": "Nothing speaks against this build, and every build that was broken on purpose was "
    "found out.",
    "broken": "THIS BUILD BREAKS WHAT THE TERMS PROMISE. Do not train with it; the flagged lines "
    "say which part is at fault.",
    "blind": "The probe tells nothing here: a build that was broken on purpose went unnoticed. Use "
    "a plan with more weights or a larger table.",
}


def as_document(probe: Probe, *, wall_s: float) -> dict[str, Any]:
    """One JSON document."""
    terms = probe.terms
    return {
        "verdict": probe.verdict,
        "run": terms.run.name,
        "unit": terms.privacy.unit,
        "firms": probe.firms,
        "max_colluding": terms.privacy.max_colluding,
        "noise_multiplier": terms.privacy.noise_multiplier,
        "clip_norm": terms.privacy.clip_norm,
        "sampling_rate": terms.training.sampling_rate,
        "weights": terms.dimension,
        "canaries": probe.canaries,
        "largest_epsilon_bound": probe.reach,
        "confidence": 1.0 - bounds.LEVEL,
        "false_alarm": bounds.FALSE_ALARM,
        "this_build": _finding(probe.this),
        "broken_builds": [_finding(item) for item in probe.wrong],
        "missed": list(probe.missed),
        "cannot_see": list(BLIND_SPOTS),
        "wall_s": round(wall_s, 1),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "build": finding.build,
        "flagged_by": list(finding.flagged_by),
        "checks": [
            {
                "test": check.test,
                "flagged": check.flagged,
                "figure": check.figure,
                "expected": check.expected,
                "p_value": check.p_value,
                "words": check.words,
            }
            for check in finding.checks
        ],
    }


def as_text(probe: Probe, *, wall_s: float) -> str:
    """The same for people."""
    terms, lines = probe.terms, [VERDICTS[probe.verdict], ""]
    lines += [
        f"Tested: {probe.firms} firms, of which {terms.privacy.max_colluding} work together against"
        f" the others; unit {terms.privacy.unit}, sigma {terms.privacy.noise_multiplier:g}, clip "
        f"norm {terms.privacy.clip_norm:g}, sampling rate {terms.training.sampling_rate:g}, "
        f"{terms.dimension} weights; {wall_s:.0f} s.",
        f"{probe.canaries} canaries; had all been guessed, epsilon would be at least "
        f"{probe.reach:.1f}. Confidence of each bound and test {100 * (1 - bounds.LEVEL):.3f} %; a "
        f"true build is flagged by any of them with probability below {bounds.FALSE_ALARM:g}.",
        "",
        "This build",
    ]
    lines += [
        f"  {'FLAGGED' if check.flagged else 'ok':8}{check.test}: {check.words}"
        for check in probe.this.checks
    ]
    lines += ["", "Builds broken on purpose, which must be flagged"]
    for finding in probe.wrong:
        caught = f"flagged by {', '.join(finding.flagged_by)}"
        lines.append(f"  {finding.build}: {caught if finding.flagged_by else 'NOT FLAGGED'}")
    if terms.training.sampling_rate == 1.0:
        lines.append("  (no sampling: cannot be told, since the plan leaves nobody out)")
    lines += ["", "What this cannot see", *(f"  - {item}" for item in BLIND_SPOTS)]
    return "\n".join(lines)
