"""Firms' processes of the coordinator's figures: real agents' links, participants and masks.

    python agents_process.py DIRECTORY PORT FIRST COUNT

Runs ``COUNT`` firms from number ``FIRST`` on until stdin ends, then prints one JSON line. The
answers to a round leave together, once all firms of this process have theirs: the coordinator sees
the burst that firms on machines of their own would make, and not what this machine can compute.
What all firms would work out alike from the same bytes, they share here.
"""

import functools
import json
import logging
import sys
import threading
from pathlib import Path

from consortium import firm_names
from firms import make_participant
from greylag_client.firm import TlsCredentials
from greylag_client.link import keep_connected
from greylag_client.participant import Participant
from greylag_protocols.messages import Round
from greylag_protocols.parsing import parse_coordinator_message
from greylag_protocols.plan import parse_terms
from relay import Relay

BURST_TIMEOUT_S = 120.0

parse_shared = functools.lru_cache(maxsize=2)(parse_coordinator_message)


class Firm:
    """One firm; ``relay`` counts the bytes of its connection."""

    def __init__(self, name: str, burst: threading.Barrier, relay: Relay | None) -> None:
        self._participant: Participant = make_participant(name, ":memory:")
        self._burst = burst
        self._relay = relay
        self.rounds: list[dict[str, int]] = []

    def answer(self, frame: bytes) -> bytes:
        message = parse_shared(frame)
        reply = self._participant.handle(message).encode()
        if isinstance(message, Round):
            if self._relay is not None:
                self._note(message)
            self._burst.wait(BURST_TIMEOUT_S)
        return reply

    def _note(self, message: Round) -> None:
        """What the connection has carried when a round is here and its answer is not yet sent."""
        if self._relay is not None:
            up, down = self._relay.counts()
            batches = sum(len(item) for item in message.batches)
            self.rounds.append({"up": up, "down": down, "batches": batches})


def main(root: Path, port: int, first: int, count: int) -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    stop, burst = threading.Event(), threading.Barrier(count)
    parse_terms((root / "terms.json").read_bytes())  # epsilon: solved once, not by all at once
    relay = Relay(("127.0.0.1", port)) if first == 0 else None
    names = firm_names(first + count)[first:]
    firms = [Firm(name, burst, relay if at == 0 else None) for at, name in enumerate(names)]
    threads = []
    for at, (name, firm) in enumerate(zip(names, firms, strict=True)):
        tls = TlsCredentials(
            ca=(root / "ca.pem").read_bytes(),
            key=(root / f"{name}.key").read_bytes(),
            certificate=(root / f"{name}.pem").read_bytes(),
        )
        to = relay.port if relay is not None and at == 0 else port
        thread = threading.Thread(
            target=keep_connected, args=(f"127.0.0.1:{to}", tls, firm.answer, stop), name=name
        )
        threads.append(thread)
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    if relay is not None:
        relay.close()
    print(json.dumps({"rounds": firms[0].rounds}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(item) for item in sys.argv[2:]))
