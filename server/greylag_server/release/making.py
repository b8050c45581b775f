"""From a finished run to a release directory: draft, gate, log entry, cosignatures, files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from greylag_protocols.errors import ConfigError
from greylag_protocols.membership import Membership
from greylag_protocols.releases import (
    ReleaseFacts,
    ReleaseHistory,
    Version,
    sign_release,
)

from greylag_server.consortium import Consortium
from greylag_server.release.artefacts import (
    Draft,
    Licence,
    Model,
    keep_files,
    make_draft,
    make_model,
    stored_draft,
    write_release,
)
from greylag_server.release.comparing import compare_holdout
from greylag_server.release.cosigned import make_proofs, serves, wait_for_cosigners
from greylag_server.release.gate import Checks, GateClosedError, check_log
from greylag_server.release.signing import key_digest, signing_key
from greylag_server.release.versions import read_history
from greylag_server.store import RunRecord, Store

DEFAULT_LICENCE = (
    "For the members of the consortium, under its agreement; not to be passed on to others."
)
DEFAULT_USES = ("predictions and decisions in the members' own business",)
DEFAULT_DAYS = 365
DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the operator asked for; None: the default, or what was logged before."""

    licence: str | None = None
    permitted_uses: tuple[str, ...] | None = None
    expires_days: int | None = None
    holdout: Path | None = None
    because: str = ""
    cosigners: int | None = None
    wait_s: float = 60.0
    again: bool = False


@dataclass(slots=True, kw_only=True)
class Release:
    """The making of one release.

    Attributes:
        progress: told how many of how many firms have cosigned.
    """

    consortium: Consortium
    store: Store
    membership: Membership
    checks: Checks
    progress: Callable[[int, int], None]
    now_s: float

    def make(self, record: RunRecord, out: Path, wishes: Wishes) -> Draft:
        """Pass the gate and write ``out``. A run that is in the log as released already is written
        as it was logged, unless ``wishes.again``.

        Raises:
            ConfigError: ``out`` exists, or a wish cannot be met.
            GateClosedError: a check failed; nothing was written.
        """
        if out.exists():
            raise ConfigError(f"{out} exists already; name a new directory")
        if (wishes.cosigners or 0) > len(self.membership.members):
            raise ConfigError(
                f"--cosigners {wishes.cosigners}: the consortium has {len(self.membership.members)}"
            )
        checks = self.checks
        finished = record.status in ("done", "failed") and record.rounds_done > 0
        state = record.state if finished else None
        text = f"{record.run} is {record.status} after {record.rounds_done} rounds"
        if state is None:
            checks.add("run", False, f"{text}; only a finished run can be released")
            raise GateClosedError(checks)
        checks.add("run", True, text)
        history = read_history(self.store, self.consortium)
        key_path, public_key = signing_key(self.consortium.root / "keys")
        logged = None if wishes.again else self._logged(history, record, wishes)
        if logged is not None:
            version, facts = logged
            draft = stored_draft(self.store, version, facts)
            if facts.signing_key != key_digest(public_key):
                raise ConfigError(
                    f"{key_path} is another key than {facts.name} v{facts.version} was released "
                    "under; restore it, or release anew with --again"
                )
        else:
            version = None
            draft = self._draft(record, make_model(record, state), history, wishes, public_key)
        entry = (
            sign_release(self.consortium.signer, draft.run, draft.model, draft.facts)
            if version is None
            else next(iter(self.store.entries(version.position)))
        )
        check_log(
            checks,
            self.store,
            record,
            consortium=self.consortium.settings.id,
            signer=self.consortium.signer,
        )
        checks.require()
        position = self._log(draft, entry) if version is None else version.position
        proof = self._prove(draft, position, wishes)
        write_release(out, draft, entry=entry, proof=proof, private_key=key_path)
        return draft

    def _logged(
        self, history: ReleaseHistory, record: RunRecord, wishes: Wishes
    ) -> tuple[Version, ReleaseFacts] | None:
        """The version of this run that is in the log, if there is one to be written again."""
        known = [item for item in history.of_run(record.run) if item.facts is not None]
        if not known or (facts := known[-1].facts) is None:
            return None
        version, name = known[-1], f"{facts.name} v{facts.version}"
        if version.withdrawn is not None:
            reason = f"{name} was withdrawn: {version.withdrawn.because}"
            self.checks.add("run", False, f"{reason}. --again releases the run as a new version")
            raise GateClosedError(self.checks)
        asked = (wishes.licence, wishes.permitted_uses, wishes.expires_days, wishes.holdout)
        if any(item is not None for item in asked):
            raise ConfigError(
                f"{record.run} is released already, as {name}: without --licence, --permitted-use, "
                "--expires and --holdout it is written as it was logged; with --again it becomes a "
                "new version"
            )
        return version, facts

    def _draft(
        self,
        record: RunRecord,
        model: Model,
        history: ReleaseHistory,
        wishes: Wishes,
        public_key: bytes,
    ) -> Draft:
        name = model.terms.run.name
        known = history.versions.get(name, [])
        standing = [item for item in known if item.withdrawn is None]
        holdout, because = compare_holdout(
            self.checks,
            self.store,
            model,
            last=standing[-1] if standing else None,
            path=wishes.holdout,
            because=wishes.because,
        )
        days = DEFAULT_DAYS if wishes.expires_days is None else wishes.expires_days
        licence = Licence(
            text=wishes.licence or DEFAULT_LICENCE,
            permitted_uses=wishes.permitted_uses or DEFAULT_USES,
            issued_s=int(self.now_s),
            expires_s=int(self.now_s) + days * DAY_S,
        )
        colluding = model.terms.privacy.max_colluding
        return make_draft(
            record,
            model,
            consortium=self.consortium.settings.id,
            version=len(known) + 1,
            firms=len(self.store.participants(record.run)),
            licence=licence,
            public_key=public_key,
            cosigners=colluding + 1 if wishes.cosigners is None else wishes.cosigners,
            holdout=holdout,
            because=because,
        )

    # -- log and cosignatures --------------------------------------------------------------------

    def _log(self, draft: Draft, entry: bytes) -> int:
        """Put the release into the log; its position there."""
        facts = draft.facts
        with self.store.transaction():
            known = read_history(self.store, self.consortium).versions.get(facts.name, [])
            if len(known) + 1 != facts.version:
                raise ConfigError(
                    f"another release of {facts.name} was logged meanwhile; try again"
                )
            position = self.store.checkpoint().size
            self.store.append([entry])
            keep_files(self.store, draft)
        return position

    def _prove(self, draft: Draft, position: int, wishes: Wishes) -> bytes:
        wanted = draft.facts.cosigners if wishes.cosigners is None else wishes.cosigners
        settings = self.consortium.settings
        found = wait_for_cosigners(
            self.store,
            self.membership,
            position=position,
            wanted=wanted,
            wait_s=wishes.wait_s,
            progress=lambda count: self.progress(count, wanted),
        )
        count = 0 if found is None else len(found.words)
        text = f"{count} firms cosigned the log with its release entry, {wanted} are wanted"
        if count < wanted:
            where = f"{settings.host}:{settings.enrol_port}"
            text += f" (the entry stays in the log, at {position}). " + (
                f"`serve` runs at {where}: let more firms start their agents, then release again"
                if serves(settings)
                else f"`serve` does not run at {where}: start greylag-server serve, with the "
                "firms' agents, then release again"
            )
        self.checks.add("cosigned", count >= wanted, text)
        if found is None or count < wanted:
            raise GateClosedError(self.checks)
        (proof,) = make_proofs(
            self.store, self.consortium.signer, self.membership, found, positions=[position]
        )
        return proof
