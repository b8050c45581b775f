"""Every parser of bytes from outside, each with real messages and the errors that it may raise.

``run.py`` drives them under a coverage-guided fuzzer; the unit tests replay the same list in short.
Those of ``protocol_targets`` need the protocol core alone, of ``audit_targets`` the auditor too;
``party_targets``, ``file_targets`` and ``personal_targets`` are of the lead's and the firm's
programs, and are imported when they are asked for.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fuzz.damage import Form
from greylag_protocols.errors import GreylagError

FAMILIES = ("protocol", "party")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser.

    Attributes:
        parse: takes one input to its end, also what stands behind the first call: signatures are
            made anew around damaged content, so that the checks after them are reached.
        seeds: makes valid messages; each must pass ``parse``.
        form: how the inputs are damaged (``fuzz.damage``).
        allowed: what ``parse`` may raise on damaged input; anything else is a finding.
        timeout_s: longer than this for one input is a finding.
        max_bytes: of inputs; parsers of short texts need no long ones.
    """

    name: str
    parse: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    form: Form = "bytes"
    allowed: tuple[type[Exception], ...] = (GreylagError,)
    timeout_s: int = 5
    max_bytes: int = 1 << 14


def load_targets(families: Iterable[str] = FAMILIES) -> dict[str, Target]:
    """The targets of the given families by name."""
    found: list[Target] = []
    for family in families:
        if family == "protocol":
            from fuzz import audit_targets, protocol_targets

            found += [*protocol_targets.TARGETS, *audit_targets.TARGETS]
        else:
            from fuzz import file_targets, party_targets, personal_targets

            found += [*party_targets.TARGETS, *file_targets.TARGETS, *personal_targets.TARGETS]
    return {target.name: target for target in found}
