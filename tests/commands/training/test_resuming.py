"""Runs that go on from a checkpoint: as without a break, with what settings, and when not."""

import signal

import pytest
import torch
import yaml
from filelock import FileLock

from mnist_zoo.engine.blocks import _BlockStep
from mnist_zoo.models import ConvNetReLU

STEPS_PER_EPOCH = 41  # 1,293 images in minibatches of 32
ON_CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


def content(checkpoint):
    return torch.load(checkpoint, weights_only=True)


class TestResume:
    def test_goes_on_in_the_same_folder(self, cli, copied, curve):
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
        self, cli, fit, tmp_path, monkeypatch, curve
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
        self, cli, fit, tmp_path, monkeypatch, curve
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
        assert "has nothing left to train.\nTo continue: --trainer.max_steps N" in said
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
        assert "EarlyStopping (val/loss) ended the run." in cli(*on, *stopping, status=2).err
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
    "flag", ["--best.monitor=train/loss", "--best.monitor=val/loss", "--best.mode=min"]
)
def test_the_measure_of_the_best_cannot_change(cli, copied, flag):
    before = copied.best.read_bytes()
    on = ("fit", f"--ckpt_path={copied.last}", "--trainer.max_epochs=4", *ON_CPU)
    error = cli(*on, flag, status=2).err
    assert error.startswith(f"error: a resumed run cannot change {flag.partition('=')[0]}: ")
    assert copied.best.read_bytes() == before


def test_the_number_of_devices_cannot_change(cli, copied):
    checkpoint = content(copied.last)
    assert checkpoint["mnist_zoo_run"]["num_devices"] == 1
    checkpoint["mnist_zoo_run"]["num_devices"] = 2
    torch.save(checkpoint, copied.last)
    error = cli(
        "fit", f"--ckpt_path={copied.last}", "--trainer.max_epochs=4", *ON_CPU, status=2
    ).err
    assert "a resumed run cannot go on with 1" in error
    assert "Pass --trainer.devices 2, or start a new run." in error


def test_a_run_without_pictures_is_resumed_without(cli, fit, tmp_path):
    fit("--pictures=false", epochs=1)
    last = tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt"
    out = cli("fit", f"--ckpt_path={last}", "--trainer.max_epochs=2", *ON_CPU).out
    assert "Pictures" not in out
