"""``greylag-client page``: the link that opens the page of a running agent."""

from greylag_client.firm import FirmDirectory
from greylag_client.page.link_file import read_link
from greylag_client.terminal import Directory, Format, say


def page(directory: Directory, output: Format = "text") -> None:
    """Print the link that opens the firm's page, once; the agent runs with `run --page`.
    显示本企业页面的链接（一次有效）。"""
    link = read_link(FirmDirectory.open(directory).root)
    say({"link": link}, link, output)
