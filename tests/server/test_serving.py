"""The parts of ``serve-model`` without a port: counts, quotas, requests from outside."""

import math
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.service_pb2 as public
from greylag_protocols.errors import ConfigError
from greylag_server.serving import meter as counting
from greylag_server.serving.inference import CALLS, MESSAGES
from greylag_server.serving.meter import (
    FILE,
    Charge,
    Meter,
    month_of,
    read_totals,
    retry_key,
    usage,
)
from greylag_server.serving.quota import Quota, read_quota
from greylag_server.serving.refusals import DeclinedError
from greylag_server.serving.tensors import MAX_ROWS, assemble, parse_ask, parse_json_ask

NOW_S = 1_800_000_000.0
NAMES = ("copper", "nickel")


def charge(firm: str, rows: int, key: bytes | None = None, limit: int | None = None) -> Charge:
    return Charge(firm=firm, rows=rows, key=key, limit=limit)


@pytest.fixture
def lead(tmp_path: Path) -> Any:
    return SimpleNamespace(root=tmp_path)


def test_counts_are_by_firm_and_month_and_outlive_the_process(lead: Any) -> None:
    meter = Meter(lead.root / FILE)
    assert meter.count([charge("anna", 3), charge("berta", 5), charge("anna", 1)], now_s=NOW_S)
    later_s = NOW_S + 40 * 86_400
    assert meter.count([charge("anna", 7)], now_s=later_s) == [None]
    assert read_totals(lead) == {"anna": (11, 3), "berta": (5, 1)}  # before the file is closed
    meter.close()
    assert usage(lead, month_of(later_s)) == {"anna": counting.Use(rows=7, requests=1)}
    again = Meter(lead.root / FILE)
    again.count([charge("anna", 1)], now_s=NOW_S)
    again.close()
    assert usage(lead, month_of(NOW_S))["anna"] == counting.Use(rows=5, requests=3)


def test_nobody_was_counted_where_nothing_was_served(lead: Any) -> None:
    assert read_totals(lead) == {}


def test_a_retry_is_free_for_ten_minutes_and_for_the_same_firm_id_and_values(lead: Any) -> None:
    meter = Meter(lead.root / FILE)
    key = retry_key("anna", "1", b"values")
    assert key == retry_key("anna", "1", b"values")
    others = {
        retry_key("berta", "1", b"values"),
        retry_key("anna", "2", b"values"),
        retry_key("anna", "1", b"others"),
        retry_key("anna", "1 6", b"values"),
        retry_key("anna 1", "6", b"values"),
    }
    assert len(others | {key}) == 6
    same = [charge("anna", 2, key), charge("anna", 2, key)]
    assert meter.count(same, now_s=NOW_S) == [None, None]
    meter.count([charge("anna", 2, key)], now_s=NOW_S + counting.RETRY_WINDOW_S - 1)
    assert read_totals(lead) == {"anna": (2, 1)}
    meter.count([charge("anna", 2, key)], now_s=NOW_S + counting.RETRY_WINDOW_S)
    assert read_totals(lead) == {"anna": (4, 2)}
    meter.count([], now_s=NOW_S + 10 * counting.RETRY_WINDOW_S)
    meter.close()
    with sqlite3.connect(lead.root / FILE) as db:
        assert db.execute("SELECT count(*) FROM answered").fetchone() == (0,)
    db.close()


def test_a_limit_is_exact_within_one_group_and_a_retry_passes_it(lead: Any) -> None:
    meter = Meter(lead.root / FILE)
    key = retry_key("anna", "1", b"")
    group = [charge("anna", 4, key, 10), charge("anna", 7, None, 10), charge("anna", 6, None, 10)]
    assert meter.count(group, now_s=NOW_S) == [None, 6, None]
    assert meter.count([charge("anna", 1, None, 10)], now_s=NOW_S) == [0]
    assert meter.count([charge("anna", 4, key, 10)], now_s=NOW_S) == [None]
    assert meter.count([charge("anna", 1, None, 10)], now_s=NOW_S + 40 * 86_400) == [None]
    meter.close()
    assert read_totals(lead) == {"anna": (11, 3)}


def test_a_group_that_fails_is_not_counted_at_all(lead: Any) -> None:
    meter = Meter(lead.root / FILE)
    wrong = Charge(firm="anna", rows="many", key=None, limit=None)  # type: ignore[arg-type]
    with pytest.raises((sqlite3.Error, TypeError)):
        meter.count([charge("berta", 1), wrong], now_s=NOW_S)
    meter.count([charge("anna", 1)], now_s=NOW_S)
    meter.close()
    assert read_totals(lead) == {"anna": (1, 1)}


def test_a_file_that_is_no_database_is_said_with_the_next_step(lead: Any) -> None:
    (lead.root / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match="restore"):
        Meter(lead.root / FILE)
    with pytest.raises(ConfigError, match="restore"):
        read_totals(lead)


def test_a_quota_file_names_limits_and_refuses_what_it_does_not_know(lead: Any) -> None:
    assert read_quota(lead) == Quota()
    path = lead.root / "serving.toml"
    path.write_text('rows_per_month = 10\n[firms]\n"anna" = 0\n')
    quota = read_quota(lead)
    assert (quota.limit("anna"), quota.limit("berta")) == (0, 10)
    path.write_text("rows_per_mont = 10\n")
    with pytest.raises(ConfigError, match="did you mean 'rows_per_month'"):
        read_quota(lead)


def test_messages_have_the_public_protocol_s_names_numbers_and_types() -> None:
    for name, own in MESSAGES.items():
        theirs = public.DESCRIPTOR.pool.FindMessageTypeByName(own.DESCRIPTOR.full_name)
        for field in own.DESCRIPTOR.fields:
            if (name, field.name) == ("ModelMetadataResponse", "properties"):
                continue  # of the protocol's later form; NVIDIA's client passes over it
            twin = theirs.fields_by_name[field.name]
            assert (field.number, field.type) == (twin.number, twin.type)


def request(*tensors: tuple[str, str, list[int], bytes], **options: Any) -> Any:
    made = CALLS["ModelInfer"][0](**options)
    for name, kind, shape, values in tensors:
        made.inputs.add(name=name, datatype=kind, shape=shape)
        made.raw_input_contents.append(values)
    return made


def test_rows_come_from_one_tensor_or_from_columns_in_any_order() -> None:
    values = np.array([[1, 2], [3, np.nan]])
    whole = parse_ask(request(("features", "FP64", [2, 2], values.tobytes())))
    first, second = (values[:, at].astype(np.float32).tobytes() for at in (0, 1))
    columns = parse_ask(request(("nickel", "FP32", [2, 1], second), ("copper", "FP32", [2], first)))
    for ask in (whole, columns):
        np.testing.assert_array_equal(assemble(ask, NAMES), values.astype(np.float32))
    typed = CALLS["ModelInfer"][0]()
    held = typed.inputs.add(name="features", datatype="FP32", shape=[1, 2])
    held.contents.fp32_contents.extend([1.0, 2.0])
    assert assemble(parse_ask(typed), NAMES).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (request(("features", "FP32", [1, 3], bytes(12))), "the model takes"),
        (request(("features", "FP32", [2], bytes(8))), "the model takes"),
        (request(("features", "FP32", [1, 2], bytes(9))), "no whole number"),
        (request(("features", "FP32", [1, 2], bytes(12))), "do not fill"),
        (request(("features", "FP32", [0, 2], b"")), "without a nought"),
        (request(("features", "FP32", [-1, 2], bytes(8))), "without a nought"),
        (request(("features", "FP32", [], bytes(8))), "its shape is"),
        (request(("features", "FP32", [1, 1, 2], bytes(8))), "its shape is"),
        (request(("features", "FP32", [MAX_ROWS + 1, 2], bytes(8))), "at most"),
        (request(("features", "FP32", [2**62, 2**62], bytes(8))), "at most"),
        (request(("features", "INT64", [1, 2], bytes(16))), "send FP32"),
        (request(("featurs", "FP32", [1, 2], bytes(8))), "did you mean 'features'"),
        (request(("copper", "FP32", [1], bytes(4))), "'nickel' are absent"),
        (request(*[("copper", "FP32", [1], bytes(4))] * 2), "stands twice"),
        (
            request(("copper", "FP32", [1], bytes(4)), ("nickel", "FP32", [2], bytes(8))),
            "different lengths",
        ),
        (request(), "no input"),
        (request(("copper", "FP32", [1], bytes(4)), id="i" * 129), "id of more"),
        (request(outputs=[{"name": "weights"}]), "there is no output 'weights'"),
    ],
)
def test_malformed_requests_are_refused_with_their_cause(made: Any, said: str) -> None:
    with pytest.raises(DeclinedError, match=said) as caught:
        assemble(parse_ask(made), NAMES)
    assert caught.value.code == "invalid"


def test_raw_contents_of_another_number_of_tensors_are_refused() -> None:
    made = request(("features", "FP32", [1, 2], bytes(8)))
    made.raw_input_contents.append(b"")
    with pytest.raises(DeclinedError, match="raw contents"):
        parse_ask(made)


def test_json_takes_nested_and_flat_numbers_and_nulls() -> None:
    for data in ("[[1, null], [3, 4.5]]", "[1, null, 3, 4.5]"):
        body = '{"inputs": [{"name": "features", "datatype": "FP32", "shape": [2, 2], "data": %s}]}'
        rows = assemble(parse_json_ask((body % data).encode()), NAMES)
        assert math.isnan(rows[0, 1])
        assert rows[1].tolist() == [3.0, 4.5]


WELL = b'{"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"inputs": 3}',
        b'{"inputs": [3]}',
        b'{"inputs": [], "id": 3}',
        b'{"inputs": [], "outputs": 3}',
        WELL.replace(b', "data": [1, 2]', b""),
        WELL.replace(b'"shape": [1, 2]', b'"shape": [1.0, 2]'),
        WELL.replace(b'"data": [1, 2]', b'"data": ["1", 2]'),
        WELL.replace(b'"data": [1, 2]', b'"data": [true, 2]'),
        WELL.replace(b'"data": [1, 2]', b'"data": [NaN, 2]'),
        WELL.replace(b'"features"', b"3"),
        WELL.replace(b'"FP32"', b"[]"),
    ],
)
def test_malformed_json_is_refused(body: bytes) -> None:
    assert assemble(parse_json_ask(WELL), NAMES).tolist() == [[1.0, 2.0]]
    with pytest.raises(DeclinedError) as caught:
        parse_json_ask(body)
    assert caught.value.code == "invalid"
