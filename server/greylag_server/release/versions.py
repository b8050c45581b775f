"""Versions of a plan's model, all of them told by the log: list, roll back, withdraw."""

from greylag_protocols.errors import ConfigError
from greylag_protocols.releases import (
    WITHDRAW_KIND,
    Current,
    ReleaseHistory,
    Version,
    Withdrawal,
    about_releases,
    parse_withdrawal,
    release_history,
    sign_current,
    sign_withdrawal,
)
from greylag_protocols.signing import parse_statement

from greylag_server.consortium import Consortium
from greylag_server.store import Store


def read_history(store: Store, consortium: Consortium) -> ReleaseHistory:
    """All releases of this consortium."""
    return release_history(
        store.entries(),
        consortium=consortium.settings.id,
        lead_key=consortium.signer.public_key,
    )


def roll_back(
    store: Store, consortium: Consortium, name: str, number: int, *, because: str
) -> Version:
    """Log which version of ``name`` is the one to use.

    Raises:
        ConfigError: there is none of that number, or it is withdrawn.
    """
    with store.transaction():
        version = read_history(store, consortium).find(name, number)
        if version.withdrawn is not None:
            raise ConfigError(
                f"{name} v{number} is withdrawn ({version.withdrawn.because}); choose another: "
                "greylag-server releases"
            )
        word = Current(
            consortium=consortium.settings.id, name=name, version=number, because=because
        )
        store.append([sign_current(consortium.signer, version.run, version.model, word)])
    return version


def withdraw_run(
    store: Store, consortium: Consortium, run: str, *, because: str, now_s: float
) -> tuple[bytes, Withdrawal]:
    """Log that the releases of a run are withdrawn; the statement, and what it says. Where that was
    done before, what was said then.

    Raises:
        ConfigError: the run has no release.
    """
    with store.transaction():
        versions = read_history(store, consortium).of_run(run)
        if not versions:
            raise ConfigError(f"run {run} has no release; see greylag-server releases")
        standing = [item for item in versions if item.withdrawn is None]
        if not standing:
            return _logged(store, versions[-1])
        word = Withdrawal(
            consortium=consortium.settings.id,
            name=standing[-1].name,
            versions=tuple(item.version for item in standing),
            because=because,
            withdrawn_s=int(now_s),
        )
        envelope = sign_withdrawal(consortium.signer, run, standing[-1].model, word)
        store.append([envelope])
    return envelope, word


def _logged(store: Store, version: Version) -> tuple[bytes, Withdrawal]:
    found = []
    for _, envelope in about_releases(store.entries()):
        statement = parse_statement(envelope)
        if statement.kind == WITHDRAW_KIND and statement.subject == version.run:
            word = parse_withdrawal(statement)
            if version.version in word.versions:
                found.append((envelope, word))
    return found[0]
