"""Where the link that opens the page lies: a file of the firm's directory, for its owner alone."""

from pathlib import Path

from greylag_protocols.errors import ConfigError

from greylag_client.firm_files import read_file, write_private

LINK_FILE = "page.link"


def write_link(root: Path, link: str) -> None:
    """Put the next session's link there.

    Raises:
        ConfigError: it cannot be written.
    """
    write_private(root / LINK_FILE, f"{link}\n".encode())


def read_link(root: Path) -> str:
    """The link that opens the page of the agent that runs for ``root``.

    Raises:
        ConfigError: no page is served there.
    """
    if not (root / LINK_FILE).is_file():
        raise ConfigError(
            f"no page is served for {root}; start its agent with: greylag-client run {root} --page"
        )
    return read_file(root / LINK_FILE).decode("utf-8", "replace").strip()


def remove_link(root: Path) -> None:
    """No page is served any more."""
    (root / LINK_FILE).unlink(missing_ok=True)
