"""Plugins: real wheels, installed into a directory of their own, trained and refused."""

import json
import marshal
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from consortium_in_memory import Consortium, make_records, make_terms, run_on
from greylag_client import plugins
from greylag_client.engine import make_engine
from greylag_client.models import build_model, load_weights, record_losses
from greylag_client.plugins import GROUP, import_plugin, installed_plugins
from greylag_client.policy import Policy
from greylag_client.sampling import NO_UNIT
from greylag_protocols.errors import RefusedError
from greylag_protocols.parameters import initial_weights
from greylag_protocols.plan import parse_plan
from greylag_protocols.terms import ModelTerms, ParameterTerms, PluginTerms, Terms
from lying_lead import Lead

ALLOWED = Policy(lifetime_epsilon=1e3, max_epsilon_per_run=1e3, families=("plugin:tiny",))
SOURCE = """\
from torch import nn

LOADED = True


def build(data):
    width, outputs = len(data.feature_names), len(data.targets)
    return nn.Sequential({layers})
"""
LAYERS = "nn.Linear(width, 8), nn.SiLU(), nn.Linear(8, outputs)"
SHAPES = (("0.weight", (8, 3)), ("0.bias", (8,)), ("2.weight", (2, 8)), ("2.bias", (2,)))

Install = Callable[..., Path]


def make_wheel(path: Path, *, source: str, distribution: str, version: str, package: str) -> Path:
    stem = f"{distribution}-{version}"
    files = {
        f"{package}/__init__.py": "",
        f"{package}/model.py": source,
        f"{stem}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        ),
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/entry_points.txt": f"[{GROUP}]\ntiny = {package}.model:build\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{stem}.dist-info/RECORD"])
    wheel = path / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{stem}.dist-info/RECORD", record)
    return wheel


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a plugin ``tiny``; the directory that it lies in. Forgets it all afterwards."""
    site = tmp_path / "site"
    before = set(sys.modules)

    def install_into(
        *,
        layers: str = LAYERS,
        source: str = SOURCE,
        distribution: str = "tiny_models",
        version: str = "1.0",
        package: str = "tiny_models",
        target: Path = site,
        by_pip: bool = False,
    ) -> Path:
        wheel = make_wheel(
            tmp_path,
            source=source.replace("{layers}", layers),
            distribution=distribution,
            version=version,
            package=package,
        )
        shutil.rmtree(target / package, ignore_errors=True)
        for old in target.glob(f"{distribution}-*.dist-info"):
            shutil.rmtree(old)
        if by_pip:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
            subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
        else:  # what pip does with such a wheel, but for compiling it, in a hundredth of the time
            zipfile.ZipFile(wheel).extractall(target)
        monkeypatch.syspath_prepend(str(target))
        return target

    yield install_into
    for name in set(sys.modules) - before:
        if name.startswith(("tiny_models", "other_models")):
            del sys.modules[name]
    plugins._imported.clear()


def pinned_terms(shapes: object = SHAPES, **options: str) -> Terms:
    """Terms that pin what is installed."""
    (found,) = installed_plugins()
    pins = PluginTerms(distribution=found.distribution, version=found.version, sha256=found.sha256)
    model = ModelTerms(
        family="plugin:tiny",
        plugin=pins,
        parameters=tuple(ParameterTerms(name=name, shape=shape) for name, shape in shapes),
    )
    return replace(make_terms(**options), model=model)


def refuse(terms: Terms) -> str:
    """The reason why an engine is refused; nothing of the plugin may have run."""
    with pytest.raises(RefusedError) as caught:
        make_engine(terms, make_records(terms, seed=1))
    assert caught.value.refusal_class == "policy"
    return str(caught.value)


def not_imported() -> bool:
    return not any(name.startswith(("tiny_models", "other_models")) for name in sys.modules)


@pytest.mark.parametrize("unit", ["record", "group", "firm"])
def test_a_consortium_trains_a_plugin(unit: str, install: Install, memory_path: Path) -> None:
    install(by_pip=True)
    terms = pinned_terms(unit=unit)
    names = [f"firm-{letter}" for letter in "abcd"]
    consortium = Consortium(
        memory_path, terms=terms, policies=dict.fromkeys(names, ALLOWED), firms=4
    )
    coordinator = consortium.coordinator(consortium.open_store())
    run_on(consortium.local_grid(), coordinator)
    assert [len(firm.receipts()) for firm in consortium.firms.values()] == [4] * 4


def test_clipped_sums_are_those_of_a_plain_loop(install: Install) -> None:
    install()
    terms = pinned_terms()
    records = make_records(terms, seed=2, count=12)
    noise = np.random.default_rng(5).normal(size=terms.dimension)
    weights = (initial_weights(b"seed", terms.parameters) + noise).astype(np.float32)
    module, expected = build_model(terms), np.zeros(terms.dimension)
    load_weights(module, weights)
    for row in range(len(records)):
        outputs = module(torch.from_numpy(records.inputs[[row]]))
        loss = record_losses(terms, outputs, torch.from_numpy(records.targets[[row]]))
        parts = torch.autograd.grad(loss.sum(), list(module.parameters()))
        gradient = torch.cat([part.reshape(-1) for part in parts]).numpy()
        expected += gradient * min(1.0, (1 - 1e-5) / max(float(np.linalg.norm(gradient)), 1e-30))
    units = np.append(np.arange(len(records)), NO_UNIT)
    found = make_engine(terms, records).clipped_sum(weights, units)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_plugin_of_the_mlps_layers_is_the_mlp(install: Install) -> None:
    install(layers=LAYERS.replace("SiLU", "Tanh"))
    plugin, mlp = pinned_terms(), make_terms()
    assert plugin.parameters == mlp.parameters
    records = make_records(mlp, seed=2)
    weights = np.random.default_rng(1).normal(size=mlp.dimension).astype(np.float32)
    sums = [
        make_engine(terms, records).clipped_sum(weights, np.arange(9)) for terms in (plugin, mlp)
    ]
    np.testing.assert_array_equal(*sums)


def test_policy_must_list_it(install: Install, memory_path: Path) -> None:
    install()
    lead = Lead(Consortium(memory_path, terms=pinned_terms()))
    refusal = lead.refused(lead.offer(), "families does not allow 'plugin:tiny'")
    assert refusal.refusal_class == "policy"
    assert not_imported()
    assert lead.victim.ledger.accounts() == []


def test_a_changed_file_costs_no_budget(install: Install, memory_path: Path) -> None:
    site = install()
    policies = {"firm-a": ALLOWED}
    lead = Lead(Consortium(memory_path, terms=pinned_terms(), policies=policies))
    with (site / "tiny_models/model.py").open("a", encoding="utf-8") as file:
        file.write("# one line more\n")
    assert lead.refused(lead.offer(), "plugin 'tiny': sha256").refusal_class == "policy"
    assert not_imported()
    assert lead.victim.ledger.accounts() == []


def test_what_is_not_as_pinned(install: Install) -> None:
    install()
    terms = pinned_terms()
    pins = terms.model.plugin
    assert pins is not None
    for changes, reason in [
        ({"version": "2.0"}, "version '1.0' is installed and '2.0' is pinned"),
        ({"distribution": "big_models"}, "distribution 'tiny_models' is installed"),
        ({"sha256": "0" * 64}, "sha256 '"),
    ]:
        changed = replace(terms.model, plugin=replace(pins, **changes))
        assert reason in refuse(replace(terms, model=changed))
    assert "not installed here" in refuse(
        replace(terms, model=replace(terms.model, family="plugin:small"))
    )
    assert not_imported()
    build_model(terms)


def test_another_version_with_the_same_files(install: Install) -> None:
    install()
    terms = pinned_terms()
    install(version="1.1")
    assert "version '1.1' is installed and '1.0' is pinned" in refuse(terms)


def test_two_that_offer_one_name(install: Install) -> None:
    install()
    terms = pinned_terms()
    install(distribution="other_models", package="other_models", version="3.0")
    assert "several offer it: other_models 3.0, tiny_models 1.0" in refuse(terms)
    assert not_imported()


def test_what_was_put_beside_its_files(install: Install) -> None:
    site = install()
    terms = pinned_terms()
    (site / "tiny_models/torch.py").write_text("", encoding="utf-8")
    assert "torch.py is not in its RECORD" in refuse(terms)
    (site / "tiny_models/torch.py").unlink()
    (site / "tiny_models/link").symlink_to(site)
    assert "link is not in its RECORD" in refuse(terms)
    (site / "tiny_models/link").unlink()
    (site / "tiny_models/model.py").unlink()
    assert "tiny_models/model.py cannot be read: No such file" in refuse(terms)
    assert not_imported()


def test_a_package_that_comes_earlier_on_the_path(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    terms = pinned_terms()
    (tmp_path / "bundle/tiny_models").mkdir(parents=True)
    (tmp_path / "bundle/tiny_models/__init__.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "bundle"))
    assert "'tiny_models' would be imported from" in refuse(terms)
    assert not_imported()


def test_compiled_copies_are_not_run(install: Install) -> None:
    site = install(by_pip=True)
    terms = pinned_terms()
    source = site / "tiny_models/model.py"
    (cached,) = (site / "tiny_models/__pycache__").glob("model.*.pyc")
    head = cached.read_bytes()[:16]  # the source's time and size: Python would take this copy
    code = compile("raise SystemExit('not what was pinned')", str(source), "exec")
    cached.write_bytes(head + marshal.dumps(code))
    build_model(terms)
    assert sys.modules["tiny_models.model"].LOADED


def test_another_version_in_memory(install: Install) -> None:
    install()
    build_model(pinned_terms())
    install(version="2.0", layers=LAYERS.replace("SiLU", "ReLU"))
    assert "in this process's memory; start the agent again" in refuse(pinned_terms())


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (LAYERS.replace("8", "9"), r"it has parameters \[\('0.weight', \(9, 3\)\)"),
        (LAYERS.replace("nn.SiLU(), ", ""), r"it has parameters .*'1.weight'"),
        (LAYERS.replace("SiLU()", "Dropout()"), "Dropout is no layer"),
        (LAYERS.replace("SiLU()", "BatchNorm1d(8)"), "BatchNorm1d is no layer"),
        (LAYERS.replace("SiLU()", "LayerNorm(8)"), "LayerNorm is no layer"),
        (LAYERS.replace("(8, outputs)", "(8, outputs, bias=False)"), "Linear is no layer"),
        ("*[nn.Linear(3, 3)] * 2", "must stand in it once"),
        ("nn.Tanh()", "one at least"),
        (LAYERS + ", nn.Sequential()", "Sequential is no layer"),
        (LAYERS + ", nn.Module.__new__(type('Linear', (nn.Linear,), {}))", "no layer|must stand"),
        ("1 / 0", "building the model failed: ZeroDivisionError"),
    ],
)
def test_models_that_cannot_be_trained(layers: str, reason: str, install: Install) -> None:
    install(layers=layers)
    with pytest.raises(RefusedError, match=f"plugin:tiny: .*({reason})"):
        build_model(pinned_terms())


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("build = 1\n", "is no function"),
        ("import absent_module\n", "importing it failed: ModuleNotFoundError"),
        ("def build(data):\n    return data\n", "it built a DataTerms"),
        (
            SOURCE.replace("return nn", "m = nn").replace("{layers}", LAYERS)
            + "    m[1].register_forward_hook(lambda *_: None)\n    return m\n",
            "its SiLU carries hooks",
        ),
        (
            SOURCE.replace("return nn", "m = nn").replace("{layers}", LAYERS)
            + "    m.forward = m[0].forward\n    return m\n",
            "its Sequential carries hooks or another forward",
        ),
    ],
)
def test_code_that_is_no_plugin(source: str, reason: str, install: Install) -> None:
    install(source=source)
    assert reason in refuse(pinned_terms())


def test_layers_that_do_not_follow_one_another(install: Install) -> None:
    install(layers="nn.Linear(4, 8), nn.Linear(8, outputs)")
    shapes = (("0.weight", (8, 4)), ("0.bias", (8,)), ("1.weight", (2, 8)), ("1.bias", (2,)))
    assert "do not take 3 inputs" in refuse(pinned_terms(shapes))


def test_outputs_that_are_not_the_targets(install: Install) -> None:
    install(layers="nn.Linear(width, 5)")
    shapes = (("0.weight", (5, 3)), ("0.bias", (5,)))
    assert "it has 5 outputs, the data have 2" in refuse(pinned_terms(shapes))


def test_the_command_shows_what_to_paste(
    install: Install, capsys: pytest.CaptureFixture[str], plan_with: Callable[[str], str]
) -> None:
    plugins.plugins("text")
    assert capsys.readouterr().out == "no plugins are installed\n"
    install()
    plugins.plugins("text")
    pasted = capsys.readouterr().out
    shapes = "".join(
        f'[[model.parameters]]\nname = "{name}"\nshape = {list(shape)}\n' for name, shape in SHAPES
    )
    plan = parse_plan(plan_with(pasted + shapes))
    assert plan.model == pinned_terms().model
    plugins.plugins("json")
    (shown,) = json.loads(capsys.readouterr().out)["plugins"]
    assert shown == {"name": "tiny", "distribution": "tiny_models", "version": "1.0"} | {
        "sha256": pinned_terms().model.plugin.sha256
    }
    assert not_imported()
    assert callable(import_plugin(pinned_terms()))


@pytest.fixture
def plan_with() -> Callable[[str], str]:
    from consortium_in_memory import PLAN

    def make(model: str) -> str:
        options = {"data": "", "unit": "record", "min_firms": 3, "max_attempts": 8, "rounds": 4}
        text = PLAN.format(**options, rate=0.3)
        return text.replace("[model]\nhidden = [8]\n", model)

    return make
