"""What a click may change. Each answers with the end of the key of a notice (``said_...``)."""

import hmac
import time
from collections.abc import Callable, Mapping

from greylag_client.page.source import House
from greylag_client.page.view import PREFIX_CHARS
from greylag_client.pause import pause, resume
from greylag_client.policy import read_policy

Form = Mapping[str, str]
Action = Callable[[House, Form], str]


def _pause(house: House, _: Form) -> str:
    with house.acting:
        pause(house.firm.root, by="page", now_s=time.time())
    return "paused"


def _resume(house: House, _: Form) -> str:
    with house.acting:
        resume(house.firm.root)
    return "still" if read_policy(house.firm.policy_path).paused else "resumed"


def _approve(house: House, form: Form) -> str:
    """Approve the list that was shown, if that is what somebody meant."""
    with house.acting:
        shown = form.get("digest", "")
        latest = house.firm.memberships.latest().digest().hex()
        if not hmac.compare_digest(shown.encode(), latest.encode()):
            return "other"
        if form.get("prefix", "").strip().lower() != latest[:PREFIX_CHARS]:
            return "prefix"
        if form.get("compared") != "yes":
            return "unconfirmed"
        house.firm.approve(latest)
    return "approved"


ACTIONS: Mapping[str, Action] = {"pause": _pause, "resume": _resume, "approve": _approve}
