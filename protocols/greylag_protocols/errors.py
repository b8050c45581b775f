"""The error tree that every greylag program speaks.

    GreylagError
    +-- ConfigError            the input or usage is at fault             exit 2
    +-- RefusedError           this party declines, by policy or protocol exit 1
    |   +-- BudgetExceededError  what was asked would pass a limit
    +-- RemoteError            a peer failed or answered out of protocol  exit 1
    +-- VerificationError      evidence does not hold                     exit 1

A message says what is wrong and what to do next; it never holds secrets or data.
"""

from typing import Literal

RefusalClass = Literal["policy", "protocol"]


class GreylagError(Exception):
    """Base of all errors that greylag raises on purpose."""

    exit_code = 1


class ConfigError(GreylagError):
    """A file, option or message that a person wrote is wrong; nothing was changed."""

    exit_code = 2


class RefusedError(GreylagError):
    """This party declines to take part.

    ``refusal_class`` is all that ever leaves the firm; the text stays in its own log.
    """

    def __init__(self, message: str, *, refusal_class: RefusalClass) -> None:
        super().__init__(message)
        self.refusal_class: RefusalClass = refusal_class


class BudgetExceededError(RefusedError):
    """A debit would pass a limit of the firm's policy."""

    def __init__(self, message: str) -> None:
        super().__init__(message, refusal_class="policy")


class RemoteError(GreylagError):
    """A peer failed, vanished or answered out of protocol."""

    def __init__(self, message: str, *, peer: str) -> None:
        super().__init__(message)
        self.peer = peer


class VerificationError(GreylagError):
    """Bytes, a signature or a chain do not verify."""
