"""What fit trains, says, keeps and leaves behind."""

import contextlib
import re
import shlex
import signal
from types import SimpleNamespace

import pytest
import torch
import yaml

from mnist_zoo import registry
from mnist_zoo.engine import memory_layout, processor
from mnist_zoo.engine.blocks import Blocks, _BlockStep
from mnist_zoo.models import Classifier

STEPS_PER_EPOCH = 41  # 1,293 images in minibatches of 32
ON_CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


def content(checkpoint):
    return torch.load(checkpoint, weights_only=True)


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

    def test_best_is_of_the_epoch_with_the_highest_validation_accuracy(self, trained, curve):
        accuracies = curve(trained.folder, "val/acc")
        assert len(accuracies) == 3
        assert content(trained.best)["epoch"] == accuracies.index(max(accuracies))
        assert f"Best validation accuracy: {100 * max(accuracies):.2f} %" in trained.out

    @pytest.mark.parametrize(("flags", "choose"), [([], min), (["--best.mode=max"], max)])
    def test_best_may_be_chosen_by_the_loss(self, fit, tmp_path, flags, choose, curve):
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

    def test_mlp_dropout_keeps_the_lowest_validation_loss_by_its_recipe(self, fit, tmp_path, curve):
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


def test_seed_zero_is_the_default(cli):
    config = yaml.safe_load(cli("fit", "--model=Dense", "--print_config").out)
    assert config["seed_everything"] == 0


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_convolutions_are_laid_out_with_the_channel_last_unless_told_otherwise(
    fit, monkeypatch, layout
):
    layouts = []

    class Watch(Blocks):
        def on_train_start(self, trainer, pl_module):
            weight = pl_module.layers[1][0].weight
            layouts.append(weight.is_contiguous(memory_format=layout))
            super().on_train_start(trainer, pl_module)

    monkeypatch.setattr("mnist_zoo.commands.training.fit.Blocks", Watch)
    flags = [] if layout == torch.channels_last else ["--channels_last=false"]
    fit("--trainer.limit_train_batches=1", *flags)
    assert layouts == [True]


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("fails", [False, True])
def test_a_process_is_left_as_it_was(fit, cli, tmp_path, monkeypatch, fails):
    asked = []
    monkeypatch.setattr(processor, "keep_freed_memory", lambda: asked.append("freed memory"))
    listening = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    during = []

    def log_training(network, *figures):
        during.append((signal.getsignal(signal.SIGINT), torch.tensor(1e-38) / 10 == 0))
        if fails:
            raise ArithmeticError

    monkeypatch.setattr(Classifier, "log_training", log_training)
    with pytest.raises(ArithmeticError) if fails else contextlib.nullcontext():
        fit("--trainer.limit_train_batches=1", "--trainer.logger=false", "--data.val_size=0")
    assert asked == ["freed memory"]
    ((handler, flushed),) = during
    assert handler not in listening
    assert flushed
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == listening
    assert torch.tensor(1e-38) / 10 != 0


@pytest.mark.parametrize("flags", [[], ["--data.val_size=0"], ["--trainer.logger=false"]])
def test_of_a_training_that_diverges_fit_says_so_and_what_to_try(fit, flags):
    out = fit("--model.lr=1e30", "--trainer.limit_train_batches=5", *flags, status=1).out
    told = "the training has diverged. Try a smaller --model.lr than 1e+30."
    assert told in " ".join(out.split())


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


def test_a_share_that_is_no_image_at_all_is_none(fit, tmp_path):
    assert "none held out" in fit("--data.val_size=0.0003").out
    assert not (tmp_path / "runs/ConvNetReLU/version_0/checkpoints/best.ckpt").exists()


def test_where_nothing_is_held_out_the_accuracy_in_training_is_said(fit):
    result = fit("--data.val_size=0")
    assert re.search(r"^Training accuracy: \d+\.\d\d %$", result.out, re.M)


def test_what_ended_a_run_early_is_said(fit):
    assert "ended the training" not in fit(epochs=1).out
    out = fit("--trainer.max_time=00:00:00:01", "--pictures=false", epochs=5000).out
    assert re.search(
        r"--trainer.max_time ended the training after \d+ of 5000 epochs \([\d,]+ st", out
    )
    stopping = (
        "--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/loss",
        "--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=100",
    )  # fmt: skip
    out = fit(*stopping, epochs=9).out
    assert "EarlyStopping (val/loss) ended the training after 2 of 9 epochs (82 steps)." in out
    first = (*stopping[:2], "--trainer.callbacks.stopping_threshold=100")
    out = fit(*first, epochs=9).out
    assert "EarlyStopping (val/loss) ended the training after 1 of 9 epochs (41 steps)." in out


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
@pytest.mark.parametrize("slow", [True, False])
def test_half_precision_that_is_slow_is_warned_of(fit, monkeypatch, slow, precision):
    monkeypatch.setattr(processor, "emulates_bfloat16", lambda: slow)
    out = fit(f"--trainer.precision={precision}", "--trainer.limit_train_batches=1", epochs=1).out
    warned = "This processor is slow in bfloat16: --trainer.precision 32-true is faster." in out
    assert warned is (slow and precision == "bf16-mixed")


def test_weights_are_pruned(fit):
    callback = ("--trainer.callbacks=ModelPruning", "--trainer.callbacks.amount=0.5")
    fit(*callback, "--trainer.callbacks.pruning_fn=l1_unstructured", epochs=1)


@pytest.mark.parametrize(
    ("network", "device", "precision", "gains"),
    [
        ("ConvNetReLU", "cuda", "32-true", False),
        ("ConvNetReLU", "cuda", "bf16-mixed", True),
        ("ConvNetReLU", "cpu", "32-true", True),
        ("ConvNetBatchNorm", "cuda", "32-true", True),
        ("ConvNetBatchNorm", "cpu", "bf16-mixed", True),
        ("ConvNetBatchNorm", "mps", "32-true", False),
    ],
)
def test_the_layout_is_that_which_is_faster(network, device, precision, gains):
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device(device)),
        precision=precision,
        callbacks=[],
    )
    built = registry.import_class(registry.class_path(network))()
    assert memory_layout.gains_from_channels_last(built, trainer) is gains
