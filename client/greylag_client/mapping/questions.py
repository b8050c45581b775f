"""What a person is asked, and how the answers come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from greylag_protocols.errors import ConfigError

CHOICES_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question with numbered choices.

    Attributes:
        chinese: the same question once more.
        proposal: index of the choice that is taken if the person has no other wish; None where
            nothing in the table speaks for any of them.
    """

    text: str
    choices: tuple[str, ...]
    chinese: str = ""
    proposal: int | None = None


YES_ZERO = ("yes, 0 是，为 0", "no, not known 否，未知")
Ask = Callable[[Question], int]  # the index of the choice


def take_proposals(question: Question) -> int:
    """Answer for a person who said yes to everything.

    Raises:
        ConfigError: there is nothing to say yes to.
    """
    if question.proposal is None:
        raise ConfigError(
            f"{question.text} Nothing can be proposed here ({', '.join(question.choices)}); run "
            "without --yes and answer, or give --mapping"
        )
    return question.proposal


def shortened(names: Sequence[str]) -> str:
    """Some names and how many more there are."""
    shown = ", ".join(names[:CHOICES_SHOWN])
    return shown + (f" and {len(names) - CHOICES_SHOWN} more" if len(names) > CHOICES_SHOWN else "")


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
