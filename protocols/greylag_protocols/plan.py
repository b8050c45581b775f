"""From a plan to terms, and every rule beyond single values.

``settle_terms`` binds a plan to a consortium and a run, and solves the noise. Unknown keys are
errors with a suggestion; terms from outside are checked by the same rules as one's own.
"""

import math
import re
from collections import Counter
from dataclasses import asdict

from greylag_protocols import accounting, parameters
from greylag_protocols.data_terms import MISSING
from greylag_protocols.encoding import parse_as, parse_json, parse_toml
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import (
    NAME_PATTERN,
    TERMS_VERSION,
    DataTerms,
    Feature,
    ModelTerms,
    Plan,
    PlanPrivacy,
    PrivacyTerms,
    Range,
    Target,
    Terms,
    TrainingTerms,
    Unit,
    mechanism_of,
    parameters_of,
    rows_per_unit,
)

MAX_DIMENSION = 20_000_000
PLUGIN_PREFIX = "plugin:"
MAX_PADDED_ROWS = 10**9  # as many as a table may have
MAX_CATEGORY_COLUMNS = 10_000


def parse_plan(text: str) -> Plan:
    """A plan from TOML.

    Raises:
        ConfigError: TOML errors, unknown or missing keys, values outside their bounds, and
            combinations that make no sense; the message names the key and the remedy.
    """
    plan = parse_as(Plan, parse_toml(text, what="plan"), what="plan")
    _check_data(plan.data)
    _check_model(plan.data, plan.model)
    _check_privacy(plan.privacy, plan.training)
    _check_unit(plan.data, plan.training, plan.privacy.unit)
    _check_training(plan.training)
    return plan


def settle_terms(plan: Plan, *, consortium: str, run_id: str) -> Terms:
    """Terms from a plan: defaults filled in and the noise solved for ``max_attempts``.

    Raises:
        ConfigError: the noise cannot be solved, or consortium or run id are not acceptable names.
    """
    privacy, rounds = plan.privacy, plan.training.rounds
    max_attempts = privacy.max_attempts or -(-11 * rounds // 10)  # 1.1 x, rounded up exactly
    sigma = privacy.noise_multiplier
    mechanism = mechanism_of(plan.data, plan.training, privacy.unit, sigma or 1.0)
    if privacy.epsilon is not None:
        epsilon = privacy.epsilon
        sigma = accounting.solve_noise_multiplier(
            mechanism, epsilon=epsilon, delta=privacy.delta, releases=max_attempts
        )
    else:
        epsilon = accounting.epsilon_of(mechanism, releases=max_attempts, delta=privacy.delta)
    settled = PrivacyTerms(
        **{
            **asdict(privacy),
            "epsilon": epsilon,
            "noise_multiplier": sigma,
            "max_attempts": max_attempts,
        }
    )
    terms = Terms(
        version=TERMS_VERSION,
        consortium=consortium,
        run_id=run_id,
        run=plan.run,
        data=plan.data,
        model=plan.model,
        privacy=settled,
        training=plan.training,
    )
    return parse_terms(terms.encode())


def parse_terms(encoded: bytes) -> Terms:
    """Terms from outside, with every rule checked again, the promised epsilon among them.

    Raises:
        VerificationError: not JSON.
        ConfigError: not terms that a firm could accept.
    """
    terms = parse_as(Terms, parse_json(encoded), what="terms")
    check_terms(terms)
    return terms


def check_terms(terms: Terms) -> None:
    """All rules beyond single values.

    Raises:
        ConfigError: names the rule.
    """
    _check_data(terms.data)
    _check_model(terms.data, terms.model)
    privacy = terms.privacy
    _check_unit(terms.data, terms.training, privacy.unit)
    _check_training(terms.training)
    _check_counts(privacy.max_colluding, privacy.min_firms)
    if privacy.max_attempts < terms.training.rounds:
        raise ConfigError("privacy.max_attempts is below training.rounds; raise it")
    terms.grid(privacy.min_firms)
    cost = terms.epsilon_after(privacy.max_attempts)
    if cost > privacy.epsilon * (1 + 1e-6):
        raise ConfigError(
            f"{privacy.max_attempts} attempts with noise {privacy.noise_multiplier} cost epsilon "
            f"{cost:.4f}, more than the {privacy.epsilon} that the terms promise"
        )


def _check_privacy(privacy: PlanPrivacy, training: TrainingTerms) -> None:
    if (privacy.epsilon is None) == (privacy.noise_multiplier is None):
        found = "neither" if privacy.epsilon is None else "both"
        raise ConfigError(
            f"plan: privacy.epsilon and privacy.noise_multiplier: {found} given; give epsilon "
            "and the noise is solved from it"
        )
    if privacy.max_attempts is not None and privacy.max_attempts < training.rounds:
        raise ConfigError("plan: privacy.max_attempts is below training.rounds; raise it")
    _check_counts(privacy.max_colluding, privacy.min_firms)


def _check_unit(data: DataTerms, training: TrainingTerms, unit: Unit) -> None:
    """Each unit needs its public bounds, and its own way to sample."""
    wanted: dict[str, object] = {}
    if unit == "group":
        wanted = {
            "group": data.group,
            "expected_groups": data.expected_groups,
            "max_groups_per_firm": data.max_groups_per_firm,
            "max_records_per_group": data.max_records_per_group,
        }
    elif unit == "firm":
        wanted = {"expected_firms": data.expected_firms}
        if training.sampling_rate != 1:
            raise ConfigError(
                'privacy.unit = "firm": every firm takes part in every round, so '
                "training.sampling_rate must be 1"
            )
    absent = [key for key, value in wanted.items() if value is None]
    if absent:
        raise ConfigError(
            f"privacy.unit = {unit!r} needs data.{' and data.'.join(absent)} as well "
            "(docs/units.md says what they mean)"
        )
    padded = mechanism_of(data, training, unit, 1.0).batch_cap * rows_per_unit(data, unit)
    if padded > MAX_PADDED_ROWS:
        raise ConfigError(
            f"a batch padded to {padded} rows is beyond {MAX_PADDED_ROWS}: lower sampling_rate, "
            "max_groups_per_firm or max_records_per_group"
        )


def _check_training(training: TrainingTerms) -> None:
    for key in ("warmup_rounds", "tail_rounds"):
        if getattr(training, key) > training.rounds:
            raise ConfigError(f"training.{key} is above training.rounds; lower it")
    if training.noise_floor is not None and training.optimiser != "adam":
        raise ConfigError('training.noise_floor belongs to optimiser = "adam"; leave it out')


def _check_counts(max_colluding: int, min_firms: int) -> None:
    if max_colluding > min_firms - 2:
        raise ConfigError(
            f"privacy.max_colluding = {max_colluding} leaves fewer than two honest firms in a "
            f"roster of min_firms = {min_firms}; it may be at most {min_firms - 2}"
        )


def _check_data(data: DataTerms) -> None:
    if data.task not in ("regression", "classification"):
        raise ConfigError(f"data.task = {data.task!r} is not yet supported; use 'regression'")
    columns = Counter([*data.feature_names, *data.target_names])
    twice = sorted(name for name, count in columns.items() if count > 1)
    if twice:
        raise ConfigError(f"data: column {twice[0]!r} stands twice among features and targets")
    if data.group in columns:
        raise ConfigError(f"data.group {data.group!r} is also a feature or a target")
    if any(label != label.strip() for label in data.missing_values):
        raise ConfigError("data.missing_values: blanks around a value never count; leave them out")
    for feature in data.features:
        _check_feature(data, feature)
    if data.columns_width - len(columns) > MAX_CATEGORY_COLUMNS:
        raise ConfigError(
            f"data.features: the categories make more than {MAX_CATEGORY_COLUMNS} inputs; list "
            "fewer, with other = true for the rest, or declare an order with ordered = true"
        )
    if data.task == "classification" and len(data.targets) != 1:
        raise ConfigError(
            "data.targets: a classification has exactly one target; numbers beside it are another "
            "plan, since one run never predicts both"
        )
    for target in data.targets:
        _check_target(target, data.task)
        if both := sorted({*(target.classes or ())} & {*data.missing_values}):
            raise ConfigError(
                f"target {target.name!r}: class {both[0]!r} also says that a value is missing"
            )
    if data.expected_records > 10_000 * data.max_records_per_firm:
        raise ConfigError("data.expected_records is beyond 10,000 firms of max_records_per_firm")


def _check_feature(data: DataTerms, feature: Feature) -> None:
    """Numbers with a range, or texts with categories; and nothing that belongs to the other."""
    what, labels = f"feature {feature.names[0]!r}", feature.categories
    if (feature.range is None) == (labels is None):
        found = "neither" if labels is None else "both"
        raise ConfigError(
            f"{what}: {found} of 'range' (for numbers) and 'categories' (for texts); give one"
        )
    if labels is None:
        if feature.other or feature.ordered:
            raise ConfigError(f"{what}: 'other' and 'ordered' belong to 'categories'")
        _check_range(what, feature.bounds)
        return
    if feature.unit or feature.scale != "linear":
        raise ConfigError(f"{what}: categories have neither 'unit' nor 'scale'; leave them out")
    if len(set(labels)) != len(labels) or len(labels) + feature.other < 2:
        raise ConfigError(f"{what}: at least two different categories are needed")
    if feature.ordered and feature.other:
        raise ConfigError(f"{what}: what is not listed has no place in an order; drop 'other'")
    if any(label != label.strip() for label in labels):
        raise ConfigError(f"{what}: blanks around a category never count; leave them out")
    if both := sorted({*labels} & {*MISSING, *data.missing_values}):
        raise ConfigError(f"{what}: category {both[0]!r} also says that a value is missing")


def _check_target(target: Target, task: str) -> None:
    if task == "classification":
        if target.classes is None or target.range is not None:
            raise ConfigError(
                f"target {target.name!r}: a class needs 'classes' and no 'range'; numbers are "
                "another plan with task = 'regression', since one run never predicts both"
            )
        if len(set(target.classes)) != len(target.classes) or len(target.classes) < 2:
            raise ConfigError(f"target {target.name!r}: at least two different classes are needed")
    elif target.range is None or target.classes is not None:
        raise ConfigError(
            f"target {target.name!r}: a number needs 'range' and no 'classes'; a class is another "
            "plan with task = 'classification', since one run never predicts both"
        )
    else:
        _check_range(f"target {target.name!r}", target.range)


def _check_range(what: str, bounds: Range) -> None:
    if not bounds[0] < bounds[1]:
        raise ConfigError(f"{what}: range {list(bounds)} must go from low to high")
    if not math.isfinite(bounds[1] - bounds[0]):
        raise ConfigError(f"{what}: range {list(bounds)} is too wide to divide by")


def _check_model(data: DataTerms, model: ModelTerms) -> None:
    if model.family.startswith(PLUGIN_PREFIX):
        _check_plugin(model)
    elif model.family != "mlp":
        raise ConfigError(
            f"model.family = {model.family!r} is not yet supported; use 'mlp' or 'plugin:NAME'"
        )
    elif model.plugin is not None or model.parameters is not None:
        raise ConfigError("model.plugin and model.parameters need model.family = 'plugin:NAME'")
    size = parameters.dimension(parameters_of(data, model))
    if size > MAX_DIMENSION:
        raise ConfigError(f"the model has {size} weights; at most {MAX_DIMENSION} are allowed")


def _check_plugin(model: ModelTerms) -> None:
    """A plugin's model is described by its tensors; ``hidden`` and ``activation`` say nothing."""
    name = model.family.removeprefix(PLUGIN_PREFIX)
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"model.family = {model.family!r:.80}: a plugin's name is of a-z, 0-9 and hyphens"
        )
    if model.plugin is None or not model.parameters:
        raise ConfigError(
            f"model.family = {model.family!r} needs [model.plugin] and [[model.parameters]]; "
            "`greylag-client plugins` shows what to paste"
        )
    if (model.hidden, model.activation) != (ModelTerms().hidden, ModelTerms().activation):
        raise ConfigError("model.hidden and model.activation are of 'mlp'; leave them out")
    counts = Counter(item.name for item in model.parameters)
    twice = sorted(item for item, count in counts.items() if count > 1)
    if twice:
        raise ConfigError(f"model.parameters: {twice[0]!r:.80} stands there twice")


def run_id_for(name: str, nonce: str) -> str:
    """A run id: the plan's name and a nonce, so that no two runs share one."""
    return re.sub(r"-+", "-", f"{name[:28]}-{nonce}")
