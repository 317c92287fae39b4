"""Networks, callbacks and data of a user's own: what they may do, and what they are told."""

import shlex

import pytest
import torch

import mnist_zoo
from mnist_zoo import registry
from mnist_zoo.models.checkpoint_files import CheckpointError

ON_CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


def content(checkpoint):
    return torch.load(checkpoint, weights_only=True)


def metrics(out):
    """Return what test prints, without the pictures that follow."""
    return out.partition("Pictures")[0]


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
    on_its_own = cli(*command[1:]).out
    assert "Net on 360 test images of Data" in on_its_own
    # Other data of the zoo needs neither the class of the checkpoint's nor its name.
    on_other = cli(*command[1:-1], "Digits").out
    assert metrics(on_other.replace("of Digits", "of Data")) == metrics(on_its_own)
    best = tmp_path / "runs/Net/version_0/checkpoints/best.ckpt"
    assert "optimizer" not in content(best)["mnist_zoo"]["model"]["init_args"]
    loaded = mnist_zoo.load(best, named="mine.Net")
    for network in (loaded, type(loaded).load_from_checkpoint(best)):
        assert network.layers[1].out_features == 20
        assert network.optimizer_class is torch.optim.Adam
        assert (network.pixel_mean, network.pixel_std) == (0.13, 0.3)


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
        with pytest.raises(CheckpointError, match="local_net"):
            mnist_zoo.load(checkpoint)


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


def test_an_untyped_argument_that_is_left_out_is_named(cli, tmp_path):
    (tmp_path / "mine.py").write_text(OWN.replace("(self, **", "(self, hidden, **"))
    error = cli("fit", "--model=mine.Net", "--data=Digits", *ON_CPU, status=2).err
    assert error == "error: Net needs hidden: give --model.hidden.\n"


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


@pytest.mark.parametrize("argument", ["", "num: int = 3, "])
@pytest.mark.parametrize("command", ["fit", "sweep"])
def test_a_network_that_does_not_call_its_base_class_is_told(cli, tmp_path, argument, command):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "from mnist_zoo.models import Classifier\n"
        "class Net(Classifier):\n"
        f"    def __init__(self, {argument}**kwargs):\n"
        "        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    named = ["mine.Net"] if command == "sweep" else ["--model=mine.Net"]
    error = cli(command, *named, "--data=Digits", "--trainer.accelerator=cpu", status=2).err
    assert error == "error: Net: its __init__ must begin with super().__init__(**kwargs).\n"


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
    (tmp_path / "mine.py").write_text(OWN.replace("super().__init__(**kwargs)", "[].missing"))
    with pytest.raises(AttributeError, match=r"^'list' object has no attribute 'missing'"):
        cli("fit", "--model=mine.Net", "--data=Digits", *ON_CPU)


def test_a_callback_of_ones_own_is_found_beside_a_network_of_the_zoo(cli, tmp_path):
    (tmp_path / "mine.py").write_text("from lightning import Callback\nclass Mine(Callback): ...\n")
    flags = ("--trainer.callbacks=mine.Mine", "--trainer.max_epochs=1", *ON_CPU)
    cli("fit", "--model=Dense", "--data=Digits", *flags, "--pictures=false")


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
