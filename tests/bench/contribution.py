"""One firm's contribution against the third message of flwr's SecAgg+ client.

Both sides run their own code. Ours is a real participant that answers a real coordinator's first
round; its parts are timed where it calls them. The bound is on what hides a vector: checks of
roster and keys, key agreement, rounding, noise, masks. A peer's key batch serves 64 attempts, so a
64th of what checking all of them costs is counted. ``whole_first_answer_s`` has all of that, and
also parsing, hashing the model, sampling, the ledger's debit on disk and the signed receipt.
"""

import statistics
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from consortium import LEAD, firm_names, make_membership, make_terms, open_membership, signer_of
from firms import make_participant
from flower import FlowerClient
from greylag_client import contribution, participant
from greylag_client.masks import PairwiseMasks
from greylag_client.participant import Participant
from greylag_protocols.keys import MAX_BATCH
from greylag_protocols.parsing import parse_coordinator_message
from greylag_protocols.quantise import RingGrid
from greylag_server.coordinator import Coordinator
from greylag_server.store import Store
from harness import Figure, cpu_s, say

FIRMS = (10, 50, 100, 200)
DIMENSIONS = (100_000, 1_000_000)
REPEATS = 5
BOUND = 0.2
BOUND_FROM_FIRMS, BOUND_DIMENSION = 50, 1_000_000
NAME = "contribution / flwr SecAgg+ masking, full graph"
PARTS = (
    (participant, "check_roster"),
    (participant, "read_batches"),
    (participant, "check_keys"),
    (contribution, "draw_normals"),
    (RingGrid, "encode"),
)
ONCE_PER_BATCH = "read_batches"


def measure_contribution() -> list[Figure]:
    """For each size: against masking alone and, for the smaller model, with flwr's set-up."""
    figures = []
    for firms in FIRMS:
        say(f"flwr SecAgg+ set-up, {firms} firms (its secret sharing is pure Python)")
        client = FlowerClient(firms)
        set_up_s = cpu_s(client.set_up)
        client.receive_shares()
        for dimension in DIMENSIONS:
            say(f"contribution, {firms} firms, d = {dimension:,}")
            figures += _measure(client, set_up_s, firms, dimension)
    return figures


def _measure(client: FlowerClient, set_up_s: float, firms: int, dimension: int) -> list[Figure]:
    client.train(dimension)
    turns: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="greylag-bench-") as name:
        root = Path(name)
        people = {
            firm: make_participant(firm, root / f"{firm}.sqlite" if at <= REPEATS else ":memory:")
            for at, firm in enumerate(firm_names(firms))
        }
        frame = first_round(people, firms=firms, dimension=dimension)
        # Each firm answers an attempt once only: the repeats are different firms.
        for firm in firm_names(firms)[: REPEATS + 1]:
            with timed_parts() as parts:
                whole_s = cpu_s(lambda firm=firm: _answer(people[firm], frame))
            if set(parts) != {*(part for _, part in PARTS), "agree", "masks"}:
                raise RuntimeError(f"the contribution was not made as expected: {sorted(parts)}")
            parts[ONCE_PER_BATCH] /= MAX_BATCH
            turns.append({**parts, "whole": whole_s, "flwr": cpu_s(client.mask)})
    median = {key: statistics.median(turn[key] for turn in turns[1:]) for key in turns[0]}
    whole_s, flower_s = median.pop("whole"), median.pop("flwr")
    ours_s = sum(median.values())
    where = {"firms": firms, "d": dimension}
    bounded = firms >= BOUND_FROM_FIRMS and dimension == BOUND_DIMENSION
    details: dict[str, Any] = {
        "parts_s": median,
        "ours_s": ours_s,
        "whole_first_answer_s": whole_s,
        "flwr_masking_s": flower_s,
        "flwr_set_up_s": set_up_s,
    }

    def figure(name: str, other_s: float, bound: float | None) -> Figure:
        value = ours_s / other_s
        return Figure(name=name, where=where, value=value, unit="x", bound=bound, details=details)

    figures = [figure(NAME, flower_s, BOUND if bounded else None)]
    if dimension != BOUND_DIMENSION:
        figures.append(figure(f"{NAME}, with flwr's set-up", flower_s + set_up_s, None))
    return figures


@contextmanager
def timed_parts() -> Iterator[Counter[str]]:
    """CPU seconds of the parts of a contribution, while the block runs."""
    seconds: Counter[str] = Counter()

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            started_s = time.process_time()
            result = work(*arguments, **named)
            seconds[name] += time.process_time() - started_s
            return timed("masks", result) if name == "agree" else result

        return run

    places = [*PARTS, (PairwiseMasks, "agree")]
    patches = [
        patch.object(where, name, timed(name, getattr(where, name))) for where, name in places
    ]
    for item in patches:
        item.start()
    try:
        yield seconds
    finally:
        for item in patches:
            item.stop()


def first_round(people: Mapping[str, Participant], *, firms: int, dimension: int) -> bytes:
    """Bring a run to its first attempt, with a real coordinator; returns the round's frame."""
    terms = make_terms(firms=firms, dimension=dimension, rounds=MAX_BATCH, max_attempts=MAX_BATCH)
    signed = make_membership(firms)
    store = Store(":memory:", origin=terms.consortium)
    with store.transaction():
        store.queue_run(terms.run_id, terms.encode(), firms=firms)
        store.open_run(terms.run_id, signed)
    coordinator = Coordinator(
        store.run(terms.run_id),
        terms=terms,
        membership=open_membership(signed),
        signer=signer_of(LEAD),
        store=store,
    )
    sends = deque(send for name in people for send in coordinator.appeared(name))
    while sends:
        send = sends.popleft()
        if send.is_round:
            return send.frame
        sends.extend(coordinator.receive(send.firm, _answer(people[send.firm], send.frame)))
    raise RuntimeError(f"the run did not come to a round: {coordinator.status}")


def _answer(firm: Participant, frame: bytes) -> bytes:
    return firm.handle(parse_coordinator_message(frame)).encode()
