"""The gate's own decisions, versions and withdrawals; the auditor's part is among tests/e2e."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from greylag_protocols.errors import ConfigError
from greylag_protocols.releases import Version, sign_release
from greylag_server.release.artefacts import Draft, Licence, keep_files, make_draft, make_model
from greylag_server.release.comparing import compare_holdout
from greylag_server.release.cosigned import wait_for_cosigners
from greylag_server.release.gate import Checks, GateClosedError
from greylag_server.release.making import Release, Wishes
from greylag_server.release.signing import signing_key
from greylag_server.release.versions import read_history, roll_back, withdraw_run
from greylag_server.store import Store
from made_release import FIRMS, LEAD, NAME, make_lead, make_membership, make_record, make_terms

ROWS = "copper,nickel,furnace,strength\n10,20,arc,500\n30,40,gas,500\n"


class Lead:
    """The lead's store and directory, with releases of runs of random weights."""

    def __init__(self, root: Path) -> None:
        self.consortium = make_lead(root)
        self.store = Store(root / "log.sqlite", origin=NAME)
        self.checks = Checks(lambda _: None)
        self.rows = root / "rows.csv"
        self.rows.write_text(ROWS)

    def release(self, number: int, *, seed: int = 3, path: Path | None = None) -> Version:
        draft = self.draft(number, seed=seed, path=path)
        with self.store.transaction():
            self.store.append([sign_release(LEAD, draft.run, draft.model, draft.facts)])
            keep_files(self.store, draft)
        return read_history(self.store, self.consortium).find("alloys", number)

    def draft(self, number: int, *, seed: int, path: Path | None) -> Draft:
        record = make_record(make_terms(run=f"alloys-{number}"), seed=seed)
        assert record.state is not None
        model = make_model(record, record.state)
        holdout, _ = compare_holdout(
            self.checks, self.store, model, last=None, path=path, because=""
        )
        now_s = int(time.time())
        return make_draft(
            record,
            model,
            consortium=NAME,
            version=number,
            firms=len(FIRMS),
            licence=Licence(text="x", permitted_uses=("y",), issued_s=now_s, expires_s=2 * now_s),
            public_key=signing_key(self.consortium.root / "keys")[1],
            cosigners=2,
            holdout=holdout,
            because="",
        )

    def compare(
        self, last: Version | None, *, seed: int, path: Path | None, because: str = ""
    ) -> str:
        """The last check's line, and the reason that was kept."""
        record = make_record(make_terms(run="alloys-9"), seed=seed)
        assert record.state is not None
        model = make_model(record, record.state)
        _, kept = compare_holdout(
            self.checks, self.store, model, last=last, path=path, because=because
        )
        return f"{self.checks.kept[-1].line()} [{kept}]"

    def make(self, out: Path, wishes: Wishes, *, status: str = "done", rounds: int = 2) -> None:
        making = Release(
            consortium=self.consortium,
            store=self.store,
            membership=make_membership(time.time()),
            checks=self.checks,
            progress=lambda count, wanted: None,
            now_s=time.time(),
        )
        record = make_record(make_terms(run="alloys-1"), status=status, rounds_done=rounds)
        making.make(record, out, wishes)


@pytest.fixture
def lead(tmp_path: Path) -> Iterator[Lead]:
    made = Lead(tmp_path / "lead")
    yield made
    made.store.close()


# -- the run and its holdout -----------------------------------------------------------------------


@pytest.mark.parametrize(("status", "rounds"), [("training", 1), ("closing", 2), ("failed", 0)])
def test_only_a_finished_run_is_released(
    lead: Lead, tmp_path: Path, status: str, rounds: int
) -> None:
    with pytest.raises(GateClosedError, match=f"alloys-1 is {status} after {rounds} rounds"):
        lead.make(tmp_path / "out", Wishes(), status=status, rounds=rounds)
    assert not (tmp_path / "out").exists()
    assert [(item.name, item.ok) for item in lead.checks.kept] == [("run", False)]


def test_a_worse_model_is_held_back_unless_somebody_says_why(lead: Lead) -> None:
    errors = {}
    for seed in (3, 4, 5):
        measured = lead.draft(1, seed=seed, path=lead.rows).facts.holdout
        assert measured is not None
        errors[seed] = measured.value
    good, bad = min(errors, key=errors.__getitem__), max(errors, key=errors.__getitem__)
    last = lead.release(1, seed=good, path=lead.rows)
    assert "ok      holdout" in lead.compare(last, seed=good, path=lead.rows)
    said = lead.compare(last, seed=bad, path=lead.rows)
    assert "FAILED  holdout: error" in said
    assert "at the last release. --because TEXT overrides this" in said
    assert said.endswith("[]")
    assert not lead.checks.hold
    said = lead.compare(last, seed=bad, path=lead.rows, because="a new range")
    assert "ok      holdout" in said
    assert said.endswith("overridden, and logged: a new range [a new range]")


def test_a_reason_that_was_not_needed_is_not_kept(lead: Lead) -> None:
    assert lead.compare(None, seed=3, path=lead.rows, because="why not").endswith("[]")


def test_rows_that_were_named_once_are_wanted_again(lead: Lead) -> None:
    assert "ok      holdout: not measured" in lead.compare(None, seed=3, path=None)
    unmeasured = lead.release(1)
    assert "ok      holdout: not measured" in lead.compare(unmeasured, seed=3, path=None)
    measured = lead.release(2, path=lead.rows)
    assert "FAILED  holdout: not measured, as the last release was" in lead.compare(
        measured, seed=3, path=None
    )


def test_both_models_are_measured_on_the_same_rows(lead: Lead, tmp_path: Path) -> None:
    last = lead.release(1, seed=4, path=lead.rows)
    easy = tmp_path / "easy.csv"
    easy.write_text(ROWS.replace(",500", ",520"))
    # What stands in the log was measured on other rows; the model is here, and is measured anew.
    before = lead.draft(2, seed=4, path=easy).facts.holdout
    assert before is not None
    assert f"{before.value:.4g} at the last release" in lead.compare(last, seed=4, path=easy)
    gone = replace(last, facts=replace(last.facts, files=()))
    assert last.facts is not None
    assert last.facts.holdout is not None
    recorded = f"{last.facts.holdout.value:.4g} at the last release"
    assert recorded in lead.compare(gone, seed=4, path=easy)


# -- what is in the log already --------------------------------------------------------------------


def test_a_released_run_keeps_its_licence(lead: Lead, tmp_path: Path) -> None:
    lead.release(1)
    for wishes in (Wishes(licence="free"), Wishes(expires_days=3), Wishes(holdout=lead.rows)):
        with pytest.raises(ConfigError, match="released already, as alloys v1"):
            lead.make(tmp_path / "out", wishes)
    with pytest.raises(ConfigError, match="--cosigners 5: the consortium has 4"):
        lead.make(tmp_path / "out", Wishes(cosigners=5))
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        lead.make(tmp_path / "out", Wishes())


def test_a_lost_key_is_told(lead: Lead, tmp_path: Path) -> None:
    lead.release(1)
    key = lead.consortium.root / "keys" / "release.key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    with pytest.raises(ConfigError, match="another key than alloys v1 was released under"):
        lead.make(tmp_path / "out", Wishes())
    key.write_text("nonsense")
    with pytest.raises(ConfigError, match="is damaged"):
        lead.make(tmp_path / "out", Wishes())


def test_a_withdrawn_run_is_not_written_again(lead: Lead, tmp_path: Path) -> None:
    lead.release(1)
    withdraw_run(lead.store, lead.consortium, "alloys-1", because="a wrong unit", now_s=5.0)
    with pytest.raises(GateClosedError, match="alloys v1 was withdrawn: a wrong unit"):
        lead.make(tmp_path / "out", Wishes())


def test_a_withdrawal_is_logged_once(lead: Lead) -> None:
    lead.release(1)
    lead.release(2)
    first = withdraw_run(lead.store, lead.consortium, "alloys-1", because="one", now_s=5.0)
    size = lead.store.checkpoint().size
    again = withdraw_run(lead.store, lead.consortium, "alloys-1", because="two", now_s=9.0)
    assert again == first
    assert lead.store.checkpoint().size == size
    with pytest.raises(ConfigError, match="alloys-7 has no release"):
        withdraw_run(lead.store, lead.consortium, "alloys-7", because="x", now_s=5.0)


def test_rolling_back(lead: Lead) -> None:
    lead.release(1)
    lead.release(2)
    roll_back(lead.store, lead.consortium, "alloys", 1, because="v2 drifts")
    assert read_history(lead.store, lead.consortium).current == {"alloys": 1}
    withdraw_run(lead.store, lead.consortium, "alloys-2", because="drift", now_s=5.0)
    with pytest.raises(ConfigError, match=r"alloys v2 is withdrawn \(drift\)"):
        roll_back(lead.store, lead.consortium, "alloys", 2, because="")
    with pytest.raises(ConfigError, match="no v3"):
        roll_back(lead.store, lead.consortium, "alloys", 3, because="")


def test_words_of_those_who_are_no_members_do_not_count(lead: Lead) -> None:
    position = lead.release(1).position
    membership = make_membership(time.time())
    checkpoint = lead.store.checkpoint()
    words = {"firm-a": bytes(72), "stranger": bytes(72)}
    counts: list[int] = []
    with lead.store.transaction():
        lead.store.keep_cosignatures(checkpoint, words)
    found = wait_for_cosigners(
        lead.store, membership, position=position, wanted=1, wait_s=0.0, progress=counts.append
    )
    assert found is not None
    assert (found.words, counts) == ({}, [0])
    assert (
        wait_for_cosigners(
            lead.store, membership, position=5, wanted=1, wait_s=0.0, progress=counts.append
        )
        is None
    )
