"""The shape of every firm's table: columns, their public bounds or categories, and what is missing.

Nothing here is read off data. What a plan does not use is absent from the terms' canonical form, so
that terms without it keep their bytes.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from greylag_protocols.encoding import EXACT_INT

STRICT = ConfigDict(extra="forbid", strict=True)
MAX_CATEGORIES = 1000  # of one column
MAX_MISSING_VALUES = 64
MISSING = ("", "NA")  # cells that are gaps under every plan; blanks around them do not count

Text = Annotated[str, Field(min_length=1, max_length=400)]
Label = Annotated[str, Field(min_length=1, max_length=100)]  # what a cell may hold
Count = Annotated[int, Field(ge=1, le=10**9)]
Multiplier = Annotated[float, Field(gt=0, le=1e3)]  # keeps every gradient finite
Fraction = Annotated[float, Field(ge=0, lt=1)]
Range = tuple[
    Annotated[float, Field(allow_inf_nan=False)], Annotated[float, Field(allow_inf_nan=False)]
]
Missing = Literal["refuse", "zero-and-flag"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A column to predict: a number with public bounds, or one of public classes.

    A number enters the loss as ``multiplier * (2 u - 1)``, ``u`` its place in the range. A larger
    multiplier makes gradients longer: with clipping it weighs small errors more.
    """

    __pydantic_config__ = STRICT
    name: Text
    unit: str = ""
    range: Range | None = None
    classes: tuple[Text, ...] | None = None
    multiplier: Multiplier = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """Columns of one kind: numbers with public bounds, or texts from a public list.

    With ``u = (value - low) / (high - low)``, a number enters the model as
    ``multiplier * sqrt(u)`` (``sqrt``) or ``multiplier * (2 u - 1)`` (``linear``). Of a text every
    category is an input of its own, ``multiplier`` for the one that it is and 0 for the others;
    ``ordered`` ones are places on one scale instead, the first at ``-multiplier``, the last at
    ``multiplier``.

    Attributes:
        other: values beyond the list have one more input; otherwise they are refused.
        missing: overrides ``DataTerms.missing`` for these columns.
    """

    __pydantic_config__ = STRICT
    names: Annotated[tuple[Text, ...], Field(min_length=1)]
    unit: str = ""
    range: Range | None = None
    scale: Literal["linear", "sqrt"] = "linear"
    multiplier: Multiplier = 1.0
    categories: Annotated[tuple[Label, ...], Field(max_length=MAX_CATEGORIES)] | None = None
    other: bool = False
    ordered: bool = False
    missing: Missing | None = None

    @property
    def bounds(self) -> Range:
        """The public range of the raw values: of categories, the first and last one's number."""
        if self.categories is not None:
            return 0.0, float(len(self.categories) - 1 + self.other)
        return self.range or (0.0, 1.0)  # one of the two is there: ``plan`` sees to it

    @property
    def one_hot(self) -> bool:
        """Whether each category is an input of its own."""
        return self.categories is not None and not self.ordered

    @property
    def width(self) -> int:
        """Inputs of one column, but for its flag."""
        return len(self.categories or ()) + self.other if self.one_hot else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTerms:
    """The shape of every firm's table. Bounds are domain knowledge, never read off data."""

    __pydantic_config__ = STRICT
    standard: Text
    task: Literal["regression", "classification", "sequence", "text"]
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    features: Annotated[tuple[Feature, ...], Field(min_length=1)]
    missing: Missing = "refuse"
    # What says that a value is missing, besides an empty cell and NA:
    missing_values: Annotated[tuple[Label, ...], Field(max_length=MAX_MISSING_VALUES)] = ()
    group: Text | None = None  # rows with one value of this column stand on one side of the split
    holdout: Fraction = 0.2
    split_seed: Annotated[int, Field(ge=0, le=EXACT_INT)] = 0
    expected_records: Count  # over all firms; the denominator of unit = "record"
    max_records_per_firm: Count  # bounds every firm's table
    # Wanted by unit = "group":
    expected_groups: Count | None = None  # over all firms: the denominator
    max_groups_per_firm: Count | None = None
    max_records_per_group: Annotated[int, Field(ge=1, le=100_000)] | None = (
        None  # more are left out
    )
    # Wanted by unit = "firm":
    expected_firms: Annotated[int, Field(ge=1, le=10_000)] | None = None  # the denominator

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(name for feature in self.features for name in feature.names)

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple(target.name for target in self.targets)

    @property
    def by_feature(self) -> dict[str, Feature]:
        """What each feature column is."""
        return {name: feature for feature in self.features for name in feature.names}

    @property
    def may_miss(self) -> tuple[bool, ...]:
        """Which feature columns may have gaps, and a flag for them."""
        return tuple(
            (feature.missing or self.missing) == "zero-and-flag"
            for feature in self.features
            for _ in feature.names
        )

    @property
    def columns_width(self) -> int:
        """Columns of all features once categories are spread, without flags."""
        return sum(len(feature.names) * feature.width for feature in self.features)

    @property
    def input_width(self) -> int:
        """Inputs of the model."""
        return self.columns_width + sum(self.may_miss)

    @property
    def outputs(self) -> int:
        """Outputs of the model: one a target, or one a class."""
        return len(self.targets[0].classes or self.targets)


def leave_out_unused(data: dict[str, Any]) -> None:
    """Take keys that terms/v1 did not always have out of ``asdict(DataTerms)`` where unused."""
    later = ("range", "categories", "other", "ordered", "missing")
    for part, names in ((data, ("missing_values",)), *((item, later) for item in data["features"])):
        for name in names:
            if not part[name]:
                del part[name]
