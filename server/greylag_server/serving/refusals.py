"""Why a request is not answered: a code for programs, a sentence for people."""

from typing import Literal

from greylag_protocols.errors import GreylagError

Code = Literal["invalid", "not-found", "not-allowed", "used-up", "not-now", "withdrawn"]


class DeclinedError(GreylagError):
    """A request that is not answered; nothing was counted."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code
