"""Sweeps: every combination once, recorded whole, and never run twice."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock

from mnist_zoo import load, registry
from mnist_zoo.commands.sweep import command as sweep
from mnist_zoo.commands.sweep import ensemble
from mnist_zoo.commands.sweep import run as sweep_run
from mnist_zoo.commands.training import command as training
from mnist_zoo.data import Digits
from mnist_zoo.errors import ZooError
from mnist_zoo.report import events, results

DIGITS = ("ConvNetReLU-digits", "--trainer.accelerator", "cpu")


def plan(flags=(), recipes=("Dense",), seeds=(0, 1)):
    return list(sweep._plan(recipes, sweep._grid(flags), seeds))


def comparable(folder):
    """The records of a folder, without what no two runs have in common."""
    found = results.read(folder)
    for record in found:
        del record["seconds"], record["date"]
    return sorted(found, key=lambda record: record["seed"])


def test_the_plan_is_the_product_of_recipes_values_and_seeds():
    runs = plan(["--model.lr", "1,2", "--data.batch_size=5"], recipes=("Dense", "ConvNetReLU"))
    assert len(set(runs)) == len(runs) == 8
    assert runs[0].recipe == "Dense"
    assert runs[0].flags == ("--model.lr=1", "--data.batch_size=5")
    assert [run.seed for run in runs[:2]] == [0, 1]
    assert len({run.folder for run in runs}) == 8


def test_a_tilde_is_the_home_folder_as_for_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = sweep._parser().parse_args(["Dense", "--runs=~/runs", "--plot=~/a.png"])
    assert (arguments.runs, arguments.plot) == (tmp_path / "runs", tmp_path / "a.png")


def test_the_bars_show_flags_as_they_are(tmp_path):
    progress = sweep._Sweep([], tmp_path, tmp_path).progress
    progress.add_task("Dense --data.x=[/a], seed 0, epoch")
    assert str(progress.columns[0].render(progress.tasks[0])) == progress.tasks[0].description


@pytest.mark.parametrize(
    ("text", "alternatives"),
    [
        ("0.03", ["0.03"]),
        ("0.03,0.005", ["0.03", "0.005"]),
        ("{pct_start: 0.25, three_phase: false}", ["{pct_start: 0.25, three_phase: false}"]),
        ("[1, 2],[3, [4, 5]]", ["[1, 2]", "[3, [4, 5]]"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        ('"it\'s, so",b', ['"it\'s, so"', "b"]),
        ("", [""]),
    ],
)
def test_commas_divide_values_save_within_brackets(text, alternatives):
    assert sweep._alternatives(text) == alternatives


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", [0, 1, 2]),
        ("3,7,9", [3, 7, 9]),
        ("5-9", [5, 6, 7, 8, 9]),
        ("7-7,1", [7, 1]),
    ],
)
def test_seeds_are_a_number_or_themselves(text, seeds):
    assert sweep._seeds(text) == seeds


@pytest.mark.parametrize(
    ("seeds", "named"), [([0], "seed 0"), ([0, 1, 2], "seeds 0 to 2"), ([7, 3], "seeds 7, 3")]
)
def test_seeds_are_named_before_the_runs(seeds, named):
    assert sweep._named(seeds) == named


@pytest.mark.parametrize("text", ["", "0", "a", "-1", "1,", "2:3", "9-5"])
def test_other_seeds_are_refused(text):
    with pytest.raises(ZooError, match="--seeds"):
        sweep._seeds(text)


def test_what_changes_nothing_is_no_setting():
    one, other = (
        plan(flags, seeds=[0])[0]
        for flags in (["--model.lr=1"], ["--model.lr=1", "--data.root=x", "--test_curve=true"])
    )
    assert one.key == other.key
    assert one.folder == other.folder
    assert other.of_the_machine == ("--data.root=x",)


@pytest.mark.parametrize(
    "flag",
    [
        "--data.root=x",
        "--trainer.accelerator=cpu",
        "--steps_per_execution=3",
        "--cuda_graph=false",
        "--test_curve=true",
    ],
)
def test_none_of_these_makes_another_run(flag):
    assert [run.key for run in plan([flag])] == [run.key for run in plan()]


def test_a_run_goes_on_from_the_newest_of_its_checkpoints(tmp_path):
    assert sweep_run.last_checkpoint(tmp_path) is None
    for version, written in (("version_0", 1000), ("version_1", 3000), ("version_2", 2000)):
        file = tmp_path / "Dense" / version / "checkpoints" / "last.ckpt"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (written, written))
    newest = tmp_path / "Dense" / "version_1" / "checkpoints" / "last.ckpt"
    assert sweep_run.last_checkpoint(tmp_path) == newest


def test_a_recipe_that_was_changed_makes_another_run(tmp_path):
    files = []
    for number, lr in enumerate((1, 2)):
        files.append(tmp_path / str(number) / "Mine.yaml")
        files[-1].parent.mkdir()
        files[-1].write_text(f"# {number}\nmodel: {{class_path: Dense, init_args: {{lr: {lr}}}}}")
    one, other = (plan(recipes=[str(file)], seeds=[0])[0] for file in files)
    assert one.recipe == other.recipe == "Mine"
    assert one.folder != other.folder
    files[1].write_text(files[0].read_text().replace("# 0", "# another comment"))
    assert plan(recipes=[str(files[1])], seeds=[0])[0].folder == one.folder


def test_a_word_that_is_no_flag_is_refused():
    with pytest.raises(ZooError, match="oops"):
        plan(["--model.lr=1", "oops"])


def test_a_flag_that_is_given_twice_is_passed_on_twice():
    callbacks = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks+=Timer"]
    assert plan(callbacks, seeds=[0])[0].flags == tuple(callbacks)


def test_any_other_flag_may_not_be_given_twice():
    with pytest.raises(ZooError, match=r"--model.lr is given twice; .*: --model.lr 1,2"):
        plan(["--model.lr=1", "--model.lr", "2"])


def test_a_value_that_is_given_twice_makes_one_run():
    assert len(plan(["--model.lr=1,1"], seeds=[0])) == 1


@pytest.mark.parametrize(
    ("flag", "values"), [("--trainer.accelerator", "cpu,auto"), ("--cuda_graph", "true,false")]
)
def test_several_values_of_what_changes_nothing_are_refused(flag, values):
    with pytest.raises(ZooError, match=f"{flag} {values}: records do not tell its values apart"):
        plan([flag, values])


@pytest.mark.slow
def test_a_run_without_steps_is_refused(cli):
    error = cli("sweep", "ConvNetReLU-digits", "--trainer.max_epochs=0", status=2).err
    assert "--trainer.max_epochs 0: trains nothing" in error


def test_the_settings_of_each_callback_stay_with_it():
    def stopping(*monitors):
        return [
            flag
            for monitor, patience in monitors
            for flag in (
                "--trainer.callbacks+=EarlyStopping",
                f"--trainer.callbacks.monitor={monitor}",
                f"--trainer.callbacks.patience={patience}",
            )
        ]

    flags = [
        stopping(("val/loss", 1), ("train/loss", 50)),
        stopping(("val/loss", 50), ("train/loss", 1)),
    ]
    one, other = (plan(given, seeds=[0])[0] for given in flags)
    assert sorted(one.flags) == sorted(other.flags)
    assert one.key != other.key
    assert one.folder != other.folder
    between = plan([*flags[0][:3], "--model.lr=1", *flags[0][3:]], seeds=[0])[0]
    assert between.key == plan(["--model.lr=1", *flags[0]], seeds=[0])[0].key


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--tag=val/acc"], "--tag val/acc: draw it where?"),
        (["--tag=val/accc", "--plot=a.png"], "Did you mean val/acc?"),
        (["--plot=/proc/a.png"], "cannot write to /proc"),
        (["--ray=localhost:1"], "--ray localhost:1: nothing answers there"),
    ],
)
def test_what_is_drawn_and_where_runs_are_made_is_looked_at_before_the_runs(cli, flags, text):
    if "--ray" in flags[0]:
        pytest.importorskip("ray")
    assert text in cli("sweep", "Dense", "--data=Digits", "--seeds=1", *flags, status=2).err


def test_the_order_of_flags_makes_no_other_run():
    flags = "--model.lr=1", "--data.batch_size=5"
    one, other = (plan(order, seeds=[0])[0] for order in (flags, flags[::-1]))
    assert one.key == other.key
    assert one.folder == other.folder


def test_two_recipes_of_one_name_are_refused(tmp_path):
    for number in (1, 2):
        file = tmp_path / str(number) / "Mine.yaml"
        file.parent.mkdir()
        file.write_text(f"model: {{class_path: Dense, init_args: {{lr: {number}}}}}")
    with pytest.raises(ZooError, match="two recipes are called Mine"):
        plan(recipes=[str(tmp_path / "1/Mine.yaml"), str(tmp_path / "2/Mine.yaml")])


def test_a_file_that_is_called_like_a_recipe_must_have_its_settings(tmp_path):
    file = tmp_path / "Dense.yaml"
    file.write_text(registry.recipes()["Dense"].path.read_text())
    assert plan(recipes=[str(file)]) == plan()
    file.write_text("model: Dense")
    with pytest.raises(ZooError, match=r"Dense\.yaml: the zoo has a recipe Dense with other"):
        plan(recipes=[str(file)])


@pytest.mark.parametrize("content", [b"model: [", b"\xff\xfe"])
def test_a_damaged_recipe_is_an_error_in_a_line(cli, tmp_path, content):
    (tmp_path / "bad.yaml").write_bytes(content)
    assert "not valid YAML" in cli("sweep", "bad.yaml", status=2).err


def test_records_that_cannot_be_written_are_told_before_anything_runs(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_zoo.commands.sweep.workers.check", lambda runs: None)
    (tmp_path / "file").touch()
    for flag in ("--results", "--runs"):
        result = cli("sweep", "Dense", flag, "file", status=2)
        assert result.err.startswith("error: cannot write to file: ")
        assert result.err.endswith(f"Give another folder: {flag} FOLDER\n")


@pytest.mark.parametrize("flag", ["--results", "--runs"])
def test_a_folder_that_takes_no_files_is_told_before_anything_runs(
    cli, tmp_path, monkeypatch, fill_up, flag
):
    monkeypatch.setattr("mnist_zoo.commands.sweep.workers.check", lambda runs: None)
    (tmp_path / "full").mkdir()
    fill_up("full")
    error = cli("sweep", "Dense", flag, "full", status=2).err
    assert error.startswith("error: cannot write to full: No space left on device.\n")


@pytest.mark.parametrize(
    "flag",
    [
        "--seed_everything",
        "--trainer.logger",
        "--trainer.limit_test_batches",
        "--trainer.devices",
        "--print_config",
        "--model.help",
    ],
)
def test_what_a_sweep_says_itself_is_refused(flag):
    with pytest.raises(ZooError, match=f"{flag}: a sweep sets this itself"):
        plan([flag, "1"])


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--model", "Dense"], "--model"),
        (["--config=Dense"], "--config"),
        (["-c", "Dense"], "-c"),
    ],
)
def test_a_recipe_named_by_a_flag_is_refused_with_the_command_that_was_meant(cli, words, flag):
    assert cli("sweep", *words, "--seeds", "1", status=2).err == (
        f"error: {flag}: a sweep takes recipes without a flag: mnist-zoo sweep Dense --seeds 1\n"
        "For all options: mnist-zoo sweep --help\n"
    )


def test_so_is_one_that_is_named_further_on():
    with pytest.raises(ZooError, match="--config: a sweep takes recipes and files first"):
        plan(["--config", "MLPDropout"])


@pytest.mark.parametrize("flags", [["--model.lr"], ["--model", "--model.lr", "1"]])
def test_a_flag_without_its_value_is_refused(flags):
    with pytest.raises(ZooError, match=f"{flags[0]}: no value follows it"):
        plan(flags)


def test_an_unknown_recipe_is_an_error_before_anything_runs(cli):
    result = cli("sweep", "Densee", status=2)
    assert "Did you mean Dense?" in result.err


def test_ray_that_is_not_installed_is_an_error_in_a_line(tmp_path, monkeypatch):
    from mnist_zoo.commands.sweep.workers import Cluster

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ZooError, match=r"pip install 'mnist-zoo\[ray\]'"):
        Cluster(tmp_path, "local", 1, 0)


class Recorded:
    """Workers that train nothing and remember what they were asked for."""

    def __init__(self):
        self.made = []

    def make(self, run, on_epoch):
        self.made.append(run)
        if run.seed == 13:
            return run.crashed("ValueError: boom")
        return run.record({"status": "finished", "test_acc": 0.5, "seconds": 1.0})

    def stop(self, at_once):
        raise AssertionError("nothing was to be stopped")


def test_a_crashed_run_is_recorded_and_made_again_next_time(tmp_path):
    runs = plan(seeds=[12, 13, 14])
    for made in ([12, 13, 14], [13]):
        workers = Recorded()
        one = sweep._Sweep(runs, tmp_path / "results", tmp_path / "runs")
        one.run(workers, 1)
        assert [run.seed for run in workers.made] == made
        assert one.print_table() == 1
    (crashed,) = [r for r in results.read(tmp_path / "results") if r["status"] == "crashed"]
    assert crashed["reason"] == "ValueError: boom"


def test_a_run_of_another_sweep_is_neither_shown_nor_counted(tmp_path):
    for seed in (13, 14):
        one = sweep._Sweep(plan(seeds=[seed]), tmp_path / "results", tmp_path / "runs")
        one.run(Recorded(), 1)
    assert one.print_table() == 0
    assert [record["seed"] for record in one.records()] == [14]


@pytest.mark.parametrize(
    ("recipes", "records"),
    [(["Dense"], "results/Dense.jsonl"), (["Dense", "ConvNetReLU"], "results")],
)
def test_the_last_line_says_where_records_and_runs_lie(
    cli, tmp_path, monkeypatch, recipes, records
):
    monkeypatch.setattr("mnist_zoo.commands.sweep.workers.check", lambda runs: None)
    monkeypatch.setattr("mnist_zoo.commands.sweep.workers.Processes", lambda *_: Recorded())
    out = cli("sweep", *recipes, "--seeds", "2", "--runs", "my [runs]").out
    assert out.endswith(f"\nRecords: {Path(records)}; runs: my [runs]\n")
    assert (tmp_path / records).exists()


class Lasting(Recorded):
    """Workers whose runs have two epochs behind them before they end."""

    def make(self, run, on_epoch):
        on_epoch(1, 40)
        on_epoch(2, None)
        return super().make(run, on_epoch)


@pytest.mark.parametrize("seconds", [-1, 600])
def test_a_long_run_says_now_and_then_in_a_file_how_far_it_is(
    tmp_path, capsys, monkeypatch, seconds
):
    monkeypatch.setattr(sweep, "_SECONDS_BETWEEN_LINES", seconds)
    (run,) = plan(seeds=[3])
    sweep._Sweep([run], tmp_path / "results", tmp_path / "runs").run(Lasting(), 1)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith("epochs")]
    said = [f"{run.title}: 1 of 40 epochs", f"{run.title}: 2 of ? epochs"]
    assert lines == (said if seconds < 0 else [])


class Interrupted(Recorded):
    """Workers that are stopped by Ctrl-C while the run of seed 1 is being made."""

    def __init__(self):
        super().__init__()
        self.working, self.stopped = threading.Event(), threading.Event()

    def make(self, run, on_epoch):
        if run.seed != 1:
            self.working.wait(60)
            raise KeyboardInterrupt
        self.working.set()
        self.stopped.wait(60)
        return run.crashed("its process ended with -9")

    def stop(self, at_once):
        if not at_once:
            raise KeyboardInterrupt  # a second time
        self.stopped.set()


def test_what_ctrl_c_stops_is_no_crashed_run(tmp_path, capsys):
    one = sweep._Sweep(plan(seeds=[0, 1]), tmp_path / "results", tmp_path / "runs")
    with pytest.raises(SystemExit) as end:
        one.run(Interrupted(), 2)
    assert end.value.code == 130
    assert "The same command resumes here." in capsys.readouterr().out
    assert results.read(tmp_path / "results") == []


def test_a_run_that_another_sweep_is_making_is_left_to_it(tmp_path, capsys):
    runs = plan(seeds=[0, 1])
    (tmp_path / "runs" / runs[0].folder).mkdir(parents=True)
    workers = Recorded()
    with FileLock(tmp_path / "runs" / runs[0].folder / "lock"):
        sweep._Sweep(runs, tmp_path / "results", tmp_path / "runs").run(workers, 1)
    assert workers.made == runs[1:]
    assert "seed 0: left to another sweep" in capsys.readouterr().out


def test_a_run_that_another_sweep_has_made_meanwhile_is_not_made_again(tmp_path):
    (run,) = plan(seeds=[0])
    late, early = (sweep._Sweep([run], tmp_path / "results", tmp_path / "runs") for _ in "ab")
    workers = Recorded()
    early.run(workers, 1)
    assert "in the meantime" in late._make(run, workers)
    assert workers.made == [run]


def test_the_test_images_are_read_once_after_training(tmp_path, monkeypatch):
    commands = []
    command = training.run

    def listed(words, **kwargs):
        commands.append(words)
        return command(words, **kwargs)

    monkeypatch.setattr(training, "run", listed)
    flags = ["--trainer.max_epochs=2", "--trainer.accelerator=cpu"]
    (run,) = plan(flags, recipes=["ConvNetReLU-digits"], seeds=[0])
    outcome = sweep_run.train_and_test(run, tmp_path)
    assert [words[0] for words in commands] == ["fit", "test"]
    assert commands[1][1].endswith("checkpoints/best.ckpt")
    assert outcome["weights"] == "best"
    assert outcome["val_acc"] == max(outcome["epochs"]["val/acc"])
    assert {len(values) for values in outcome["epochs"].values()} == {2}
    assert not [tag for tag in outcome["epochs"] if "test" in tag]
    assert outcome["train_loss"] == outcome["epochs"]["train/loss"][-1]
    assert outcome["device"] == "cpu"
    assert outcome["device_name"]

    # What was trained to the end but not recorded is tested and not trained again.
    for told in (["test"], ["fit", "test"]):
        commands.clear()
        again = sweep_run.train_and_test(run, tmp_path)
        assert [words[0] for words in commands] == told
        assert {**again, "seconds": 0} == {**outcome, "seconds": 0}
        (ended,) = tmp_path.rglob(sweep_run._TRAINED)
        ended.unlink()


def test_the_accuracy_on_the_validation_images_is_that_of_the_weights_that_are_tested(tmp_path):
    flags = ["--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--best.mode=min"]
    (run,) = plan(flags, recipes=["ConvNetReLU-digits"], seeds=[0])
    outcome = sweep_run.train_and_test(run, tmp_path)
    first, second = outcome["epochs"]["val/acc"]
    assert first < second
    assert outcome["val_acc"] == first


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


def test_a_network_of_ones_own_needs_no_recipe_and_logs_what_it_likes(own, tmp_path):
    flags = ["--data=Digits", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    (run,) = plan(flags, recipes=["net_of_a_sweep.Own"], seeds=[0])
    assert run.recipe == "net_of_a_sweep.Own"
    outcome = sweep_run.train_and_test(run, tmp_path)
    assert outcome["status"] == "finished"
    assert outcome["train_loss"] is None
    assert outcome["val_acc"] == outcome["epochs"]["val/acc"][-1]


def testing(*names):
    """Return the network with a ``test_step`` of its own that logs figures of some names."""
    logged = dict.fromkeys(names, 0.5)
    step = f"    def test_step(self, batch, batch_idx):\n        self.log_dict({logged})\n"
    return f"{OWN}\n{step}"


@pytest.mark.parametrize("names", [["test_accuracy"], ["test/acc"]])
def test_a_test_step_that_logs_no_figures_is_told_before_anything_runs(own, names):
    own.write_text(testing(*names))
    runs = plan(["--data=Digits"], recipes=["net_of_a_sweep.Own"], seeds=[0])
    with pytest.raises(ZooError) as refused:
        sweep_run.check(runs)
    assert str(refused.value) == "Own: its test_step has to log test/acc and test/loss."


def test_one_that_logs_them_is_not_refused(own):
    own.write_text(testing("test/acc", "test/loss"))
    sweep_run.check(plan(["--data=Digits"], recipes=["net_of_a_sweep.Own"], seeds=[0]))


def test_a_recipe_says_neither_where_figures_go_nor_that_nothing_is_trained(own, tmp_path):
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


def test_a_run_that_trains_nothing_is_refused_before(cli):
    flags = ("--data=Digits", "--seeds=1", "--trainer.limit_train_batches=0")
    error = cli("sweep", "Dense", *flags, status=2).err
    assert "--trainer.limit_train_batches 0: trains nothing." in error


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
        ("Dense", ["--trainer={plugins: [net_of_a_sweep.Own]}"]),
        ("callbacks.yaml", []),
    ],
)
@pytest.mark.parametrize("package", [False, True])
def test_code_of_ones_own_is_another_once_it_is_edited(own, recipe, flags, package):
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
    assert results.current(records, registry.recipe_hashes()) == records[1:]


def test_so_is_code_in_a_package_within_the_package(own):
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
def test_so_is_the_network_of_an_installed_plugin(own, monkeypatch, recipe, flags):
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
def test_other_flags_name_no_code_that_may_be_edited(own, flag):
    assert plan([flag], seeds=[0])[0].code == ()


def test_code_of_ones_own_is_not_imported_for_a_plan(own):
    package = own.with_suffix("")
    package.mkdir()
    (package / "__init__.py").write_text("1 / 0\n")
    assert plan(recipes=["net_of_a_sweep.net.Own"], seeds=[0])[0].code


def test_a_network_of_the_zoo_has_its_recipe_by_its_path_too():
    paths = ["mnist_zoo.models.Dense", "mnist_zoo.models.dense.Dense", "Dense"]
    assert len({plan(recipes=[path], seeds=[0])[0].key for path in paths}) == 1


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


def test_an_ensemble_is_of_seeds_in_their_order_each_used_once():
    runs = plan(["--model.lr=1,2"], seeds=[5, 0, 3, 4, 9])
    groups = ensemble.groups(runs, 2)
    assert [[run.seed for run in members] for members in groups] == [[5, 0], [3, 4]] * 2
    assert [members[0].flags for members in groups] == [("--model.lr=1",)] * 2 + [
        ("--model.lr=2",)
    ] * 2
    together = ensemble.run_of(groups[0])
    assert together.settings == ("--ensemble=2", "--model.lr=1")
    assert together.seed == 5


def test_networks_tested_together_answer_by_their_mean_probabilities(tmp_path):
    flags = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.num_train=300"]
    members = plan(flags, recipes=["ConvNetReLU-digits"], seeds=[0, 1, 2])
    records = []
    for run in members:
        (tmp_path / run.folder).mkdir()
        records.append(run.record(sweep_run.train_and_test(run, tmp_path / run.folder)))
    records[1] |= {"date": "2999-12-31", "versions": {"torch": "9.9"}}
    record = ensemble.test(members, records, tmp_path)
    assert record["versions"] == {"torch": "9.9"}, "those of the newest run"

    networks = [load(next((tmp_path / run.folder).rglob("best.ckpt"))) for run in members]
    data = Digits(num_train=300)
    data.setup("test")
    images, targets = data.splits["test"]
    mean = torch.stack([network.predict(images) for network in networks]).mean(dim=0)
    assert record["test_acc"] == pytest.approx(float((mean.argmax(1) == targets).double().mean()))
    assert record["test_loss"] == pytest.approx(float(F.nll_loss(mean.log(), targets)), rel=1e-4)
    assert record["seeds"] == [0, 1, 2]
    assert record["num_steps"] == sum(one["num_steps"] for one in records)
    assert "--ensemble=3" in record["flags"]

    results.append(tmp_path / "results", record)
    assert results.read(tmp_path / "results") == [record]


def test_an_ensemble_finds_the_data_where_its_members_did(tmp_path, monkeypatch):
    def data_with_test_images(checkpoint, named, root=None):
        raise ZooError(f"no {named} in {root}")

    monkeypatch.setattr(ensemble, "data_with_test_images", data_with_test_images)
    trained_on = SimpleNamespace(data={"class_path": "mnist_zoo.data.MNIST"})
    monkeypatch.setattr("mnist_zoo.models.checkpoint.read", lambda path: trained_on)
    monkeypatch.setattr(ensemble, "last_checkpoint", lambda folder: folder / "last.ckpt")
    with pytest.raises(ZooError, match=r"no mnist_zoo\.data\.MNIST in here"):
        ensemble.test(plan(["--data.root=here"]), [], tmp_path)


def test_an_ensemble_needs_the_weights_of_its_members(tmp_path):
    with pytest.raises(ZooError, match="the weights of Dense, seed 0 are not in"):
        ensemble.test(plan(), [], tmp_path)


def test_an_ensemble_is_tested_once_and_of_finished_runs_alone(tmp_path, monkeypatch, capsys):
    runs = plan(seeds=[10, 11, 12, 13])  # the last of which crashes
    one = sweep._Sweep(runs, tmp_path / "results", tmp_path / "runs")
    one.run(Recorded(), 1)
    tested = []

    def test(members, records, folder):
        tested.append([run.seed for run in members])
        assert [record["seed"] for record in records] == tested[-1]
        outcome = {"status": "finished", "test_acc": 0.75, "seconds": 2.0, "seeds": tested[-1]}
        return ensemble.run_of(members).record(outcome)

    monkeypatch.setattr(ensemble, "test", test)
    for _ in range(2):
        one.test_ensembles(2)
    assert tested == [[10, 11]]
    assert "--ensemble=2, seed 12: left out, since not all" in capsys.readouterr().out
    (row,) = [r for r in results.rows(one.records()) if r.flags]
    assert (row.recipe, row.flags) == ("Dense", ("--ensemble=2",))
    # Of the same first seed, but with another second one: another ensemble, and no other again.
    for seeds in ([10, 12], [10, 11], [12, 10]):
        other = sweep._Sweep(plan(seeds=seeds), tmp_path / "results", tmp_path / "runs")
        other.test_ensembles(2)
    assert tested[1:] == [[10, 12]]
    records = results.read(tmp_path / "results")
    assert [r["seeds"] for r in records if r["flags"]] == [[10, 11], [10, 12]]


def test_an_ensemble_of_which_a_run_has_no_record_is_left_out(tmp_path, monkeypatch, capsys):
    runs = plan(seeds=[0, 1])
    record = runs[0].record({"status": "finished", "test_acc": 0.5, "seconds": 1.0})
    results.append(tmp_path / "results", record)
    monkeypatch.setattr(ensemble, "test", lambda *_: pytest.fail("it was tested"))
    sweep._Sweep(runs, tmp_path / "results", tmp_path / "runs").test_ensembles(2)
    assert "--ensemble=2, seed 0: left out, since not all" in capsys.readouterr().out
    assert results.read(tmp_path / "results") == [record]


def test_an_ensemble_without_its_weights_is_left_out_and_the_table_still_printed(tmp_path, capsys):
    one = sweep._Sweep(plan(seeds=[10, 11]), tmp_path / "results", tmp_path / "runs")
    one.run(Recorded(), 1)
    one.test_ensembles(2)
    assert "seed 10: left out: the weights of Dense, seed 10 are not in" in capsys.readouterr().out


def test_an_ensemble_of_more_seeds_than_there_are_is_refused(cli):
    error = cli("sweep", "Dense", "--seeds", "3", "--ensemble", "5", status=2).err
    assert "--ensemble 5: more than the 3 --seeds" in error


def test_an_ensemble_of_one_is_refused(cli):
    assert (
        "--ensemble 1: must be at least 2."
        in cli("sweep", "Dense", "--ensemble", "1", status=2).err
    )


def test_weights_can_not_be_chosen_by_the_test_images(tmp_path):
    flags = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--test_curve=true"]
    flags.append("--best.monitor=test_curve/acc")
    (run,) = plan(flags, recipes=["ConvNetReLU-digits"], seeds=[0])
    with pytest.raises(ZooError, match="test_curve/acc"):
        sweep_run.train_and_test(run, tmp_path)


@pytest.mark.slow
class TestOnDigits:
    ARGUMENTS = ("sweep", *DIGITS, "--seeds", "2", "--trainer.max_epochs", "1")

    def test_runs_are_recorded_and_only_missing_ones_are_made(self, zoo, tmp_path):
        first = zoo(*self.ARGUMENTS, "--plot", "curves.png")
        assert first.returncode == 0, first.stderr
        assert (tmp_path / "curves.png").read_bytes()[1:4] == b"PNG"
        records = results.read(tmp_path / "results")
        assert [(r["seed"], r["status"], r["weights"]) for r in records] == [
            (0, "finished", "best"),
            (1, "finished", "best"),
        ]
        assert all(r["num_steps"] == 41 and 0 < r["test_acc"] < 1 for r in records)
        assert records[0]["test_acc"] != records[1]["test_acc"]

        file = tmp_path / "results" / "ConvNetReLU-digits.jsonl"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text(lines[1])
        again = zoo(*self.ARGUMENTS)
        assert "Runs: 2 (seeds 0 to 1); recorded already: 1" in again.stdout
        remade = {r["seed"]: r for r in results.read(tmp_path / "results")}
        assert remade[0]["test_acc"] == records[0]["test_acc"]
        assert remade[1] == records[1]

    def test_a_wrong_flag_ends_it_as_it_ends_fit(self, zoo, tmp_path):
        wrong = ("--model.lrr", "3")
        fit = zoo("fit", "--model", "Dense", *wrong)
        result = zoo("sweep", "Dense", *wrong)
        assert (result.returncode, result.stderr) == (fit.returncode, fit.stderr)
        assert fit.returncode == 2
        assert "Did you mean --model.lr?" in fit.stderr
        result = zoo("sweep", *DIGITS, "--model.lr", "0.1,ten")
        assert result.returncode == 2
        assert "--model.lr ten" in result.stderr
        result = zoo("sweep", *DIGITS, "--data.num_test", "99999")
        assert result.returncode == 2
        assert "--data.num_test 99999: there are only 360 test images" in result.stderr
        assert not (tmp_path / "results").exists()
        assert not (tmp_path / "runs").exists()

    def test_a_crashed_or_diverged_run_stops_no_other(self, zoo, tmp_path):
        result = zoo(
            "sweep", *DIGITS, "--seeds", "1", "--trainer.limit_train_batches", "0.0001,0.2",
            "--model.lr", "0.1,1e30", "--trainer.max_epochs", "1",
        )  # fmt: skip
        assert result.returncode == 1, result.stderr
        records = results.read(tmp_path / "results")
        assert sorted(r["status"] for r in records) == [
            "crashed",
            "crashed",
            "diverged",
            "finished",
        ]
        assert "crashed, DataError: --trainer.limit_train_batches 0.0001: " in result.stdout
        (diverged,) = [r for r in records if r["status"] == "diverged"]
        assert diverged["epochs"]["train/loss"] == [None]

    @pytest.mark.timeout(1500)
    def test_killed_and_started_again_it_ends_with_the_same_records(self, zoo, tmp_path):
        arguments = ("sweep", *DIGITS, "--seeds", "2", "--trainer.max_epochs", "12")
        whole = tmp_path / "whole"
        whole.mkdir()
        assert zoo(*arguments, cwd=whole).returncode == 0

        cut = tmp_path / "cut"
        cut.mkdir()
        runs, records = cut / "runs" / "sweep", cut / "results" / "ConvNetReLU-digits.jsonl"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for seed in (0, 1):
            process = subprocess.Popen(
                [sys.executable, "-m", "mnist_zoo", *arguments],
                cwd=cut,
                env=environment,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            begun = f"*seed{seed}/*/version_0/checkpoints/last.ckpt"
            while not list(runs.glob(begun)):
                assert process.poll() is None
                time.sleep(0.01)
            if seed == 0:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                # Of the sweep alone: the process of the run is to end by itself.
                process.kill()
            process.wait()
            assert len(records.read_text().splitlines() if records.exists() else []) == seed
            for _ in range(600):
                if not (alive := processes_in(process.pid)):
                    break
                time.sleep(0.1)
            assert not alive

        result = zoo(*arguments, cwd=cut)
        assert "Runs: 2 (seeds 0 to 1); recorded already: 1" in result.stdout
        assert len(records.read_text().splitlines()) == 2
        assert comparable(cut / "results") == comparable(whole / "results")

    @pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
    @pytest.mark.usefixtures("ctrl_c")
    def test_stopped_by_ctrl_c_its_runs_lose_no_step(self, tmp_path):
        words = ("Dense", "--seeds", "1", "--data", "Digits", "--data.batch_size", "1")
        words += ("--steps_per_execution", "50")
        process = subprocess.Popen(
            [sys.executable, "-m", "mnist_zoo", "sweep", *words, "--jobs", "1"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            while not list(tmp_path.glob("runs/sweep/*/*/version_0/checkpoints/last.ckpt")):
                assert process.poll() is None
                time.sleep(0.05)
            # As a terminal does: it is sent to the processes of the runs, too.
            os.killpg(process.pid, signal.SIGINT)
            out, _ = process.communicate(timeout=300)
        finally:
            process.kill()
        assert process.returncode == 130
        assert "Ctrl-C again stops at once." in out
        assert out.endswith("Stopped. The same command resumes here.\n")
        assert not (tmp_path / "results").exists()
        (last,) = tmp_path.glob("runs/sweep/*/*/version_0/checkpoints/last.ckpt")
        step = torch.load(last, weights_only=True)["global_step"]
        # No step, nor the time until then; it may have been stopped between two epochs.
        assert events.read_scalars(last.parents[1])["stopped"] == [(step, 1.0)]

    def test_on_a_local_ray_it_makes_the_same_records(self, zoo, tmp_path):
        pytest.importorskip("ray", reason="needs the optional package ray")
        assert zoo(*self.ARGUMENTS, "--results", "here").returncode == 0
        on_ray = zoo(*self.ARGUMENTS, "--results", "ray", "--runs", "runs/ray", "--ray", "local")
        assert on_ray.returncode == 0, on_ray.stderr
        assert comparable(tmp_path / "ray") == comparable(tmp_path / "here")


def processes_in(session):
    """The processes of a session that are alive, by their numbers."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--sid", str(session)], capture_output=True, text=True
    )
    return [line for line in listed.stdout.splitlines() if "Z" not in line]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/net/tcp")
def test_a_local_ray_listens_on_loopback_only(tmp_path):
    pytest.importorskip("ray", reason="needs the optional package ray")
    code = (
        "import contextlib, json, os, pathlib\n"
        "from mnist_zoo.commands.sweep.workers import Cluster\n"
        "def sockets():  # of this process and of Ray's, not of other tests\n"
        "    for process in pathlib.Path('/proc').glob('[0-9]*'):\n"
        "        with contextlib.suppress(OSError):\n"
        "            command = (process / 'cmdline').read_bytes()\n"
        "            if b'ray' in command or process.name == str(os.getpid()):\n"
        "                yield from (os.readlink(fd) for fd in (process / 'fd').iterdir())\n"
        "cluster = Cluster(pathlib.Path('runs'), 'local', 1, 0)\n"
        "ours = set(sockets())\n"
        "lines = [line.split() for name in ('tcp', 'tcp6')\n"
        "         for line in pathlib.Path(f'/proc/net/{name}').read_text().splitlines()[1:]]\n"
        "print(json.dumps([line[1] for line in lines\n"
        "                  if line[3] == '0A' and f'socket:[{line[9]}]' in ours]))\n"
        "cluster.stop(at_once=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    ports = json.loads(done.stdout.splitlines()[-1])
    assert ports
    assert not [port for port in ports if not port.partition(":")[0].endswith("0100007F")]
