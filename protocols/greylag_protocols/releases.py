"""What a log tells of its lead's models: versions, which of them are withdrawn, which is current.

Versions of a plan's model count 1, 2, 3, ... over all its runs, in the log's order. A new one is
the current one; whoever withdraws the current one names another by ``current/v1``, or none is. The
statements themselves are ``release_words``; they can be had from here too.
"""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from greylag_protocols import log
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.release_words import BOM_FILE as BOM_FILE
from greylag_protocols.release_words import CARD_FILE as CARD_FILE
from greylag_protocols.release_words import CHECKSUMS_FILE as CHECKSUMS_FILE
from greylag_protocols.release_words import CURRENT_KIND as CURRENT_KIND
from greylag_protocols.release_words import ENTRY_FILE as ENTRY_FILE
from greylag_protocols.release_words import FACTS_FILE as FACTS_FILE
from greylag_protocols.release_words import KEY_FILE as KEY_FILE
from greylag_protocols.release_words import KINDS as KINDS
from greylag_protocols.release_words import LICENCE_FILE as LICENCE_FILE
from greylag_protocols.release_words import MODEL_FILE as MODEL_FILE
from greylag_protocols.release_words import ONNX_FILE as ONNX_FILE
from greylag_protocols.release_words import PROOF_FILE as PROOF_FILE
from greylag_protocols.release_words import RELEASE_KIND as RELEASE_KIND
from greylag_protocols.release_words import SIGNATURE_FILE as SIGNATURE_FILE
from greylag_protocols.release_words import TERMS_FILE as TERMS_FILE
from greylag_protocols.release_words import WITHDRAW_KIND as WITHDRAW_KIND
from greylag_protocols.release_words import Current as Current
from greylag_protocols.release_words import Holdout as Holdout
from greylag_protocols.release_words import ReleasedFile as ReleasedFile
from greylag_protocols.release_words import ReleaseFacts as ReleaseFacts
from greylag_protocols.release_words import Withdrawal as Withdrawal
from greylag_protocols.release_words import check_usable as check_usable
from greylag_protocols.release_words import day as day
from greylag_protocols.release_words import parse_current as parse_current
from greylag_protocols.release_words import parse_release as parse_release
from greylag_protocols.release_words import parse_withdrawal as parse_withdrawal
from greylag_protocols.release_words import sign_current as sign_current
from greylag_protocols.release_words import sign_release as sign_release
from greylag_protocols.release_words import sign_withdrawal as sign_withdrawal
from greylag_protocols.signing import (
    PREDICATE_PREFIX,
    Statement,
    parse_statement,
    verify_statement,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A released version as the log tells it; ``facts`` is None of ``release/v1``."""

    run: str
    name: str
    version: int
    position: int
    model: bytes
    facts: ReleaseFacts | None
    withdrawn: Withdrawal | None = None


@dataclass(slots=True, kw_only=True)
class ReleaseHistory:
    """All versions of all plans' models, as a log tells them.

    Attributes:
        consortium: whose log it is.
        versions: by plan name, in order.
        current: by plan name the version to use; absent where none is.
    """

    consortium: str
    versions: dict[str, list[Version]] = field(default_factory=dict)
    current: dict[str, int] = field(default_factory=dict)

    def take(self, statement: Statement, position: int) -> None:
        """The next statement, whose signature by the lead was checked; others are passed over.

        Raises:
            VerificationError: it does not go with what was before.
        """
        if statement.kind == log.RELEASE_KIND:
            name = statement.subject.rpartition("-")[0] or statement.subject
            self._add(statement, name, len(self.versions.get(name, ())) + 1, position, None)
        elif statement.kind == RELEASE_KIND:
            facts = parse_release(statement)
            self._check_consortium(facts.consortium)
            self._add(statement, facts.name, facts.version, position, facts)
        elif statement.kind == WITHDRAW_KIND:
            self._withdraw(statement, parse_withdrawal(statement))
        elif statement.kind == CURRENT_KIND:
            word = parse_current(statement)
            self._check_consortium(word.consortium)
            if self._version(statement, word.name, word.version).withdrawn is not None:
                raise VerificationError(
                    f"{word.name} v{word.version} is made current, which is withdrawn"
                )
            self.current[word.name] = word.version

    def _check_consortium(self, consortium: str) -> None:
        if consortium != self.consortium:
            raise VerificationError(f"a word about releases of {consortium!r:.80}")

    def _add(
        self,
        statement: Statement,
        name: str,
        version: int,
        position: int,
        facts: ReleaseFacts | None,
    ) -> None:
        known = self.versions.setdefault(name, [])
        if version != len(known) + 1:
            raise VerificationError(f"{name} v{version} follows v{len(known)}")
        known.append(
            Version(
                run=statement.subject,
                name=name,
                version=version,
                position=position,
                model=statement.digest,
                facts=facts,
            )
        )
        self.current[name] = version

    def _withdraw(self, statement: Statement, word: Withdrawal) -> None:
        self._check_consortium(word.consortium)
        for number in word.versions:
            found = self._version(statement, word.name, number)
            changed = replace(found, withdrawn=found.withdrawn or word)
            self.versions[word.name][number - 1] = changed
            if self.current.get(word.name) == number:
                del self.current[word.name]

    def _version(self, statement: Statement, name: str, number: int) -> Version:
        known = self.versions.get(name, [])
        if number > len(known):
            raise VerificationError(f"a word about {name} v{number}, which was never released")
        found = known[number - 1]
        if (found.run, found.model) != (statement.subject, statement.digest):
            raise VerificationError(f"a word about {name} v{number} that names another model")
        return found

    def of_run(self, run: str) -> list[Version]:
        """The versions that came out of a run."""
        return [item for known in self.versions.values() for item in known if item.run == run]

    def find(self, name: str, number: int) -> Version:
        """A version by its number.

        Raises:
            ConfigError: there is none; says which there are.
        """
        known = self.versions.get(name, [])
        if not 1 <= number <= len(known):
            have = f"v1 to v{len(known)}" if known else "no release yet"
            raise ConfigError(f"{name} has no v{number}; it has {have}")
        return known[number - 1]


def release_history(
    entries: Iterable[bytes], *, consortium: str, lead_key: bytes
) -> ReleaseHistory:
    """The releases that a log (its envelopes, from the first on) tells of.

    Raises:
        VerificationError: an entry about releases is not the lead's, or contradicts one before.
    """
    history = ReleaseHistory(consortium=consortium)
    for position, envelope in about_releases(entries):
        statement = parse_statement(envelope)
        if statement.kind not in KINDS:
            continue
        try:
            verified = verify_statement(envelope, lead_key, statement.kind)
            history.take(verified, position)
        except VerificationError as error:
            raise VerificationError(f"log entry {position}: {error}") from None
    return history


def about_releases(entries: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Entries that may be about releases, with their positions: nearly all others are receipts, and
    to parse those too would take a hundred times as long."""
    for position, envelope in enumerate(entries):
        if any(mark in envelope for mark in _MARKS):
            yield position, envelope


def _marks(text: bytes) -> Iterator[bytes]:
    """What base64 makes of a text in the midst of another, at each of the three places where it can
    start: the characters that depend on the text alone."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + text)
        yield encoded[(8 * before + 5) // 6 : 8 * (before + len(text)) // 6]


_MARKS = tuple(
    mark
    for word in sorted({kind.partition("/")[0] for kind in KINDS})
    for mark in _marks(f'"{PREDICATE_PREFIX}{word}/v'.encode())
)
