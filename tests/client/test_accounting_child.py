"""Sums of privacy accounting in a child process: the same numbers, and refusals if it fails."""

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from greylag_client.accounting_child import COMMAND, AccountingChild
from greylag_protocols import accounting
from greylag_protocols.errors import ConfigError, RefusedError, VerificationError

MECHANISM = accounting.poisson_gaussian(sampling_rate=0.1, noise_multiplier=2.0, records_cap=1000)


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """What a test hands over is taken back."""
    yield
    accounting.leave_sums_to(None)


def child_that(code: str, timeout_s: float = 30.0) -> AccountingChild:
    return AccountingChild(command=[sys.executable, "-c", code], timeout_s=timeout_s)


def says(line: str) -> str:
    """A program that answers every question with ``line``."""
    return f"import sys\nfor _ in sys.stdin: print({line!r}, flush=True)"


def test_the_child_says_what_this_process_would_say() -> None:
    here = (
        accounting.epsilon_of(MECHANISM, releases=20, delta=1e-6),
        accounting.advantage_of(MECHANISM, releases=20),
    )
    assert 0 < here[1] < 1 < here[0]
    child = AccountingChild(idle_s=0.2)
    assert child.epsilon_of(MECHANISM, releases=20, delta=1e-6) == here[0]
    process = child._process
    assert child.advantage_of(MECHANISM, releases=20) == here[1]
    assert process is not None
    assert child._process is process  # one child answered both
    with pytest.raises(ConfigError, match=r"promises nothing.*add noise"):
        child.epsilon_of(MECHANISM.with_noise(0.3), releases=10**6, delta=1e-6)
    process.wait(30)  # it goes by itself
    assert child.epsilon_of(MECHANISM, releases=20, delta=1e-6) == here[0]  # from memory
    assert child._process is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; sys.stdin.readline(); raise SystemExit(1)", "it ended"),
        ("import time; time.sleep(60)", "took longer"),
        (says('{"value": NaN}'), "not acceptable JSON"),
        (says('{"value": -1.0}'), "no number"),
        (says('{"value": 0.1, "error": "other"}'), "no number"),
        (says('{"value": "0.1"}'), "its answer"),
        (says("0.1"), "its answer"),
        (says("x" * 100_000), "it ended"),
    ],
)
def test_a_child_that_fails_is_a_refusal_by_policy(code: str, reason: str, elsewhere: None) -> None:
    child = child_that(code, timeout_s=1.0 if "sleep" in code else 30.0)
    accounting.leave_sums_to(child)
    fresh = dataclasses.replace(MECHANISM, records_cap=999)  # nobody has asked about it yet
    with pytest.raises(RefusedError, match=f"accounting process: .*{reason}") as refused:
        accounting.epsilon_of(fresh, releases=20, delta=1e-6)
    assert refused.value.refusal_class == "policy"
    assert child._process is None  # and nothing stays


def test_a_program_that_is_not_there_is_a_refusal() -> None:
    child = AccountingChild(command=["/nowhere/python"])
    with pytest.raises(RefusedError, match="nowhere") as refused:
        child.advantage_of(MECHANISM, releases=20)
    assert refused.value.refusal_class == "policy"


def test_what_the_accountants_raise_comes_back_as_it_was() -> None:
    child = child_that(says('{"error": "evidence", "message": "the accountants disagree"}'))
    with pytest.raises(VerificationError, match="accountants disagree"):
        child.epsilon_of(MECHANISM, releases=20, delta=1e-6)
    child._end()


def test_many_firms_at_once_ask_once() -> None:
    count = "import sys\nfor n, _ in enumerate(sys.stdin): print('{\"value\": %d}' % n, flush=True)"
    child, values = child_that(count.replace("%d", "%d.5")), list[float]()
    threads = [
        threading.Thread(
            target=lambda: values.append(child.epsilon_of(MECHANISM, releases=20, delta=1e-6))
        )
        for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [0.5] * 50
    child._end()


def test_the_child_leaves_with_the_agent() -> None:
    """Also if the agent is killed: its end of the pipe is gone then."""
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    time.sleep(0.2)
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()
