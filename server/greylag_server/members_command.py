"""``greylag-server revoke``, ``remove`` and ``endorse``: words about who belongs."""

import time
from pathlib import Path
from typing import Annotated

import typer
from greylag_protocols.membership import verify_revocation
from greylag_protocols.renewal import LEAVE_KIND
from greylag_protocols.signing import parse_statement

from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.terminal import Dir, Format, read_text, say


def revoke(
    statement: Annotated[
        Path, typer.Argument(help="the file from `greylag-client revoke` or `greylag-client leave`")
    ],
    directory: Dir,
    output: Format = "text",
) -> None:
    """Take a firm out by its own word, revoked or left: a new membership epoch lacks it, and its
    certificate opens nothing any more. Every firm is told of a revocation."""
    from greylag_server.service import log_departure, open_store

    consortium, now_s = Consortium.open(directory), time.time()
    envelope = read_text(statement).strip().encode()
    word = parse_statement(envelope)
    store = open_store(consortium)
    enrolment = Enrolment(consortium, on_leave=lambda item: log_departure(store, item))
    if word.kind == LEAVE_KIND:
        enrolment.leave(envelope, now_s=now_s)
        firm, how = word.subject, "left"
    else:
        current = enrolment.current_membership(now_s).verify(
            consortium.signer.public_key, consortium=consortium.settings.id, now_s=now_s
        )
        firm, how = verify_revocation(envelope, current).name, "revoked"
        with store.transaction():
            store.append([envelope])
            store.add_revocation(envelope)
        enrolment.remove(firm, now_s=now_s, how="revoked")
    epoch = _latest_epoch(consortium, enrolment, now_s)
    identity = word.digest.hex()
    facts = {"firm": firm, "how": how, "identity": identity, "epoch": epoch}
    was = "is revoked" if how == "revoked" else "has left"
    say(
        facts,
        f"{firm}: identity {identity[:16]} {was} and is out of membership epoch {epoch}.\n"
        "It may join again under a new identity: greylag-server invite",
        output,
    )


def endorse(
    statement: Annotated[
        Path, typer.Argument(help="the file from `greylag-client endorse`, by an independent body")
    ],
    directory: Dir,
    output: Format = "text",
) -> None:
    """Show every firm an independent body's endorsement of a member list. Firms whose policy names
    that body's key then take the list without being asked."""
    from greylag_server.service import log_endorsement, open_store

    consortium = Consortium.open(directory)
    store = open_store(consortium)
    enrolment = Enrolment(
        consortium, on_endorse=lambda envelope, digest: log_endorsement(store, envelope, digest)
    )
    epoch = enrolment.endorse(read_text(statement).strip().encode(), by_body=True)
    say({"epoch": epoch}, f"membership epoch {epoch}: firms are shown this endorsement", output)


def remove(
    firm: Annotated[str, typer.Argument(help="the firm's short name")],
    directory: Dir,
    output: Format = "text",
) -> None:
    """Take a firm out by the lead's word: a new membership epoch lacks it, and its certificate
    opens nothing any more. What it did stays in the log; it may be invited anew."""

    consortium, now_s = Consortium.open(directory), time.time()
    enrolment = Enrolment(consortium)
    enrolment.remove(firm, now_s=now_s)
    epoch = _latest_epoch(consortium, enrolment, now_s)
    say(
        {"firm": firm, "how": "removed", "epoch": epoch},
        f"{firm} is out of membership epoch {epoch}. To let it join anew: greylag-server invite",
        output,
    )


def _latest_epoch(consortium: Consortium, enrolment: Enrolment, now_s: float) -> int:
    signed = enrolment.current_membership(now_s)
    return signed.verify(
        consortium.signer.public_key, consortium=consortium.settings.id, now_s=now_s
    ).epoch
