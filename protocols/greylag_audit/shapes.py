"""What each kind of entry must say, and who may say it."""

from typing import Any

from greylag_protocols import log, releases
from greylag_protocols.endorsement import ENDORSEMENT_KIND
from greylag_protocols.errors import VerificationError
from greylag_protocols.membership import MEMBERSHIP_KIND, REVOCATION_KIND
from greylag_protocols.renewal import LEAVE_KIND
from greylag_protocols.usage import USAGE_KIND

from greylag_audit.entries import Entry

_LINK = {"firm": str, "seq": int, "prev": str, "run": str}
_ATTEMPT = {"run": str, "round": int, "attempt": int, "roster": list}
SHAPES: dict[str, dict[str, type]] = {
    log.TERMS_KIND: {"run": str},
    MEMBERSHIP_KIND: {"epoch": int, "expires_s": int},
    log.START_KIND: {"run": str, "acceptances": list, "state": str},
    log.ROUND_KIND: {
        **_ATTEMPT,
        **dict.fromkeys(("model_in", "state_out", "sum", "grid_step", "event"), str),
    },
    log.VOID_KIND: {**_ATTEMPT, "missing": list},
    log.RESTART_KIND: {"run": str, "rounds": int, "attempts": int},
    log.RELEASE_KIND: {"terms": str, "rounds": int, "attempts": int, "state": str},
    # Their content is looked at by ``releases``, as everybody else does:
    releases.RELEASE_KIND: {},
    releases.WITHDRAW_KIND: {},
    releases.CURRENT_KIND: {},
    USAGE_KIND: {"firm": str, "period": str, "end_entry": int},
    log.ACCEPTANCE_KIND: {**_LINK, "epoch": int},
    log.RECEIPT_KIND: {
        **_LINK,
        **dict.fromkeys(("round", "attempt", "roster_size", "charged"), int),
        "event": str,
    },
    log.CLOSED_KIND: {**_LINK, "charged": int},
    log.REFUSAL_KIND: {"firm": str, "class": str},
    REVOCATION_KIND: {"firm": str, "consortium": str},
    LEAVE_KIND: {"consortium": str, "firm": str, "left_s": int},
    ENDORSEMENT_KIND: {"by": str, "consortium": str, "epoch": int},
}
LEAD_KINDS = frozenset(
    {log.TERMS_KIND, MEMBERSHIP_KIND, log.START_KIND, log.ROUND_KIND, log.VOID_KIND}
    | {log.RESTART_KIND, USAGE_KIND}
    | releases.KINDS
)
_TIP = {"firm": str, "seq": int, "head": str}


def check_shape(entry: Entry) -> None:
    """An entry of a known kind says exactly what its kind says.

    Raises:
        VerificationError: names what is wrong.
    """
    predicate, shape = entry.predicate, SHAPES[entry.kind]
    if not shape:
        return
    _check(predicate, shape)
    if "run" in shape and predicate["run"] != entry.subject:
        raise VerificationError("it speaks of two runs")
    for key in ("acceptances", "missing"):
        if key in shape and not all(type(item) is str for item in predicate[key]):
            raise VerificationError(f"{key} lists something else than names or hashes")
    if "roster" in shape:
        for item in predicate["roster"]:
            _check(item, _TIP)


def _check(value: Any, shape: dict[str, type]) -> None:
    if type(value) is not dict or value.keys() != shape.keys():
        raise VerificationError("other keys than " + ", ".join(shape))
    for key, kind in shape.items():
        if type(value[key]) is not kind or (kind is int and value[key] < 0):
            raise VerificationError(f"{key} is out of form")
