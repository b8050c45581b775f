"""How the lead's programs log: lines for people, or one JSON object a line for machines."""

import logging
import sys
from typing import Literal

from rich.console import Console
from rich.logging import RichHandler

NOISY = ("absl", "httpx", "flwr", "uvicorn")


def set_up_logging(form: Literal["text", "json"], console: Console) -> None:
    """Log to stderr; called again, it replaces what it set up before."""
    handler: logging.Handler
    if form == "json":
        import structlog

        handler = logging.StreamHandler(sys.stderr)
        shared: list[structlog.typing.Processor] = [
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ]
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=shared,
                processors=[
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    # The traceback's text, without the frames' local variables: they hold keys.
                    structlog.processors.format_exc_info,
                    structlog.processors.JSONRenderer(ensure_ascii=False),
                ],
            )
        )
    else:
        handler = RichHandler(console=console, show_path=False, markup=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.ERROR)
