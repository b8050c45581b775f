"""What the lead says of releases: forms, versions, withdrawals, the current one, and their end."""

import base64
from dataclasses import asdict, replace
from typing import Any

import pytest
from greylag_protocols import log
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.releases import (
    CURRENT_KIND,
    RELEASE_KIND,
    WITHDRAW_KIND,
    Current,
    Holdout,
    ReleasedFile,
    ReleaseFacts,
    Withdrawal,
    about_releases,
    check_usable,
    day,
    parse_release,
    parse_withdrawal,
    release_history,
    sign_current,
    sign_release,
    sign_withdrawal,
)
from greylag_protocols.signing import Ed25519Signer, Statement, parse_statement

LEAD = Ed25519Signer(b"\x01" * 32)
STRANGER = Ed25519Signer(b"\x02" * 32)
ZERO = "0" * 64
MODEL = b"m" * 32
FACTS = ReleaseFacts(
    consortium="metals",
    name="alloys",
    version=1,
    terms=ZERO,
    rounds=10,
    attempts=11,
    state=ZERO,
    issued_s=1_800_000_000,
    expires_s=1_800_000_000 + 86_400 * 365,
    licence="for members",
    permitted_uses=("predictions",),
    files=(ReleasedFile(name="model.safetensors", sha256=ZERO, bytes=12),),
    signing_key=ZERO,
    cosigners=2,
    holdout=Holdout(rows=5, metric="error", value=0.25, before=None),
    because="",
)
WITHDRAWAL = Withdrawal(
    consortium="metals",
    name="alloys",
    versions=(1,),
    because="wrong unit",
    withdrawn_s=1_800_086_400,
)


def release(version: int, run: str = "alloys-1", model: bytes = MODEL, **changed: Any) -> bytes:
    return sign_release(LEAD, run, model, replace(FACTS, version=version, **changed))


def withdrawal(*versions: int, run: str = "alloys-1", model: bytes = MODEL) -> bytes:
    return sign_withdrawal(LEAD, run, model, replace(WITHDRAWAL, versions=versions))


def current(version: int, run: str = "alloys-1", consortium: str = "metals") -> bytes:
    word = Current(consortium=consortium, name="alloys", version=version, because="v2 is off")
    return sign_current(LEAD, run, MODEL, word)


def early_release(run: str = "alloys-0") -> bytes:
    facts = {"terms": ZERO, "rounds": 1, "attempts": 1, "state": ZERO}
    return LEAD.sign(log.RELEASE_KIND, run, MODEL, facts)


def history_of(*entries: bytes) -> Any:
    return release_history(entries, consortium="metals", lead_key=LEAD.public_key)


def test_what_is_signed_comes_back() -> None:
    assert parse_release(parse_statement(release(3))) == replace(FACTS, version=3)
    assert parse_withdrawal(parse_statement(withdrawal(1))) == WITHDRAWAL


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"version": 0}, "version"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"permitted_uses": []}, "permitted_uses"),
        ({"files": [{"name": "../x", "sha256": ZERO, "bytes": 1}]}, "name"),
        ({"files": [asdict(FACTS.files[0])] * 2}, "names a file twice"),
        ({"holdout": {"rows": 1, "metric": "smiles", "value": 0.0, "before": None}}, "metric"),
    ],
)
def test_a_release_out_of_form_is_refused(changed: dict[str, Any], reason: str) -> None:
    statement = Statement(
        kind=RELEASE_KIND, subject="alloys-1", digest=MODEL, predicate=asdict(FACTS) | changed
    )
    with pytest.raises(VerificationError, match=reason):
        parse_release(statement)


def test_what_a_reader_would_refuse_is_never_said() -> None:
    with pytest.raises(ConfigError, match="release: because"):
        release(1, because="x" * 401)
    with pytest.raises(ConfigError, match="withdraw: versions"):
        withdrawal()
    with pytest.raises(ConfigError, match="current: version"):
        current(0)


def test_whole_numbers_of_errors_come_back() -> None:
    holdout = Holdout(rows=1, metric="log_loss", value=0.0, before=2.0)
    assert parse_release(parse_statement(release(1, holdout=holdout))).holdout == holdout


def test_another_kind_is_no_release() -> None:
    with pytest.raises(
        VerificationError, match=r"expected a release/v2 statement, found release/v3"
    ):
        parse_release(Statement(kind="release/v3", subject="a", digest=MODEL, predicate={}))


def test_versions_count_over_all_runs_of_a_plan() -> None:
    history = history_of(
        early_release(),
        release(2),
        release(1, run="steels-1", name="steels"),
        release(3, run="alloys-2", model=b"n" * 32),
    )
    assert [(item.version, item.run) for item in history.versions["alloys"]] == [
        (1, "alloys-0"),
        (2, "alloys-1"),
        (3, "alloys-2"),
    ]
    assert history.current == {"alloys": 3, "steels": 1}
    assert history.find("alloys", 1).facts is None
    assert [item.position for item in history.of_run("alloys-2")] == [3]


def test_roll_back_and_withdraw() -> None:
    history = history_of(release(1), release(2), current(1))
    assert history.current == {"alloys": 1}
    history = history_of(release(1), release(2), withdrawal(1))
    assert history.current == {"alloys": 2}
    history = history_of(release(1), release(2), withdrawal(1, 2), withdrawal(2), release(3))
    assert history.current == {"alloys": 3}
    assert history.find("alloys", 2).withdrawn.versions == (1, 2)  # the first word stays
    history = history_of(release(1), release(2), withdrawal(2))
    assert history.current == {}


def test_one_run_without_a_dash_is_its_own_plan() -> None:
    assert list(history_of(early_release("alloys")).versions) == ["alloys"]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([release(2)], "log entry 0: alloys v2 follows v0"),
        ([release(1), release(1)], "log entry 1: alloys v1 follows v1"),
        ([release(1), withdrawal(2)], "never released"),
        ([release(1), withdrawal(1, run="alloys-7")], "names another model"),
        ([release(1), withdrawal(1, model=ZERO[:32].encode())], "names another model"),
        ([release(1), withdrawal(1), current(1)], "which is withdrawn"),
        ([release(1), current(1, consortium="woods")], "releases of 'woods'"),
        ([release(1, consortium="woods")], "releases of 'woods'"),
        (
            [sign_withdrawal(LEAD, "a-1", MODEL, replace(WITHDRAWAL, consortium="woods"))],
            "releases of 'woods'",
        ),
        ([sign_release(STRANGER, "alloys-1", MODEL, FACTS)], "not signed by"),
    ],
)
def test_a_history_that_does_not_add_up(entries: list[bytes], reason: str) -> None:
    with pytest.raises(VerificationError, match=reason):
        history_of(*entries)


def test_a_version_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no v3; it has v1 to v1"):
        history_of(release(1)).find("alloys", 3)
    with pytest.raises(ConfigError, match="no v1; it has no release yet"):
        history_of().find("alloys", 1)


def test_other_statements_are_passed_over() -> None:
    other = LEAD.sign(log.TERMS_KIND, "alloys-1", MODEL, {"run": "alloys-1"})
    # A text inside may look like the kind; the statement's own kind decides.
    sly = LEAD.sign(log.TERMS_KIND, "alloys-1", MODEL, {"run": '"urn:greylag:release/v2'})
    newer = LEAD.sign("release/v9", "alloys-1", MODEL, {})
    history = history_of(other, sly, newer, release(1))
    assert history.find("alloys", 1).position == 3
    assert history.take(parse_statement(other), 9) is None


@pytest.mark.parametrize("kind", [log.RELEASE_KIND, RELEASE_KIND, WITHDRAW_KIND, CURRENT_KIND])
def test_entries_about_releases_are_found_wherever_base64_puts_their_kind(kind: str) -> None:
    lengths = set()
    for extra in range(6):
        envelope = LEAD.sign(kind, "alloys-1", MODEL, {"pad": "x" * extra})
        payload = base64.b64decode(envelope.split(b'"')[3])
        lengths.add(payload.index(kind.encode()) % 3)
        assert list(about_releases([envelope])) == [(0, envelope)]
    assert lengths == {0, 1, 2}
    other = LEAD.sign("receipt/v1", "alloys-1", MODEL, {"pad": "released"})
    assert list(about_releases([other])) == []


def usable(now_s: float, *withdrawals: bytes, facts: ReleaseFacts = FACTS) -> None:
    check_usable(
        "alloys-1",
        MODEL,
        facts,
        now_s=now_s,
        withdrawals=[parse_statement(item) for item in withdrawals],
    )


def test_a_release_is_used_within_its_time_unless_it_was_withdrawn() -> None:
    usable(FACTS.issued_s)
    usable(FACTS.issued_s - 3600)  # clocks differ
    usable(FACTS.expires_s - 1)
    with pytest.raises(VerificationError, match="expired on 2028-01-15"):
        usable(FACTS.expires_s)
    with pytest.raises(VerificationError, match="set the clock"):
        usable(FACTS.issued_s - 90_000)
    with pytest.raises(VerificationError, match="withdrawn on 2027-01-16: wrong unit"):
        usable(FACTS.issued_s, withdrawal(1))


def test_withdrawals_of_others_do_not_count() -> None:
    other_plan = sign_withdrawal(LEAD, "alloys-1", MODEL, replace(WITHDRAWAL, name="steels"))
    usable(
        FACTS.issued_s,
        withdrawal(2),
        withdrawal(1, run="alloys-7"),
        withdrawal(1, model=b"n" * 32),
        other_plan,
    )


def test_days_without_a_calendar() -> None:
    assert day(0) == "1970-01-01"
    assert day(1 << 40) == f"second {1 << 40}"
