"""``greylag-server serve``."""

import logging
import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer
from greylag_protocols.errors import ConfigError

from greylag_server.logging_setup import set_up_logging
from greylag_server.settings import read_settings
from greylag_server.terminal import Dir, Format, errors, say

if TYPE_CHECKING:
    from greylag_server.coordinator import Coordinator


def serve(
    directory: Dir,
    offer_wait_s: Annotated[
        float | None, typer.Option(help="how long to wait for acceptances")
    ] = None,
    round_wait_s: Annotated[float | None, typer.Option(help="how long a round may take")] = None,
    check: Annotated[bool, typer.Option("--check", help="check everything and end")] = False,
    output: Format = "text",
) -> None:
    """Run the coordinator: enrolment, rounds, log, the operator's page and metrics. Ends cleanly on
    Ctrl-C; start it again and it goes on where it stopped. Settings: server.toml."""

    if check:
        from greylag_server.checks import check_serving

        found = check_serving(directory)
        bad = [item for item in found if item.level == "error"]
        facts = {"ok": not bad, "checks": [item.facts() for item in found]}
        say(facts, "\n".join(item.line() for item in found), output)
        raise typer.Exit(1 if bad else 0)
    if output != "text":
        raise ConfigError('--format json goes with --check; for logs set log_format = "json"')
    from greylag_server.app import Patience
    from greylag_server.service import Service

    options = {"offer_wait_s": offer_wait_s, "round_wait_s": round_wait_s}
    settings = read_settings(directory, options=options)
    set_up_logging(settings.log_format, errors)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    patience = Patience(
        offer_s=settings.offer_wait_s,
        round_s=settings.round_wait_s,
        close_s=settings.close_wait_s,
        least_round_s=settings.least_round_wait_s,
        known_s=settings.known_wait_s,
    )
    service = Service(directory, patience=patience, settings=settings)
    service.start()
    known = service.consortium.settings
    log = logging.getLogger("greylag_server.run")
    log.info(
        "%s: firms at %s:%d, joining at %s:%d%s. Ctrl-C ends.",
        known.id,
        known.host,
        known.port,
        known.host,
        known.enrol_port,
        "".join(f", {name} at {where}" for name, where in service.addresses.items()),
    )

    def watch(coordinator: "Coordinator") -> None:
        done, rounds = coordinator.rounds_done, coordinator.terms.training.rounds
        if coordinator.status != "training" or done % max(1, rounds // 10) == 0:
            log.info(
                "%s: %s, round %d of %d, %d attempts, roster of %d%s",
                coordinator.terms.run_id,
                "paused" if coordinator.held else coordinator.status,
                done,
                rounds,
                coordinator.attempts,
                len(coordinator.roster),
                f" ({coordinator.reason})" if coordinator.reason else "",
            )

    service.run_forever(stop, watch)
