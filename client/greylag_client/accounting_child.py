"""Privacy accounting in a process of its own, which ends soon after it has answered.

    python -P -m greylag_client.accounting_child     (a JSON line in, one out, until stdin ends)

The accountants' libraries take 70 MB, and an agent needs them for seconds in a run's life. So it
asks a fresh interpreter, which goes when nothing more is asked. What goes wrong there is a refusal:
nothing is accepted whose cost nobody could work out.
"""

import json
import logging
import math
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial

from greylag_protocols.accounting import EventType, Mechanism, advantage_of, epsilon_of
from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError, GreylagError, RefusedError, VerificationError
from greylag_protocols.terms import STRICT

logger = logging.getLogger(__name__)

TIMEOUT_S = 120.0  # many times what any acceptable terms take
IDLE_S = 5.0  # a firm's page asks about one run after the other
MAX_ANSWER_BYTES = 1 << 16
COMMAND = (sys.executable, "-P", "-m", __spec__.name)  # -P: nothing of the directory it stands in
ERRORS: dict[str, type[GreylagError]] = {"config": ConfigError, "evidence": VerificationError}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What ``releases`` of a mechanism cost: epsilon at ``delta``, or without one the advantage."""

    __pydantic_config__ = STRICT
    event_type: EventType
    sampling_rate: float
    noise_multiplier: float
    records_cap: int
    batch_cap: int
    releases: int
    delta: float | None

    def mechanism(self) -> Mechanism:
        return Mechanism(
            event_type=self.event_type,
            sampling_rate=self.sampling_rate,
            noise_multiplier=self.noise_multiplier,
            records_cap=self.records_cap,
            batch_cap=self.batch_cap,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """A number, or what ``accounting`` raised: a key of ``ERRORS`` and its message."""

    __pydantic_config__ = STRICT
    value: float = 0.0
    error: str = ""
    message: str = ""


class AccountingChild:
    """An ``accounting.Accountant`` that has its sums done by a child process, for all threads.

    Args:
        command: what is started.
        timeout_s: how long one answer may take.
        idle_s: how long the child stays when nothing is asked.
    """

    def __init__(
        self,
        *,
        command: Iterable[str] = COMMAND,
        timeout_s: float = TIMEOUT_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self._command = tuple(command)
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._lock = threading.Lock()  # firms that are offered the same terms at once ask once
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0
        self._answer_to = lru_cache(maxsize=256)(self._ask)

    def epsilon_of(self, mechanism: Mechanism, *, releases: int, delta: float) -> float:
        """As ``accounting.epsilon_of``.

        Raises:
            RefusedError: class ``policy``: it could not be worked out.
        """
        return self._value(mechanism, releases, delta)

    def advantage_of(self, mechanism: Mechanism, *, releases: int) -> float:
        """As ``accounting.advantage_of``.

        Raises:
            RefusedError: class ``policy``: it could not be worked out.
        """
        return self._value(mechanism, releases, None)

    def _value(self, mechanism: Mechanism, releases: int, delta: float | None) -> float:
        with self._lock:
            answer = self._answer_to(_Question(**asdict(mechanism), releases=releases, delta=delta))
        if answer.error:
            raise ERRORS[answer.error](answer.message)
        return answer.value

    def _ask(self, question: _Question) -> _Answer:
        """Ask the child, which is started if there is none. A child that fails is ended."""
        try:
            process = self._process = self._process or self._start()
            answer = self._exchange(process, json.dumps(asdict(question)).encode() + b"\n")
        except (OSError, GreylagError) as error:
            self._end()
            raise _refusal(str(error)) from None
        self._asked += 1
        idle = threading.Timer(self._idle_s, partial(self._end_if_idle, self._asked))
        idle.daemon = True
        idle.start()
        return answer

    def _start(self) -> "subprocess.Popen[bytes]":
        # Without a window of its own on Windows, where an agent may be a service.
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        return subprocess.Popen(  # noqa: S603 - this interpreter, and a module of this package
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, creationflags=flags
        )

    def _exchange(self, process: "subprocess.Popen[bytes]", line: bytes) -> _Answer:
        if process.stdin is None or process.stdout is None:
            raise ConfigError("it has no pipes")
        late = threading.Timer(self._timeout_s, process.terminate)  # its stdout ends, and so we
        late.daemon = True
        late.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            said = process.stdout.readline(MAX_ANSWER_BYTES)
        finally:
            late.cancel()
        if not said.endswith(b"\n"):
            raise ConfigError(f"it ended, or took longer than {self._timeout_s:g} s")
        answer = parse_as(_Answer, parse_json(said), what="its answer")
        if not (answer.error in ERRORS or (not answer.error and 0 <= answer.value < math.inf)):
            raise ConfigError("its answer is no number")
        return answer

    def _end_if_idle(self, asked: int) -> None:
        with self._lock:
            if self._asked == asked:
                self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    logger.debug("the accounting process was gone before its pipe")
        process.wait()


def _refusal(reason: str) -> RefusedError:
    return RefusedError(
        f"what these terms cost could not be worked out (the accounting process: {reason}), so "
        "they are refused. Lines above may say why; 200 MB of free memory and the package "
        "dp-accounting are needed. `greylag-client budget` does the same sums",
        refusal_class="policy",
    )


def answers(lines: Iterable[bytes]) -> Iterator[_Answer]:
    """The child's side: an answer to each question."""
    for line in lines:
        question = parse_as(_Question, parse_json(line), what="question")
        mechanism, releases = question.mechanism(), question.releases
        try:
            if question.delta is None:
                value = advantage_of(mechanism, releases=releases)
            else:
                value = epsilon_of(mechanism, releases=releases, delta=question.delta)
            yield _Answer(value=value)
        except ConfigError as error:
            yield _Answer(error="config", message=str(error))
        except VerificationError as error:
            yield _Answer(error="evidence", message=str(error))


def main() -> None:
    """Answer on stdout what is asked on stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the agent, which finishes first
    for answer in answers(sys.stdin.buffer):
        sys.stdout.buffer.write(json.dumps(asdict(answer)).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
