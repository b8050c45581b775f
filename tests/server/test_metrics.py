"""What Prometheus is told, and that the dashboard asks for nothing else."""

import json
import re
import threading
import urllib.request
from pathlib import Path

import pytest
from consortium_in_memory import NOW_S, PATIENCE, RUN, Consortium, make_terms
from flwr.app import Context, Message, RecordDict
from greylag_protocols.errors import ConfigError
from greylag_protocols.messages import Round
from greylag_protocols.parsing import parse_coordinator_message
from greylag_server.app import make_server_app
from greylag_server.deadlines import PHASES
from greylag_server.grid_messages import unwrap, wrap_loss
from greylag_server.metrics import Metrics, MetricsServer
from greylag_server.steering import overview
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

DASHBOARD = Path(__file__).parents[2] / "deploy/grafana/greylag.json"


def values(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f"/{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_a_run_with_a_void_and_a_refusal_is_counted(memory_path: Path) -> None:
    consortium = Consortium(memory_path, terms=make_terms(rounds=5), firms=5)
    store = consortium.open_store()
    lost, refusing = list(consortium.firms)[:2]

    def silent(message: Message) -> Message:
        request = parse_coordinator_message(unwrap(message))
        if isinstance(request, Round) and request.attempt == 2:
            return wrap_loss("gone", message)
        return consortium.firms[lost].answer(message)

    def restarted(message: Message) -> Message:
        request = parse_coordinator_message(unwrap(message))
        if isinstance(request, Round) and request.attempt == 4:
            consortium.firms[refusing].restart()  # it knows no session any more
        return consortium.firms[refusing].answer(message)

    metrics = Metrics(store, connected=lambda: 5, received_bytes=lambda: 7)
    coordinator = consortium.coordinator(store)
    app = make_server_app(coordinator, PATIENCE, lambda _: None, threading.Event(), metrics)
    grid = consortium.local_grid(**{lost: silent, refusing: restarted})
    app(grid, Context(1, 1, {}, RecordDict(), {}))
    assert (coordinator.status, coordinator.attempts) == ("done", 7)
    found = values(generate_latest(metrics.registry).decode())
    assert found["greylag_rounds_total"] == 5
    assert found["greylag_attempts_total/complete"] == 5
    assert found["greylag_attempts_total/void"] == 2
    assert found["greylag_refusals_total/protocol"] == 1
    assert found["greylag_refusals_total/policy"] == 0
    assert found["greylag_connected_firms"] == 5
    assert found["greylag_bytes_received_total"] == 7
    assert found["greylag_log_entries"] == store.checkpoint().size
    assert found["greylag_runs_waiting"] == 0
    for phase in PHASES:
        assert found[f"greylag_round_seconds_count/{phase}"] == 5
    assert not any(name in str(found) for name in consortium.firms)
    assert set(overview(store, RUN, now_s=NOW_S).phases) == set(PHASES)


def test_the_port_is_real_and_one_alone_has_it(memory_path: Path) -> None:
    consortium = Consortium(memory_path, terms=make_terms())
    metrics = Metrics(consortium.open_store(), connected=lambda: 0, received_bytes=lambda: 0)
    server = MetricsServer(metrics, bind="127.0.0.1", port=0)
    try:
        with urllib.request.urlopen(server.address, timeout=10) as answer:  # noqa: S310 - http
            assert values(answer.read().decode())["greylag_runs_waiting"] == 1
        with pytest.raises(ConfigError, match="metrics_port"):
            MetricsServer(metrics, bind="127.0.0.1", port=server.port)
    finally:
        server.stop()


def test_the_dashboard_asks_for_what_there_is(memory_path: Path) -> None:
    consortium = Consortium(memory_path, terms=make_terms())
    metrics = Metrics(consortium.open_store(), connected=lambda: 0, received_bytes=lambda: 0)
    text = generate_latest(metrics.registry).decode()
    known = {
        sample.name for family in text_string_to_metric_families(text) for sample in family.samples
    }
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"greylag_\w+", target["expr"])
    }
    assert asked
    assert asked <= known
