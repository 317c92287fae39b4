"""Blocks of steps are the steps of Lightning's plain loop, to the bit."""

import itertools
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision, Precision
from torch.optim import SGD
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, TensorDataset

from mnist_zoo.data import Digits
from mnist_zoo.engine import blocks
from mnist_zoo.engine.average import Average
from mnist_zoo.engine.blocks import Blocks, _bare
from mnist_zoo.models import ConvNetReLU, Dense, MLPDropout

NUM_BATCHES = 21  # 640 images in minibatches of 31: twenty whole ones, and one of 20


class History(Timer):
    """What was logged, epoch by epoch, and the learning rate of each call of ``training_step``.

    A timer, as these may look at blocks instead of steps.
    """

    def __init__(self):
        super().__init__()
        self.epochs = []
        self.rates = []

    def on_train_epoch_end(self, trainer, pl_module):
        metrics = trainer.callback_metrics.items()
        self.epochs.append({k: v.item() for k, v in metrics if k.startswith(("train/", "val/"))})

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def train(
    network_class, num_steps, *, epochs=2, network=None, callbacks=(), data=Digits, **settings
):
    """Train; ``num_steps`` steps in a block, None for Lightning's plain loop."""
    seed_everything(3, verbose=False)
    net = network_class(**{"lr": 0.1, **(network or {})})
    history = History()
    blocks = [] if num_steps is None else [Blocks(num_steps)]
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*blocks, history, *callbacks],
        **{"logger": False, "enable_checkpointing": False, **settings},
    )  # fmt: skip
    trainer.fit(net, data(batch_size=31, num_train=700, val_size=60))
    return net, trainer, history


def assert_the_same(one, other):
    (net, trainer, history), (expected, plain, logged) = one, other
    assert trainer.global_step == plain.global_step
    rate, wanted = (t.optimizers[0].param_groups[0]["lr"] for t in (trainer, plain))
    assert rate == wanted
    torch.testing.assert_close(net.state_dict(), expected.state_dict(), rtol=0, atol=0)
    for figures, wanted in zip(history.epochs, logged.epochs, strict=True):
        assert figures == pytest.approx(wanted, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 4, 1000])
def test_any_number_of_steps_in_a_block_gives_the_same(num_steps):
    plain = train(ConvNetReLU, None)
    assert plain[1].global_step == 2 * NUM_BATCHES
    assert {"train/loss", "train/acc", "val/loss", "val/acc"} <= plain[2].epochs[0].keys()
    assert_the_same(train(ConvNetReLU, num_steps), plain)


@pytest.mark.parametrize(
    ("network_class", "settings"),
    [
        (MLPDropout, {}),
        (Dense, {"network": {"optimizer": "Adam", "lr": 0.001}}),
        (Dense, {"network": {"optimizer_args": {"momentum": 0.9}, "weight_decay": 0.001}}),
        (Dense, {"network": {"scheduler": "OneCycleLR", "lr": 0.5}}),
        (ConvNetReLU, {"network": {"optimizer": "Muon", "weight_decay": 0.1}}),
        (Dense, {"network": {"scheduler": "CosineAnnealingLR"}, "epochs": 3}),
        (Dense, {"network": {"scheduler": "ReduceLROnPlateau", "scheduler_args": {"patience": 0}}}),
        (
            Dense,
            {
                "network": {"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.5}},
                "max_steps": 26,
            },
        ),
        (Dense, {"gradient_clip_val": 0.01}),
        (Dense, {"gradient_clip_val": 0.001, "gradient_clip_algorithm": "value"}),
        (Dense, {"accumulate_grad_batches": 3}),
        (Dense, {"limit_train_batches": 5}),
        (Dense, {"limit_train_batches": 0.5}),
        (Dense, {"max_steps": 26}),
        (Dense, {"epochs": -1, "max_steps": 30}),
        (Dense, {"val_check_interval": 7}),
        (Dense, {"overfit_batches": 2}),
        (Dense, {"check_val_every_n_epoch": 2}),
        (Dense, {"limit_val_batches": 0}),
        (Dense, {"precision": "bf16-mixed"}),
        (MLPDropout, {"network": {"optimizer": "Muon"}, "precision": "bf16-mixed"}),
    ],
    ids=str,
)
def test_a_setting_holds_in_blocks(network_class, settings):
    assert_the_same(train(network_class, 4, **settings), train(network_class, None, **settings))


@pytest.mark.parametrize("every", [1, 3, 50])
def test_the_weights_are_averaged_within_blocks(every):
    averaged = [Average(0.9, every), Average(0.9, every)]
    in_blocks = train(Dense, 4, callbacks=averaged[:1])
    assert in_blocks[1].fit_loop.epoch_loop.batch_progress.total.completed < 2 * NUM_BATCHES
    assert_the_same(in_blocks, train(Dense, None, callbacks=averaged[1:]))
    one, other = (average._average_model for average in averaged)
    assert one.n_averaged == other.n_averaged == -(-2 * NUM_BATCHES // every)


class MyAverage(Average):
    pass


def test_an_average_of_ones_own_sees_every_step():
    in_blocks = train(Dense, 4, callbacks=[MyAverage(0.9)])
    assert in_blocks[1].fit_loop.epoch_loop.batch_progress.total.completed == 2 * NUM_BATCHES


@pytest.mark.parametrize(
    "network",
    [
        {"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.5}},
        {"scheduler": "ReduceLROnPlateau", "scheduler_args": {"patience": 0}},
    ],
)
@pytest.mark.parametrize("max_steps", [5, 26])
def test_an_epoch_cut_short_within_its_only_block_is_as_in_the_plain_loop(network, max_steps):
    settings = {"network": network, "max_steps": max_steps}
    in_blocks, plain = train(Dense, 1000, **settings), train(Dense, None, **settings)
    assert in_blocks[1].global_step == max_steps
    assert_the_same(in_blocks, plain)


@pytest.mark.parametrize(
    ("device", "batch_size", "num_steps"),
    [("cpu", 10, 64), ("cpu", 1000, 1), ("cuda", 10, 256), ("cuda", 256, 64), ("cuda", 60_000, 1)],
)
def test_blocks_are_longer_on_a_gpu_and_never_too_large(device, batch_size, num_steps):
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    assert blocks._num_steps(batch_size, trainer) == num_steps


def test_a_block_is_one_call_of_the_training_step():
    assert len(train(Dense, 4)[2].rates) == 2 * 6
    assert len(train(Dense, 1)[2].rates) == 2 * NUM_BATCHES


class Own(Dense):
    """Of the user's own, and trained as those of the zoo."""


@pytest.mark.parametrize(
    ("network_class", "flag", "graphed"),
    [(Dense, None, True), (Dense, False, False), (Own, None, False), (Own, True, True)],
)
def test_a_cuda_graph_is_for_networks_of_the_zoo_unless_told_otherwise(
    network_class, flag, graphed
):
    blocks, found = Blocks(4, cuda_graph=flag), []

    class Look(Callback):
        def on_train_end(self, *_):
            found.append(blocks._block.cuda_graph)

    train(network_class, None, callbacks=[blocks, Look()], max_steps=4)
    assert found == [graphed]


@pytest.mark.parametrize(
    ("optimizer", "args", "graphed"),
    [
        ("SGD", {}, True),
        ("Adam", {}, True),
        ("Adam", {"fused": False}, False),
        ("NAdam", {}, False),
        ("NAdam", {"capturable": True}, True),
    ],
)
def test_a_cuda_graph_is_for_optimizers_that_count_steps_on_the_gpu(optimizer, args, graphed):
    blocks, found = Blocks(4), []

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            for group in trainer.optimizers[0].param_groups:
                group.update(args)
            found.append(blocks._block._graphed(torch.device("cuda")) is not None)
            for group in trainer.optimizers[0].param_groups:
                group.update(capturable=False)

    network = {"optimizer": optimizer, "lr": 0.001}
    train(Dense, None, network=network, callbacks=[blocks, Look()], max_steps=4)
    assert found == [graphed]


class Doubled(Dense):
    """Trains on twice the loss, in a step of its own."""

    num_steps = 0

    def training_step(self, batch, batch_idx):
        self.num_steps += 1
        return 2 * super().training_step(batch, batch_idx)


class Halved(Dense):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer.param_groups[0]["lr"] = 0.05
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)


class EveryOther(Dense):
    """Steps its scheduler after every other minibatch of an epoch, of which there are 21."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        steps = {"scheduler": scheduler, "interval": "step", "frequency": 2}
        return {"optimizer": optimizer, "lr_scheduler": steps}


class Plateau(Dense):
    """Goes by the accuracy, where the networks of the zoo go by the loss."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", patience=0)
        plateau = {"scheduler": scheduler, "monitor": "val/acc"}
        return {"optimizer": optimizer, "lr_scheduler": plateau}


class Clipped(Dense):
    def configure_gradient_clipping(self, optimizer, *args, **kwargs):
        self.clip_gradients(optimizer, 0.01, "norm")


class Noisy(Dense):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, targets = batch
        return (images + torch.rand(1) if self.training else images), targets


class Early(Dense):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        images, targets = batch
        return (images // 2 if len(images) == 20 else images), targets


class Manual(Dense):
    """Takes its steps, and those of its scheduler, itself."""

    def __init__(self, **kwargs):
        super().__init__(scheduler="StepLR", scheduler_args={"step_size": 1}, **kwargs)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        images, targets = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        outputs = self(images)
        loss = 2 * self.loss(outputs, targets)
        self.manual_backward(loss)
        optimizer.step()
        self.log_training(loss.detach(), outputs.detach(), targets)

    def on_train_epoch_end(self):
        self.lr_schedulers().step()


@pytest.mark.parametrize(
    "network_class", [Doubled, Halved, EveryOther, Plateau, Clipped, Noisy, Early, Manual]
)
def test_a_network_that_trains_in_a_way_of_its_own_does_so(network_class):
    own = train(network_class, 4)
    assert_the_same(own, train(network_class, None))
    assert not torch.equal(own[0].layers[1].weight, train(Dense, 4)[0].layers[1].weight)
    assert len(own[2].rates) == 2 * NUM_BATCHES


class Mixed(Digits):
    """Distorts each minibatch in a way of its own."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, targets = super().on_after_batch_transfer(batch, dataloader_idx)
        return images * torch.rand(1), targets


class Loaded(Digits):
    """Has a training loader of its own."""

    def train_dataloader(self):
        images, targets = self.splits["train"]
        return DataLoader(TensorDataset(images, targets), batch_size=self.batch_size)


@pytest.mark.parametrize(("network", "data"), [(Dense, Mixed), (Manual, Loaded)])
def test_data_that_yield_minibatches_in_a_way_of_their_own_do_so(network, data):
    own = train(network, 4, data=data)
    assert_the_same(own, train(network, None, data=data))
    assert len(own[2].rates) == 2 * NUM_BATCHES


class Watching(Callback):
    def __init__(self):
        self.num_calls = 0

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        self.num_calls += 1


def test_a_callback_that_takes_part_in_every_step_is_called_at_every_step():
    watching = Watching()
    assert_the_same(train(Dense, 4, callbacks=[watching]), train(Dense, None))
    assert watching.num_calls == 2 * NUM_BATCHES


@pytest.mark.parametrize(
    "callback",
    [
        lambda: GradientAccumulationScheduler({0: 1, 1: 2}),
        lambda: StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1),
    ],
)
def test_a_callback_of_lightning_that_steers_the_steps_does_so_in_blocks(callback):
    own = train(Dense, 4, epochs=3, callbacks=[callback()])
    assert_the_same(own, train(Dense, None, epochs=3, callbacks=[callback()]))


def test_a_minimum_of_steps_is_as_in_the_plain_loop():
    settings = {"epochs": 5, "min_steps": 60}
    first, other = (
        train(
            Dense,
            num_steps,
            callbacks=[EarlyStopping("val/loss", mode="max", patience=0)],
            **settings,
        )
        for num_steps in (4, None)
    )
    assert first[1].global_step < 5 * NUM_BATCHES
    assert_the_same(first, other)


def test_learning_rates_of_steps_are_logged_for_all_of_them(tmp_path):
    rows = []
    for num_steps in (4, None):
        logger = CSVLogger(tmp_path, str(num_steps))
        train(
            Dense, num_steps, network={"scheduler": "OneCycleLR"}, log_every_n_steps=5,
            callbacks=[LearningRateMonitor()], logger=logger,
        )  # fmt: skip
        rows.append((Path(logger.log_dir) / "metrics.csv").read_text())
    assert rows[0].count("\n") > 2 * NUM_BATCHES / 5
    assert rows[0] == rows[1]


def test_checkpoints_by_time_are_written(tmp_path):
    often = ModelCheckpoint(tmp_path, train_time_interval=timedelta(0))
    train(Dense, 4, callbacks=[often], enable_checkpointing=True)
    assert list(tmp_path.iterdir())


class Annealed(Dense):
    """Its loss goes by the number of the step."""

    def loss(self, outputs, targets):
        return super().loss(outputs, targets) / (1 + self.trainer.global_step)


class Logging(Dense):
    """Logs something of its own in its loss."""

    def loss(self, outputs, targets):
        if self.training:
            self.log("train/spread", outputs.std(), on_step=False, on_epoch=True)
        return super().loss(outputs, targets)


def test_what_a_loss_logs_is_the_mean_over_all_images():
    assert_the_same(train(Logging, 4), train(Logging, None))


def test_weights_are_averaged_after_every_step():
    average, same = EMAWeightAveraging(decay=0.9), EMAWeightAveraging(decay=0.9)
    averaged = train(Dense, None, callbacks=[average, Blocks(4)])
    assert_the_same(averaged, train(Dense, None, callbacks=[same]))


class Hooked(Callback):
    """A callback that blocks may pass over, but whose hook the optimizer calls at every step."""

    def __init__(self):
        self.num_calls = 0

    def on_train_start(self, trainer, pl_module):
        self.handle = trainer.optimizers[0].register_step_post_hook(self.count)

    def count(self, *_):
        self.num_calls += 1


def test_hooks_of_the_optimizer_are_called_at_every_step():
    hooked = Hooked()
    train(Dense, 4, epochs=1, callbacks=[hooked])
    assert hooked.num_calls == NUM_BATCHES


def steps_of(make, bare):
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 3)
    optimizer = make(layer.parameters())
    zero_grad, step = _bare(optimizer) if bare else (optimizer.zero_grad, optimizer.step)
    for number in range(4):
        zero_grad()
        layer(torch.full((2, 5), float(number))).square().sum().backward()
        step()
    return layer.state_dict()


@pytest.mark.parametrize(
    "make",
    [
        lambda weights: SGD(weights, 0.01),
        lambda weights: SGD(weights, 0.01, momentum=0.9, nesterov=True, fused=True),
        lambda weights: torch.optim.Adam(weights, 0.01, weight_decay=0.1),
        lambda weights: torch.optim.AdamW(weights, 0.01, fused=True),
        torch.optim.Adadelta,
    ],
)
def test_an_optimizer_does_the_same_without_what_surrounds_its_steps(make):
    torch.testing.assert_close(steps_of(make, True), steps_of(make, False), rtol=0, atol=0)


def test_what_surrounds_its_steps_is_there_where_it_counts():
    weights = [torch.nn.Parameter(torch.zeros(2))]
    assert _bare(SGD(weights, 0.1))
    assert _bare(SGD(weights, 0.1, differentiable=True)) is None
    assert _bare(type("Own", (SGD,), {})(weights, 0.1)) is None
    for register in ("register_step_pre_hook", "register_step_post_hook"):
        optimizer = SGD(weights, 0.1)
        getattr(optimizer, register)(lambda *_: None)
        assert _bare(optimizer) is None
    optimizer = SGD(weights, 0.1)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    assert _bare(scheduler.optimizer) is None
    handle = register_optimizer_step_pre_hook(lambda *_: None)
    try:
        assert _bare(SGD(weights, 0.1)) is None
    finally:
        handle.remove()


def test_a_loss_may_go_by_the_number_of_the_step():
    assert_the_same(train(Annealed, 4), train(Annealed, None))


def test_everything_is_left_as_it_was():
    seed_everything(3, verbose=False)
    net, data = Dense(lr=0.1), Digits(batch_size=31, num_train=700, val_size=60)
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "enable_checkpointing": False}
    blocks = Trainer(max_epochs=1, callbacks=[Blocks(4)], limit_train_batches=5, **quiet)
    blocks.fit(net, data)
    assert blocks.limit_train_batches == 5
    plain = Trainer(max_epochs=1, **quiet)
    plain.fit(net, data)
    assert (blocks.global_step, plain.global_step) == (5, NUM_BATCHES)


class Validations(Callback):
    number = 0

    def on_validation_end(self, *_):
        self.number += 1


def test_validation_after_every_minibatch():
    counted = Validations()
    train(Dense, 4, epochs=1, val_check_interval=1, callbacks=[counted], num_sanity_val_steps=0)
    assert counted.number == NUM_BATCHES


class OwnLoader(Digits):
    def train_dataloader(self):
        return DataLoader(TensorDataset(*self.splits["train"]), batch_size=100)


def test_a_loader_of_ones_own_is_left_to_lightning(capsys):
    quiet = {"accelerator": "cpu", "logger": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "callbacks": [Blocks(4), Average(decay=0.9)]}
    trainer = Trainer(max_epochs=1, limit_train_batches=3, **quiet)
    trainer.fit(Dense(), OwnLoader())
    assert trainer.global_step == 3


class Interrupt(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        raise KeyError


def test_everything_is_left_as_it_was_also_where_training_breaks_off():
    broken = pytest.raises(KeyError)
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "enable_checkpointing": False}
    net, data = Dense(lr=0.1), Digits(batch_size=31, num_train=700, val_size=60)
    with broken:
        Trainer(max_epochs=1, callbacks=[Blocks(4), Interrupt()], **quiet).fit(net, data)
    assert "training_step" not in vars(net)
    again = Trainer(max_epochs=1, callbacks=[Blocks(4)], **quiet)
    again.fit(net, data)
    assert again.global_step == NUM_BATCHES


class Halved(Precision):
    def backward(self, tensor, model, optimizer, *args, **kwargs):
        super().backward(tensor / 2, model, optimizer, *args, **kwargs)


def test_a_precision_of_ones_own_takes_part_in_every_step():
    plain = train(Dense, None, plugins=[Halved()])
    assert_the_same(train(Dense, 4, plugins=[Halved()]), plain)


class RateInValidation(Callback):
    def __init__(self):
        self.rates = []

    def on_validation_start(self, trainer, pl_module):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_a_scheduler_by_epochs_is_stepped_before_validation():
    seen = [RateInValidation(), RateInValidation()]
    for num_steps, callback in zip((4, None), seen, strict=True):
        train(Dense, num_steps, network={"scheduler": "CosineAnnealingLR"}, callbacks=[callback])
    assert seen[0].rates == seen[1].rates


@pytest.mark.parametrize("num_steps", [None, 4])
def test_gradients_are_clipped_as_they_are_without_the_factor_of_a_loss_scaler(num_steps):
    def precision():
        return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))

    settings = {"gradient_clip_val": 1.0, "epochs": 1}
    scaled = train(Dense, num_steps, plugins=[precision()], **settings)[0].layers[1].weight
    exact = train(Dense, num_steps, **settings)[0].layers[1].weight
    seed_everything(3, verbose=False)
    start = Dense().layers[1].weight
    assert (scaled - exact).norm() < 0.1 * (exact - start).norm()


def test_one_cycle_is_stepped_after_every_minibatch():
    rates = train(Dense, 1, network={"scheduler": "OneCycleLR", "lr": 0.5})[2].rates
    assert all(one != next_one for one, next_one in itertools.pairwise(rates))
    assert max(rates) == pytest.approx(0.5, rel=0.02)
    assert rates[-1] < 0.001, "total_steps is the whole run"
    assert rates.index(max(rates)) == pytest.approx(0.3 * len(rates), abs=1.5)


def test_cosine_annealing_is_stepped_after_every_epoch():
    rates = train(Dense, 1, network={"scheduler": "CosineAnnealingLR"}, epochs=4)[2].rates
    by_epoch = [set(rates[i : i + NUM_BATCHES]) for i in range(0, len(rates), NUM_BATCHES)]
    expected = [0.1, 0.0853553, 0.05, 0.0146447]  # (1 + cos(π epoch / 4)) / 20
    assert [len(epoch) for epoch in by_epoch] == [1] * 4
    assert [epoch.pop() for epoch in by_epoch] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("epochs", [{"epochs": -1}, {}])
def test_cosine_annealing_spans_a_run_that_is_limited_by_steps(epochs, every):
    settings = {"max_steps": 2 * NUM_BATCHES // every, "accumulate_grad_batches": every, **epochs}
    rates = train(Dense, 1, network={"scheduler": "CosineAnnealingLR"}, **settings)[2].rates
    assert rates[NUM_BATCHES] == pytest.approx(0.05)


def test_cosine_annealing_spans_the_epoch_in_which_a_run_ends():
    network = {"scheduler": "CosineAnnealingLR"}
    trainer = train(Dense, 1, network=network, max_steps=NUM_BATCHES + 1)[1]
    assert trainer.lr_scheduler_configs[0].scheduler.T_max == 2


@pytest.mark.parametrize("num_steps", [None, 4])
@pytest.mark.parametrize("settings", [{"accumulate_grad_batches": 4}, {"limit_train_batches": 10}])
def test_cosine_annealing_spans_the_epochs_however_many_steps_they_have(num_steps, settings):
    network = {"scheduler": "CosineAnnealingLR"}
    trainer = train(Dense, num_steps, network=network, epochs=6, **settings)[1]
    assert trainer.lr_scheduler_configs[0].scheduler.T_max == 6
