"""A firm whose answer does not come, in a run whose rounds were fast so far."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from consortium_in_memory import PATIENCE, Consortium, make_terms, run_on
from flwr.app import Message
from greylag_protocols import log
from greylag_protocols.messages import Round
from greylag_protocols.parsing import parse_coordinator_message
from greylag_protocols.signing import parse_statement
from greylag_server.grid_local import LocalGrid
from greylag_server.grid_messages import node_id, unwrap

FOR_EVER = replace(PATIENCE, round_s=86_400.0, least_round_s=0.01)


class HoldingGrid(LocalGrid):
    """Loses one firm's answer to an attempt, and says nothing of it."""

    def __init__(self, grid: LocalGrid, firm: str, attempt: int) -> None:
        super().__init__({})
        self._nodes, self._slow, self._attempt = grid._nodes, node_id(firm), attempt
        self._held: set[str] = set()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for message in messages:
            request = parse_coordinator_message(unwrap(message))
            late = isinstance(request, Round) and request.attempt == self._attempt
            if late and message.metadata.dst_node_id == self._slow:
                self._held.add(message.metadata.message_id)
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages([key for key in message_ids if key not in self._held])


@pytest.mark.timeout(60)
def test_a_straggler_is_dropped_long_before_the_full_patience(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greylag_server.deadlines.EVIDENCE", 2)
    consortium = Consortium(memory_path, terms=make_terms(rounds=5, max_attempts=8))
    slow = next(iter(consortium.firms))
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    grid = HoldingGrid(consortium.local_grid(), slow, attempt=4)
    run_on(grid, coordinator, patience=FOR_EVER)
    assert (coordinator.status, coordinator.rounds_done) == ("done", 5)
    found = [parse_statement(item) for item in store.entries()]
    (void,) = [item for item in found if item.kind == log.VOID_KIND]
    assert (void.predicate["attempt"], void.predicate["missing"]) == (4, [slow])
