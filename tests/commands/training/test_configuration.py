"""Settings by recipe, checkpoint, file and flag, which of them wins, and which cannot be."""

from typing import Union

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from mnist_zoo.commands.training.parser import read_integers_as_such

ON_CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


def content(checkpoint):
    return torch.load(checkpoint, weights_only=True)


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

    @pytest.mark.parametrize("form", ["--config {}", "--config={}", "-c {}", "-c{}"])
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

    def test_a_recipe_of_another_network_is_warned_of(self, cli):
        warning = (
            "warning: ConvNetReLU-digits is a recipe of ConvNetReLU; its settings may not suit"
        )
        recipe = ("--config", "ConvNetReLU-digits", "--print_config")
        assert cli("fit", "--model=Dense", *recipe).err == f"{warning} Dense\n"
        assert cli("fit", "--model=ConvNetReLU", *recipe).err == ""
        assert cli("fit", *recipe).err == ""

    @pytest.mark.slow
    def test_the_configuration_of_a_run_repeats_it(self, cli, trained, tmp_path):
        cli("fit", "--config", trained.folder / "config.yaml")
        again = content(tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt")
        torch.testing.assert_close(
            again["state_dict"], content(trained.last)["state_dict"], rtol=0, atol=0
        )


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


def test_a_saved_configuration_makes_a_new_run_beside_the_old_one(cli, copied):
    cli("fit", f"--ckpt_path={copied.last}", *ON_CPU, "--trainer.max_epochs=4", "--pictures=false")
    config = copied.folder / "config.yaml"
    before = {path: path.stat().st_mtime_ns for path in copied.folder.rglob("*")}
    cli("fit", f"--config={config}", "--trainer.max_epochs=1")
    again = copied.folder.parent / "version_1"
    assert (again / "checkpoints" / "last.ckpt").is_file()
    assert sorted(path.name for path in again.parent.iterdir()) == ["version_0", "version_1"]
    assert before == {path: path.stat().st_mtime_ns for path in copied.folder.rglob("*")}


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--model.learning_rate", "--model.lr"),
        ("--trainer.epochs", "--trainer.max_epochs"),
        ("--seed", "--seed_everything"),
    ],
)
def test_what_other_projects_call_it_is_understood(cli, flag, meant):
    error = cli("fit", "--model=Dense", f"{flag}=3", status=2).err
    assert error.startswith(f"error: unknown option {flag}. Did you mean {meant}?")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            ["--data=ImageData"],
            "--data ImageData: not a data set, but the base class of all.\nChoose",
        ),
        (["--data=MNISTT"], "--data MNISTT: no such class. Did you mean MNIST?\nFor all options"),
        (
            ["--model.width=3"],
            "unknown option --model.width.\nFor all options of ConvNetReLU: mnist-zoo fit"
            " --model.help ConvNetReLU\n",
        ),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: Dense\ndata.batch_size: 3\n", "data.batch_size: write batch_size under data.in"),
        ("model.lr: 1\nmodel: Dense\n", "model.lr: write lr under model.init_args."),
        ("seed_everything: 2024-13-45\n", "not valid YAML (month must be in 1..12)"),
        ("seed_everything: !!bool maybe\n", "not valid YAML ('maybe')"),
        (
            "model: &m\n  class_path: Dense\n  init_args: *m\n",
            "line 1: not valid YAML (found unconstructable recursive node)",
        ),
        ("model: Dense\naverage: 5\n", "average must hold settings, one per line below it."),
        ("[" * 3000, "not valid YAML"),
    ],
)
def test_a_file_that_holds_no_settings_is_told(cli, tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    for command in (["fit", "--config=mine.yaml"], ["sweep", "mine.yaml"]):
        error = cli(*command, status=2).err
        assert message in error
        assert len(error.splitlines()) <= 2


@pytest.mark.parametrize("command", ["fit", "test"])
def test_the_help_is_in_plain_words(cli, command):
    out = cli(command, "--help").out
    for markup in ("`", ":paramref:", ":class:", "None", "max_epochs = 1000", "--verbose"):
        assert markup not in out, markup
    words = " ".join(out.split())
    assert ("null means 10" in words) is (command == "fit")
    # Where the parser's own default is null, the docstring's is the one in force.
    assert "Default: 50. (type: Optional[int], default: null)" in words
    assert "Default: 1. (type: int, default: 1)" not in words


def test_null_is_what_is_meant_by_none(cli):
    error = cli("fit", "--model=Dense", "--data.split_seed=None", status=2).err
    assert "--data.split_seed None: expected int. Did you mean null?" in error


def test_one_minibatch_is_not_all_of_them_whatever_order_python_has_its_types_in():
    parser = LightningArgumentParser()
    parser.add_argument("--limit", type=Union[float, int, None])  # noqa: UP007
    assert type(parser.parse_args(["--limit=1"]).limit) is float
    read_integers_as_such(parser)
    for text, value in (("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("null", None)):
        limit = parser.parse_args([f"--limit={text}"]).limit
        assert (limit, type(limit)) == (value, type(value))
