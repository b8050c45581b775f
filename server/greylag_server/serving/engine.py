"""Predictions in groups: what waits at one moment is computed, counted and answered together.

While one group is being written to disk the next one gathers. So the disk is waited for once a
group, however many firms ask; and small requests share one call of the runtime. Large ones are
computed in a thread of their own, one at a time, so that they do not keep small ones waiting.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from greylag_server.serving.meter import Charge, Meter, retry_key
from greylag_server.serving.models import Flags, Rows, ServedModel
from greylag_server.serving.quota import Quota
from greylag_server.serving.refusals import DeclinedError

logger = logging.getLogger(__name__)

LARGE_ROWS = 256
MAX_WAITING_BYTES = 256 << 20
GATHER_S = 0.002


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiting:
    """A request between its check and its answer."""

    charge: Charge
    model: ServedModel
    rows: Rows
    answered: "asyncio.Future[None]"
    prediction: Rows | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Predictions, shape (n, outputs), by ``model``; and rows out of range, shape (n,)."""

    model: ServedModel
    prediction: Rows
    outside: Flags


class Engine:
    """Predicts with the current model and counts; lives in one event loop.

    Attributes:
        quota: rows that firms may ask for.
        closed: why nothing is predicted at present; empty while it is.
    """

    def __init__(
        self, model: ServedModel, meter: Meter, quota: Quota, clock: Callable[[], float]
    ) -> None:
        self.model, self.quota, self.closed = model, quota, ""
        self._meter, self._clock = meter, clock
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._wake = asyncio.Event()
        self._computing = ThreadPoolExecutor(1, "computing")
        self._counting = ThreadPoolExecutor(1, "counting")
        self._task = asyncio.create_task(self._answer_groups())

    def swap(self, model: ServedModel) -> None:
        """From the next request on this model is asked; those under way end with the old one."""
        self.model = model

    async def close(self) -> None:
        """Answer what waits, and end."""
        while self._bytes:
            await asyncio.sleep(0.01)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._computing.shutdown()
        self._counting.shutdown()

    async def predict(self, firm: str, model: ServedModel, rows: Rows, request: str) -> Answer:
        """Predict and count.

        Args:
            rows: shape (n, features), physical units.
            request: the firm's id of it; empty where it gave none.

        Raises:
            DeclinedError: values that the schema does not allow, a used-up quota, or the machine
                cannot at present.
        """
        if self.closed:
            raise DeclinedError("withdrawn", self.closed)
        if self._bytes + rows.nbytes > MAX_WAITING_BYTES:
            raise DeclinedError("not-now", "too many requests wait already; try again in a second")
        self._bytes += rows.nbytes
        try:
            return await self._predict(firm, model, rows, request)
        finally:
            self._bytes -= rows.nbytes

    async def _predict(self, firm: str, model: ServedModel, rows: Rows, request: str) -> Answer:
        loop = asyncio.get_running_loop()
        prediction = None
        if len(rows) >= LARGE_ROWS:
            prediction, outside, key = await loop.run_in_executor(
                self._computing, _compute_large, firm, model, rows, request
            )
        else:
            outside, key = _examine(firm, model, rows, request)
        charge = Charge(firm=firm, rows=len(rows), key=key, limit=self.quota.limit(firm))
        item = _Waiting(
            charge=charge,
            model=model,
            rows=rows,
            answered=loop.create_future(),
            prediction=prediction,
        )
        self._waiting.append(item)
        self._wake.set()
        await item.answered
        if item.prediction is None:
            raise DeclinedError("not-now", "the model could not be computed; tell the lead")
        return Answer(model=model, prediction=item.prediction, outside=outside)

    async def _answer_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            group, self._waiting = self._waiting, []
            _compute_small([item for item in group if item.prediction is None])
            done = [item for item in group if item.prediction is not None]
            charges, now_s = [item.charge for item in done], self._clock()
            try:
                counted = partial(self._meter.count, charges, now_s=now_s)
                verdicts = await loop.run_in_executor(self._counting, counted)
            except (sqlite3.Error, OSError) as error:
                logger.error("predictions could not be counted, so none went out: %s", error)
                fault = "the lead's machine could not count this request; try later"
                _end(group, [DeclinedError("not-now", fault)] * len(group))
                continue
            ends = {
                id(item): _end_of(item, left) for item, left in zip(done, verdicts, strict=True)
            }
            _end(group, [ends.get(id(item)) for item in group])


def _end_of(item: _Waiting, left: int | None) -> DeclinedError | None:
    if left is None:
        return None
    return DeclinedError(
        "used-up",
        f"{item.charge.rows} rows asked for, {left} are left of this month's {item.charge.limit}; "
        "ask the lead for more, or wait for the next month (UTC)",
    )


def _end(group: Sequence[_Waiting], ends: Sequence[DeclinedError | None]) -> None:
    for item, fault in zip(group, ends, strict=True):
        if item.answered.done():
            continue  # whoever asked has hung up
        if fault is None:
            item.answered.set_result(None)
        else:
            item.answered.set_exception(fault)


def _examine(firm: str, model: ServedModel, rows: Rows, request: str) -> tuple[Flags, bytes | None]:
    if fault := model.schema.fault(rows):
        raise DeclinedError("invalid", fault)
    key = retry_key(firm, request, rows.tobytes()) if request else None
    return model.schema.outside(rows), key


def _compute_large(
    firm: str, model: ServedModel, rows: Rows, request: str
) -> tuple[Rows | None, Flags, bytes | None]:
    outside, key = _examine(firm, model, rows, request)
    return _compute(model, rows), outside, key


def _compute_small(group: Sequence[_Waiting]) -> None:
    by_model: dict[int, list[_Waiting]] = {}
    for item in group:
        by_model.setdefault(id(item.model), []).append(item)
    for items in by_model.values():
        found = _compute(items[0].model, np.concatenate([item.rows for item in items]))
        if found is None:
            continue
        at = 0
        for item in items:
            item.prediction = found[at : at + len(item.rows)]
            at += len(item.rows)


def _compute(model: ServedModel, rows: Rows) -> Rows | None:
    try:
        return model.predict(rows)
    except Exception as error:  # noqa: BLE001 - the runtime has no error tree of its own
        logger.error("%s v%s could not be computed: %s", model.name, model.version, error)
        return None
