"""What several protocol tests stand on: a plan, its terms, identities."""

import pytest
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Terms

PLAN = """
[run]
name = "glass-tg"
purpose = "glass transition temperature of new recipes"
suite = "v1"
[data]
standard = "glass-recipes@1.0"
task = "regression"
targets = [ { name = "tg_k", unit = "K", range = [300, 1300] } ]
features = [
  { names = ["SiO2", "B2O3"], unit = "mol%", range = [0, 100], scale = "sqrt", multiplier = 8 },
]
missing = "refuse"
group = "ref_id"
holdout = 0.2
split_seed = 0
expected_records = 18000
max_records_per_firm = 5000
[model]
family = "mlp"
hidden = [128, 128]
activation = "tanh"
[privacy]
unit = "record"
epsilon = 2.0
delta = 1e-6
clip_norm = 1.0
max_colluding = 6
min_firms = 8
max_attempts = 550
[training]
rounds = 500
sampling_rate = 0.2
optimiser = "adam"
learning_rate = 0.003
schedule = "linear"
ema = 0.98
reply_offset_s = 0.0
"""


@pytest.fixture(scope="session")
def plan_text() -> str:
    """The design's example plan."""
    return PLAN


@pytest.fixture(scope="session")
def glass_terms() -> Terms:
    return settle_terms(parse_plan(PLAN), consortium="glass", run_id="glass-tg-1")


@pytest.fixture(scope="session")
def lead() -> Ed25519Signer:
    return Ed25519Signer(b"\x01" * 32)


@pytest.fixture(scope="session")
def firm() -> Ed25519Signer:
    return Ed25519Signer(b"\x02" * 32)
