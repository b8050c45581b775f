"""What the lead says of its models, one statement each; ``releases`` tells what they come to.

release/v1      a model came out of a run (what earlier leads wrote; still read)
release/v2      the same, with a version, the files by digest, licence, permitted uses, an end
withdraw/v1     versions of a run's model are not to be used any more, and why
current/v1      which version of a plan's model is the one to use, and why
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from greylag_protocols import log
from greylag_protocols.encoding import parse_as
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.membership import Hex32
from greylag_protocols.signing import Signer, Statement
from greylag_protocols.terms import STRICT, Name, Text

RELEASE_KIND = "release/v2"
WITHDRAW_KIND = "withdraw/v1"
CURRENT_KIND = "current/v1"
KINDS = frozenset({log.RELEASE_KIND, RELEASE_KIND, WITHDRAW_KIND, CURRENT_KIND})

# A release is a directory of these files; the first group is named, by digest, in its log entry.
MODEL_FILE, ONNX_FILE, TERMS_FILE = "model.safetensors", "model.onnx", "terms.json"
FACTS_FILE, CARD_FILE, BOM_FILE = "release.json", "card.md", "ml-bom.cdx.json"
LICENCE_FILE, KEY_FILE = "LICENCE.txt", "model.pub"
ENTRY_FILE, PROOF_FILE = "release.dsse.json", "release.tlog-proof"
CHECKSUMS_FILE, SIGNATURE_FILE = "SHA256SUMS", "model.sig"

MAX_VERSIONS = 100_000
MAX_TIME_S = 1 << 40

Count = Annotated[int, Field(ge=0, le=10**9)]
VersionNumber = Annotated[int, Field(ge=1, le=MAX_VERSIONS)]
Time = Annotated[int, Field(ge=0, le=MAX_TIME_S)]
Because = Annotated[str, Field(max_length=400)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedFile:
    """One file of a release: its SHA-256 (hex) and its length."""

    __pydantic_config__ = STRICT
    name: FileName
    sha256: Hex32
    bytes: Annotated[int, Field(ge=0, le=1 << 40)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """Errors on rows of the lead's own that nobody else sees: outside every guarantee.

    Attributes:
        metric: ``error``: the mean over targets of root mean squared error / range;
            ``log_loss``: the mean negative logarithm of the true class's probability.
        before: what the version before had on the same rows, if it could be computed.
    """

    __pydantic_config__ = STRICT
    rows: Annotated[int, Field(ge=1, le=10**9)]
    metric: Literal["error", "log_loss"]
    value: Number
    before: Number | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFacts:
    """The predicate of ``release/v2``.

    Attributes:
        name: the plan's.
        terms: their digest; ``state``: that of the model and optimiser after the last round.
        issued_s, expires_s: Unix seconds; after the latter nobody is to use it.
        signing_key: SHA-256 of ``model.pub``, by which the lead vouches for the key of
            ``model.sig``.
        cosigners: how many firms' cosignatures the lead waited for.
        because: why it was released although the holdout had become worse; else empty.
    """

    __pydantic_config__ = STRICT
    consortium: Text
    name: Name
    version: VersionNumber
    terms: Hex32
    rounds: Count
    attempts: Count
    state: Hex32
    issued_s: Time
    expires_s: Time
    licence: Text
    permitted_uses: Annotated[tuple[Text, ...], Field(min_length=1, max_length=16)]
    files: Annotated[tuple[ReleasedFile, ...], Field(min_length=1, max_length=32)]
    signing_key: Hex32
    cosigners: Count
    holdout: Holdout | None
    because: Because


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """The predicate of ``withdraw/v1``."""

    __pydantic_config__ = STRICT
    consortium: Text
    name: Name
    versions: Annotated[tuple[VersionNumber, ...], Field(min_length=1, max_length=1000)]
    because: Text
    withdrawn_s: Time


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The predicate of ``current/v1``."""

    __pydantic_config__ = STRICT
    consortium: Text
    name: Name
    version: VersionNumber
    because: Because


def sign_release(signer: Signer, run: str, model: bytes, facts: ReleaseFacts) -> bytes:
    """The lead's word that the model with this digest is released.

    Raises:
        ConfigError: a text is too long, or the like: what a reader would refuse is never said.
    """
    return _sign(signer, RELEASE_KIND, run, model, facts)


def sign_withdrawal(signer: Signer, run: str, model: bytes, word: Withdrawal) -> bytes:
    """The lead's word that versions of this model are withdrawn.

    Raises:
        ConfigError: see ``sign_release``.
    """
    return _sign(signer, WITHDRAW_KIND, run, model, word)


def sign_current(signer: Signer, run: str, model: bytes, word: Current) -> bytes:
    """The lead's word which version is the one to use.

    Raises:
        ConfigError: see ``sign_release``.
    """
    return _sign(signer, CURRENT_KIND, run, model, word)


def _sign(
    signer: Signer, kind: str, run: str, model: bytes, word: ReleaseFacts | Withdrawal | Current
) -> bytes:
    predicate = asdict(word)
    parse_as(type(word), predicate, what=kind.partition("/")[0])
    return signer.sign(kind, run, model, predicate)


def parse_release(statement: Statement) -> ReleaseFacts:
    """What a ``release/v2`` says; its signature is the caller's affair.

    Raises:
        VerificationError: out of form: other keys, types or bounds, or a file named twice.
    """
    facts = _parse(ReleaseFacts, statement, RELEASE_KIND)
    if len({item.name for item in facts.files}) != len(facts.files):
        raise VerificationError("a release that names a file twice")
    return facts


def parse_current(statement: Statement) -> Current:
    """What a ``current/v1`` says.

    Raises:
        VerificationError: out of form.
    """
    return _parse(Current, statement, CURRENT_KIND)


def parse_withdrawal(statement: Statement) -> Withdrawal:
    """What a ``withdraw/v1`` says.

    Raises:
        VerificationError: out of form.
    """
    return _parse(Withdrawal, statement, WITHDRAW_KIND)


def _parse(cls: type[T], statement: Statement, kind: str) -> T:
    if statement.kind != kind:
        raise VerificationError(f"expected a {kind} statement, found {statement.kind:.40}")
    try:
        return parse_as(cls, statement.predicate, what=kind)
    except ConfigError as error:
        raise VerificationError(f"out of form: {error}") from None


def check_usable(
    run: str,
    model: bytes,
    facts: ReleaseFacts,
    *,
    now_s: float,
    withdrawals: Sequence[Statement] = (),
) -> None:
    """A release may be used now, as far as these withdrawals (verified ones of its lead) tell.

    Raises:
        VerificationError: it has expired, is not valid yet by a day, or was withdrawn.
    """
    for statement in withdrawals:
        word = parse_withdrawal(statement)
        if (
            (statement.subject, statement.digest) == (run, model)
            and (word.consortium, word.name) == (facts.consortium, facts.name)
            and facts.version in word.versions
        ):
            raise VerificationError(
                f"{facts.name} v{facts.version} was withdrawn on {day(word.withdrawn_s)}: "
                f"{word.because}. Ask the lead for another version"
            )
    if now_s >= facts.expires_s:
        raise VerificationError(
            f"the licence of {facts.name} v{facts.version} expired on {day(facts.expires_s)}; ask "
            "the lead for a newer release"
        )
    if now_s < facts.issued_s - 86_400:
        raise VerificationError(
            f"{facts.name} v{facts.version} was issued on {day(facts.issued_s)}, more than a day "
            "from now by this machine's clock; set the clock"
        )


def day(time_s: int) -> str:
    """The date (UTC) of a time in Unix seconds, or its number where no calendar has it."""
    try:
        return datetime.fromtimestamp(time_s, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return f"second {time_s}"
