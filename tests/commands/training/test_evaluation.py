"""What test, validate and predict make of a checkpoint, and which checkpoints they take."""

import csv
import shutil
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning import Trainer

import mnist_zoo
from mnist_zoo.commands.shared.checkpoint_data import data_here
from mnist_zoo.data import Digits, to_float
from mnist_zoo.models import ConvNetReLU

ON_CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
NUM_TEST = 360
NUM_VAL = 144


def digits_for_test():
    data = Digits()
    data.setup("test")
    images, targets = data.splits["test"]
    return to_float(images), targets


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
        assert cells.pop("accuracy") == f"{100 * right.float().mean():.2f} %"
        assert cells.pop("loss") == f"{network.loss(outputs, targets):.4f}"
        assert cells == {
            f"accuracy on {digit}": f"{100 * right[targets == digit].float().mean():.2f} %"
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
    def test_finds_the_accuracy_that_the_run_found(self, cli, trained, curve):
        out = cli("validate", "--ckpt_path", trained.best).out
        best = max(curve(trained.folder, "val/acc"))
        assert f"ConvNetReLU on {NUM_VAL} validation images of Digits" in out
        assert f"{100 * best:.2f} %" in out

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


def test_lightnings_own_way_of_loading_knows_the_normalisation_too(fit, tmp_path):
    fit("--data.mean=0.2", "--data.std=0.4", "--trainer.limit_train_batches=2")
    best = tmp_path / "runs/ConvNetReLU/version_0/checkpoints/best.ckpt"
    network = ConvNetReLU.load_from_checkpoint(best)
    assert (network.pixel_mean, network.pixel_std) == (0.2, 0.4)


@pytest.mark.mnist
def test_the_title_of_a_test_counts_the_images_that_were_read(cli, trained, mnist_root):
    few = ("--trainer.limit_test_batches=2", "--pictures=false")
    mnist = ("--data=MNIST", f"--data.root={mnist_root}")
    out = cli("test", f"--ckpt_path={trained.best}", *mnist, *few).out
    assert "on 2,000 test images of MNIST" in out


def test_of_a_network_that_diverged_test_says_so(cli, diverged):
    out = cli("test", f"--ckpt_path={diverged}", *ON_CPU, "--pictures=false").out
    assert "the training of this network has diverged" in out


def test_a_checkpoint_may_be_called_as_lightning_calls_one(cli, diverged, tmp_path):
    diverged.rename(tmp_path / "last")
    assert "diverged" in cli("test", "--ckpt_path=last", *ON_CPU, "--pictures=false").out


def test_classes_without_images_have_no_accuracy(cli, trained):
    flags = ("--data.num_test=3", *ON_CPU, "--pictures=false")
    out = cli("test", f"--ckpt_path={trained.best}", *flags).out
    assert out.count("no images") == 7


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


def test_a_checkpoint_named_without_its_flag_is_understood(cli, copied):
    error = cli("test", copied.best, status=2).err
    assert f"Did you mean --ckpt_path {copied.best}?" in error
    flag = f"--config={copied.folder}/config.yaml"
    assert "which checkpoint? " in cli("test", *flag.split("="), status=2).err


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("command", "step"),
    [("test", "test_step"), ("validate", "validation_step"), ("predict", "predict_step")],
)
def test_ctrl_c_is_told(cli, trained, monkeypatch, command, step):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ConvNetReLU, step, interrupted)
    result = cli(command, "--ckpt_path", trained.best, *ON_CPU, status=130)
    assert result.err.endswith("Stopped.\n")
