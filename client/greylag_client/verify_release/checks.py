"""The checks of a release, in the order in which nothing is trusted before it was checked.

The lead's signature over the log entry comes first, since the entry names every file's length and
digest; no file is read beyond that. Nothing parses a model here: a release that fails is refused
before that.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from greylag_protocols.encoding import MAX_HEADER_BYTES
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.plan import parse_terms
from greylag_protocols.proofs import MAX_PROOF_BYTES, parse_proof, verify_proof
from greylag_protocols.releases import (
    CHECKSUMS_FILE,
    ENTRY_FILE,
    KEY_FILE,
    PROOF_FILE,
    RELEASE_KIND,
    SIGNATURE_FILE,
    TERMS_FILE,
    WITHDRAW_KIND,
    ReleaseFacts,
    check_usable,
    day,
    parse_release,
)
from greylag_protocols.signing import MAX_ENVELOPE_BYTES, Statement, verify_statement
from greylag_protocols.terms import Terms, terms_digest

from greylag_client.verify_release.keys import Keys

MAX_SIGNATURE_BYTES = 1 << 20
MAX_SUMS_BYTES = 1 << 16
CHUNK_BYTES = 1 << 20
OUTSIDE = (ENTRY_FILE, PROOF_FILE, CHECKSUMS_FILE, SIGNATURE_FILE)  # not named in the entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check and how it came out; ``ok`` is None where nothing can be said."""

    name: str
    ok: bool | None
    text: str

    def line(self) -> str:
        """For people."""
        mark = {True: "ok    ", False: "FAILED", None: "  ?   "}[self.ok]
        return f"  {mark}  {self.name}: {self.text}"


class ReleaseRefusedError(VerificationError):
    """A release that must not be used, and the check that says why."""


@dataclass(slots=True, kw_only=True)
class Verifier:
    """Checks one release directory. ``run`` raises at the first check that fails."""

    root: Path
    keys: Keys
    now_s: float
    cosigners: int | None = None
    tell: Callable[[Finding], None] = lambda _: None
    found: list[Finding] = field(default_factory=list)

    def run(self, *, signature: bool = True) -> tuple[str, ReleaseFacts]:
        """All checks; the run and what its log entry says.

        Args:
            signature: also check ``model.sig``, which adds no trust to what the entry says, since
                that names every file: it takes two seconds to load the library that made it.

        Raises:
            ReleaseRefusedError: names the check that failed, and why.
            ConfigError: there is no such directory.
        """
        if not self.root.is_dir():
            raise ConfigError(f"{self.root} is no directory; name a release's")
        entry, statement, facts = self._step("lead", self._check_entry)
        self._step("files", lambda: self._check_files(facts))
        terms = self._step("terms", lambda: self._check_terms(statement, facts))
        self._step("proof", lambda: self._check_proof(entry, terms))
        self._step("licence", lambda: self._check_usable(statement, facts))
        if signature:
            self._step("signature", self._check_signature)
        self._note_unknown()
        return statement.subject, facts

    def to_json(self) -> list[dict[str, Any]]:
        """For programs."""
        return [asdict(item) for item in self.found]

    def _step(self, name: str, check: Callable[[], Any]) -> Any:
        try:
            said, result = check()
        except (VerificationError, ConfigError) as error:
            self._note(Finding(name=name, ok=False, text=str(error)))
            raise ReleaseRefusedError(
                f"{self.root} is refused, nothing of its model was read: {name}: {error}"
            ) from None
        self._note(Finding(name=name, ok=True, text=said))
        return result

    def _note(self, finding: Finding) -> None:
        self.found.append(finding)
        self.tell(finding)

    # -- the checks ------------------------------------------------------------------------------

    def _check_entry(self) -> tuple[str, tuple[bytes, Statement, ReleaseFacts]]:
        entry = self._read(ENTRY_FILE, MAX_ENVELOPE_BYTES)
        statement = verify_statement(entry, self.keys.lead_key, RELEASE_KIND)
        facts = parse_release(statement)
        if facts.consortium != self.keys.trust.consortium:
            raise VerificationError(
                f"a release of the consortium {facts.consortium!r:.80}, not of "
                f"{self.keys.trust.consortium!r}"
            )
        said = f"{facts.name} v{facts.version} of run {statement.subject}, signed by the lead"
        return said, (entry, statement, facts)

    def _check_files(self, facts: ReleaseFacts) -> tuple[str, None]:
        try:
            there = {item.name for item in self.root.iterdir()}
        except OSError as error:
            raise VerificationError(f"{self.root} cannot be read: {error.strerror}") from None
        named = {item.name: item for item in facts.files}
        if spare := sorted(there - named.keys() - {*OUTSIDE}):
            raise VerificationError(f"{spare[0]!r:.80} belongs to no release; fetch it again")
        sums = {}
        for name, item in named.items():
            sums[name] = self._digest(name, item.bytes)
            if sums[name] != item.sha256:
                raise VerificationError(
                    f"{name} is not the file that the lead released: it was changed or damaged; "
                    "fetch the release again"
                )
        for name, limit in ((ENTRY_FILE, MAX_ENVELOPE_BYTES), (PROOF_FILE, MAX_PROOF_BYTES)):
            sums[name] = hashlib.sha256(self._read(name, limit)).hexdigest()
        expected = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
        listed = self._read(CHECKSUMS_FILE, MAX_SUMS_BYTES).decode("utf-8", "replace")
        if sorted(listed.splitlines()) != sorted(expected.splitlines()):
            raise VerificationError(f"{CHECKSUMS_FILE} does not agree; fetch the release again")
        return f"{len(named)} files are as they were released", None

    def _check_terms(self, statement: Statement, facts: ReleaseFacts) -> tuple[str, Terms]:
        encoded = self._read(TERMS_FILE, MAX_HEADER_BYTES)
        terms, digest = parse_terms(encoded), terms_digest(encoded)
        if digest.hex() != facts.terms or (terms.run_id, terms.consortium) != (
            statement.subject,
            facts.consortium,
        ):
            raise VerificationError(f"{TERMS_FILE} holds other terms than the release names")
        accepted = self.keys.accepted.get(statement.subject)
        if accepted is None:
            return "those of the release; this firm did not take part in the run", terms
        if accepted != digest:
            raise VerificationError("this firm accepted other terms for this run; ask the lead why")
        return "those that this firm accepted", terms

    def _check_proof(self, entry: bytes, terms: Terms) -> tuple[str, None]:
        proof = parse_proof(self._read(PROOF_FILE, MAX_PROOF_BYTES))
        origin, colluding = self.keys.trust.consortium, terms.privacy.max_colluding
        wanted = colluding + 1 if self.cosigners is None else self.cosigners
        outcome = verify_proof(
            proof,
            entry,
            origin=origin,
            log_key=self.keys.lead_key,
            cosigner_keys=self.keys.cosigner_keys,
        )
        firms = [firm for firm, _ in outcome.cosigned]
        count = self.keys.independent(firms, max(colluding, wanted - 1))
        if count < wanted:
            raise VerificationError(
                f"{len(firms)} firms that were approved here cosigned the log with it, of which "
                f"{count} count; {wanted} are wanted, so that one at least is honest. Approve the "
                "member list of the run, or ask the lead for a release that more firms cosigned"
            )
        return f"it is in the lead's log, cosigned by {len(firms)} firms approved here", None

    def _check_usable(self, statement: Statement, facts: ReleaseFacts) -> tuple[str, None]:
        withdrawals = [
            verify_statement(item.strip(), self.keys.lead_key, WITHDRAW_KIND)
            for item in self.keys.withdrawals
        ]
        check_usable(
            statement.subject,
            statement.digest,
            facts,
            now_s=self.now_s,
            withdrawals=withdrawals,
        )
        return f"valid until {day(facts.expires_s)}; {'; '.join(facts.permitted_uses)}", None

    def _check_signature(self) -> tuple[str, None]:
        from model_signing import verifying

        self._read(SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
        config = verifying.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_verifier(public_key=self.root / KEY_FILE)
        try:
            config.verify(self.root, self.root / SIGNATURE_FILE)
        except Exception as error:  # noqa: BLE001 - that library raises whatever its parsers do
            raise VerificationError(
                f"{SIGNATURE_FILE} does not hold for these files: {type(error).__name__}"
            ) from None
        return f"{SIGNATURE_FILE} holds, by the key that the lead vouches for", None

    def _note_unknown(self) -> None:
        count = len(self.keys.withdrawals)
        known = f"{count} withdrawals are known here, none of it" if count else "none is known here"
        text = f"{known}. Whether it was withdrawn since, only the lead's log can tell: ask"
        self._note(Finding(name="withdrawal", ok=None, text=text))

    # -- files -----------------------------------------------------------------------------------

    def _open(self, name: str) -> Path:
        path = self.root / name
        if path.is_symlink() or not path.is_file():
            what = "is no plain file" if path.exists() else "is missing"
            hint = "; it was made before releases were proved" if name == ENTRY_FILE else ""
            raise VerificationError(f"{name} {what}{hint}; ask the lead for the whole release")
        return path

    def _read(self, name: str, limit: int) -> bytes:
        try:
            with self._open(name).open("rb") as file:
                content = file.read(limit + 1)
        except OSError as error:
            raise VerificationError(f"{name} cannot be read: {error.strerror}") from None
        if len(content) > limit:
            raise VerificationError(f"{name} is longer than the {limit} bytes that it may have")
        return content

    def _digest(self, name: str, size: int) -> str:
        """SHA-256 of a file of just ``size`` bytes, hex; no more than that is read."""
        digest, left = hashlib.sha256(), size
        try:
            with self._open(name).open("rb") as file:
                while chunk := file.read(min(CHUNK_BYTES, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        break
                    digest.update(chunk)
        except OSError as error:
            raise VerificationError(f"{name} cannot be read: {error.strerror}") from None
        if left:
            raise VerificationError(
                f"{name} is not {size} bytes long, as it was released; fetch the release again"
            )
        return digest.hexdigest()
