"""Networks and data of a user's own in a sweep, which are others once they are edited."""

import importlib
import signal
import sys
from importlib.metadata import EntryPoint

import pytest

from mnist_zoo import registry
from mnist_zoo.commands.sweep import run as sweep_run
from mnist_zoo.data import Digits
from mnist_zoo.errors import ZooError
from mnist_zoo.recipes import recipe_hashes
from mnist_zoo.report import run_records

OWN = """
from torch import nn
from mnist_zoo.models import Classifier

class Own(Classifier):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def training_step(self, batch, batch_idx):
        images, targets = batch
        return self.loss(self(images), targets)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "net_of_a_sweep", raising=False)
    file = tmp_path / "net_of_a_sweep.py"
    file.write_text(OWN)
    return file


def test_a_network_of_ones_own_needs_no_recipe_and_logs_what_it_likes(own, tmp_path, plan):
    flags = ["--data=Digits", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    (run,) = plan(flags, recipes=["net_of_a_sweep.Own"], seeds=[0])
    assert run.recipe == "net_of_a_sweep.Own"
    outcome = sweep_run.train_and_test(run, tmp_path)
    assert outcome["status"] == "finished"
    assert outcome["train_loss"] is None
    assert outcome["val_acc"] == outcome["epochs"]["val/acc"][-1]


def test_what_it_imports_from_beside_it_is_its_code_too(own, tmp_path, plan):
    def key():
        (run,) = plan(["--data=Digits"], recipes=["net_of_a_sweep.Own"], seeds=[0])
        return run.key

    alone = key()
    own.write_text(f"import torch, first\n{OWN}")
    (tmp_path / "first.py").write_text("def make():\n    from parts.second import layers\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "second.py").write_text("layers = 1")
    (tmp_path / "unrelated.py").write_text("1")
    before = key()
    assert before != alone
    (tmp_path / "unrelated.py").write_text("2")
    assert key() == before
    (tmp_path / "parts" / "second.py").write_text("layers = 2")
    after = key()
    assert after != before
    (tmp_path / "first.py").write_text("no Python (")
    assert key() not in (before, after)


def test_so_is_what_a_package_imports_from_beside_it(own, tmp_path, plan):
    def key():
        (run,) = plan(["--data=Digits"], recipes=["nets_of_a_sweep.Own"], seeds=[0])
        return run.key

    (tmp_path / "nets_of_a_sweep").mkdir()
    (tmp_path / "nets_of_a_sweep" / "__init__.py").write_text(f"import helper\n{OWN}")
    (tmp_path / "helper.py").write_text("1")
    before = key()
    (tmp_path / "helper.py").write_text("2")
    assert key() != before


def with_test_step(*names):
    """Return the network with a ``test_step`` of its own that logs figures of some names."""
    logged = dict.fromkeys(names, 0.5)
    step = f"    def test_step(self, batch, batch_idx):\n        self.log_dict({logged})\n"
    return f"{OWN}\n{step}"


@pytest.mark.parametrize("names", [["test_accuracy"], ["test/acc"]])
def test_a_test_step_that_logs_no_figures_is_told_before_anything_runs(own, names, plan):
    own.write_text(with_test_step(*names))
    runs = plan(["--data=Digits"], recipes=["net_of_a_sweep.Own"], seeds=[0])
    with pytest.raises(ZooError) as refused:
        sweep_run.check(runs)
    assert str(refused.value) == "Own: its test_step has to log test/acc and test/loss."


def test_one_that_logs_them_is_not_refused(own, plan, monkeypatch):
    monkeypatch.setattr(Digits, "test_dataloader", lambda self: pytest.fail("read too early"))
    own.write_text(with_test_step("test/acc", "test/loss"))
    sweep_run.check(plan(["--data=Digits"], recipes=["net_of_a_sweep.Own"], seeds=[0]))


def test_a_recipe_says_neither_where_figures_go_nor_that_nothing_is_trained(own, tmp_path, plan):
    settings = "{max_epochs: 1, accelerator: cpu, logger: false, fast_dev_run: true}"
    data = "{class_path: net_of_a_sweep.Mine, init_args: {num_train: 300}}"
    own.write_text("from mnist_zoo.data import Digits\nclass Mine(Digits): ...\n")
    file = tmp_path / "mine.yaml"
    file.write_text(f"{{model: Dense, data: {data}, trainer: {settings}}}")
    (run,) = plan(recipes=[str(file)], seeds=[0])
    outcome = sweep_run.train_and_test(run, tmp_path)
    assert outcome["status"] == "finished"
    assert outcome["num_train_images"] == 270
    assert outcome["num_steps"] == 27
    assert [len(values) for values in outcome["epochs"].values()] == [1] * 4
    assert outcome["seconds"] > 0


@pytest.mark.parametrize(
    ("recipe", "flags"),
    [
        ("net_of_a_sweep.Own", []),
        ("Dense", ["--model=net_of_a_sweep.Own"]),
        ("Dense", ["--data=net_of_a_sweep.Own"]),
        ("mine.yaml", []),
        ("Dense", ["--trainer.callbacks=net_of_a_sweep.Own"]),
        ("Dense", ["--trainer.callbacks+=net_of_a_sweep.Own", "--trainer.callbacks.patience=3"]),
        ("Dense", ["--trainer.callbacks=[{class_path: net_of_a_sweep.Own}]"]),
        ("Dense", ["--trainer.callbacks+={class_path: net_of_a_sweep.Own}"]),
        ("Dense", ["--trainer.profiler.class_path=net_of_a_sweep.Own"]),
        ("Dense", ["--trainer.strategy=net_of_a_sweep.Own"]),
        ("callbacks.yaml", []),
    ],
)
@pytest.mark.parametrize("package", [False, True])
def test_code_of_ones_own_is_another_once_it_is_edited(own, recipe, flags, package, plan):
    def made():
        return plan(flags, recipes=[recipe], seeds=[0])[0]

    (own.parent / "mine.yaml").write_text("{model: Dense, data: {class_path: net_of_a_sweep.Own}}")
    callbacks = "[{class_path: EarlyStopping}, {class_path: net_of_a_sweep.Own}]"
    (own.parent / "callbacks.yaml").write_text(
        f"{{model: Dense, trainer: {{callbacks: {callbacks}}}}}"
    )
    if package:
        folder = own.with_suffix("")
        folder.mkdir()
        (folder / "__init__.py").write_text("from .net import Own\n")
        own = own.rename(folder / "net.py")
    before = made()
    assert made() == before
    own.write_text(OWN.replace("784, 10", "784, 10, bias=False"))
    after = made()
    assert after.key != before.key
    assert after.folder != before.folder
    records = [run.record({}) for run in (before, plan(seeds=[0])[0], after)]
    assert run_records.current(records, recipe_hashes()) == records[1:]


def test_so_is_code_in_a_package_within_the_package(own, plan):
    folder = own.with_suffix("") / "layers"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder):
        (package / "__init__.py").touch()
    own = own.rename(folder / "net.py")
    before, after = (
        plan(recipes=["net_of_a_sweep.layers.net.Own"], seeds=[0])[0]
        for text in (OWN, OWN.replace("784, 10", "784, 10, bias=False"))
        if own.write_text(text)
    )
    assert after.key != before.key
    assert after.folder != before.folder


@pytest.mark.parametrize(
    ("recipe", "flags"),
    [
        ("net_of_a_sweep.Own", []),
        ("Dense", ["--model=Own"]),
        ("mine.yaml", []),
    ],
)
def test_so_is_the_network_of_an_installed_plugin(own, monkeypatch, recipe, flags, plan):
    plugin = EntryPoint("Own", "net_of_a_sweep:Own", registry.PLUGIN_GROUP)
    monkeypatch.setattr(registry, "plugins", lambda: [plugin])
    (own.parent / "mine.yaml").write_text("model: Own")
    before, after = (
        plan(flags, recipes=[recipe], seeds=[0])[0]
        for text in (OWN, OWN.replace("784, 10", "784, 10, bias=False"))
        if own.write_text(text)
    )
    assert after.key != before.key
    assert after.folder != before.folder


@pytest.mark.parametrize(
    "flag",
    [
        "--model.lr=0.03",
        "--trainer.precision=32-true",
        "--data.root=net_of_a_sweep.py",
        "--trainer.callbacks=EarlyStopping",
        "--trainer.callbacks=lightning.pytorch.callbacks.EarlyStopping",
        "--trainer.callbacks=net_that_is_not_there.Own",
        "--trainer.callbacks=[net_of_a_sweep.Own",
        "--trainer.strategy=./net_of_a_sweep.py",
        "--data=mnist_zoo.data.Digits",
    ],
)
def test_other_flags_name_no_code_that_may_be_edited(own, flag, plan):
    assert plan([flag], seeds=[0])[0].code == ()


def test_code_of_ones_own_is_not_imported_for_a_plan(own, plan):
    package = own.with_suffix("")
    package.mkdir()
    (package / "__init__.py").write_text("1 / 0\n")
    assert plan(recipes=["net_of_a_sweep.net.Own"], seeds=[0])[0].code


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_does_not_end_a_run_that_is_still_importing(own):
    from mnist_zoo.commands.sweep.workers import _in_own_process

    code = "def say(sender):\n    sender.send('made')\n"
    own.write_text(code)
    registry.look_into_current_folder()
    module = importlib.import_module("net_of_a_sweep")
    own.write_text(f"import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n{code}")
    assert _in_own_process(module.say) == "made"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
