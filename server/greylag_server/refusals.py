"""What the enrolment server declines: a code for the firm's program, a sentence for its people."""

from greylag_protocols.errors import ConfigError
from greylag_protocols.invite import EnrolmentCode

from greylag_server.enrolment_store import Departure

GONE: dict[Departure, EnrolmentCode] = {
    "removed": "firm-removed",
    "revoked": "firm-revoked",
    "left": "firm-left",
}


class EnrolmentError(ConfigError):
    """A request that the lead declines; ``code`` is what the firm's program acts on."""

    def __init__(self, code: EnrolmentCode, message: str) -> None:
        super().__init__(message)
        self.code: EnrolmentCode = code
