"""The recipes are the published systems, each figure typed from its publication."""

import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from mnist_zoo import recipes, registry
from mnist_zoo.__main__ import main
from mnist_zoo.data.augmentation import Augmentation
from mnist_zoo.engine.best_and_last import Best
from mnist_zoo.errors import UnknownNameError
from mnist_zoo.recipes import Recipe, all_recipes, find_recipe, recipe_of, recipes_of


@dataclass(frozen=True)
class System:
    """A published run; what is not given is what PyTorch does unless told otherwise."""

    recipe: str
    lr: float
    epochs: int
    published: str
    source: str
    batch_size: int = 10
    weight_decay: float = 0.0
    optimizer_args: dict = field(default_factory=dict)
    expanded: bool = False
    mean: float = 0.0
    std: float = 1.0
    num_train: int | None = None
    num_test: int | None = None
    val_size: float | None = None
    tolerance: str = "0.15 points"


BOOK_1, BOOK_6 = "Nielsen 2015, ch. 1", "Nielsen 2015, ch. 6"
TUTORIAL, EXERCISE = "PyTorch tutorial", "PyTorch exercise"
SYSTEMS = {
    "S1": System("Dense", 3.0, 30, "97.85 %", BOOK_1, tolerance="0.5 points"),
    "S2": System("ConvNetSimple", 0.1, 60, "98.97 %", BOOK_6),
    "S3": System("ConvNetTwoConv", 0.1, 60, "99.05 %", BOOK_6),
    "S4": System("ConvNetReLU", 0.03, 60, "99.43 %", BOOK_6, weight_decay=0.00005),
    "S4b": System(
        "ConvNetReLU-decay", 0.03, 60, "85.31 %", BOOK_6, weight_decay=0.1, tolerance="75 to 92 %"
    ),
    "S5": System(
        "ConvNetReLU-expanded", 0.03, 60, "99.51 %", BOOK_6, weight_decay=0.00005, expanded=True
    ),
    "S6": System("ConvNetDropout-unstable", 0.03, 40, "99.64 %", BOOK_6, expanded=True),
    "S7": System("ConvNetDropout", 0.005, 40, "99.64 %", BOOK_6, expanded=True),
    "S8": System(
        "MLPDropout", 0.01, 20, "97 %", EXERCISE, batch_size=20, val_size=0.2,
        tolerance="0.5 points",
    ),
    "S9": System(
        "MLPLogSoftmax", 0.003, 5, "95.95 %", TUTORIAL, batch_size=32,
        optimizer_args={"momentum": 0.9}, mean=0.5, std=0.5, tolerance="0.5 points",
    ),
    "S10": System(
        "ConvNetThreeDense", 0.005, 50, "96.00 %", "McCaffrey 2022", num_train=1000,
        num_test=100, tolerance="3 points",
    ),
}  # fmt: skip
every_system = pytest.mark.parametrize(("name", "system"), SYSTEMS.items(), ids=SYSTEMS)
# Whatever data a recipe names: a minibatch of digits that need no file.
BRIEFLY = (
    "--data=Digits", "--data.num_train=null", "--data.num_test=null", "--data.val_size=0.1",
    "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu",
)  # fmt: skip
every_recipe = pytest.mark.parametrize("recipe", all_recipes().values(), ids=lambda r: r.name)


def read(recipe):
    return yaml.safe_load(recipe.path.read_text(encoding="utf-8"))


@pytest.fixture
def config_of(capsys):
    """What a command would train with."""

    def printed(command, *flags):
        program, *arguments = shlex.split(command)
        assert program == "mnist-zoo"
        with pytest.raises(SystemExit) as end:
            main([*arguments, *flags, "--print_config"])
        assert end.value.code in (0, None)
        return yaml.safe_load(capsys.readouterr().out)

    return printed


@pytest.fixture
def trains(capsys, monkeypatch, tmp_path):
    """Train for a minibatch on the built-in digits."""
    monkeypatch.chdir(tmp_path)

    def train(*arguments):
        assert main(["fit", *arguments, *BRIEFLY]) == 0, capsys.readouterr().err

    return train


def build(entry):
    return registry.import_class(entry["class_path"])(**entry.get("init_args", {}))


@every_system
def test_the_network_is_trained_measured(name, system):
    network = build(read(all_recipes()[system.recipe])["model"])
    assert type(network).__name__ == system.recipe.partition("-")[0]
    assert network.lr == system.lr
    assert network.weight_decay == system.weight_decay
    assert network.optimizer_class.__name__ == "SGD"
    assert network.optimizer_args == system.optimizer_args
    assert network.scheduler_class is None


@every_system
def test_it_is_trained_on_the_data_measured(name, system):
    config = read(all_recipes()[system.recipe])
    data = build(config["data"])
    assert type(data).__name__ == "MNIST"
    for setting in ("batch_size", "expanded", "mean", "std", "num_train", "num_test"):
        assert getattr(data, setting) == getattr(system, setting), setting
    if system.val_size is not None:
        assert data.val_size == system.val_size
    assert config["trainer"] == {"max_epochs": system.epochs}


@every_system
def test_the_head_names_system_figure_and_source(name, system):
    facts = all_recipes()[system.recipe].facts
    assert facts["System"] == name
    assert facts["Published"].startswith(system.published)
    assert facts["Source"].startswith(system.source)
    assert facts["Tolerance"] == system.tolerance


@every_system
def test_the_published_run_holds_nothing_out_unless_the_publication_did(name, system):
    flags = all_recipes()[system.recipe].measured_with
    assert flags == (() if system.val_size else ("--data.val_size=0",))


def test_no_recipe_of_a_system_is_missing_here():
    named = {recipe.facts["System"]: name for name, recipe in all_recipes().items()}
    systems = {key: name for key, name in named.items() if re.match(r"S\d", key)}
    assert systems == {key: system.recipe for key, system in SYSTEMS.items()}


def test_the_recipe_of_an_et_al_is_nearly_as_they_trained_it():
    config = read(all_recipes()["ConvNetUnpadded"])
    network, data = build(config["model"]), build(config["data"])
    assert type(network).__name__ == "ConvNetUnpadded"
    assert network.hparams["kernel_size"] == 5
    assert (network.lr, network.weight_decay) == (0.001, 0.0)
    assert (network.optimizer_class.__name__, network.optimizer_args) == ("Adam", {})
    assert network.scheduler_class.__name__ == "ExponentialLR"
    assert network.scheduler_args == {"gamma": 0.98}
    assert network.label_smoothing == 0
    assert type(data).__name__ == "MNIST"
    assert (data.batch_size, data.expanded, data.num_train) == (120, False, None)
    assert data.augmentation == Augmentation(rotation=20, shift=5)
    assert config["trainer"] == {"max_epochs": 150, "precision": "bf16-mixed"}
    assert config["average"] == {"decay": 0.999}


def test_the_first_run_is_a_few_seconds_of_plain_descent():
    config = read(all_recipes()["ConvNetReLU-digits"])
    network, data = build(config["model"]), build(config["data"])
    assert type(network).__name__ == "ConvNetReLU"
    assert (network.lr, network.weight_decay) == (0.2, 0.0)
    assert (network.optimizer_class.__name__, network.optimizer_args) == ("SGD", {})
    assert network.scheduler_class is None
    assert type(data).__name__ == "Digits"
    assert (data.batch_size, data.num_train, data.augmentation) == (32, None, None)
    assert config["trainer"] == {"max_epochs": 10}


def test_mlp_dropout_keeps_the_weights_with_the_lowest_validation_loss():
    config = read(all_recipes()["MLPDropout"])
    assert config["best"] == {"monitor": "val/loss"}
    assert Best(**config["best"]).mode == "min"


@every_recipe
def test_the_command_of_a_recipe_trains_by_it(recipe, config_of):
    command = recipe.facts["Command"]
    default = recipe.name == recipe.network
    assert f"--{'model' if default else 'config'} {recipe.name}" in command

    used, written = config_of(command, "--data.val_size=0"), read(recipe)
    assert used["model"]["class_path"].rpartition(".")[2] == recipe.network
    for part in ("model", "data"):
        arguments = written[part]["init_args"] | ({"val_size": 0} if part == "data" else {})
        assert arguments.items() <= used[part]["init_args"].items()
    assert written["trainer"].items() <= used["trainer"].items()
    assert written.get("best", {}).items() <= used["best"].items()


@every_recipe
def test_flags_win_over_a_recipe(recipe, config_of):
    flags = ("--model.lr=0.5", "--trainer.max_epochs=3")
    used = config_of(f"mnist-zoo fit --config {recipe.name}", *flags)
    assert used["model"]["init_args"]["lr"] == 0.5
    assert used["trainer"]["max_epochs"] == 3
    assert (
        used["data"]["init_args"]["batch_size"] == read(recipe)["data"]["init_args"]["batch_size"]
    )


@every_recipe
def test_a_recipe_trains(recipe, trains):
    trains(f"--config={recipe.name}")


@pytest.mark.parametrize("name", sorted(registry.builtin_networks()))
def test_a_network_trains_in_half_precision(name, trains):
    trains(f"--model={name}", "--trainer.precision=bf16-mixed")


def test_a_recipe_begins_with_its_title():
    for recipe in all_recipes().values():
        title = recipe.path.read_text(encoding="utf-8").splitlines()[0]
        assert re.match(r"# \w.{10,}", title), recipe.name


def test_a_recipe_says_how_long_it_takes():
    times = {recipe.name: recipe.facts.get("Time", "") for recipe in all_recipes().values()}
    assert not {name: time for name, time in times.items() if not re.search(r"\d", time)}


@every_recipe
def test_the_time_is_that_of_the_published_run(recipe):
    shown = " ".join(recipe.measured_with).replace("=", " ")
    assert shown in recipe.facts.get("Time", ""), "with other images held out, steps are fewer"


class TestRecipes:
    def test_every_network_has_one_of_its_own_name_that_comes_first(self):
        for name in registry.builtin_networks():
            found = recipes_of(name)
            assert found[0].name == name
            assert all(recipe.network == name for recipe in found)

    def test_the_others_follow_in_the_order_of_their_names(self):
        names = [recipe.name for recipe in recipes_of("ConvNetReLU")]
        assert names[0] == "ConvNetReLU"
        assert names[1:] == sorted(names[1:])
        assert {"ConvNetReLU-decay", "ConvNetReLU-expanded"} <= set(names)

    def test_a_recipe_is_found_by_name_and_by_path(self, here):
        path = find_recipe("ConvNetReLU-decay")
        assert path.name == "ConvNetReLU-decay.yaml"
        assert find_recipe(str(path)) == path
        (here / "mine.yaml").touch()
        assert find_recipe("mine.yaml").samefile(here / "mine.yaml")

    def test_a_recipe_that_does_not_exist(self, here):
        with pytest.raises(UnknownNameError, match=r"Did you mean ConvNetReLU-decay\?"):
            find_recipe("ConvNetReLU-decai")
        with pytest.raises(UnknownNameError, match="neither a file nor a recipe") as caught:
            find_recipe("xyz")
        assert "Did you mean" not in str(caught.value)

    def test_the_facts_are_the_lines_of_the_head_alone(self, tmp_path):
        file = tmp_path / "Net.yaml"
        file.write_text(
            "# A title: with a colon in it\n#\n# System: S0\n#Time:  2 min: about \n\n# No: fact\n"
            "model: Net\n# Published: 3 %\n"
        )
        assert recipes._facts(file) == {"System": "S0", "Time": "2 min: about"}

    def test_a_class_of_ones_own_has_none_whatever_its_name(self, plugins, here):
        plugins(Dense="a_plugin_of_mine.net:Dense")
        assert recipe_of("mnist_zoo.models.dense.Dense").name == "Dense"
        assert recipe_of("mnist_zoo.models.Dense").name == "Dense"
        assert recipe_of("my_net.Dense") is None
        assert recipe_of("a_plugin_of_mine.net.Dense") is None

    def test_a_plugin_brings_its_own(self, plugins, here):
        configs = here / "a_plugin_of_mine" / "configs"
        configs.mkdir(parents=True)
        (configs.parent / "__init__.py").write_text("1 / 0\n")
        (configs / "TheirNet.yaml").write_text("# Published: 12.3 %\n")
        (configs / "Dense.yaml").write_text("# Published: 100 %\n")
        plugins(TheirNet="a_plugin_of_mine.net:TheirNet")
        sys.path.append(str(here))
        found = all_recipes.__wrapped__()
        assert found["TheirNet"].facts == {"Published": "12.3 %"}
        assert found["Dense"].facts["System"] == "S1", "a plugin replaces no recipe of the zoo"


@pytest.mark.parametrize(
    ("tolerance", "mean", "holds"),
    [
        ("0.5 points", 99.50, True),
        ("0.5 points", 99.49, False),
        ("0.5 points", 100.0, True),
        ("0.15 points", 99.85, True),
        ("75 to 92 %", 75.0, True),
        ("75 to 92 %", 92.1, False),
        ("75 to 92 %", 74.9, False),
        ("", 100.0, None),
        ("0.5 points", float("nan"), None),
    ],
)
def test_a_published_figure_holds_within_its_tolerance(tolerance, mean, holds):
    facts = {"Published": "100.00 % (about)", "Tolerance": tolerance}
    recipe = Recipe("A", Path("A.yaml"), facts)
    assert recipe.published == "100.00 %"
    assert recipe.reproduced_by(mean) is holds
    assert Recipe("A", Path("A.yaml"), {}).reproduced_by(mean) is None


def test_a_mean_far_above_the_published_figure_agrees_with_it():
    facts = {"Published": "90.00 %", "Tolerance": "0.5 points"}
    assert Recipe("A", Path("A.yaml"), facts).reproduced_by(99.0) is True


@pytest.mark.parametrize("content", [b"model: [", b"\xff\xfe"])
def test_a_recipe_that_cannot_be_read_is_left_out(content, tmp_path, monkeypatch, capsys):
    (tmp_path / "Broken.yaml").write_bytes(content)
    folders = [*recipes._recipe_folders(), tmp_path]
    monkeypatch.setattr(recipes, "_recipe_folders", lambda: iter(folders))
    recipes.all_recipes.cache_clear()
    try:
        hashes = recipes.recipe_hashes()
    finally:
        recipes.all_recipes.cache_clear()
    assert "Dense" in hashes
    assert "Broken" not in hashes
    assert f"{tmp_path / 'Broken.yaml'} left out: " in capsys.readouterr().err
