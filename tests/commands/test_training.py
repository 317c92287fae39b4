"""Runs on the built-in digits: what they leave behind, and what is made of it afterwards."""

import csv
import json
import re
import shlex
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
import yaml
from filelock import FileLock
from lightning import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mnist_zoo
from mnist_zoo import registry
from mnist_zoo.commands.shared.checkpoint_data import data_here
from mnist_zoo.data import Digits, to_float
from mnist_zoo.engine.blocks import _BlockStep
from mnist_zoo.models import ConvNetReLU

NUM_TEST = 360
NUM_VAL = 144
STEPS_PER_EPOCH = 41  # 1,293 images in minibatches of 32
ON_CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


def content(checkpoint):
    return torch.load(checkpoint, weights_only=True)


def curve(run, tag):
    """Values of a tag of TensorBoard, in their order."""
    events = EventAccumulator(str(run)).Reload()
    return [event.value for event in events.Scalars(tag)]


def digits_for_test():
    data = Digits()
    data.setup("test")
    images, targets = data.splits["test"]
    return to_float(images), targets


class TestFit:
    def test_leaves_configuration_curves_and_two_checkpoints(self, trained):
        files = {str(f.relative_to(trained.folder)) for f in trained.folder.rglob("*.*")}
        assert any(f.startswith("events.out.tfevents.") for f in files)
        assert {"config.yaml", "hparams.yaml"} <= files
        checkpoints = {f for f in files if f.startswith("checkpoints/")}
        assert checkpoints == {"checkpoints/best.ckpt", "checkpoints/last.ckpt"}

    def test_says_first_what_is_trained_on_what(self, trained):
        assert trained.out.splitlines()[0] == (
            "ConvNetReLU (85,670 parameters) on Digits (1,293 training images, 144 held out for"
            " validation), 3 epochs → runs/ConvNetReLU/version_0"
        )

    def test_it_suggests_the_weights_that_validation_chose(self, trained):
        file = "runs/ConvNetReLU/version_0/checkpoints/best.ckpt"
        assert f"Checkpoint: {file}\n" in trained.out
        assert f"mnist-zoo test --ckpt_path {file}\n" in trained.out

    def test_the_command_that_it_suggests_last_works(self, cli, copied):
        (line,) = [line for line in copied.out.splitlines() if "mnist-zoo test" in line]
        command = shlex.split(line.partition(":")[2])
        assert command[0] == "mnist-zoo"
        assert "ConvNetReLU on 360 test images of Digits" in cli(*command[1:]).out

    def test_best_is_of_the_epoch_with_the_highest_validation_accuracy(self, trained):
        accuracies = curve(trained.folder, "val/acc")
        assert len(accuracies) == 3
        assert content(trained.best)["epoch"] == accuracies.index(max(accuracies))
        assert f"Best validation accuracy: {max(accuracies):.2%}" in trained.out

    @pytest.mark.parametrize(("flags", "choose"), [([], min), (["--best.mode=max"], max)])
    def test_best_may_be_chosen_by_the_loss(self, fit, tmp_path, flags, choose):
        fit("--best.monitor=val/loss", *flags, epochs=2)
        run = tmp_path / "runs" / "ConvNetReLU" / "version_0"
        losses = curve(run, "val/loss")
        assert losses[0] != losses[1]
        best = content(run / "checkpoints" / "best.ckpt")["epoch"]
        assert best == losses.index(choose(losses))

    @pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-true", "64-true"])
    def test_any_precision_trains(self, fit, precision):
        flags = f"--trainer.precision={precision}", "--trainer.limit_train_batches=2"
        assert "Best validation accuracy: " in fit(*flags).out

    def test_last_is_of_the_last_step(self, trained):
        last = content(trained.last)
        assert last["epoch"] == 2
        assert last["global_step"] == 3 * STEPS_PER_EPOCH

    def test_without_validation_keeps_the_last_weights_alone_and_names_them(self, fit, tmp_path):
        result = fit("--data.val_size=0")
        checkpoints = tmp_path / "runs" / "ConvNetReLU" / "version_0" / "checkpoints"
        assert [file.name for file in checkpoints.iterdir()] == ["last.ckpt"]
        assert "(1,437 training images, none held out)" in result.out
        assert "Checkpoint: runs/ConvNetReLU/version_0/checkpoints/last.ckpt\n" in result.out
        assert "Best" not in result.out

    def test_a_second_run_gets_a_folder_of_its_own(self, fit, copied, tmp_path):
        before = {file: file.read_bytes() for file in copied.folder.rglob("*.*")}
        assert "version_1" in fit("--trainer.limit_train_batches=2").out
        assert (tmp_path / "runs/ConvNetReLU/version_1/checkpoints/best.ckpt").is_file()
        assert before == {file: file.read_bytes() for file in copied.folder.rglob("*.*")}

    def test_another_seed_gives_other_weights(self, fit, trained, tmp_path):
        fit("--seed_everything=1", "--trainer.limit_train_batches=1")
        other = content(tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt")
        name = "layers.3.weight"
        assert not torch.equal(other["state_dict"][name], content(trained.last)["state_dict"][name])

    def test_runs_go_where_they_are_told_to(self, fit, tmp_path):
        fit("--trainer.default_root_dir=elsewhere", "--trainer.limit_train_batches=2")
        assert (tmp_path / "elsewhere/ConvNetReLU/version_0/checkpoints/best.ckpt").is_file()
        assert not (tmp_path / "runs").exists()

    def test_a_tilde_is_the_home_folder(self, fit, cli, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        fit("--trainer.default_root_dir=~/runs", "--trainer.limit_train_batches=2")
        run = tmp_path / "home/runs/ConvNetReLU/version_0"
        assert {"checkpoints", "config.yaml"} <= {path.name for path in run.iterdir()}
        checkpoint = "~/runs/ConvNetReLU/version_0/checkpoints/last.ckpt"
        cli("test", f"--ckpt_path={checkpoint}", "--pictures=false")
        assert [path.name for path in tmp_path.iterdir()] == ["home"]

    @pytest.mark.parametrize("num", ["true", "20"])
    def test_batches_for_trial_leave_nothing(self, fit, tmp_path, num):
        flags = ("--last.every_n_train_steps=6", "--steps_per_execution=5")
        assert "nothing was saved" in fit(f"--trainer.fast_dev_run={num}", *flags).out
        assert list(tmp_path.iterdir()) == []

    def test_mlp_dropout_keeps_the_lowest_validation_loss_by_its_recipe(self, fit, tmp_path):
        result = fit(model="MLPDropout", epochs=2)
        run = tmp_path / "runs" / "MLPDropout" / "version_0"
        losses = curve(run, "val/loss")
        best = content(run / "checkpoints" / "best.ckpt")
        assert best["epoch"] == losses.index(min(losses))
        assert f"Best validation loss: {min(losses):.4f}" in result.out

    def test_without_tensorboard_logger_there_are_checkpoints_all_the_same(self, fit, tmp_path):
        fit("--trainer.logger=false", "--trainer.limit_train_batches=2")
        run = tmp_path / "runs" / "ConvNetReLU" / "version_0"
        assert (run / "checkpoints" / "best.ckpt").is_file()
        assert (run / "config.yaml").is_file()


class TestTensorBoard:
    @pytest.fixture
    def events(self, trained):
        return EventAccumulator(str(trained.folder)).Reload()

    def test_has_every_curve(self, events):
        tags = set(events.Tags()["scalars"])
        assert {"train/loss", "train/acc", "val/loss", "val/acc"} <= tags
        assert any(tag.startswith("lr-") for tag in tags)

    def test_a_curve_has_a_point_an_epoch_at_its_last_step(self, events):
        for tag in ("train/loss", "train/acc", "val/loss", "val/acc"):
            steps = [event.step for event in events.Scalars(tag)]
            assert len(steps) == 3, tag
            assert [step // STEPS_PER_EPOCH for step in steps] in ([0, 1, 2], [1, 2, 3]), tag

    def test_shows_the_learning_rate(self, events):
        (tag,) = [tag for tag in events.Tags()["scalars"] if tag.startswith("lr-")]
        assert [event.value for event in events.Scalars(tag)] == pytest.approx([0.1] * 3)

    def test_has_a_row_of_hyperparameters_with_the_final_metrics(self, events):
        assert "_hparams_/session_start_info" in events.summary_metadata
        info = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        for name in (b"lr", b"batch_size", b"optimizer"):
            assert name in info
        final = events.Scalars("final/val/acc")[-1].value
        assert final == events.Scalars("val/acc")[-1].value


class TestTest:
    def test_prints_accuracy_loss_and_accuracy_per_digit_in_any_folder(self, cli, trained):
        out = cli("test", "--ckpt_path", trained.best).out
        network = mnist_zoo.load(trained.best)
        images, targets = digits_for_test()
        with torch.no_grad():
            outputs = network(images)
        right = outputs.argmax(dim=1) == targets
        cells = dict(
            [cell.strip() for cell in line.strip("│").split("│")]
            for line in out.splitlines()
            if line.startswith("│")
        )
        assert cells.pop("accuracy") == f"{right.float().mean():.2%}"
        assert cells.pop("loss") == f"{network.loss(outputs, targets):.4f}"
        assert cells == {
            f"accuracy on {digit}": f"{right[targets == digit].float().mean():.2%}"
            for digit in range(10)
        }
        assert f"ConvNetReLU on {NUM_TEST} test images of Digits" in out

    def test_leaves_no_files_but_pictures(self, cli, trained, tmp_path):
        before = sorted(trained.folder.rglob("*"))
        cli("test", "--ckpt_path", trained.best, "--pictures=false")
        assert sorted(trained.folder.rglob("*")) == before
        assert list(tmp_path.iterdir()) == []

    def test_flags_win_over_the_checkpoint(self, cli, trained):
        flags = ("--data.num_test=50", "--data.batch_size=7", "--data.mean=0.1")
        arguments = ("test", "--ckpt_path", trained.best, *flags)
        assert "on 50 test images of Digits" in cli(*arguments).out
        config = yaml.safe_load(cli(*arguments, "--print_config").out)
        data = config["data"]["init_args"]
        assert (data["num_test"], data["batch_size"], data["mean"]) == (50, 7, 0.1)

    @pytest.mark.parametrize("module", ["", "mnist_zoo.models.", "mnist_zoo.models.convnet."])
    def test_the_network_may_be_named(self, cli, trained, module):
        out = cli("test", f"--model={module}ConvNetReLU", "--ckpt_path", trained.best).out
        assert "ConvNetReLU on 360 test images" in out

    def test_another_network_is_an_error(self, cli, trained):
        result = cli("test", "--model=Dense", f"--ckpt_path={trained.best}", status=2)
        assert "--model Dense does not fit --ckpt_path" in result.err
        assert "ConvNetReLU" in result.err


class TestValidate:
    def test_finds_the_accuracy_that_the_run_found(self, cli, trained):
        out = cli("validate", "--ckpt_path", trained.best).out
        best = max(curve(trained.folder, "val/acc"))
        assert f"ConvNetReLU on {NUM_VAL} validation images of Digits" in out
        assert f"{best:.2%}" in out

    def test_a_run_that_held_nothing_out_is_told_so(self, cli, trained):
        result = cli("validate", f"--ckpt_path={trained.best}", "--data.val_size=0", status=2)
        assert "--data.val_size 0: nothing to validate on" in result.err


class TestPredict:
    def rows(self, file):
        with file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def test_writes_a_row_an_image_that_agrees_with_the_loaded_network(self, cli, copied):
        out = cli("predict", "--ckpt_path", copied.best).out
        file = copied.folder / "predictions.csv"
        assert f"{NUM_TEST} predictions written to " in out
        rows = self.rows(file)
        assert [int(row["image"]) for row in rows] == list(range(NUM_TEST))

        network = mnist_zoo.load(copied.best)
        images, _ = digits_for_test()
        with torch.no_grad():
            probabilities = network.probabilities(network(images))
        assert [int(row["prediction"]) for row in rows] == probabilities.argmax(dim=1).tolist()
        written = [[float(row[f"p{digit}"]) for digit in range(10)] for row in rows]
        torch.testing.assert_close(torch.tensor(written), probabilities, rtol=0, atol=1e-5)
        best = [float(row["probability"]) for row in rows]
        assert best == [max(row) for row in written]

    def test_a_checkpoint_outside_a_run_writes_into_the_current_folder(
        self, cli, trained, tmp_path
    ):
        alone = shutil.copy(trained.best, tmp_path / "alone.ckpt")
        cli("predict", "--ckpt_path", alone, "--data.num_test=20")
        assert len(self.rows(tmp_path / "predictions.csv")) == 20


class TestResume:
    def test_goes_on_in_the_same_folder(self, cli, copied):
        result = cli("fit", f"--ckpt_path={copied.last}", *ON_CPU, "--trainer.max_epochs=4")
        assert [folder.name for folder in copied.folder.parent.iterdir()] == ["version_0"]
        assert content(copied.last)["epoch"] == 3
        assert content(copied.last)["global_step"] == 4 * STEPS_PER_EPOCH
        assert "runs/ConvNetReLU/version_0/checkpoints" in result.out
        assert len(curve(copied.folder, "val/acc")) == 4

    @pytest.mark.slow
    @pytest.mark.parametrize("model", ["ConvNetReLU", "MLPDropout"])
    def test_ends_where_the_run_without_a_break_ends(self, cli, fit, model, tmp_path):
        runs = tmp_path / "runs" / model
        for epochs in (2, 1):
            fit("--trainer.limit_train_batches=20", model=model, epochs=epochs)
        last = runs / "version_1" / "checkpoints" / "last.ckpt"
        cli("fit", f"--ckpt_path={last}", *ON_CPU, "--trainer.max_epochs=2")
        resumed, straight = content(last), content(runs / "version_0/checkpoints/last.ckpt")
        assert resumed["global_step"] == straight["global_step"] == 40
        torch.testing.assert_close(resumed["state_dict"], straight["state_dict"], rtol=0, atol=0)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("how", "epochs", "steps"),
        [(signal.SIGINT, 1, 20), (signal.SIGTERM, 1, 20), (signal.SIGINT, 2, 41)],
    )
    @pytest.mark.usefixtures("ctrl_c")
    def test_what_was_done_when_it_was_stopped_is_kept(
        self, cli, fit, tmp_path, monkeypatch, how, epochs, steps
    ):
        run, folder = _BlockStep.run, tmp_path / "runs/ConvNetReLU"

        def stopped(self, batch, batch_idx):
            run(self, batch, batch_idx)
            if self.trainer.global_step >= steps:
                signal.raise_signal(how)

        fit(epochs=epochs)
        with monkeypatch.context() as patch:
            patch.setattr(_BlockStep, "run", stopped)
            out = fit(epochs=epochs, status=128 + how).out
        last = folder / "version_1/checkpoints/last.ckpt"
        assert f"--ckpt_path {last.relative_to(tmp_path)}" in out
        assert content(last)["global_step"] == steps
        cli("fit", f"--ckpt_path={last}", *ON_CPU, "--pictures=false")
        whole, resumed = (
            content(folder / f"version_{number}/checkpoints/last.ckpt") for number in (0, 1)
        )
        assert whole["global_step"] == resumed["global_step"]
        torch.testing.assert_close(whole["state_dict"], resumed["state_dict"], rtol=0, atol=0)

    def test_an_epoch_is_kept_in_whose_validation_it_was_stopped(
        self, cli, fit, tmp_path, monkeypatch
    ):
        step = ConvNetReLU.validation_step

        def stopped(self, batch, batch_idx):
            if self.trainer.global_step == STEPS_PER_EPOCH:
                signal.raise_signal(signal.SIGTERM)
            return step(self, batch, batch_idx)

        with monkeypatch.context() as patch:
            patch.setattr(ConvNetReLU, "validation_step", stopped)
            fit(epochs=2, status=143)
            # Of the last epoch, there is nothing left to stop.
            assert "Checkpoint: " in fit(epochs=1).out
        run = tmp_path / "runs/ConvNetReLU/version_0"
        assert content(run / "checkpoints/last.ckpt")["global_step"] == STEPS_PER_EPOCH
        cli("fit", f"--ckpt_path={run}/checkpoints/last.ckpt", *ON_CPU)
        for tag in ("train/acc", "val/acc"):
            assert len(curve(run, tag)) == 2

    def test_keeps_the_best_of_the_epochs_before_in_a_run_that_was_moved(
        self, cli, fit, tmp_path, monkeypatch
    ):
        worst = ("--best.monitor=val/acc", "--best.mode=min")  # so that it is the first epoch
        fit(*worst)
        moved = (tmp_path / "runs").rename(tmp_path / "moved")
        run = moved / "ConvNetReLU" / "version_0"
        last = run / "checkpoints" / "last.ckpt"
        cli("fit", f"--ckpt_path={last}", *ON_CPU, *worst, "--trainer.max_epochs=2")
        accuracies = curve(run, "val/acc")
        assert accuracies[0] < accuracies[1]
        assert content(run / "checkpoints" / "best.ckpt")["epoch"] == 0

    def test_overwrites_no_later_epochs_of_its_run(self, cli, fit, tmp_path):
        fit("--best.monitor=val/acc", "--best.mode=min", epochs=2)  # so that it is the first epoch
        run = tmp_path / "runs" / "ConvNetReLU" / "version_0"
        best = run / "checkpoints" / "best.ckpt"
        before = {file: file.read_bytes() for file in run.rglob("*.*")}
        told = cli("fit", f"--ckpt_path={best}", *ON_CPU, status=2).err
        assert "best.ckpt is from step 41, but its run went on to step 82" in told
        assert before == {file: file.read_bytes() for file in run.rglob("*.*")}
        copy = tmp_path / "best.ckpt"
        copy.write_bytes(best.read_bytes())
        cli("fit", f"--ckpt_path={copy}", *ON_CPU)
        again = content(tmp_path / "runs/ConvNetReLU/version_1/checkpoints/last.ckpt")
        assert again["global_step"] == 82
        (run / "checkpoints" / "last.ckpt").unlink()
        cli("fit", f"--ckpt_path={best}", *ON_CPU)
        assert content(run / "checkpoints" / "last.ckpt")["global_step"] == 82

    def test_takes_the_settings_of_the_run_from_the_checkpoint(self, cli, fit, tmp_path):
        settings = ("--trainer.limit_train_batches=3", "--trainer.gradient_clip_val=0.5")
        fit(*settings, "--seed_everything=7", "--model.optimizer_args.momentum=0.5")
        last = tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt"
        config = yaml.safe_load(cli("fit", f"--ckpt_path={last}", "--print_config").out)
        assert config["seed_everything"] == 7
        assert config["trainer"]["limit_train_batches"] == 3
        assert config["trainer"]["gradient_clip_val"] == 0.5
        assert config["trainer"]["max_epochs"] == 1
        assert config["model"]["init_args"]["optimizer_args"] == {"momentum": 0.5}
        assert config["data"]["init_args"]["batch_size"] == 32

    @pytest.mark.parametrize(
        "settings",
        [
            {
                "seed_everything": 7,
                "channels_last": False,
                "test_curve": True,
                "trainer.accumulate_grad_batches": 2,
                "trainer.check_val_every_n_epoch": 2,
                "trainer.deterministic": True,
                "trainer.gradient_clip_algorithm": "value",
                "trainer.gradient_clip_val": 0.5,
                "trainer.limit_train_batches": 4,
                "trainer.limit_val_batches": 2,
                "trainer.max_epochs": 2,
                "trainer.max_steps": 3,
                "trainer.max_time": "00:00:10:00",
                "trainer.min_epochs": 1,
                "trainer.min_steps": 2,
                "trainer.precision": "bf16-mixed",
                "trainer.val_check_interval": 3,
                "best.monitor": "train/loss",
                "best.mode": "max",
                "last.every_n_train_steps": 3,
                "average.decay": 0.5,
                "average.every_n_steps": 2,
            },
            {"trainer.overfit_batches": 3},
        ],
        ids=["many", "overfit_batches"],
    )
    def test_takes_every_setting_that_says_what_is_computed_and_kept(
        self, cli, fit, tmp_path, monkeypatch, settings
    ):
        monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: None)
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        flags = (f"--{name}={value}" for name, value in settings.items())
        fit("--model.optimizer=RMSprop", *flags, model="Dense")
        last = tmp_path / "runs/Dense/version_0/checkpoints/last.ckpt"
        config = yaml.safe_load(cli("fit", f"--ckpt_path={last}", "--print_config").out)
        taken = {
            name: config[group][key] if group else config[key]
            for name in settings
            for group, _, key in [name.rpartition(".")]
        }
        assert taken == settings

    def test_goes_on_to_the_end_that_was_set_by_time(self, cli, fit, tmp_path):
        cli(
            "fit", "--model=Dense", "--data=Digits", "--data.num_train=50", *ON_CPU,
            "--trainer.max_epochs=null", "--trainer.max_time=00:00:00:01", "--pictures=false",
        )  # fmt: skip
        last = tmp_path / "runs/Dense/version_0/checkpoints/last.ckpt"
        config = yaml.safe_load(cli("fit", f"--ckpt_path={last}", "--print_config").out)
        assert config["trainer"]["max_time"] == "00:00:00:01"
        assert config["trainer"]["max_epochs"] is None

    def test_says_by_which_setting_a_run_that_has_ended_can_go_on(self, cli, fit, tmp_path):
        last = f"--ckpt_path={tmp_path}/runs/ConvNetReLU/version_0/checkpoints/last.ckpt"
        fit("--trainer.max_steps=3", epochs=-1)
        said = cli("fit", last, *ON_CPU, status=2).err
        assert "has finished training.\nTo continue: --trainer.max_steps N" in said
        cli("fit", last, *ON_CPU, "--trainer.max_steps=5")

    def test_says_so_where_its_time_was_over_before_its_first_step(self, cli, tmp_path):
        time = "--trainer.max_time={seconds: 1}"
        cli(
            "fit", "--model=Dense", "--data=Digits", "--data.num_train=50", *ON_CPU, time,
            "--trainer.max_epochs=-1", "--pictures=false",
        )  # fmt: skip
        last = tmp_path / "runs/Dense/version_0/checkpoints/last.ckpt"
        error = cli("fit", f"--ckpt_path={last}", *ON_CPU, status=2).err
        assert "has finished training.\nTo continue: --trainer.max_time " in error

    def test_cannot_begin_or_end_to_average_its_weights(self, cli, fit, tmp_path):
        fit("--average.decay=0.9")
        last = f"--ckpt_path={tmp_path}/runs/ConvNetReLU/version_0/checkpoints/last.ckpt"
        on = ("fit", last, *ON_CPU, "--trainer.max_epochs=2")
        for decay, status in (("null", 2), ("0.8", 0)):
            result = cli(*on, f"--average.decay={decay}", status=status)
            assert ("cannot start or stop averaging" in result.err) == (status == 2)

    def test_goes_on_where_its_text_file_was_moved(self, cli, tmp_path):
        cli("data", "to-text", "one.txt", "--data=Digits", "--num=60")
        flags = ("--data=TextFile", "--data.train_file=one.txt", *ON_CPU, "--pictures=false")
        cli("fit", "--model=Dense", *flags, "--trainer.max_epochs=1")
        (tmp_path / "one.txt").rename(tmp_path / "two.txt")
        last = f"--ckpt_path={tmp_path}/runs/Dense/version_0/checkpoints/last.ckpt"
        on = ("fit", last, *ON_CPU, "--trainer.max_epochs=2", "--data.train_file=two.txt")
        assert "Checkpoint: " in cli(*on).out

    def test_is_refused_before_training_where_no_checkpoint_can_be_written(
        self, cli, copied, fill_up
    ):
        fill_up("checkpoints")
        on = ("fit", f"--ckpt_path={copied.last}", *ON_CPU, "--trainer.max_epochs=4")
        error = cli(*on, status=2).err
        assert error.startswith(f"error: cannot write to {copied.last.parent}: No space left")
        assert content(copied.last)["epoch"] == 2

    def test_is_refused_while_the_run_goes_on_elsewhere(self, cli, copied):
        on = ("fit", f"--ckpt_path={copied.last}", *ON_CPU, "--trainer.max_epochs=4")
        with FileLock(copied.folder / ".lock"):
            assert "is being trained by another command" in cli(*on, status=2).err
        cli(*on, "--pictures=false")

    def test_keeps_its_configuration_where_it_cannot_be_written_anew(self, cli, copied):
        config = copied.folder / "config.yaml"
        config.unlink()
        config.mkdir()
        on = ("fit", f"--ckpt_path={copied.last}", *ON_CPU, "--trainer.max_epochs=9")
        assert f"cannot write {config}: " in cli(*on, status=2).err

    def test_cannot_know_what_a_network_makes_of_another_rate(self, cli, tmp_path):
        (tmp_path / "grouped.py").write_text(
            "import torch\n"
            "from mnist_zoo.models import Dense\n"
            "class Grouped(Dense):\n"
            "    def configure_optimizers(self):\n"
            "        groups = [{'params': [p], 'lr': self.lr} for p in self.parameters()]\n"
            "        return torch.optim.Adam(groups)\n"
        )
        network = "--model=grouped.Grouped"
        cli("fit", network, "--data=Digits", *ON_CPU, "--trainer.max_epochs=1", "--pictures=false")
        last = f"--ckpt_path={tmp_path}/runs/Grouped/version_0/checkpoints/last.ckpt"
        on = ("fit", last, network, *ON_CPU, "--trainer.max_epochs=2", "--model.lr=0.5")
        assert "a resumed run cannot change --model.lr" in cli(*on, status=2).err

    def test_is_over_where_early_stopping_ended_the_run(self, cli, fit, tmp_path):
        stopping = (
            "--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/loss",
            "--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=100",
        )  # fmt: skip
        fit(*stopping, epochs=9)
        last = tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt"
        steps = content(last)["global_step"]
        on = ("fit", f"--ckpt_path={last}", *ON_CPU, "--pictures=false")
        assert (
            "EarlyStopping ended the run because val/loss stopped"
            in cli(*on, *stopping, status=2).err
        )
        assert content(last)["global_step"] == steps < 9 * STEPS_PER_EPOCH
        cli(*on, "--trainer.max_steps", steps + 1)

    def test_says_which_callbacks_it_does_not_take_over(self, cli, fit, tmp_path):
        stopping = ("--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/loss")
        fit(*stopping)
        last = tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt"
        on = (f"--ckpt_path={last}", *ON_CPU)
        assert "without" not in cli("fit", *on, *stopping, "--trainer.max_epochs=2").out
        out = cli("fit", *on, "--trainer.max_epochs=3").out
        assert "Resuming without EarlyStopping: callbacks are not restored from checkpoints." in out

    def test_what_the_run_left_unset_is_not_taken_from_the_recipe(self, cli, fit, tmp_path):
        (tmp_path / "mine.yaml").write_text("model: ConvNetSeparable\ntrainer: {max_steps: 3}")
        cli("fit", "--config=mine.yaml", "--data=Digits", *ON_CPU)
        last = "runs/ConvNetSeparable/version_0/checkpoints/last.ckpt"
        config = yaml.safe_load(cli("fit", f"--ckpt_path={last}", "--print_config").out)
        assert config["average"]["decay"] is None
        assert config["trainer"]["max_epochs"] is None
        assert config["trainer"]["max_steps"] == 3

    def test_the_last_checkpoint_is_that_of_the_last_epoch_without_validation(self, fit, tmp_path):
        fit("--trainer.check_val_every_n_epoch=2", "--trainer.limit_train_batches=2", epochs=3)
        last = content(tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt")
        assert (last["epoch"], last["global_step"]) == (2, 6)

    @pytest.mark.parametrize(
        ("scheduler", "change"),
        [
            ("OneCycleLR", "--trainer.max_epochs=2"),
            ("CosineAnnealingLR", "--trainer.max_epochs=2"),
            ("ConstantLR", "--model.scheduler_args={factor: 0.5}"),
        ],
    )
    def test_the_course_of_the_learning_rate_cannot_be_changed(self, cli, fit, scheduler, change):
        fit(f"--model.scheduler={scheduler}", "--trainer.limit_train_batches=2", model="Dense")
        last = "runs/Dense/version_0/checkpoints/last.ckpt"
        more = ("--trainer.max_epochs=2", change, *ON_CPU)
        error = cli("fit", f"--ckpt_path={last}", *more, status=2).err
        assert "or start a new run." in error
        assert content(last)["epoch"] == 0

    @pytest.mark.parametrize(("setting", "value"), [("lr", 0.025), ("weight_decay", 0.01)])
    def test_a_new_learning_rate_is_used_and_so_is_a_new_decay(self, cli, copied, setting, value):
        new = (f"--model.{setting}={value}", "--trainer.max_epochs=4", *ON_CPU)
        cli("fit", f"--ckpt_path={copied.last}", *new)
        (group,) = content(copied.last)["optimizer_states"][0]["param_groups"]
        assert group[setting] == value

    def test_an_argument_of_the_optimizer_that_is_taken_away_has_its_default(self, cli, fit):
        fit("--model.optimizer_args.momentum=0.5", "--trainer.limit_train_batches=2")
        last = "runs/ConvNetReLU/version_0/checkpoints/last.ckpt"
        cli("fit", f"--ckpt_path={last}", "--model.optimizer_args={}", "--trainer.max_epochs=2",
            *ON_CPU)  # fmt: skip
        (group,) = content(last)["optimizer_states"][0]["param_groups"]
        assert group["momentum"] == 0


class TestConfiguration:
    """A recipe comes before a checkpoint, before a user's file, before flags."""

    @pytest.fixture
    def lr(self, cli):
        def of(*arguments):
            config = yaml.safe_load(cli("fit", *arguments, "--print_config").out)
            return config["model"]["init_args"]["lr"]

        return of

    @pytest.fixture
    def mine(self, tmp_path):
        file = tmp_path / "mine.yaml"
        network = {"class_path": "ConvNetReLU", "init_args": {"lr": 0.5}}
        file.write_text(yaml.safe_dump({"model": network}))
        return file

    def test_the_recipe_of_the_network_is_taken(self, lr):
        assert lr("--model", "ConvNetReLU") == 0.03

    @pytest.mark.parametrize("form", ["--config {}", "--config={}", "-c {}"])
    def test_a_recipe_is_taken_by_its_name(self, cli, form):
        arguments = form.format("ConvNetReLU-decay").split()
        config = yaml.safe_load(cli("fit", *arguments, "--print_config").out)
        assert config["model"]["class_path"].rpartition(".")[2] == "ConvNetReLU"
        assert config["model"]["init_args"]["weight_decay"] == 0.1

    def test_one_device_is_used_unless_told_otherwise(self, cli, monkeypatch):
        for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
            monkeypatch.delenv(name, raising=False)
        config = yaml.safe_load(cli("fit", "--model=Dense", "--print_config").out)
        assert config["trainer"]["devices"] == 1

    def test_the_checkpoint_wins_over_the_recipe(self, lr, trained):
        assert lr("--ckpt_path", trained.best) == 0.1

    def test_a_file_wins_over_the_recipe(self, lr, mine):
        assert lr("--model", "ConvNetReLU", "--config", mine) == 0.5
        assert lr("--config", mine, "--model", "ConvNetReLU") == 0.5

    def test_a_file_wins_over_the_checkpoint(self, lr, trained, mine):
        assert lr("--config", mine, "--ckpt_path", trained.best) == 0.5

    def test_a_flag_wins_over_all(self, lr, trained, mine):
        flags = ("--model.lr", "0.7")
        assert lr("--config", mine, "--ckpt_path", trained.best, *flags) == 0.7

    def test_a_flag_wins_over_a_file_that_comes_after_it(self, lr, mine):
        assert lr("--model.lr", "0.7", "--model", "ConvNetReLU", "--config", mine) == 0.7

    def test_a_file_alone_is_a_run(self, cli, tmp_path):
        (tmp_path / "all.yaml").write_text(
            "model:\n  class_path: Dense\n  init_args: {lr: 1.0}\n"
            "data:\n  class_path: Digits\n  init_args: {batch_size: 100}\n"
            "trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}\n"
        )
        assert "Dense (79,510 parameters) on Digits" in cli("fit", "--config", "all.yaml").out

    @pytest.mark.slow
    def test_the_configuration_of_a_run_repeats_it(self, cli, trained, tmp_path):
        cli("fit", "--config", trained.folder / "config.yaml")
        again = content(tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt")
        torch.testing.assert_close(
            again["state_dict"], content(trained.last)["state_dict"], rtol=0, atol=0
        )


class TestPythonAPI:
    @pytest.fixture
    def trainer(self, tmp_path):
        return Trainer(
            default_root_dir=tmp_path,
            max_epochs=1,
            limit_train_batches=2,
            limit_val_batches=1,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )

    def test_a_checkpoint_of_lightnings_trainer_is_tested(self, cli, trainer, tmp_path):
        trainer.fit(ConvNetReLU(lr=0.1), Digits(num_test=40))
        trainer.save_checkpoint(tmp_path / "mine.ckpt")
        out = cli("test", "--ckpt_path", "mine.ckpt").out
        assert "ConvNetReLU on 40 test images of Digits" in out

    def test_one_trained_on_plain_loaders_needs_its_data_named(self, cli, trainer, tmp_path):
        images, targets = digits_for_test()
        pairs = torch.utils.data.TensorDataset(images, targets)
        trainer.fit(ConvNetReLU(), torch.utils.data.DataLoader(pairs, batch_size=8))
        trainer.save_checkpoint(tmp_path / "mine.ckpt")
        out = cli("test", "--ckpt_path=mine.ckpt", "--data=Digits").out
        assert "ConvNetReLU on 360 test images of Digits" in out


def test_classes_that_give_arguments_to_those_above_are_tested_and_loaded_as_trained(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nfrom mnist_zoo.data import Digits\n"
        "from mnist_zoo.models import Classifier\n\n\n"
        "class Net(Classifier):\n"
        "    def __init__(self, num_hidden: int = 30, **kwargs):\n"
        '        super().__init__(optimizer="Adam", **kwargs)\n'
        "        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, num_hidden),\n"
        "            nn.ReLU(), nn.Linear(num_hidden, 10))\n\n\n"
        "class Data(Digits):\n"
        "    def __init__(self, **kwargs):\n"
        "        super().__init__(mean=0.13, std=0.3, **kwargs)\n"
    )
    own = ("--model=mine.Net", "--data=mine.Data")
    out = cli("fit", *own, "--model.num_hidden=20", "--trainer.max_epochs=1", *ON_CPU).out
    (line,) = [line for line in out.splitlines() if "mnist-zoo test" in line]
    command = shlex.split(line.partition(":")[2])
    assert command[-4:] == ["--model", "mine.Net", "--data", "mine.Data"]
    assert "Net on 360 test images of Data" in cli(*command[1:]).out
    best = tmp_path / "runs/Net/version_0/checkpoints/best.ckpt"
    assert "optimizer" not in content(best)["mnist_zoo"]["model"]["init_args"]
    loaded = mnist_zoo.load(best, named="mine.Net")
    for network in (loaded, type(loaded).load_from_checkpoint(best)):
        assert network.layers[1].out_features == 20
        assert network.optimizer_class is torch.optim.Adam
        assert (network.pixel_mean, network.pixel_std) == (0.13, 0.3)


def test_lightnings_own_way_of_loading_knows_the_normalisation_too(fit, tmp_path):
    fit("--data.mean=0.2", "--data.std=0.4", "--trainer.limit_train_batches=2")
    best = tmp_path / "runs/ConvNetReLU/version_0/checkpoints/best.ckpt"
    network = ConvNetReLU.load_from_checkpoint(best)
    assert (network.pixel_mean, network.pixel_std) == (0.2, 0.4)


def test_a_run_stays_in_its_folder_wherever_its_logger_writes(fit, tmp_path):
    few = "--trainer.limit_train_batches=2"
    out = fit(few, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv").out
    run = tmp_path / "runs/ConvNetReLU/version_0"
    files = {file.name for file in run.rglob("[!.]*.*")}
    assert files == {"config.yaml", "best.ckpt", "last.ckpt"}
    assert "tensorboard" not in out
    out = fit(few, "--trainer.logger=false", "--pictures=true").out
    assert "tensorboard" not in out
    assert out == out.rstrip() + "\n"


@pytest.mark.parametrize("flags", [(), ("--test_curve=true", "--last.every_n_train_steps=30")])
def test_what_fit_itself_adds_leaves_the_steps_to_blocks(fit, monkeypatch, flags):
    sizes, run = [], _BlockStep.run

    def counted(self, batch, batch_idx):
        sizes.append(len(batch[1]))
        run(self, batch, batch_idx)

    monkeypatch.setattr(_BlockStep, "run", counted)
    fit("--trainer.enable_progress_bar=true", *flags)
    assert sizes == [640, 640, 13]


def test_settings_of_lightnings_callbacks_are_written_down(fit, tmp_path):
    fit("--trainer.callbacks=Timer", "--trainer.callbacks.duration=00:00:00:01", epochs=1000)
    config = yaml.safe_load((tmp_path / "runs/ConvNetReLU/version_0/config.yaml").read_text())
    assert config["trainer"]["callbacks"][0]["init_args"]["interval"] == "step"


def test_the_loss_in_training_can_choose_where_nothing_is_held_out(fit, tmp_path):
    fit("--best.monitor=train/loss", "--data.val_size=0", "--trainer.limit_train_batches=2")
    assert (tmp_path / "runs/ConvNetReLU/version_0/checkpoints/best.ckpt").is_file()


@pytest.mark.mnist
def test_the_title_of_a_test_counts_the_images_that_were_read(cli, trained, mnist_root):
    few = ("--trainer.limit_test_batches=2", "--pictures=false")
    mnist = ("--data=MNIST", f"--data.root={mnist_root}")
    out = cli("test", f"--ckpt_path={trained.best}", *mnist, *few).out
    assert "on 2,000 test images of MNIST" in out


class TestALocalNetwork:
    @pytest.fixture
    def run(self, fit, tmp_path):
        (tmp_path / "local_net.py").write_text(
            "from mnist_zoo.models.dense import Dense\n\n\nclass LocalNet(Dense): ...\n"
        )
        return fit("--trainer.limit_train_batches=2", model="local_net.LocalNet")

    def test_trains_and_is_tested_by_the_command_that_is_suggested(self, cli, run):
        (line,) = [line for line in run.out.splitlines() if "mnist-zoo test" in line]
        command = shlex.split(line.partition(":")[2])
        assert command[-2:] == ["--model", "local_net.LocalNet"]
        assert "LocalNet on 360 test images of Digits" in cli(*command[1:]).out

    def test_trains_for_ten_epochs_unless_told_otherwise(self, cli, run):
        few = ("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0", *ON_CPU)
        out = cli("fit", "--model=local_net.LocalNet", "--data=Digits", *few).out
        assert "), 10 epochs" in out
        assert content("runs/LocalNet/version_1/checkpoints/last.ckpt")["global_step"] == 10

    def test_its_checkpoint_alone_does_not_have_it_imported(self, cli, run, tmp_path):
        checkpoint = tmp_path / "runs/LocalNet/version_0/checkpoints/best.ckpt"
        result = cli("test", "--ckpt_path", checkpoint, status=2)
        assert "neither in this zoo nor an installed plugin" in result.err
        assert "--model local_net.LocalNet" in result.err
        with pytest.raises(mnist_zoo.models.checkpoint.CheckpointError, match="local_net"):
            mnist_zoo.load(checkpoint)


class Opened:
    """Creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


@pytest.mark.parametrize(
    ("model", "flag", "text"),
    [
        ("ConvNetDropout", "--model.dropout=1.5", "between 0 and 1, but got 1.5."),
        ("MLPDropout", "--model.num_hidden=-5", "negative dimension -5"),
        (
            "ConvNetBatchNorm",
            "--model.label_smoothing=1.5",
            "label_smoothing 1.5 is not from 0 to 1.",
        ),
        ("Dense", "--seed_everything=-3", "--seed_everything -3: must be from 0"),
    ],
)
def test_a_value_that_a_network_cannot_have_is_a_plain_error(cli, model, flag, text):
    result = cli("fit", f"--model={model}", "--data=Digits", flag, status=2)
    assert text in result.err
    assert len(result.err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("base", "flags"),
    [
        ("mnist_zoo.models.Classifier", ["--model=odd.Odd", "--data=Digits"]),
        ("mnist_zoo.data.Digits", ["--model=Dense", "--data=odd.Odd"]),
    ],
)
def test_a_value_error_of_a_class_of_ones_own_keeps_its_traceback(cli, tmp_path, base, flags):
    module, _, name = base.rpartition(".")
    (tmp_path / "odd.py").write_text(
        f"from {module} import {name}\n"
        f"class Odd({name}):\n"
        "    def __init__(self, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        raise ValueError('odd')\n"
    )
    (tmp_path / "mine.yaml").write_text("{}\n")
    with pytest.raises(ValueError, match="odd"):
        cli("fit", "--config=mine.yaml", *flags)


def test_a_name_that_only_a_callback_logs_may_choose(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from lightning import Callback\n"
        "class Mine(Callback):\n"
        "    def on_validation_epoch_end(self, trainer, pl_module):\n"
        "        if not trainer.sanity_checking:\n"
        "            pl_module.log('ema/acc', 0.5)\n"
    )
    (tmp_path / "mine.yaml").write_text("trainer: {callbacks: [{class_path: mine.Mine}]}\n")
    cli(
        "fit", "--model=Dense", "--data=Digits", "--config=mine.yaml", "--best.monitor=ema/acc",
        "--trainer.max_epochs=1", *ON_CPU, "--pictures=false",
    )  # fmt: skip
    assert (tmp_path / "runs/Dense/version_0/checkpoints/best.ckpt").is_file()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("val/accuracy", " Did you mean val/acc?"), ("vall/acc", "?"), ("val/f1", "")],
)
def test_a_name_that_is_never_logged_chooses_nothing(cli, tmp_path, name, hint):
    error = cli(
        "fit", "--model=Dense", "--data=Digits", f"--best.monitor={name}", *ON_CPU, status=2
    ).err
    assert error.startswith(f"error: --best.monitor {name}: nothing of that name is logged.")
    assert error.endswith(f"{hint}\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flags", [[], ["--data.val_size=0"], ["--trainer.logger=false"]])
def test_of_a_training_that_diverges_fit_says_so_and_what_to_try(fit, flags):
    out = fit("--model.lr=1e30", "--trainer.limit_train_batches=5", *flags).out
    told = "the training has diverged. Try a smaller --model.lr than 1e+30."
    assert told in " ".join(out.split())


def test_of_a_network_that_diverged_test_says_so(cli, diverged):
    out = cli("test", f"--ckpt_path={diverged}", *ON_CPU, "--pictures=false").out
    assert "the training of this network has diverged" in out


@pytest.mark.parametrize("command", ["test", "fit"])
class TestAStrangersCheckpoint:
    """Nothing that it names is imported, called or built, wherever in it the name stands."""

    @pytest.fixture(params=["a module in the folder", "a class of the library"])
    def trap(self, request, tmp_path):
        """What leaves a file when it is imported, or when it is built."""
        if request.param == "a class of the library":
            arguments = {"filename": str(tmp_path / "sprung")}
            return {"class_path": "logging.FileHandler", "init_args": arguments}
        (tmp_path / "trap.py").write_text(
            "import pathlib\n\nfrom mnist_zoo.models.dense import Dense\n\n"
            f"pathlib.Path({str(tmp_path / 'sprung')!r}).touch()\n\n\nclass Net(Dense): ...\n"
        )
        return {"class_path": "trap.Net"}

    @pytest.fixture
    def open_changed(self, cli, command, trained, tmp_path):
        """Have the command open a changed checkpoint; return what it says of it."""

        def opened(change):
            checkpoint = content(trained.best)
            change(checkpoint)
            torch.save(checkpoint, tmp_path / "changed.ckpt")
            trial = ("--trainer.fast_dev_run=true", *ON_CPU)
            result = cli(command, "--ckpt_path=changed.ckpt", *trial, status=None)
            assert not (tmp_path / "sprung").exists()
            assert result.err.startswith("error: ") == (result.status == 2)
            return result.err

        return opened

    def test_in_its_pickle(self, open_changed, tmp_path):
        text = open_changed(lambda c: c.update(more=Opened(tmp_path / "sprung")))
        assert "could run code" in text

    @pytest.mark.parametrize("part", ["model", "data"])
    def test_as_its_class(self, open_changed, trap, part):
        text = open_changed(lambda c: c["mnist_zoo"][part].update(trap))
        assert f"--{part} {trap['class_path']}" in text

    @pytest.mark.parametrize("argument", ["lr", "optimizer_args"])
    def test_as_an_argument(self, open_changed, trap, argument):
        text = open_changed(lambda c: c["mnist_zoo"]["model"]["init_args"].update({argument: trap}))
        assert "more than plain values" in text

    @pytest.mark.parametrize("argument", ["optimizer_args", "scheduler_args"])
    @pytest.mark.parametrize("in_a_list", [False, True])
    def test_within_an_argument(self, open_changed, trap, argument, in_a_list):
        nested = {argument: {"momentum": [0.9, trap] if in_a_list else trap}}
        text = open_changed(lambda c: c["mnist_zoo"]["model"]["init_args"].update(nested))
        assert "more than plain values" in text

    @pytest.mark.parametrize(
        "words",
        [
            lambda spec: {"momentum": json.dumps(spec)},
            lambda spec: json.dumps({"momentum": spec}),
            lambda spec: {"momentum": [json.dumps([spec])]},
            lambda spec: {"momentum": json.dumps(json.dumps(spec))},
            lambda spec: {"momentum": json.dumps(spec).replace("class_path", r"class_\u0070ath")},
            lambda spec: {"momentum": yaml.safe_dump(spec)},
        ],
    )
    def test_in_a_word_within_an_argument(self, open_changed, trap, words):
        nested = {"optimizer_args": words(trap)}
        text = open_changed(lambda c: c["mnist_zoo"]["model"]["init_args"].update(nested))
        assert "more than plain values" in text

    @pytest.mark.parametrize(
        "path", ["mnist_zoo.handwriting.Digit", "mnist_zoo.models.checkpoint.Path"]
    )
    def test_as_a_class_of_ours_that_is_no_network(self, open_changed, path):
        text = open_changed(lambda c: c["mnist_zoo"]["model"].update(class_path=path))
        assert f"is of {path}, which is neither in this zoo" in text

    @pytest.mark.parametrize("name", ["trap.Net", "torch.optim.SGD", "logging.FileHandler"])
    def test_as_its_optimizer(self, open_changed, name):
        text = open_changed(lambda c: c["mnist_zoo"]["model"]["init_args"].update(optimizer=name))
        assert f"--model.optimizer {name}: torch.optim has no such class." in text

    @pytest.mark.parametrize("part", ["model", "data"])
    def test_as_the_class_in_the_settings_of_its_run(self, open_changed, trap, part):
        open_changed(lambda c: c.update(mnist_zoo_run={part: trap}))

    @pytest.mark.parametrize("setting", ["precision", "gradient_clip_val"])
    def test_as_a_setting_of_its_trainer(self, open_changed, trap, setting):
        text = open_changed(lambda c: c.update(mnist_zoo_run={"trainer": {setting: trap}}))
        assert f"--trainer.{setting}" not in text, "left out, not taken for a value"

    @pytest.mark.parametrize("part", ["callbacks", "logger", "strategy"])
    def test_as_a_part_of_its_trainer(self, open_changed, trap, part):
        value = [trap] if part == "callbacks" else trap
        open_changed(lambda c: c.update(mnist_zoo_run={"trainer": {part: value}}))


class TestResumingTheCheckpointOfAStranger:
    @pytest.fixture
    def resume(self, cli, copied, tmp_path):
        def resumed(change, status=0):
            checkpoint = content(copied.last)
            change(checkpoint)
            torch.save(checkpoint, tmp_path / "changed.ckpt")
            more = ("--trainer.max_epochs=9", "--trainer.limit_train_batches=1", *ON_CPU)
            return cli("fit", "--ckpt_path=changed.ckpt", *more, status=status)

        return resumed

    @pytest.mark.parametrize("scheme", ["", "local://", "file://"])
    @pytest.mark.parametrize("callback", ["Last", "Best"])
    def test_deletes_nothing(self, resume, tmp_path, callback, scheme):
        (tmp_path / "dear").mkdir()
        (tmp_path / "dear" / "file").touch()
        path = f"{scheme}{tmp_path}/runs/ConvNetReLU/version_0/checkpoints/../../../../dear"
        keys = "best_model_path", "kth_best_model_path", "last_model_path"

        def change(checkpoint):
            (state,) = (s for n, s in checkpoint["callbacks"].items() if n.startswith(callback))
            state |= dict.fromkeys(keys, path) | {"best_k_models": {path: torch.tensor(0.0)}}

        resume(change)
        assert (tmp_path / "dear" / "file").exists()

    def test_keeps_the_optimizer_within_its_memory(self, cli, fit, tmp_path):
        fit("--model.optimizer=Adam")
        last = tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt"
        checkpoint = content(last)
        for state in checkpoint["optimizer_states"][0]["state"].values():
            state["exp_avg"] = torch.zeros(1)
        torch.save(checkpoint, last)
        error = cli("fit", f"--ckpt_path={last}", "--trainer.max_epochs=2", *ON_CPU, status=2).err
        assert "does not fit the network: exp_avg is (1,)" in error

    def test_with_a_state_of_random_generators_that_is_none(self, resume):
        def change(checkpoint):
            (state,) = (s for n, s in checkpoint["callbacks"].items() if n.startswith("Last"))
            state["random"]["cpu"] = torch.full_like(state["random"]["cpu"], 255)

        assert "no usable state of the random generators" in resume(change, status=2).err


@pytest.mark.slow
def test_a_run_makes_no_noise(zoo, tmp_path):
    arguments = ("--data=Digits", "--data.batch_size=100", "--trainer.max_epochs=1")
    result = zoo("fit", "--model=Dense", *arguments)
    assert result.returncode == 0
    assert result.stderr == ""
    for noise in ("Tip", "GPU", "TPU", "arning", "isinstance", "Seed set"):
        assert noise not in result.stdout
    checkpoint = tmp_path / "runs/Dense/version_0/checkpoints/best.ckpt"
    result = zoo("test", "--ckpt_path", checkpoint, cwd=checkpoint.parent)
    assert result.returncode == 0
    assert result.stderr == ""
    assert "Dense on 360 test images of Digits" in result.stdout


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("fails on images", "nn.Linear(784, 10)"),
        ("returns shape (2, 11) for 2 images", "nn.Sequential(nn.Flatten(), nn.Linear(784, 11))"),
    ],
)
def test_a_network_that_cannot_sort_images_is_refused_at_once(cli, tmp_path, text, layers):
    (tmp_path / "wrong_net.py").write_text(
        "from torch import nn\n"
        "from mnist_zoo.models import Classifier\n"
        "class Wrong(Classifier):\n"
        "    def __init__(self, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        f"        self.layers = {layers}\n"
    )
    result = cli("fit", "--model=wrong_net.Wrong", "--data=Digits", status=2)
    assert f"Wrong {text}" in result.err
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_may_be_called_as_lightning_calls_one(cli, diverged, tmp_path):
    diverged.rename(tmp_path / "last")
    assert "diverged" in cli("test", "--ckpt_path=last", *ON_CPU, "--pictures=false").out


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            ["--data.val_size=0", "--trainer.callbacks.monitor=val/loss"],
            "EarlyStopping monitors val/loss, but there is no validation",
        ),
        (["--trainer.callbacks.monitor=val/lss"], "lss, but nothing of that name is logged. Did"),
    ],
)
def test_what_stopping_goes_by_is_looked_at_before_training(fit, tmp_path, flags, text):
    assert text in fit("--trainer.callbacks=EarlyStopping", *flags, status=2).err
    assert not (tmp_path / "runs").exists()


def test_a_run_stopped_before_its_first_checkpoint_leaves_nothing(fit, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_BlockStep, "run", interrupted)
    assert "Stopped before the first checkpoint was written." in fit(status=130).out
    assert not (tmp_path / "runs").exists()


def test_an_untyped_argument_that_is_left_out_is_named(cli, tmp_path):
    (tmp_path / "mine.py").write_text(OWN.replace("(self, **", "(self, hidden, **"))
    error = cli("fit", "--model=mine.Net", "--data=Digits", *ON_CPU, status=2).err
    assert error == "error: Net needs hidden: give --model.hidden.\n"


def test_classes_without_images_have_no_accuracy(cli, trained):
    flags = ("--data.num_test=3", *ON_CPU, "--pictures=false")
    out = cli("test", f"--ckpt_path={trained.best}", *flags).out
    assert out.count("no images") == 7


def test_a_saved_configuration_makes_a_new_run_beside_the_old_one(cli, copied):
    cli("fit", f"--ckpt_path={copied.last}", *ON_CPU, "--trainer.max_epochs=4", "--pictures=false")
    config = copied.folder / "config.yaml"
    before = {path: path.stat().st_mtime_ns for path in copied.folder.rglob("*")}
    cli("fit", f"--config={config}", "--trainer.max_epochs=1")
    again = copied.folder.parent / "version_1"
    assert (again / "checkpoints" / "last.ckpt").is_file()
    assert sorted(path.name for path in again.parent.iterdir()) == ["version_0", "version_1"]
    assert before == {path: path.stat().st_mtime_ns for path in copied.folder.rglob("*")}


def test_the_folder_of_the_data_is_that_of_the_checkpoint_where_there_is_one(tmp_path):
    def found(root):
        entry = {"class_path": "mnist_zoo.data.MNIST", "init_args": {"root": root, "batch_size": 7}}
        return data_here(SimpleNamespace(data=entry), named=None)["init_args"]

    assert found(str(tmp_path)) == {"batch_size": 7}
    (tmp_path / "MNIST").mkdir()
    assert found(str(tmp_path)) == {"root": str(tmp_path), "batch_size": 7}
    assert found(str(tmp_path / "elsewhere")) == {"batch_size": 7}


def test_a_checkpoint_can_be_evaluated_on_other_data(cli, copied):
    cli("data", "to-text", "few.txt", "--data=Digits", "--split=test", "--num=30")
    result = cli(
        "test", f"--ckpt_path={copied.best}", "--data=TextFile", "--data.test_file=few.txt",
        "--trainer.enable_progress_bar=false",
    )  # fmt: skip
    assert "30 test images of TextFile" in result.out


def test_a_frozen_layer_stays_in_evaluation_mode(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nfrom mnist_zoo.models import Classifier\n\n\n"
        "class Net(Classifier):\n"
        "    def __init__(self, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784),\n"
        "            nn.Linear(784, 10))\n"
        "        self.layers[1].eval()\n"
    )
    cli("fit", "--model=mine.Net", "--data=Digits", "--trainer.max_epochs=1", *ON_CPU)
    weights = content(tmp_path / "runs/Net/version_0/checkpoints/last.ckpt")["state_dict"]
    assert not weights["layers.1.running_mean"].any()


OWN = (
    "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n"
    "from mnist_zoo.models import Classifier\n\n\n"
    "class Net(Classifier):\n"
    "    def __init__(self, **kwargs):\n"
    "        super().__init__(**kwargs)\n"
    "        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
)


def test_a_softmax_too_many_is_told(cli, tmp_path):
    (tmp_path / "mine.py").write_text(f"{OWN}        self.layers.append(nn.Softmax(dim=1))\n")
    flags = ("--data=Digits", "--trainer.fast_dev_run=true", *ON_CPU)
    told = "returns probabilities, but its loss expects logits: remove the final softmax."
    assert f"Net {told}" in " ".join(cli("fit", "--model=mine.Net", *flags).out.split())
    for model in ("Dense", "MLPLogSoftmax", "ConvNetReLU"):
        assert "probabilities" not in cli("fit", f"--model={model}", *flags).out


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("loss(self, outputs, targets): F.cross_entropy(outputs, targets)", "Net is NoneType inst"),
        ("loss(self, outputs, targets): return outputs.sum(1)", "the loss of Net is (2,) instead"),
        (
            "configure_optimizers(self): torch.optim.SGD(self.parameters())",
            "Net cannot be trained: ",
        ),
        ("parameters(self, recurse=True): return iter(())", "Net has no parameters to train"),
        (
            "forward(self, x): x = self.layers(x); return (x, x) if self.training else x",
            "Net returns a tuple in training instead of a tensor.\nGive it its own training_step.",
        ),
    ],
)
def test_what_a_network_of_ones_own_forgets_is_told(cli, tmp_path, method, text):
    (tmp_path / "mine.py").write_text(f"{OWN}\n    def {method}\n")
    flags = ("--model=mine.Net", "--data=Digits", "--trainer.max_epochs=1", *ON_CPU)
    result = cli("fit", *flags, status=2)
    assert text in result.err
    assert len(result.err.splitlines()) <= 2


def test_a_mistake_in_an_init_of_ones_own_is_not_taken_for_one_of_the_checkpoint(cli, tmp_path):
    (tmp_path / "mine.py").write_text(f"{OWN}        self.layers.load_state_dict({{}})\n")
    with pytest.raises(RuntimeError, match="Missing key"):
        cli("fit", "--model=mine.Net", "--data=Digits")


def test_a_network_that_its_arguments_do_not_make_again_is_told(cli, tmp_path):
    changed = OWN.replace("self, ", "self, num_units: int = 5, ").replace(
        "        super()", "        num_units = 2 * num_units\n        super()"
    )
    (tmp_path / "mine.py").write_text(changed.replace("784, 10", "784, num_units"))
    error = cli("fit", "--model=mine.Net", "--data=Digits", *ON_CPU, status=2).err
    assert (
        "Net: rebuilt from its arguments, its layers.1.weight has shape (20, 784) instead of (10"
        in error
    )
    assert not (tmp_path / "runs").exists()


def test_an_argument_that_no_checkpoint_can_hold_is_told_before_training(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        f"import enum\n{OWN.replace('self, ', 'self, act: Act, ')}\n".replace(
            "class Net", "class Act(enum.Enum):\n    TANH = 1\n\n\nclass Net"
        )
    )
    error = cli("fit", "--model=mine.Net", "--model.act=TANH", "--data=Digits", *ON_CPU, status=2)
    assert "Net: its argument act is of Act, which a checkpoint cannot hold." in error.err
    assert not (tmp_path / "runs").exists()


def test_a_hook_of_a_network_sees_the_images_that_the_data_module_has_prepared(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        f"{OWN}\n"
        "    def on_after_batch_transfer(self, batch, dataloader_idx):\n"
        "        raise ValueError(f'{batch[0].dtype} {tuple(batch[0].shape)}')\n"
    )
    with pytest.raises(ValueError, match=r"torch.float32 \(\d+, 1, 28, 28\)"):
        cli("fit", "--model=mine.Net", "--data=Digits", *ON_CPU)


def test_numbers_too_small_to_matter_are_zero_while_fit_trains(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        f"{OWN}\n"
        "    def on_train_start(self):\n"
        "        print('tiny', (torch.full((9,), 1e-39) / 2).sum().item())\n"
    )
    flags = ("--model=mine.Net", "--data=Digits", "--trainer.fast_dev_run=true", *ON_CPU)
    assert "tiny 0.0\n" in cli("fit", *flags).out
    assert torch.full((9,), 1e-39).sum() > 0


def test_a_network_with_a_view_of_its_own_trains_in_the_ordinary_layout(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        OWN.replace("nn.Flatten(), nn.Linear(784, 10)", "nn.Conv2d(1, 5, 5), nn.ReLU()")
        + "        self.last = nn.Linear(5 * 24 * 24, 10)\n\n"
        "    def forward(self, images):\n"
        "        return self.last(self.layers(images).view(-1, 5 * 24 * 24))\n"
    )
    cli("fit", "--model=mine.Net", "--data=Digits", "--trainer.max_epochs=1", *ON_CPU)
    assert (tmp_path / "runs/Net/version_0/checkpoints/best.ckpt").is_file()


def test_a_class_that_fails_says_so_without_the_words_of_the_parser(cli, tmp_path):
    (tmp_path / "mine.py").write_text(OWN.replace("        super().__init__(**kwargs)\n", ""))
    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        cli("fit", "--model=mine.Net", "--data=Digits", *ON_CPU)


def test_a_share_that_is_no_image_at_all_is_none(fit, tmp_path):
    assert "none held out" in fit("--data.val_size=0.0003").out
    assert not (tmp_path / "runs/ConvNetReLU/version_0/checkpoints/best.ckpt").exists()


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--data.val_size=300"], "--data.val_size"),
        (["--data.split_seed=5"], "--data.split_seed"),
        (["--data.split_seed=null"], "--data.split_seed"),
        (["--data.num_train=1000"], "--data.num_train"),
    ],
)
def test_other_images_are_not_held_out_midway(cli, trained, flags, name):
    last = trained.best.with_name("last.ckpt")
    error = cli("fit", f"--ckpt_path={last}", "--trainer.max_epochs=9", *flags, status=2).err
    assert error.startswith(f"error: a resumed run cannot change {name}: ")
    same = cli("validate", f"--ckpt_path={trained.best}", "--data.val_size=0.1").out
    assert "was trained with a different" not in same
    out = cli("validate", f"--ckpt_path={trained.best}", *flags).out
    assert f"The network was trained with a different {name}" in " ".join(out.split())


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--lr", "--model.lr"),
        ("--model.learning_rate", "--model.lr"),
        ("--epochs", "--trainer.max_epochs"),
        ("--trainer.epochs", "--trainer.max_epochs"),
        ("--batch_size", "--data.batch_size"),
        ("--seed", "--seed_everything"),
    ],
)
def test_what_other_projects_call_it_is_understood(cli, flag, meant):
    error = cli("fit", "--model=Dense", f"{flag}=3", status=2).err
    assert error.startswith(f"error: unknown option {flag}. Did you mean {meant}?")


def test_a_callback_of_ones_own_is_found_beside_a_network_of_the_zoo(cli, tmp_path):
    (tmp_path / "mine.py").write_text("from lightning import Callback\nclass Mine(Callback): ...\n")
    flags = ("--trainer.callbacks=mine.Mine", "--trainer.max_epochs=1", *ON_CPU)
    cli("fit", "--model=Dense", "--data=Digits", *flags, "--pictures=false")


def test_links_in_a_strangers_folder_have_nothing_overwritten(copied, cli, tmp_path):
    target = tmp_path / "precious.csv"
    target.write_text("mine")
    (copied.folder / "predictions.csv").symlink_to(target)
    for command in ("predict", "fit"):
        arguments = (f"--ckpt_path={copied.last}", *ON_CPU, "--trainer.max_epochs=4")
        assert "leads out of its run's folder" in cli(command, *arguments, status=2).err
    out = cli("test", f"--ckpt_path={copied.best}", *ON_CPU).out
    assert "accuracy on 9" in out
    assert "warning: no pictures: " in out
    assert target.read_text() == "mine"
    assert {file.name for file in tmp_path.iterdir()} == {"runs", target.name}


def test_a_run_reached_through_a_link_goes_on_in_its_folder(fit, cli, tmp_path):
    fit("--trainer.limit_train_batches=2")
    (tmp_path / "latest").symlink_to(tmp_path / "runs/ConvNetReLU/version_0")
    last = "--ckpt_path=latest/checkpoints/last.ckpt"
    cli("fit", last, "--trainer.max_epochs=2", "--pictures=false")
    assert not (tmp_path / "runs/ConvNetReLU/version_1").exists()


def test_of_a_checkpoint_outside_a_run_another_begins_and_says_so(cli, copied, tmp_path):
    project = copied.folder.rename(tmp_path / "my project")
    before = {file: file.read_bytes() for file in project.rglob("*.*")}
    last = project / "checkpoints" / "last.ckpt"
    out = cli("fit", "--ckpt_path", last, "--trainer.max_epochs=4", *ON_CPU).out
    assert f"{last} is not in a run folder (version_N), so a new run begins" in out
    assert {file: file.read_bytes() for file in project.rglob("*.*")} == before
    assert (tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt").exists()


def test_a_run_that_goes_on_in_its_first_epoch_says_so(fit, cli, tmp_path):
    fit("--trainer.max_steps=10", epochs=2)
    last = tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt"
    result = cli("fit", f"--ckpt_path={last}", "--trainer.max_steps=12", *ON_CPU)
    assert "Resuming after 0 epochs, 10 steps." in result.out


def test_where_nothing_is_held_out_the_accuracy_in_training_is_said(fit):
    result = fit("--data.val_size=0")
    assert re.search(r"^Training accuracy: \d+\.\d\d%$", result.out, re.M)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            ["--data=ImageData"],
            "--data ImageData: not a data set, but the base class of all.\nChoose",
        ),
        (["--data=MNISTT"], "--data MNISTT: no such class. Did you mean MNIST?\nFor all options"),
        (["--model.width=3"], "unknown option --model.width. Did you mean --model.lr?"),
        (["--model.dropout=0.5"], "unknown option --model.dropout. The chosen network has no "),
        (["--model.optimizer=SparseAdam"], "SparseAdam: cannot be used: it supports only sparse"),
        (["--model.weight_decay=-1"], "value: -1.0.\nIt is given by --model.weight_decay"),
        (
            ["--model.scheduler=ReduceLROnPlateau", "--trainer.check_val_every_n_epoch=2"],
            "ReduceLROnPlateau needs val/loss after every epoch: leave out --trainer.check_val",
        ),
    ],
)
def test_what_cannot_be_is_told_in_two_lines_before_training(fit, tmp_path, flags, text):
    error = fit(*flags, status=2).err
    assert text in error
    assert len(error.splitlines()) <= 2
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_named_without_its_flag_is_understood(cli, copied):
    error = cli("test", copied.best, status=2).err
    assert f"Did you mean --ckpt_path {copied.best}?" in error
    flag = f"--config={copied.folder}/config.yaml"
    assert "which checkpoint? " in cli("test", *flag.split("="), status=2).err


def test_a_checkpoint_that_was_cut_short_is_told(cli, copied):
    copied.best.write_bytes(copied.best.read_bytes()[:-1000])
    assert "it is truncated" in cli("test", f"--ckpt_path={copied.best}", status=2).err


def test_layers_that_find_their_sizes_themselves_are_read_again(cli, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(OWN.replace("nn.Linear(784, 10)", "nn.LazyLinear(10)"))
    cli("fit", "--model=mine.Net", "--data=Digits", "--trainer.max_epochs=1", *ON_CPU)
    # As of a plugin, which is made without memory first.
    monkeypatch.setattr(registry, "is_known", lambda path: True)
    network = mnist_zoo.load(tmp_path / "runs/Net/version_0/checkpoints/best.ckpt")
    assert network.layers[1].weight.shape == (10, 784)


def test_a_course_of_ones_own_is_not_gone_on_with_beyond_its_end(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        f"{OWN}\n    def configure_optimizers(self):\n"
        "        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)\n"
        "        steps = int(self.num_training_steps())\n"
        "        course = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)\n"
        '        return [optimizer], [{"scheduler": course, "interval": "step"}]\n'
    )
    own = ("--model=mine.Net", "--data=Digits", "--data.batch_size=100", *ON_CPU)
    cli("fit", *own, "--trainer.max_epochs=1")
    last = tmp_path / "runs/Net/version_0/checkpoints/last.ckpt"
    before = last.read_bytes()
    error = cli("fit", f"--ckpt_path={last}", *own, "--trainer.max_epochs=2", status=2).err
    assert "was built for total_steps 13 and cannot be changed to 26 midway" in error
    assert last.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "status"), [(["--model.optimizer=Adam"], 2), (["--model.weight_decay=0.001"], 0)]
)
def test_the_configuration_of_a_run_is_that_of_its_checkpoints(cli, copied, flags, status):
    file = copied.folder / "config.yaml"
    before = file.read_text()
    last = f"--ckpt_path={copied.last}"
    cli("fit", last, "--trainer.max_epochs=4", *ON_CPU, *flags, status=status)
    assert (file.read_text() == before) is bool(status)
    assert ("weight_decay: 0.001" in file.read_text()) is not bool(status)


@pytest.mark.parametrize(
    ("course", "first", "then", "num_steps"),
    [
        (
            "[torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=4)]",
            ("--trainer.max_epochs=4", "--trainer.max_steps=15"),
            "--trainer.max_steps=20",
            20,
        ),
        (
            '[{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 10), "interval": "step"}]',
            ("--trainer.max_epochs=1",),
            "--trainer.max_epochs=2",
            26,
        ),
    ],
    ids=["by epochs", "without an end"],
)
def test_a_course_of_ones_own_is_gone_on_with(cli, tmp_path, course, first, then, num_steps):
    (tmp_path / "mine.py").write_text(
        f"{OWN}\n    def configure_optimizers(self):\n"
        "        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)\n"
        f"        return [optimizer], {course}\n"
    )
    own = ("--model=mine.Net", "--data=Digits", "--data.batch_size=100", *ON_CPU)
    cli("fit", *own, *first)
    last = tmp_path / "runs/Net/version_0/checkpoints/last.ckpt"
    cli("fit", f"--ckpt_path={last}", *own, then)
    assert content(last)["global_step"] == num_steps
