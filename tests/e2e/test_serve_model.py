"""``serve-model`` as a process: what NVIDIA's own client gets, who is turned away, what is counted
through a swap and a kill."""

import json
import os
import signal
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import issue_firm
from greylag_client.prediction import Predictor
from greylag_lab.processes import free_ports, program, wait_for_port
from greylag_server.authority import CertificateAuthority
from greylag_server.release.versions import withdraw_run
from greylag_server.service import open_store
from greylag_server.serving.meter import month_of, read_totals, usage
from serving_lead import ServingLead, ask, serving_lead, triton_client
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.e2e
ROWS = np.array([[10.0, 20.0, 0.0], [5.0, 120.0, 1.0], [30.0, 0.0, np.nan]], dtype=np.float32)


class Process:
    """A running ``serve-model``."""

    def __init__(self, world: ServingLead, release: Path, *, ports: tuple[int, int]) -> None:
        self.port, self.http_port = ports
        self.log = world.root / "serve-model.log"
        arguments = ["serve-model", str(release), "--dir", str(world.directory)]
        chosen = ["--grpc-port", str(self.port), "--http-port", str(self.http_port)]
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                [program("greylag-server"), *arguments, *chosen, "--format", "json"],
                stdout=sink,
                stderr=sink,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        wait_for_port(self.http_port, self.log)

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def serve(world: ServingLead, release: Path) -> Iterator[Process]:
    first, second = free_ports(2)
    process = Process(world, release, ports=(first, second))
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
        process.process.wait()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ServingLead]:
    with serving_lead(tmp_path) as made:
        yield made


def refusal(client: Any, name: str, rows: Any = ROWS, **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        ask(client, name, rows, **options)
    return str(caught.value.status()), str(caught.value.message())


def post(world: ServingLead, process: Process, path: str, body: Any) -> tuple[int, Any]:
    tls, root = world.tls["anna"], world.root
    context = ssl.create_default_context(cadata=tls.ca.decode())
    (root / "pair.pem").write_bytes(tls.key + tls.certificate)
    context.load_cert_chain(root / "pair.pem")
    data = None if body is None else json.dumps(body).encode()
    url = f"https://localhost:{process.http_port}{path}"
    try:
        with urllib.request.urlopen(url, data, context=context) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_real_client_and_rest_get_what_a_firm_with_the_model_gets(world: ServingLead) -> None:
    release, _ = world.release()
    expected = Predictor.load(release).predict(ROWS.astype(np.float64))
    with serve(world, release) as process:
        with triton_client(process.port, world.tls["anna"], world.root) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.get_server_metadata().name == "greylag"
            assert client.is_model_ready("alloys")
            assert not client.is_model_ready("alloys", "2")
            metadata = client.get_model_metadata("alloys")
            assert [item.name for item in metadata.outputs] == ["prediction", "out_of_range"]
            assert list(metadata.inputs[0].shape) == [-1, 3]
            answer = ask(client, "alloys", ROWS, request_id="one")
            np.testing.assert_allclose(answer.as_numpy("prediction"), expected, rtol=1e-5)
            assert answer.as_numpy("out_of_range").tolist() == [False, True, False]
            assert answer.get_response().model_version == "1"
            wide = ask(client, "alloys", np.tile(ROWS, (1000, 1)).astype(np.float64))
            np.testing.assert_allclose(wide.as_numpy("prediction")[-3:], expected, rtol=1e-5)
            check_faults(client)
        check_rest(world, process, expected)
        assert read_totals(world.lead.consortium) == {"anna": (3 + 3000 + 3, 3)}
        assert process.end() == 0
    used = usage(world.lead.consortium, month_of(time.time()))
    assert used["anna"].rows == 3006


def check_faults(client: Any) -> None:
    status, text = refusal(client, "alloys", ROWS[:, :2])
    assert "INVALID_ARGUMENT" in status
    assert "[rows, 3]" in text
    for column, value, said in ((0, np.nan, "gap"), (1, np.inf, "infinity"), (2, 7.0, "category")):
        wrong = ROWS.copy()
        wrong[1, column] = value
        status, text = refusal(client, "alloys", wrong)
        assert "INVALID_ARGUMENT" in status
        assert said in text
    status, text = refusal(client, "alloys", ROWS, model_version="2")
    assert "NOT_FOUND" in status
    assert "version 1" in text
    status, _ = refusal(client, "metals", ROWS)
    assert "NOT_FOUND" in status


def check_rest(world: ServingLead, process: Process, expected: Any) -> None:
    columns = [
        {"name": name, "datatype": "FP64", "shape": [3], "data": data}
        for name, data in (
            ("copper", [10, 5, 30]),
            ("nickel", [20, 120, 0]),
            ("furnace", [0, 1, None]),
        )
    ]
    path = "/v2/models/alloys/infer"
    status, found = post(world, process, path, {"id": "a", "inputs": columns})
    assert status == 200, found
    values, flags = found["outputs"]
    np.testing.assert_allclose(values["data"], expected.ravel(), rtol=1e-5)
    assert flags["data"] == [False, True, False]
    columns[0]["name"] = "coper"
    status, found = post(world, process, path, {"inputs": columns})
    assert (status, "did you mean 'copper'" in found["error"]) == (400, True)
    status, found = post(world, process, path, {"inputs": "all"})
    assert status == 400
    assert post(world, process, "/v2/health/ready", None)[0] == 200
    assert post(world, process, "/v2/models/alloys", None)[1]["versions"] == ["1"]
    assert post(world, process, "/v2/models/other/ready", None)[0] == 404


def test_strangers_and_firms_that_were_removed_are_refused_at_once(world: ServingLead) -> None:
    release, _ = world.release()
    with serve(world, release) as process:
        stranger = issue_firm(world.lead.consortium.authority, "carla")
        other = issue_firm(CertificateAuthority.create("other", now_s=time.time()), "anna")
        with triton_client(process.port, stranger, world.root / "s") as client:
            status, text = refusal(client, "alloys")
            assert "PERMISSION_DENIED" in status
            assert "'carla'" in text
        impostor = type(other)(ca=stranger.ca, key=other.key, certificate=other.certificate)
        with triton_client(process.port, impostor, world.root / "o") as client:
            assert "UNAVAILABLE" in refusal(client, "alloys")[0]
        with triton_client(process.port, world.tls["berta"], world.root / "b") as client:
            ask(client, "alloys", ROWS)
            world.lead.enrolment.remove("berta", now_s=time.time())
            assert "PERMISSION_DENIED" in refusal(client, "alloys")[0]
        with triton_client(process.port, world.tls["anna"], world.root / "a") as client:
            ask(client, "alloys", ROWS)
    assert read_totals(world.lead.consortium) == {"anna": (3, 1), "berta": (3, 1)}


def test_a_quota_ends_at_its_last_row_and_a_retry_is_free(world: ServingLead) -> None:
    release, _ = world.release()
    (world.directory / "serving.toml").write_text("rows_per_month = 6\n[firms]\nberta = 2\n")
    with (
        serve(world, release) as process,
        triton_client(process.port, world.tls["anna"], world.root / "a") as client,
        triton_client(process.port, world.tls["berta"], world.root / "b") as other,
    ):
        first = ask(client, "alloys", ROWS, request_id="1").as_numpy("prediction")
        ask(client, "alloys", ROWS, request_id="2")
        status, text = refusal(client, "alloys", request_id="3")
        assert "RESOURCE_EXHAUSTED" in status
        assert "0 are left of this month's 6" in text
        again = ask(client, "alloys", ROWS, request_id="1").as_numpy("prediction")
        assert again.tolist() == first.tolist()
        status, _ = refusal(client, "alloys", ROWS[:1], request_id="1")  # other values
        assert "RESOURCE_EXHAUSTED" in status
        assert "RESOURCE_EXHAUSTED" in refusal(other, "alloys")[0]
        ask(other, "alloys", ROWS[:2])
    assert read_totals(world.lead.consortium) == {"anna": (6, 2), "berta": (2, 1)}


def test_withdrawn_expired_changed_and_personal_releases_are_refused(world: ServingLead) -> None:
    release, _ = world.release()
    arguments = ["--dir", str(world.directory), "--check"]

    def refused(path: Path) -> str:
        command = [program("greylag-server"), "serve-model", str(path), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True)
        return "" if ended.returncode == 0 else " ".join(ended.stderr.split())

    assert refused(release) == ""
    expired, _ = world.release(version=2, days=-1)
    assert "expired" in refused(expired)
    (release / "personal.json").write_text("{}")
    assert "own version" in refused(release)
    (release / "personal.json").unlink()
    with (
        serve(world, release) as process,
        triton_client(process.port, world.tls["anna"], world.root / "a") as client,
    ):
        ask(client, "alloys", ROWS)
        store = open_store(world.lead.consortium)
        run, now_s = "alloys-1", time.time()
        withdraw_run(store, world.lead.consortium, run, because="a wrong unit", now_s=now_s)
        store.close()
        process.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not client.is_model_ready("alloys"))
        status, text = refusal(client, "alloys")
        assert "FAILED_PRECONDITION" in status
        assert "a wrong unit" in text
    assert "a wrong unit" in refused(release)
    graph = (release / "model.onnx").read_bytes()
    (release / "model.onnx").write_bytes(graph[:-1] + bytes([graph[-1] ^ 1]))
    assert "is not the one that the log's entry names" in refused(release)


class Asker(threading.Thread):
    """A firm that asks one row after the other, each under an id of its own, until it is told to
    end; what fails is asked again under the same id."""

    def __init__(self, client: Any, name: str) -> None:
        super().__init__()
        self.client, self.prefix, self.ended = client, name, threading.Event()
        self.answers: list[tuple[str, float]] = []
        self.failures = 0

    def run(self) -> None:
        while not self.ended.is_set() or not self.answers:
            request = f"{self.prefix}-{len(self.answers)}"
            while True:
                try:
                    found = ask(self.client, "alloys", ROWS[:1], request_id=request)
                except InferenceServerException:
                    self.failures += 1
                    time.sleep(0.05)
                    continue
                break
            value = float(found.as_numpy("prediction")[0, 0])
            self.answers.append((found.get_response().model_version, value))


def test_no_request_is_lost_or_counted_twice_through_a_swap_and_a_kill(world: ServingLead) -> None:
    first, _ = world.release(seed=3)
    second, _ = world.release(seed=4, version=2)
    current = world.root / "current"
    current.symlink_to(first)
    expected = {
        version: float(Predictor.load(path).predict(ROWS[:1].astype(np.float64))[0, 0])
        for version, path in (("1", first), ("2", second))
    }
    with ExitStack() as stack:
        process = stack.enter_context(serve(world, current))
        askers = []
        for at in range(4):
            tls = world.tls[("anna", "berta")[at % 2]]
            client = stack.enter_context(
                triton_client(process.port, tls, world.root / f"client-{at}")
            )
            askers.append(Asker(client, f"asker-{at}"))
        for asker in askers:
            asker.start()
        wait_until(lambda: all(len(asker.answers) > 50 for asker in askers))
        staged = world.root / "staged"
        staged.symlink_to(second)
        staged.replace(current)
        wait_until(lambda: all(asker.answers[-1][0] == "2" for asker in askers))
        assert [asker.failures for asker in askers] == [0] * 4  # nobody noticed the swap
        for _ in range(3):
            counts = [len(asker.answers) for asker in askers]
            process.process.kill()
            process.process.wait()
            process = Process(world, current, ports=(process.port, process.http_port))
            stack.callback(process.process.kill)
            wait_until(
                lambda counts=counts: all(  # type: ignore[misc]
                    len(asker.answers) > count + 20
                    for asker, count in zip(askers, counts, strict=True)
                )
            )
        for asker in askers:
            asker.ended.set()
        for asker in askers:
            asker.join(60)
        assert process.end() == 0
    assert sum(asker.failures for asker in askers) > 0  # the kills were noticed
    for asker in askers:
        versions = [version for version, _ in asker.answers]
        assert versions == sorted(versions)
        for version, value in asker.answers:
            assert value == pytest.approx(expected[version], rel=1e-5)
    asked = [len(asker.answers) for asker in askers]
    totals = read_totals(world.lead.consortium)
    assert totals["anna"] == (asked[0] + asked[2],) * 2
    assert totals["berta"] == (asked[1] + asked[3],) * 2


def wait_until(condition: Any) -> None:
    until_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)
