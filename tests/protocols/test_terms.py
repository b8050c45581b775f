import json
import re
import tomllib

import pytest
from greylag_protocols import terms as terms_module
from greylag_protocols.encoding import canonical_json
from greylag_protocols.errors import ConfigError, GreylagError, VerificationError
from greylag_protocols.plan import parse_plan, parse_terms, run_id_for, settle_terms
from greylag_protocols.terms import Terms, terms_digest


def _edited(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the plan"
    return text.replace(old, new)


def test_the_designs_example_plan_parses_as_it_stands(plan_text):
    plan = parse_plan(plan_text)
    assert plan.data.feature_names == ("SiO2", "B2O3")
    assert plan.data.features[0].range == (0.0, 100.0)
    assert plan.privacy.epsilon == 2.0
    assert plan.privacy.noise_multiplier is None
    assert plan.model.hidden == (128, 128)
    assert plan.training.rounds == 500


BAD_PLANS = [
    # (what stands in the plan, what stands there instead, what the message must say)
    (
        "sampling_rate =",
        "sampling_rat =",
        r"training\.sampling_rat'.* did you mean 'sampling_rate'",
    ),
    ("[model]", "[modle]", r"unknown key 'modle', did you mean 'model'"),
    ("rounds = 500", "", r"key 'training\.rounds' is missing"),
    ("epsilon = 2.0", "epsilon = 2.0\nnoise_multiplier = 3.0", r"privacy\.epsilon.*both given"),
    ("epsilon = 2.0", "", r"privacy\.epsilon.*neither given"),
    ("max_colluding = 6", "max_colluding = 7", r"privacy\.max_colluding = 7.*at most 6"),
    ("max_colluding = 6", "max_colluding = 0", r"privacy\.max_colluding"),
    ("min_firms = 8", "min_firms = 2", r"privacy\.min_firms"),
    ("sampling_rate = 0.2", "sampling_rate = 0", r"training\.sampling_rate"),
    ("sampling_rate = 0.2", "sampling_rate = 1.5", r"training\.sampling_rate"),
    ("sampling_rate = 0.2", "sampling_rate = -0.1", r"training\.sampling_rate"),
    ("max_attempts = 550", "max_attempts = 499", r"privacy\.max_attempts is below training\.rou"),
    ("range = [300, 1300]", "range = [1300, 300]", r"'tg_k'.*range.*low to high"),
    ("range = [300, 1300]", "range = [300, 300]", r"'tg_k'.*range.*low to high"),
    ("range = [0, 100]", "range = [100, 0]", r"'SiO2'.*range.*low to high"),
    ("range = [0, 100]", "range = [-1.7e308, 1.7e308]", r"'SiO2'.*range.*too wide"),
    ("range = [0, 100]", "range = [0, 100, 200]", r"data\.features\.0\.range"),
    ('"B2O3"', '"SiO2"', r"column 'SiO2' stands twice"),
    ('"B2O3"', '"tg_k"', r"column 'tg_k' stands twice"),
    ('group = "ref_id"', 'group = "tg_k"', r"data\.group 'tg_k'"),
    ('task = "regression"', 'task = "classification"', r"'tg_k'.*'classes'"),
    ('task = "regression"', 'task = "sequence"', r"data\.task = 'sequence' is not yet"),
    ('task = "regression"', 'task = "text"', r"data\.task = 'text' is not yet"),
    ('task = "regression"', 'task = "regresion"', r"data\.task"),
    ("range = [300, 1300]", 'classes = ["a", "b"]', r"'tg_k'.*'range'"),
    (", range = [300, 1300]", "", r"'tg_k'.*'range'"),
    ('unit = "record"', 'unit = "group"', r"'group' needs data\.expected_groups and data\.max_gro"),
    ('unit = "record"', 'unit = "firm"', r'"firm".*sampling_rate must be 1'),
    ('family = "mlp"', 'family = "tcn"', r"model\.family = 'tcn' is not yet"),
    ("rounds = 500", 'rounds = "500"', r"training\.rounds"),
    ("rounds = 500", "rounds = true", r"training\.rounds"),
    ("rounds = 500", "rounds = 500.0", r"training\.rounds"),
    ("rounds = 500", "rounds = 0", r"training\.rounds"),
    ("rounds = 500", "rounds = 99999999999999999999", r"training\.rounds"),
    ("split_seed = 0", "split_seed = 99999999999999999999", r"data\.split_seed"),
    ("epsilon = 2.0", 'epsilon = "2.0"', r"privacy\.epsilon"),
    ("epsilon = 2.0", "epsilon = true", r"privacy\.epsilon"),
    ("epsilon = 2.0", "epsilon = 0.0", r"privacy\.epsilon"),
    ("epsilon = 2.0", "epsilon = -1.0", r"privacy\.epsilon"),
    ("epsilon = 2.0", "epsilon = nan", r"privacy\.epsilon"),
    ("epsilon = 2.0", "epsilon = inf", r"privacy\.epsilon"),
    ("epsilon = 2.0", "epsilon = 1e4", r"privacy\.epsilon"),
    ("epsilon = 2.0", "noise_multiplier = 1e-3", r"privacy\.noise_multiplier"),
    ("delta = 1e-6", "delta = 0.0", r"privacy\.delta"),
    ("delta = 1e-6", "delta = 1e-30", r"privacy\.delta"),
    ("delta = 1e-6", "delta = 0.5", r"privacy\.delta"),
    ("delta = 1e-6", "delta = nan", r"privacy\.delta"),
    ("clip_norm = 1.0", "clip_norm = 0.0", r"privacy\.clip_norm"),
    ("clip_norm = 1.0", "clip_norm = 5e-324", r"privacy\.clip_norm"),
    ("clip_norm = 1.0", "clip_norm = 1e308", r"privacy\.clip_norm"),
    ("learning_rate = 0.003", "learning_rate = inf", r"training\.learning_rate"),
    ("ema = 0.98", "ema = nan", r"training\.ema"),
    ("ema = 0.98", "ema = 1.0", r"training\.ema"),
    ("holdout = 0.2", "holdout = 1.0", r"data\.holdout"),
    ("range = [0, 100]", "range = [0, inf]", r"data\.features\.0\.range\.1"),
    ("range = [0, 100]", "range = [nan, 100]", r"data\.features\.0\.range\.0"),
    ("multiplier = 8", "multiplier = -8", r"data\.features\.0\.multiplier"),
    ("hidden = [128, 128]", "hidden = [0]", r"model\.hidden\.0"),
    ("hidden = [128, 128]", "hidden = [8192, 8192, 8192]", r"model has .* weights"),
    ('name = "glass-tg"', 'name = "Glass TG"', r"run\.name"),
    ('name = "glass-tg"', 'name = "glass-tg\\n"', r"run\.name"),
    ('suite = "v1"', 'suite = "v2"', r"run\.suite"),
    ("expected_records = 18000", "expected_records = 2026-11-24", r"plan: .*date"),
    ("expected_records = 18000", "expected_records = 60000000", r"data\.expected_records"),
    ("[data]", "[data", r"not TOML"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD_PLANS)
def test_a_bad_plan_is_refused_and_the_key_named(plan_text, old, new, message):
    with pytest.raises(ConfigError) as caught:
        parse_plan(_edited(plan_text, old, new))
    assert re.search(message, str(caught.value)), str(caught.value)


def test_a_deeply_nested_plan_is_refused():
    with pytest.raises(ConfigError):
        parse_plan("a = " + "[" * 5000 + "]" * 5000)


def test_classification(plan_text):
    text = _edited(plan_text, 'task = "regression"', 'task = "classification"')
    good = _edited(text, "range = [300, 1300]", 'classes = ["low", "mid", "high"]')
    terms = settle_terms(parse_plan(good), consortium="glass", run_id="r-1")
    assert terms.parameters[-1].shape == (3,)
    for classes in ('["a"]', '["a", "a"]', "[]"):
        with pytest.raises(ConfigError, match="two different classes"):
            parse_plan(_edited(text, "range = [300, 1300]", f"classes = {classes}"))


def test_settling(plan_text, glass_terms):
    assert glass_terms.privacy.noise_multiplier == pytest.approx(10.6, rel=0.01)
    assert glass_terms.epsilon_after(550) <= 2.0
    assert glass_terms.denominator == 3600.0
    assert glass_terms.dimension == 2 * 128 + 128 + 128 * 128 + 128 + 128 + 1
    assert glass_terms.batch_cap <= 5000
    flags = _edited(plan_text, 'missing = "refuse"', 'missing = "zero-and-flag"')
    flagged = settle_terms(parse_plan(flags), consortium="glass", run_id="r-1")
    assert flagged.parameters[0].shape == (128, 4)


@pytest.mark.parametrize(
    ("rounds", "attempts"), [(1, 2), (9, 10), (10, 11), (100, 110), (500, 550)]
)
def test_attempts_default_to_a_tenth_more_than_rounds(plan_text, rounds, attempts):
    text = _edited(plan_text, "max_attempts = 550", "")
    text = _edited(text, "rounds = 500", f"rounds = {rounds}")
    text = _edited(text, "epsilon = 2.0", "noise_multiplier = 10.0")
    terms = settle_terms(parse_plan(text), consortium="glass", run_id="r-1")
    assert terms.privacy.max_attempts == attempts


def test_given_noise_yields_its_epsilon(plan_text):
    text = _edited(plan_text, "epsilon = 2.0", "noise_multiplier = 10.07")
    text = _edited(text, "max_attempts = 550", "max_attempts = 500")
    terms = settle_terms(parse_plan(text), consortium="glass", run_id="r-1")
    assert terms.privacy.epsilon == pytest.approx(2.0, rel=0.01)
    assert terms.privacy.noise_multiplier == 10.07


def test_terms_come_back_equal_and_keep_their_digest(glass_terms):
    encoded = glass_terms.encode()
    again = parse_terms(encoded)
    assert again == glass_terms
    assert again.encode() == encoded
    # Firms signed this digest: the encoding of these terms may never change. The noise is pinned
    # here, since a later accountant may solve it differently.
    value = json.loads(encoded)
    value["privacy"]["noise_multiplier"] = 10.6
    digest = terms_digest(parse_terms(canonical_json(value)).encode())
    assert digest.hex() == "d1c4473f374dfde0fff34d57814ce8220bde203027c2cb8cf5e8a681dc58407d"
    value["data"]["split_seed"] = 1
    assert terms_digest(canonical_json(value)) != digest


@pytest.mark.parametrize("name", ["", "Not A Name", "x" * 41, "a\n"])
def test_run_ids_that_no_firm_could_parse_are_not_settled(plan_text, name):
    with pytest.raises(ConfigError, match="run_id"):
        settle_terms(parse_plan(plan_text), consortium="glass", run_id=name)


LIES = [
    ("privacy", "noise_multiplier", 10.0, "cost epsilon"),
    ("privacy", "epsilon", 1.9, "cost epsilon"),
    ("privacy", "max_attempts", 5000, "cost epsilon"),
    ("privacy", "delta", 1e-9, "cost epsilon"),
    ("training", "sampling_rate", 0.4, "cost epsilon"),
    ("privacy", "noise_multiplier", 0.3, "promises nothing|cost epsilon"),
    ("privacy", "max_attempts", 499, "max_attempts is below"),
    ("privacy", "max_colluding", 7, "max_colluding"),
    ("privacy", "unit", "firm", "unit"),
    ("privacy", "unit", "group", "unit"),
    ("privacy", "unit", "patent", "unit"),
    ("privacy", "epsilon", None, "epsilon"),
    ("training", "rounds", True, "rounds"),
    ("data", "max_records_per_firm", 0, "max_records_per_firm"),
    ("data", "task", "text", "task"),
    ("model", "family", "plugin:evil", "family"),
    ("run", "suite", "v0", "suite"),
]


@pytest.mark.parametrize(("part", "key", "lie", "message"), LIES)
def test_terms_that_lie_are_refused(glass_terms, part, key, lie, message):
    value = json.loads(glass_terms.encode())
    value[part][key] = lie
    with pytest.raises(ConfigError, match=message):
        parse_terms(json.dumps(value).encode())


def test_terms_of_another_version_or_with_more_keys_are_refused(glass_terms):
    value = json.loads(glass_terms.encode())
    with pytest.raises(ConfigError, match="version"):
        parse_terms(canonical_json({**value, "version": "terms/v2"}))
    with pytest.raises(ConfigError, match="unknown key 'note'"):
        parse_terms(canonical_json({**value, "note": ""}))
    with pytest.raises(VerificationError):
        parse_terms(b"not terms")
    with pytest.raises(ConfigError):
        parse_terms(b"[]")


def test_every_key_of_the_terms_is_needed(glass_terms):
    value = json.loads(glass_terms.encode())
    for key in ("version", "consortium", "run_id", "run", "data", "model", "privacy", "training"):
        with pytest.raises(ConfigError, match=key):
            parse_terms(canonical_json({k: v for k, v in value.items() if k != key}))
    for key in value["privacy"]:
        shorter = {k: v for k, v in value["privacy"].items() if k != key}
        with pytest.raises(ConfigError, match=key):
            parse_terms(canonical_json({**value, "privacy": shorter}))


def test_any_single_wrong_type_stays_inside_the_error_tree(glass_terms):
    value = json.loads(glass_terms.encode())
    refused = 0
    for part in ("run", "data", "model", "privacy", "training"):
        for key in value[part]:
            for wrong in (None, True, -1, 1e300, "", "x", [], [[]], {}, {"a": []}):
                changed = {**value, part: {**value[part], key: wrong}}
                try:
                    parse_terms(json.dumps(changed).encode())
                except GreylagError:
                    refused += 1
    assert refused > 250


def test_many_columns_do_not_take_quadratic_time(glass_terms):
    value = json.loads(glass_terms.encode())
    value["data"]["features"][0]["names"] = [f"c{n}" for n in range(100_000)] + ["c7"]
    with pytest.raises(ConfigError, match="column 'c7' stands twice"):
        parse_terms(canonical_json(value))


def test_run_ids_are_names(glass_terms):
    assert run_id_for("glass-tg", "ab12") == "glass-tg-ab12"
    long = run_id_for("a" * 27 + "-" + "b" * 12, "0123456789a")
    assert len(long) <= 40
    assert re.match(terms_module.NAME_PATTERN, long)


def test_the_plan_in_this_suite_is_whole(plan_text):
    assert set(tomllib.loads(plan_text)) == {"run", "data", "model", "privacy", "training"}
    assert set(Terms.__slots__) >= {"run", "data", "model", "privacy", "training"}
