"""The contract: optimizers and schedulers by name, what is logged, what a checkpoint holds."""

import random
import re
import zipfile

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from PIL import Image
from torch import nn

import mnist_zoo
from mnist_zoo.data import Digits
from mnist_zoo.engine import probe
from mnist_zoo.errors import ZooError
from mnist_zoo.models import Classifier, ConvNetDropout, ConvNetReLU, Dense
from mnist_zoo.models.checkpoint import read
from mnist_zoo.models.checkpoint_files import CheckpointError
from mnist_zoo.models.classifier import num_parameters
from mnist_zoo.models.optimizers import lay_out_as_weights


def trainer(**settings):
    return Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, **settings,
    )  # fmt: skip


class TestOptimizer:
    def test_is_plain_sgd_unless_told_otherwise(self):
        optimizer = Dense(lr=0.3, weight_decay=0.01).configure_optimizers()
        assert type(optimizer) is torch.optim.SGD
        (group,) = optimizer.param_groups
        assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.3, 0.01, 0)
        assert sum(p.numel() for p in group["params"]) == 79_510

    def test_is_any_of_torch_with_its_own_arguments(self):
        adam = Dense(optimizer="Adam", optimizer_args={"betas": (0.8, 0.9)}).configure_optimizers()
        assert type(adam) is torch.optim.Adam
        assert adam.param_groups[0]["betas"] == (0.8, 0.9)
        sgd = Dense(optimizer_args={"momentum": 0.9, "nesterov": True}).configure_optimizers()
        assert sgd.param_groups[0]["momentum"] == 0.9
        assert sgd.param_groups[0]["nesterov"] is True

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"optimizer": "adam"}, r"--model.optimizer adam: .* Did you mean Adam\?"),
            ({"optimizer": "SDG"}, r"Did you mean SGD\?"),
            ({"optimizer": "torch.optim.SGD"}, "torch.optim has no such class"),
            ({"optimizer": "lr_scheduler"}, "torch.optim has no such class"),
            ({"optimizer": "_functional"}, "torch.optim has no such class"),
            ({"scheduler": "OneCycle"}, r"--model.scheduler OneCycle: .* Did you mean OneCycleLR"),
            ({"scheduler": "SGD"}, "torch.optim.lr_scheduler has no such class"),
        ],
    )
    def test_that_does_not_exist_is_an_error_with_a_suggestion(self, arguments, text):
        with pytest.raises(ZooError, match=text):
            Dense(**arguments)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"optimizer_args": {"momentun": 0.9}},
            {"optimizer_args": {"lr": 0.9}},
            {"optimizer": "Optimizer"},
            {"scheduler": "StepLR"},
            {"scheduler": "StepLR", "scheduler_args": {"step": 3}},
        ],
    )
    def test_that_refuses_its_arguments_says_so(self, arguments):
        with pytest.raises(ZooError, match="does not accept this: "):
            trainer(fast_dev_run=1).fit(Dense(**arguments), Digits())

    @pytest.mark.parametrize("lr", [0, -1.0, float("nan")])
    def test_has_a_learning_rate_above_zero(self, lr):
        with pytest.raises(ZooError, match=r"--model.lr .*: must be above 0."):
            Dense(lr=lr)

    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
    def test_has_its_gradients_clipped_in_every_precision(self, precision):
        net = Dense(lr=1e9)
        trainer(fast_dev_run=1, precision=precision, gradient_clip_val=1e-20).fit(net, Digits())
        assert all(parameter.isfinite().all() for parameter in net.parameters())
        assert max(parameter.abs().max() for parameter in net.parameters()) < 1

    def test_is_fused_where_it_has_a_kernel(self):
        for name in ("SGD", "Adam", "Adagrad"):
            assert Dense(optimizer=name).configure_optimizers().param_groups[0]["fused"]

    def test_goes_on_with_its_state_in_another_layout_of_memory(self):
        net = ConvNetReLU(optimizer_args={"momentum": 0.9})
        weight = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)][1].weight
        optimizer = net.configure_optimizers()
        expected = torch.arange(weight.numel(), dtype=torch.float32).view_as(weight)
        optimizer.state[weight]["momentum_buffer"] = expected.clone()
        net.to(memory_format=torch.channels_last)
        lay_out_as_weights(optimizer)
        momentum = optimizer.state[weight]["momentum_buffer"]
        assert momentum.stride() == weight.stride() != expected.stride()
        assert torch.equal(momentum, expected)

    def test_of_a_resumed_run_has_its_state_in_the_layout_of_the_weights(self, tmp_path):
        def fit(max_epochs, layout, ckpt_path=None):
            net = ConvNetReLU(optimizer_args={"momentum": 0.9}).to(memory_format=layout)
            run = trainer(max_epochs=max_epochs, limit_train_batches=2, limit_val_batches=0)
            run.fit(net, Digits(), ckpt_path=ckpt_path)
            return run

        fit(1, torch.contiguous_format).save_checkpoint(tmp_path / "a.ckpt")
        resumed = fit(2, torch.channels_last, tmp_path / "a.ckpt")
        for weight, state in resumed.optimizers[0].state.items():
            assert state["momentum_buffer"].stride() == weight.stride()

    def test_of_a_resumed_run_with_a_scheduler_keeps_its_learning_rate(self, tmp_path):
        def fit(max_epochs, lr, ckpt_path=None):
            net = Dense(lr=lr, scheduler="StepLR", scheduler_args={"step_size": 1})
            run = trainer(max_epochs=max_epochs, limit_train_batches=2, limit_val_batches=0)
            run.fit(net, Digits(), ckpt_path=ckpt_path)
            return run

        fit(1, 0.1).save_checkpoint(tmp_path / "a.ckpt")
        assert fit(2, 0.1, tmp_path / "a.ckpt").global_step == 4
        with pytest.raises(ZooError, match=r"a resumed run cannot change --model\.lr"):
            fit(2, 0.2, tmp_path / "a.ckpt")

    def test_scheduler_args_win_over_what_spans_the_run(self):
        own = {"total_steps": 50, "max_lr": 4.0, "div_factor": 4}
        network = Dense(scheduler="OneCycleLR", scheduler_args=own)
        trainer(fast_dev_run=2).fit(network, Digits())
        scheduler = network.lr_schedulers()
        assert scheduler.total_steps == 50
        assert scheduler.base_lrs == [pytest.approx(1.0)]

    def test_a_schedule_that_ends_before_the_run_is_refused(self):
        network = Dense(scheduler="OneCycleLR", scheduler_args={"total_steps": 3})
        with pytest.raises(ZooError, match="total_steps is 3, but the run has 4 steps"):
            trainer(fast_dev_run=4).fit(network, Digits())

    @pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 5])
    def test_one_cycle_spans_a_run_of_any_length(self, num_steps):
        network = Dense(scheduler="OneCycleLR", scheduler_args={"pct_start": 0.25})
        trainer(fast_dev_run=num_steps).fit(network, Digits())
        assert network.lr_schedulers().last_epoch == num_steps


class TestTraining:
    def test_logs_losses_and_accuracies_under_their_names(self):
        run = trainer(max_epochs=1, limit_train_batches=3)
        network = Dense()
        run.fit(network, Digits())
        names = {"train/loss", "train/acc", "val/loss", "val/acc"}
        assert names <= run.callback_metrics.keys()
        (tested,) = run.test(network, Digits(), verbose=False)
        assert tested.keys() == {"test/loss", "test/acc", *(f"test/acc/{i}" for i in range(10))}
        assert all(0 <= value <= 1 for name, value in tested.items() if "acc" in name)

    def test_a_mean_counts_every_image_once_whatever_its_minibatch(self):
        class Outputs(Dense):
            def forward(self, images):
                return self.layers[-1](images.flatten(1)[:, :10] * 0 + self.level(images))

            def level(self, images):
                return images.flatten(1)[:, :1]

        images = torch.zeros(5, 1, 28, 28)
        images[4, 0, 0, 0] = 6
        targets = torch.tensor([0, 0, 0, 1, 1])
        loader = torch.utils.data.DataLoader(list(zip(images, targets, strict=True)), batch_size=4)
        network = Outputs()
        (tested,) = trainer().test(network, loader, verbose=False)
        whole = network.loss(network(images), targets).item()
        assert tested["test/loss"] == pytest.approx(whole, rel=1e-5)
        assert tested["test/acc"] == pytest.approx(3 / 5), (
            "all outputs are equal: the first is read"
        )
        assert (tested["test/acc/0"], tested["test/acc/1"]) == (1, 0)

    def test_figures_are_whole_after_a_run_that_was_broken_off(self):
        class Breaks(Callback):
            def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
                raise InterruptedError

        network, data = Dense(), Digits(num_train=100, val_size=0, batch_size=50)
        with pytest.raises(InterruptedError):
            trainer(max_epochs=1, callbacks=[Breaks()]).fit(network, datamodule=data)
        assert network.train_mean_loss.num_images == 50
        counted = []
        before = network.train_mean_loss.compute

        def compute():
            counted.append(int(network.train_mean_loss.num_images))
            return before()

        network.train_mean_loss.compute = compute
        anew = trainer(max_epochs=2)
        anew.fit(network, datamodule=data)
        assert counted == [100, 100]
        assert {"train/loss", "train/acc"} <= anew.callback_metrics.keys()

    def test_figures_are_logged_where_a_network_uses_their_metrics_itself(self):
        class Own(Dense):
            def training_step(self, batch, batch_idx):
                images, targets = batch
                self.log("running", self.train_acc(self(images), targets))
                return super().training_step(batch, batch_idx)

        own = trainer(max_epochs=2)
        own.fit(Own(), datamodule=Digits(num_train=100, val_size=0, batch_size=50))
        assert {"running", "train/loss", "train/acc"} <= own.callback_metrics.keys()

    def test_bytes_are_refused_with_a_word_on_who_makes_floats_of_them(self):
        data = Digits()
        data.setup("fit")
        with pytest.raises(ZooError, match=r"takes floats, not bytes: .* the data module"):
            trainer(max_steps=1).fit(Dense(), data.train_dataloader())

    def test_every_test_counts_its_own_images_alone(self):
        network, data, run = Dense(num_hidden=3), Digits(num_test=50), trainer()
        torch.nn.init.zeros_(network.layers[3].weight)
        for answer in (7, 4):
            network.layers[3].bias.data = torch.eye(10)[answer]
            (tested,) = run.test(network, data, verbose=False)
            right = {f"test/acc/{digit}": float(digit == answer) for digit in range(10)}
            assert {name: tested[name] for name in right} == right

    def test_predicts_probabilities_with_targets_or_without(self):
        network = Dense().eval()
        images = torch.rand(3, 1, 28, 28)
        expected = network.probabilities(network(images))
        assert torch.equal(network.predict_step(images, 0), expected)
        assert torch.equal(network.predict_step((images, torch.zeros(3)), 0), expected)

    @pytest.mark.parametrize("training", [True, False])
    def test_predict_is_evaluation_and_leaves_the_mode(self, training):
        network = ConvNetDropout().train(training)
        network.layers[3].train(not training)
        network.pixel_mean, network.pixel_std = 0.5, 0.25
        modes = [module.training for module in network.modules()]
        images = torch.rand(5, 1, 28, 28)
        read = network.predict(images, batch_size=2)
        assert [module.training for module in network.modules()] == modes
        assert not read.requires_grad
        expected = network.eval().probabilities(network((images - 0.5) / 0.25))
        assert torch.allclose(read, expected, atol=1e-6)

    def test_predict_normalises_as_in_the_training_before(self):
        network = Dense()
        trainer(fast_dev_run=1).fit(network, Digits(mean=0.5, std=0.25))
        images = torch.rand(5, 1, 28, 28)
        expected = network.probabilities(network((images - 0.5) / 0.25))
        assert torch.allclose(network.predict(images), expected, atol=1e-6)

    def test_predict_of_a_network_in_half_precision(self):
        images = torch.rand(3, 1, 28, 28)
        network = ConvNetReLU()
        expected = network.predict(images)
        read = network.to(torch.bfloat16).predict(images)
        assert read.dtype == torch.float32
        assert torch.allclose(read, expected, atol=0.02)

    def test_predict_takes_pictures_arrays_and_tensors(self):
        network = Dense()
        bytes_ = torch.zeros(3, 28, 28, dtype=torch.uint8)
        bytes_[:, 4:24, 12:16] = 255
        expected = network.predict(bytes_)
        assert expected.shape == (3, 10)
        floats = bytes_.unsqueeze(1) / 255
        picture = Image.fromarray(bytes_[0].numpy()).resize((280, 280))
        for images in (bytes_.numpy(), floats, floats.numpy().astype("float64"), bytes_.long(),
                       list(bytes_), [bytes_[0], floats[1], bytes_[2].numpy()]):  # fmt: skip
            assert torch.allclose(network.predict(images), expected, atol=1e-6)
        for image in (bytes_[0], floats[0, 0], bytes_[:1]):
            assert torch.allclose(network.predict(image), expected[:1], atol=1e-6)
        assert network.predict([picture, picture]).shape == (2, 10)
        assert network.predict([]).shape == (0, 10)
        with pytest.raises(ZooError, match="batch_size is 0, but must be at least 1"):
            network.predict(images, batch_size=0)

    @pytest.mark.parametrize(
        ("images", "text"),
        [
            (torch.zeros(2, 27, 28), "shape (2, 27, 28)"),
            (torch.zeros(2, 3, 28, 28), "shape (2, 3, 28, 28)"),
            (torch.full((28, 28), 2.0), "floats in [0, 1]"),
            (torch.full((28, 28), 256), "integers from 0 to 255"),
            (torch.full((28, 28), torch.nan), "floats in [0, 1]"),
            (Image.new("L", (50, 50)), "no digit found"),
        ],
    )
    def test_predict_refuses_the_rest(self, images, text):
        with pytest.raises(ZooError, match=re.escape(text)):
            Dense().predict(images)

    def test_one_that_sees_nothing_still_has_probabilities(self):
        # Activations of saturated sigmoid neurons are zero.
        probabilities = Dense().probabilities(torch.zeros(2, 10))
        assert probabilities.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_mean_loss_of_many_images_is_exact_in_half_precision(dtype):
    network = Dense().to(dtype)
    for _ in range(2):
        for _ in range(300):
            network.train_mean_loss.update(torch.tensor(0.25, dtype=dtype), 1000)
        assert network.train_mean_loss.compute() == 0.25
        network.train_mean_loss.reset()


def test_what_is_frozen_is_no_parameter_to_train():
    network = Dense()
    network.layers[1].requires_grad_(False)
    assert num_parameters(network) == 1_010
    network.requires_grad_(False)
    assert num_parameters(network) == 0
    with pytest.raises(ZooError, match=r"Dense has nothing to train: .* are frozen"):
        probe.check(network)


def test_a_network_is_looked_at_without_drawing_random_numbers():
    class Net(Dense):
        def forward(self, images):
            return super().forward(images) * (random.random() + 1)

        def parameter_groups(self):
            return [{"params": self.parameters(), "lr": 1 / self.trainer.max_epochs}]

    def drawn():
        return random.random(), float(torch.rand(()))

    network = Net()
    seed_everything(0)
    expected = drawn()
    seed_everything(0)
    probe.check(network)
    assert drawn() == expected


def test_the_contract_is_no_network():
    with pytest.raises(TypeError, match="abstract"):
        Classifier()


def test_a_network_is_a_few_lines():
    class Small(Classifier):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    network = Small(lr=0.5)
    assert num_parameters(network) == 7_850
    trainer(fast_dev_run=1).fit(network, Digits())


class TestCheckpoint:
    @pytest.fixture
    def file(self, tmp_path):
        run = trainer(fast_dev_run=1)
        network = ConvNetDropout(num_hidden=20, dropout=0.25, optimizer_args={"momentum": 0.5})
        run.fit(network, Digits(batch_size=7, num_test=30))
        run.save_checkpoint(tmp_path / "a.ckpt")
        return tmp_path / "a.ckpt"

    def test_holds_every_setting_of_network_and_data(self, file):
        checkpoint = read(file)
        assert checkpoint.network == "ConvNetDropout"
        assert checkpoint.model["class_path"] == "mnist_zoo.models.convnet.ConvNetDropout"
        arguments = checkpoint.model["init_args"]
        assert (arguments["num_hidden"], arguments["dropout"]) == (20, 0.25)
        assert arguments["optimizer_args"] == {"momentum": 0.5}
        assert checkpoint.data["class_path"].endswith(".Digits")
        assert checkpoint.data["init_args"]["batch_size"] == 7

    def test_holds_numbers_of_numpy_and_torch_as_plain_ones(self, tmp_path):
        run = trainer(fast_dev_run=1)
        network = ConvNetDropout(
            num_hidden=np.int64(20), lr=np.float64(0.5), dropout=torch.tensor(0.25),
            optimizer_args={"momentum": np.float32(0.5)},
        )  # fmt: skip
        run.fit(network, Digits(mean=torch.tensor(0.5), std=np.float32(0.25)))
        run.save_checkpoint(tmp_path / "a.ckpt")
        checkpoint = read(tmp_path / "a.ckpt")
        given = {name: checkpoint.model["init_args"][name] for name in ("num_hidden", "lr")}
        assert given == {"num_hidden": 20, "lr": 0.5}
        assert [type(value) for value in given.values()] == [int, float]
        loaded = mnist_zoo.load(tmp_path / "a.ckpt")
        assert (loaded.pixel_mean, loaded.pixel_std) == (0.5, 0.25)
        assert ConvNetDropout.load_from_checkpoint(tmp_path / "a.ckpt").lr == 0.5

    def test_loads_from_a_string_and_from_a_path(self, file):
        for path in (file, str(file)):
            network = mnist_zoo.load(path)
            assert type(network) is ConvNetDropout
            assert network.layers[4].out_features == 20

    def test_that_does_not_fit_its_network_says_so(self, file):
        content = torch.load(file, weights_only=True)
        content["mnist_zoo"]["model"]["init_args"]["num_hidden"] = 21
        torch.save(content, file)
        with pytest.raises(CheckpointError, match="does not fit ConvNetDropout of this version"):
            mnist_zoo.load(file)
        content["mnist_zoo"]["model"]["init_args"]["width"] = 1
        torch.save(content, file)
        with pytest.raises(CheckpointError, match=r"does not fit ConvNetDropout .*width"):
            mnist_zoo.load(file)

    def test_with_a_value_that_its_network_cannot_have_says_so(self, file):
        content = torch.load(file, weights_only=True)
        content["mnist_zoo"]["model"]["init_args"]["dropout"] = 1.5
        torch.save(content, file)
        with pytest.raises(CheckpointError, match=r"does not fit ConvNetDropout .*1\.5"):
            mnist_zoo.load(file)

    def test_that_is_not_there_says_so(self, tmp_path):
        with pytest.raises(CheckpointError, match="does not exist"):
            mnist_zoo.load(tmp_path / "a.ckpt")


class Labelled(Dense):
    def __init__(self, label="", **kwargs):
        super().__init__(**kwargs)


@pytest.mark.parametrize("label", ["{a: b}", "[1", "x" * 20_000, ["{a: b}"]])
def test_a_word_that_would_be_refused_when_read_is_told_before_training(label):
    with pytest.raises(ZooError, match=r"Labelled: its argument label is of .*cannot hold"):
        trainer(fast_dev_run=1).fit(Labelled(label), Digits())


class Careless(ConvNetDropout):
    """Overrides hooks that do nothing in Lightning's class, and so does not pass them on."""

    def on_fit_start(self):
        pass

    def on_train_start(self):
        pass

    def on_save_checkpoint(self, checkpoint):
        checkpoint["mine"] = 1

    def on_load_checkpoint(self, checkpoint):
        self.loaded = checkpoint["mine"]


def test_a_network_may_have_hooks_of_its_own(tmp_path):
    file = tmp_path / "a.ckpt"
    run = trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    run.fit(Careless(num_hidden=9, lr=0.5), Digits(mean=0.5, std=0.25))
    run.save_checkpoint(file)
    path = f"{Careless.__module__}.Careless"
    network = mnist_zoo.load(file, named=path)
    assert (network.pixel_mean, network.pixel_std) == (0.5, 0.25)

    resumed = Careless(num_hidden=9, lr=0.25)
    run = trainer(max_epochs=2, limit_train_batches=1, limit_val_batches=0)
    run.fit(resumed, Digits(mean=0.5, std=0.25), ckpt_path=file)
    assert resumed.loaded == 1
    assert run.optimizers[0].param_groups[0]["lr"] == 0.25


class TestCheckpointThatIsMoreThanItSeems:
    @pytest.fixture
    def changed(self, tmp_path):
        run = trainer(fast_dev_run=1)
        run.fit(Dense(num_hidden=5), Digits())
        run.save_checkpoint(tmp_path / "a.ckpt")

        def load(change):
            content = torch.load(tmp_path / "a.ckpt", weights_only=True)
            change(content)
            torch.save(content, tmp_path / "b.ckpt")
            return mnist_zoo.load(tmp_path / "b.ckpt")

        return load

    def test_weights_that_are_larger_than_the_file(self, changed):
        size = 10**9

        def change(content):
            content["mnist_zoo"]["model"]["init_args"]["num_hidden"] = size
            weight = torch.zeros(1).expand(size, 784)
            content["state_dict"]["layers.1.weight"] = weight

        with pytest.raises(CheckpointError, match="not a checkpoint of an mnist-zoo network"):
            changed(change)

    def test_arguments_that_ask_for_more_than_there_are_weights(self, changed):
        def ask_for(num_hidden):
            changed(lambda c: c["mnist_zoo"]["model"]["init_args"].update(num_hidden=num_hidden))

        # Layers without end would take time, though no memory.
        with pytest.raises(CheckpointError, match="num_hidden is 10,000,000,000, of 3,985 weights"):
            ask_for(10**10)
        with pytest.raises(CheckpointError, match=r"size mismatch for layers.1.weight: \(5, 784\)"):
            ask_for(6)

    @pytest.mark.parametrize("steps", ["many", None, [1]])
    def test_steps_that_are_no_number(self, changed, steps):
        with pytest.raises(CheckpointError, match="not a checkpoint of an mnist-zoo network"):
            changed(lambda content: content.update(global_step=steps))

    def test_names_of_other_than_ten_classes(self, changed):
        with pytest.raises(CheckpointError, match="not a checkpoint of an mnist-zoo network"):
            changed(lambda content: content["mnist_zoo"]["data"].update(classes=["A", "B"]))

    def test_lists_that_hold_each_other(self, changed):
        nested = [0]
        for _ in range(40):
            nested = [nested] * 10
        with pytest.raises(CheckpointError, match="more than plain values"):
            changed(lambda c: c["mnist_zoo"]["model"]["init_args"].update(optimizer_args=nested))

    def test_what_was_compressed(self, changed, tmp_path):
        changed(lambda _: None)
        with (
            zipfile.ZipFile(tmp_path / "b.ckpt") as stored,
            zipfile.ZipFile(tmp_path / "c.ckpt", "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for name in stored.namelist():
                packed.writestr(name, stored.read(name))
        with pytest.raises(CheckpointError, match="recompressed"):
            mnist_zoo.load(tmp_path / "c.ckpt")

    @pytest.mark.parametrize(
        ("offset", "flipped"),
        [(0, 1), (6, 0xFF), (8, 1), (16, 1), (38, 0x10), (46, 0x80)],
        ids=["signature", "version", "encryption", "checksum", "folder", "name"],
    )
    def test_a_directory_that_is_damaged(self, changed, tmp_path, offset, flipped):
        changed(lambda _: None)
        content = bytearray((tmp_path / "b.ckpt").read_bytes())
        content[content.index(b"PK\1\2") + offset] ^= flipped
        (tmp_path / "b.ckpt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"b\.ckpt is damaged: "):
            mnist_zoo.load(tmp_path / "b.ckpt")


@pytest.mark.parametrize("arguments", [{"fused": False}, {"foreach": True}])
def test_which_kernel_an_optimizer_takes_can_be_said(arguments):
    (group,) = Dense(optimizer_args=arguments).configure_optimizers().param_groups
    assert not group["fused"]
    assert arguments.items() <= group.items()
