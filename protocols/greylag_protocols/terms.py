"""The shapes of plans and terms: every key, its type and its bounds. All of it is public.

A plan is what an operator writes (TOML); terms are what a firm accepts and signs: their canonical
form (JCS) is hashed. ``greylag_protocols.plan`` leads from one to the other and holds the rules
that no single key can show.
"""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from greylag_protocols import accounting, parameters
from greylag_protocols.accounting import Mechanism
from greylag_protocols.data_terms import STRICT as STRICT
from greylag_protocols.data_terms import Count, Fraction, leave_out_unused
from greylag_protocols.data_terms import DataTerms as DataTerms
from greylag_protocols.data_terms import Feature as Feature
from greylag_protocols.data_terms import Range as Range
from greylag_protocols.data_terms import Target as Target
from greylag_protocols.data_terms import Text as Text
from greylag_protocols.encoding import canonical_json, tagged_hash
from greylag_protocols.optimiser import StepRule
from greylag_protocols.parameters import Parameter
from greylag_protocols.quantise import RingGrid

TERMS_VERSION: Literal["terms/v1"] = "terms/v1"
REJOIN_EVERY = 50  # a firm that dropped out may come back only at these rounds
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"

Unit = Literal["record", "group", "firm"]  # from fine to coarse
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Epsilon = Annotated[float, Field(gt=0, le=accounting.MAX_EPSILON)]
Delta = Annotated[float, Field(ge=1e-12, lt=1e-2)]  # below, the loss distribution's own tail counts
NoiseMultiplier = Annotated[
    float, Field(ge=accounting.MIN_NOISE_MULTIPLIER, le=2 * accounting.MAX_NOISE_MULTIPLIER)
]
ClipNorm = Annotated[float, Field(ge=1e-9, le=1e9)]  # keeps the ring's grid far from denormals


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTerms:
    """What the run is called and for."""

    __pydantic_config__ = STRICT
    name: Name
    purpose: Text
    suite: Literal["v1"] = "v1"  # X25519, Ed25519, AES-256-CTR, SHA-256


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginTerms:
    """The installed package that a model of family ``plugin:NAME`` is built by, and nothing else.

    ``sha256`` is a digest of its files as they lie on disk (greylag_client.plugins).
    """

    __pydantic_config__ = STRICT
    distribution: Text
    version: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterTerms:
    """A tensor of a plugin's model: who does not have the plugin still knows what weights mean."""

    __pydantic_config__ = STRICT
    name: Text
    shape: Annotated[
        tuple[Annotated[int, Field(ge=1, le=2**24)], ...], Field(min_length=1, max_length=2)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTerms:
    """A model that every firm can build from this description alone, or from a package too that it
    installed itself."""

    __pydantic_config__ = STRICT
    family: str = "mlp"
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(max_length=16)] = (
        64,
    )
    activation: Literal["tanh", "relu"] = "tanh"
    # Of family plugin:NAME alone; otherwise they are absent from the canonical form, so that terms
    # without plugins keep their bytes:
    plugin: PluginTerms | None = None
    parameters: Annotated[tuple[ParameterTerms, ...], Field(max_length=256)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPrivacy:
    """Privacy as a plan states it: ``epsilon``, from which the noise is solved (or, for experts,
    ``noise_multiplier``, from which epsilon is computed); never both."""

    __pydantic_config__ = STRICT
    unit: Unit = "record"
    epsilon: Epsilon | None = None
    noise_multiplier: NoiseMultiplier | None = None
    delta: Delta
    clip_norm: ClipNorm = 1.0
    max_colluding: Annotated[int, Field(ge=1)]
    min_firms: Annotated[int, Field(ge=3, le=10_000)]
    max_attempts: Count | None = None  # default: 1.1 x rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyTerms:
    """Privacy as it is accepted: epsilon is the cost of all ``max_attempts`` releases."""

    __pydantic_config__ = STRICT
    unit: Unit
    epsilon: Epsilon
    noise_multiplier: NoiseMultiplier
    delta: Delta
    clip_norm: ClipNorm
    max_colluding: Annotated[int, Field(ge=1)]
    min_firms: Annotated[int, Field(ge=3, le=10_000)]
    max_attempts: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTerms:
    """Rounds and the public constants of the step."""

    __pydantic_config__ = STRICT
    rounds: Annotated[int, Field(ge=1, le=100_000)]
    sampling_rate: Annotated[float, Field(ge=1e-9, le=1)]  # of units; 1 for unit = "firm"
    optimiser: Literal["adam", "momentum"] = "adam"
    learning_rate: Positive = 0.003
    momentum: Fraction = 0.9
    second_moment: Fraction = 0.999
    stabiliser: Positive = 1e-8
    schedule: Literal["constant", "linear"] = "linear"
    ema: Fraction = 0.98
    # Absent from the canonical form where unused, so that terms without them keep their bytes:
    warmup_rounds: Annotated[int, Field(ge=0, le=100_000)] = 0  # over them the rate rises linearly
    tail_rounds: Annotated[int, Field(ge=0, le=100_000)] = 0  # released: their mean, not the ema
    # Adam's second moment without the noise, at least so many times the noise's variance:
    noise_floor: Annotated[float, Field(gt=0, le=1)] | None = None
    reply_offset_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    # What a firm does by itself in a round of unit = "firm":
    local_epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    local_batches: Annotated[int, Field(ge=1, le=1000)] = 1  # steps of one epoch
    local_learning_rate: Positive = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the operator writes."""

    __pydantic_config__ = STRICT
    run: RunTerms
    data: DataTerms
    model: ModelTerms = field(default_factory=ModelTerms)
    privacy: PlanPrivacy
    training: TrainingTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What every party agrees on for one run."""

    __pydantic_config__ = STRICT
    version: Literal["terms/v1"]
    consortium: Text
    run_id: Name
    run: RunTerms
    data: DataTerms
    model: ModelTerms
    privacy: PrivacyTerms
    training: TrainingTerms

    def encode(self) -> bytes:
        """The canonical bytes that are hashed and signed."""
        value = asdict(self)
        leave_out_unused(value["data"])
        for key in ("warmup_rounds", "tail_rounds", "noise_floor"):
            if not value["training"][key]:
                del value["training"][key]
        if self.model.plugin is None and self.model.parameters is None:
            del value["model"]["plugin"], value["model"]["parameters"]
        return canonical_json(value)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The model's tensors, in order."""
        return parameters_of(self.data, self.model)

    @property
    def dimension(self) -> int:
        return parameters.dimension(self.parameters)

    @property
    def batch_cap(self) -> int:
        """Most units of one firm in one release; also the number that batches are padded to."""
        return self.mechanism.batch_cap

    @property
    def rows_per_unit(self) -> int:
        """Rows that a unit is padded to."""
        return rows_per_unit(self.data, self.privacy.unit)

    @property
    def mechanism(self) -> Mechanism:
        return mechanism_of(
            self.data, self.training, self.privacy.unit, self.privacy.noise_multiplier
        )

    @property
    def denominator(self) -> float:
        """Expected units in one release, over all firms: public, whatever is really sampled."""
        expected = {
            "record": self.data.expected_records,
            "group": self.data.expected_groups,
            "firm": self.data.expected_firms,
        }[self.privacy.unit]
        return self.training.sampling_rate * (expected or 1)

    @property
    def step_rule(self) -> StepRule:
        training = self.training
        return StepRule(
            optimiser=training.optimiser,
            learning_rate=training.learning_rate,
            schedule=training.schedule,
            rounds=training.rounds,
            momentum=training.momentum,
            second_moment=training.second_moment,
            stabiliser=training.stabiliser,
            ema=training.ema,
            warmup_rounds=training.warmup_rounds,
            tail_rounds=training.tail_rounds,
            noise_floor=training.noise_floor,
        )

    def grid(self, firms: int) -> RingGrid:
        """The ring grid for a roster of ``firms``."""
        return RingGrid.of(
            firms=firms,
            max_colluding=self.privacy.max_colluding,
            clip_norm=self.privacy.clip_norm,
            noise_multiplier=self.privacy.noise_multiplier,
            batch_cap=self.batch_cap,
            dimension=self.dimension,
        )

    def noise_variance(self, firms: int) -> float:
        """Variance of what noise there is in each coordinate of a mean gradient, for a roster of
        ``firms``: all of them add noise, each ``1 / (firms - max_colluding)`` of what is promised,
        and rounding it adds a twelfth of a squared grid step."""
        grid = self.grid(firms)
        one = grid.noise_std * grid.noise_std + grid.step * grid.step / 12.0
        return firms * one / (self.denominator * self.denominator)

    def epsilon_after(self, releases: int) -> float:
        """What ``releases`` attempts cost, at the terms' delta."""
        return accounting.epsilon_of(self.mechanism, releases=releases, delta=self.privacy.delta)


def terms_digest(encoded: bytes) -> bytes:
    """Hash of the terms' bytes as received, 32 bytes."""
    return tagged_hash("greylag/terms/v1", encoded)


def mechanism_of(
    data: DataTerms, training: TrainingTerms, unit: Unit, noise_multiplier: float
) -> Mechanism:
    """The release that a plan's choices amount to, for one unit of privacy."""
    if unit == "firm":
        # A firm is there or not: nothing is sampled, and its clipped update counts once.
        return Mechanism(
            event_type=accounting.FIRM_GAUSSIAN,
            sampling_rate=1.0,
            noise_multiplier=noise_multiplier,
            records_cap=1,
            batch_cap=1,
        )
    most = data.max_groups_per_firm if unit == "group" else data.max_records_per_firm
    return accounting.poisson_gaussian(
        sampling_rate=training.sampling_rate,
        noise_multiplier=noise_multiplier,
        records_cap=most or 1,
    )


def rows_per_unit(data: DataTerms, unit: Unit) -> int:
    """Most rows of one unit; further ones are left out."""
    most = {
        "record": 1,
        "group": data.max_records_per_group,
        "firm": data.max_records_per_firm,
    }[unit]
    return most or 1


def parameters_of(data: DataTerms, model: ModelTerms) -> tuple[Parameter, ...]:
    """The tensors of the model that ``model`` means on ``data``, in order."""
    if model.parameters is not None:
        return parameters.declared_parameters(
            [(item.name, item.shape) for item in model.parameters]
        )
    return parameters.mlp_parameters(
        inputs=data.input_width, hidden=model.hidden, outputs=data.outputs
    )
