"""Blocks replayed as CUDA graphs: the same steps, or plain ones and a line that says why.

What decides that is tested without a GPU too, with an imitation of CUDA's graphs: while one is
recorded nothing happens to the network, and a replay takes the steps on the recorded inputs.
"""

import contextlib
import gc
import math
from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from torch import nn
from torch.nn.utils import prune

from mnist_zoo.data import Digits
from mnist_zoo.engine import cuda_graphs
from mnist_zoo.engine.average import Average
from mnist_zoo.engine.blocks import Blocks, _BlockStep, _Rates
from mnist_zoo.engine.cuda_graphs import GraphedSteps, GraphedStepsAtRates
from mnist_zoo.models import ConvNetBatchNorm, ConvNetReLU, Dense, MLPDropout


class Training:
    """A small network with dropout, its optimizer, and steps on minibatches of four."""

    def __init__(self, momentum=0.0):
        torch.manual_seed(1)
        self.network = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)
        )
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=momentum)
        self.said, self.counted = [], []

    def steps(self, images, targets):
        losses, all_outputs = [], []
        for some_images, some_targets in zip(images.split(4), targets.split(4), strict=True):
            outputs = self.network(some_images)
            loss = nn.functional.cross_entropy(outputs, some_targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
            all_outputs.append(outputs.detach())
        return torch.stack(losses).mean(), torch.cat(all_outputs)

    def graphed(self):
        graphed = GraphedSteps(
            self.steps, self.steps, self.counted.append, self.network, self.optimizer, 4, 2,
            self.said.append,
        )  # fmt: skip
        graphed.training = self
        return graphed


def train_on(graphed, images, targets):
    graphed.heed_changes()
    return graphed.train(images, targets)


def block(number, size=8):
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(size, 3, generator=generator)
    return images, torch.randint(2, (size,), generator=generator)


@pytest.fixture
def imitation(monkeypatch):
    """CUDA's graphs on the CPU; ``replay`` may be replaced by another."""
    recorded = []
    made = SimpleNamespace(recorded=recorded, replay=None)

    class Graph:
        def replay(self):
            steps = self.owner
            (recording,) = (it for it in steps._recorded.values() if it.graph is self)
            loss, outputs = (made.replay or steps.steps)(*recording.inputs)
            recording.results[0].copy_(loss)
            recording.results[1].copy_(outputs)

    @contextlib.contextmanager
    def record(graph):
        assert not gc.isenabled(), "a graph of an earlier run, in a cycle, may be freed"
        owner = graph.owner = made.owner
        before, numbers = owner._state(), torch.get_rng_state()
        yield
        owner._restore(before)
        torch.set_rng_state(numbers)
        recorded.append(graph)

    monkeypatch.setattr(cuda_graphs.torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(cuda_graphs.torch.cuda, "graph", record)
    monkeypatch.setattr(
        cuda_graphs.torch.cuda, "get_rng_state", lambda device: torch.get_rng_state()
    )
    monkeypatch.setattr(
        cuda_graphs.torch.cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state)
    )
    monkeypatch.setattr(
        cuda_graphs, "_renew_generator", lambda state, device: torch.set_rng_state(state)
    )
    monkeypatch.setattr(cuda_graphs.torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(cuda_graphs.torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(cuda_graphs.torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(GraphedSteps, "_on_another_stream", lambda self, *batch: self.steps(*batch))
    return made


def assert_the_same(one, other):
    weights = (training.network.state_dict() for training in (one, other))
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def train_both(imitation, momentum=0.0, sizes=(8, 8, 4, 8), between=lambda training, number: None):
    """Train plainly, and by graphs; return both, and what the steps returned."""
    plain, other = Training(momentum), Training(momentum)
    graphed = imitation.owner = other.graphed()
    results = []
    for training, train in ((plain, plain.steps), (other, partial(train_on, graphed))):
        torch.manual_seed(7)
        results.append([])
        for number, size in enumerate(sizes):
            between(training, number)
            results[-1].append(train(*block(number, size)))
    return plain, other, results


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_after_recording_if_it_was_before(imitation, enabled):
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        train_both(imitation)
        assert imitation.recorded
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_replayed_steps_are_the_plain_ones(imitation, momentum):
    plain, other, results = train_both(imitation, momentum, sizes=(8, 8, 8, 8))
    for (loss, outputs), (expected, wanted) in zip(*results, strict=True):
        assert loss.item() == expected.item()
        assert torch.equal(outputs, wanted)
    assert len({loss.item() for loss, _ in results[1]}) == 4, "results are not one tensor"
    assert_the_same(other, plain)
    assert len(imitation.recorded) == 2, "of a step, and of several"
    assert not other.said


def test_a_long_block_is_several_replays(imitation):
    replays = []
    imitation.replay = lambda *batch: (
        replays.append(len(batch[0])),
        imitation.owner.steps(*batch),
    )[1]
    plain, other, results = train_both(imitation, sizes=(4, 20, 28))
    assert_the_same(other, plain)
    assert len(imitation.recorded) == 2
    assert replays == [4, 8, 8, 4, 8, 8, 8, 4]
    assert other.counted == [1, 2, 2, 1, 2, 2, 2, 1]
    for (loss, outputs), (expected, wanted) in zip(*results, strict=True):
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert torch.equal(outputs, wanted)


@pytest.mark.parametrize("setting", ["lr", "weight_decay"])
def test_another_setting_of_the_optimizer_is_another_graph(imitation, setting):
    def between(training, number):
        training.optimizer.param_groups[0][setting] = 0.1 if number < 2 else 0.02

    plain, other, _ = train_both(imitation, sizes=(8, 8, 8, 8), between=between)
    assert_the_same(other, plain)
    assert len(imitation.recorded) == 4


def test_a_layer_that_is_switched_to_evaluation_is_another_graph(imitation):
    def between(training, number):
        training.network[1].train(number < 2)

    plain, other, _ = train_both(imitation, sizes=(8, 8, 8, 8), between=between)
    assert_the_same(other, plain)
    assert len(imitation.recorded) == 4


def test_a_layer_that_is_frozen_is_another_graph(imitation):
    def between(training, number):
        training.network[0].requires_grad_(number < 2)

    _, other, _ = train_both(imitation, sizes=(8, 8, 8, 8), between=between)
    assert len(imitation.recorded) == 4
    assert not other.said


def test_weights_in_another_place_are_another_graph(imitation):
    def between(training, number):
        if number == 2:
            weight = training.network[0].weight
            weight.data = weight.data.clone()

    plain, other, _ = train_both(imitation, sizes=(8, 8, 8, 8), between=between)
    assert_the_same(other, plain)
    assert len(imitation.recorded) == 4


def test_a_layer_that_is_pruned_is_another_graph(imitation):
    def between(training, number):
        if number == 2:
            prune.l1_unstructured(training.network[0], "weight", 0.5)

    _, other, _ = train_both(imitation, sizes=(8, 8, 8, 8), between=between)
    assert len(imitation.recorded) == 4
    assert not other.said


def test_a_layer_with_another_setting_is_another_graph(imitation):
    def between(training, number):
        training.network[2].p = 0.5 if number < 2 else 0.1

    plain, other, _ = train_both(imitation, sizes=(8, 8, 8, 8), between=between)
    assert_the_same(other, plain)
    assert len(imitation.recorded) == 4


@pytest.mark.parametrize("on", ["weight", "module"])
def test_a_hook_of_the_backward_pass_is_another_graph(imitation, on):
    def between(training, number):
        if number == 2 and on == "weight":
            training.network[0].weight.register_hook(lambda gradient: 2 * gradient)
        elif number == 2:
            training.network[0].register_full_backward_hook(lambda *_: None)

    plain, other, _ = train_both(imitation, sizes=(8, 8, 8, 8), between=between)
    assert_the_same(other, plain)
    assert len(imitation.recorded) == 4


def test_another_precision_is_another_graph(imitation):
    training = Training()
    graphed = imitation.owner = training.graphed()
    for number, half in enumerate((True, True, False, False)):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            train_on(graphed, *block(number))
    assert len(imitation.recorded) == 4


def other_weights(training, images, targets):
    with torch.no_grad():
        training.network[0].weight.add_(0.1)
    return training.steps(images, targets)


def other_means(training, images, targets):
    training.network[1].running_mean.add_(0.1)
    return training.steps(images, targets)


def one_batch_more(training, images, targets):
    training.network[1].num_batches_tracked.add_(1)
    return training.steps(images, targets)


def other_momentum(training, images, targets):
    results = training.steps(images, targets)
    for state in training.optimizer.state.values():
        state["momentum_buffer"].add_(0.1)
    return results


def no_numbers(training, images, targets):
    with torch.no_grad():
        training.network[0].weight.fill_(math.nan)
    return training.steps(images, targets)


def nothing(training, images, targets):
    with torch.no_grad():
        loss, outputs = torch.tensor(1.0), torch.zeros(len(images), 2)
    return loss, outputs


def failing(training, images, targets):
    try:
        raise RuntimeError("operation not permitted\nmore")
    except RuntimeError:
        raise RuntimeError("operation failed due to a previous error") from None


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (other_weights, "it gave different weights from plain steps"),
        (other_means, "it gave different weights from plain steps"),
        (one_batch_more, "it gave different weights from plain steps"),
        (no_numbers, "it gave different weights from plain steps"),
        (nothing, "it gave different weights from plain steps"),
        (failing, "operation not permitted"),
    ],
)
def test_a_graph_that_goes_wrong_is_given_up_with_a_line(imitation, fault, reason, momentum):
    imitation.replay = lambda *batch: fault(imitation.owner.training, *batch)
    plain, other, _ = train_both(imitation, momentum, sizes=(8, 8, 8))
    assert_the_same(other, plain)
    assert other.said == [f"CUDA graph disabled (slower): {reason}"]


@pytest.mark.parametrize("num_images", [4, 8])
def test_a_fault_of_any_graph_is_noticed(imitation, num_images):
    """A graph of one step, or of two."""
    faulty, right = other_weights, Training.steps

    def replay(images, targets):
        take = faulty if len(images) == num_images else right
        return take(imitation.owner.training, images, targets)

    imitation.replay = replay
    plain, other, _ = train_both(imitation, sizes=(8, 8, 8))
    assert_the_same(other, plain)
    assert len(other.said) == 1


def test_training_goes_on_from_the_plain_steps(imitation):
    replayed = set()

    def replay(images, targets):
        results = imitation.owner.steps(images, targets)
        if len(images) not in replayed:
            # As by rounding, and by another way of drawing numbers.
            replayed.add(len(images))
            other.network[0].weight.data.add_(1e-6)
            torch.rand(1)
        return results

    imitation.replay = replay
    plain, other = Training(), Training()
    graphed = imitation.owner = other.graphed()
    for train in (plain.steps, partial(train_on, graphed)):
        torch.manual_seed(7)
        for number in range(4):
            train(*block(number))
    assert replayed == {4, 8}
    assert not other.said
    assert_the_same(other, plain)


@pytest.mark.parametrize("part", ["exp_avg", "exp_avg_sq", "step"])
def test_every_part_of_an_optimizers_state_must_be_right(imitation, part):
    def replay(images, targets):
        results = training.steps(images, targets)
        for state in training.optimizer.state.values():
            state[part].zero_()
        return results

    training = Training()
    training.optimizer = torch.optim.Adam(training.network.parameters(), fused=True)
    graphed = imitation.owner = training.graphed()
    imitation.replay = replay
    for number in range(2):
        train_on(graphed, *block(number))
    (line,) = training.said
    assert line.endswith("it gave different weights from plain steps")


def test_a_replay_that_does_nothing_is_noticed_whatever_the_rounding(imitation):
    def noisy(images, targets):
        results = training.steps(images, targets)
        with torch.no_grad():
            for weight in training.network.parameters():
                weight.add_(0.01 * torch.randn_like(weight))
        return results

    training = Training()
    graphed = imitation.owner = training.graphed()
    graphed.steps = noisy
    imitation.replay = lambda *batch: nothing(training, *batch)
    train_on(graphed, *block(0))
    assert graphed.failed


@pytest.mark.parametrize(("noise", "given_up"), [(0.002, False), (0.2, True)])
def test_a_network_that_magnifies_rounding_may_differ_as_plain_steps_do(imitation, noise, given_up):
    generator = torch.Generator().manual_seed(0)

    def noisy(training, images, targets, noise=0.002):
        results = training.steps(images, targets)
        with torch.no_grad():
            weight = training.network[0].weight
            weight.add_(noise * torch.randn(weight.shape, generator=generator))
        return results

    training = Training()
    graphed = imitation.owner = training.graphed()
    graphed.steps = lambda *batch: noisy(training, *batch)
    imitation.replay = lambda *batch: noisy(training, *batch, noise=noise)
    train_on(graphed, *block(0))
    assert graphed.failed == given_up
    assert bool(training.said) == given_up


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_that_wait_for_the_gpu_are_taken_plainly(imitation, monkeypatch, momentum):
    def on_another_stream(graphed, images, targets):
        graphed.steps(images, targets)
        raise RuntimeError("called a synchronizing CUDA operation")

    monkeypatch.setattr(GraphedSteps, "_on_another_stream", on_another_stream)
    plain, other, _ = train_both(imitation, momentum)
    assert_the_same(other, plain)
    assert not imitation.recorded
    (line,) = other.said
    assert line.endswith("called a synchronizing CUDA operation")


def test_an_optimizer_that_counts_steps_elsewhere_has_no_graph(imitation):
    def between(training, number):
        state = training.optimizer.state[training.network[0].weight]
        state["step"] = torch.tensor(0.0, device="meta")

    plain, other, _ = train_both(imitation, between=between)
    assert_the_same(other, plain)
    assert not imitation.recorded
    (line,) = other.said
    assert line.endswith("not all of the state that a step changes is on the GPU")


def test_a_fused_adam_is_capturable_while_it_is_recorded(imitation):
    training, seen = Training(), []
    training.optimizer = torch.optim.Adam(training.network.parameters(), fused=True)

    def steps(images, targets):
        seen.append(training.optimizer.param_groups[0]["capturable"])
        return plainly(images, targets)

    plainly, training.steps = training.steps, steps
    graphed = imitation.owner = training.graphed()
    for number in range(2):
        train_on(graphed, *block(number))
    # The first step makes the optimizer's tensors. The second, and the second block, are taken
    # plainly, recorded, and replayed.
    assert seen == [False, *[False, True, False] * 2]
    assert len(imitation.recorded) == 2
    assert not training.said


def test_of_weights_that_are_no_numbers_a_graph_is_not_to_blame(imitation):
    def between(training, number):
        training.network[0].weight.data.fill_(math.nan)

    _, other, _ = train_both(imitation, between=between)
    (line,) = other.said
    assert line.endswith("the weights are not finite")


def test_a_graph_that_leaves_the_optimizer_another_is_given_up(imitation):
    imitation.replay = lambda *batch: other_momentum(imitation.owner.training, *batch)
    plain, other, _ = train_both(imitation, 0.9, sizes=(8, 8, 8))
    assert_the_same(other, plain)
    assert len(other.said) == 1


# Two epochs of the digits, each 17 blocks of eight steps, one more step, and one with seven images.
# The first block is taken step by step.
NUM_GRAPHS, NUM_REPLAYS = 3, 7 + 2 * 19
# For batch norm, which magnifies rounding, and for Adam and Muon, where gradients are tiny.
EXACTLY = {"precision": "64-true"}


def train(
    network_class, accelerator="cpu", cuda_graph=None, lr=0.05, precision="32-true",
    callbacks=(), **settings,
):  # fmt: skip
    seed_everything(3, verbose=False)
    net = network_class(lr=lr, **settings)
    trainer = Trainer(
        precision=precision,
        max_epochs=2, accelerator=accelerator, devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
        callbacks=[*callbacks, Blocks(8, cuda_graph)],
    )  # fmt: skip
    trainer.fit(net, Digits(batch_size=10, val_size=60))
    return net, trainer


def test_without_a_gpu_nothing_is_recorded(monkeypatch):
    monkeypatch.setattr(GraphedSteps, "train", None)
    train(Dense, cuda_graph=True)


class AtRates:
    """The small network, its learning rate going up and down by steps."""

    def __init__(self, momentum=0.9):
        self.training = Training(momentum)
        self.network, self.optimizer = self.training.network, self.training.optimizer
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=0.5, total_steps=12, cycle_momentum=False
        )
        self.said = self.training.said
        self.given = []

    def plainly(self, images, targets):
        return self._take(images, targets, self.scheduler.step)

    def at_rates(self, images, targets, rates):
        self.given.append(rates)
        return self._take(images, targets, _Rates(self.optimizer, rates).step)

    def _take(self, images, targets, then):
        batches = zip(images.split(4), targets.split(4), strict=True)
        losses, outputs = zip(*(self._step(*batch, then) for batch in batches), strict=True)
        return torch.stack(losses).mean(), torch.cat(outputs)

    def _step(self, images, targets, then):
        loss, outputs = self.training.steps(images, targets)
        then()
        return loss, outputs

    def graphed(self):
        return GraphedStepsAtRates(
            self.at_rates, self.plainly, self.training.counted.append, self.network, self.optimizer,
            4, 2, self.said.append, [self.scheduler],
        )  # fmt: skip


def train_both_at_rates(imitation, sizes=(8, 8, 4, 8, 8)):
    plain, other = AtRates(), AtRates()
    graphed = imitation.owner = other.graphed()
    for take in (plain.plainly, partial(train_on, graphed)):
        torch.manual_seed(7)
        for number, size in enumerate(sizes):
            take(*block(number, size))
    return plain, other


@pytest.mark.filterwarnings("error")
def test_a_rate_that_changes_at_every_step_is_replayed(imitation):
    plain, other = train_both_at_rates(imitation)
    assert len(imitation.recorded) == 2
    assert sum(other.training.counted) == 9
    assert not other.said
    assert other.optimizer.param_groups[0]["lr"] == plain.optimizer.param_groups[0]["lr"]
    assert other.scheduler.state_dict().keys() == plain.scheduler.state_dict().keys()
    assert other.scheduler.last_epoch == plain.scheduler.last_epoch == 9
    for one, wanted in zip(other.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-6)


def test_rates_are_single_precision_for_fused_optimizers(imitation):
    at_rates = AtRates()
    graphed = imitation.owner = at_rates.graphed()
    images, targets = block(0)
    torch.set_default_dtype(torch.float64)
    try:
        train_on(graphed, images, targets)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {rates.dtype for rates in at_rates.given} == {torch.float32}


def test_an_optimizer_that_takes_no_tensor_as_rate_is_given_numbers(imitation, monkeypatch):
    def on_another_stream(graphed, *batch):
        raise RuntimeError("expected a number")

    monkeypatch.setattr(GraphedSteps, "_on_another_stream", on_another_stream)
    plain, other = train_both_at_rates(imitation)
    assert other.said == ["CUDA graph disabled (slower): expected a number"]
    (rates,) = other.given
    assert other.training.counted == [1]
    assert all(isinstance(rate, float) for (rate,) in rates)
    assert other.scheduler.last_epoch == plain.scheduler.last_epoch
    for one, wanted in zip(other.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-6)


def test_a_graph_that_fixes_the_rate_is_given_up_with_a_line(imitation):
    recorded = []

    def at_the_first_rates(images, targets, rates):
        recorded.append(rates.clone())
        return imitation.owner.steps(images, targets, recorded[0])

    imitation.replay = at_the_first_rates
    plain, other = train_both_at_rates(imitation)
    (line,) = other.said
    assert line.endswith("it takes no learning rate that changes at every step")
    assert other.scheduler.last_epoch == plain.scheduler.last_epoch
    for one, wanted in zip(other.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-6)


@pytest.fixture
def as_on_a_gpu(imitation, monkeypatch):
    """Let blocks decide as on a GPU; return what they decided on."""
    made = []

    def decide(block, device):
        made.append(graphed(block, torch.device("cuda")))
        imitation.owner = made[0]
        return made[0]

    graphed = _BlockStep._graphed
    monkeypatch.setattr(_BlockStep, "_graphed", decide)
    return made


ONE_CYCLE = {"scheduler": "OneCycleLR", "scheduler_args": {"cycle_momentum": False}}


@pytest.mark.parametrize(("optimizer", "lr"), [("SGD", 0.01), ("Adam", 0.001), ("Muon", 0.01)])
def test_a_network_is_trained_at_the_rates_of_its_scheduler(as_on_a_gpu, imitation, optimizer, lr):
    plain, _ = train(MLPDropout, optimizer=optimizer, lr=lr, **ONE_CYCLE, cuda_graph=False)
    as_on_a_gpu.clear()
    graphed, trainer = train(MLPDropout, optimizer=optimizer, lr=lr, **ONE_CYCLE)
    assert isinstance(as_on_a_gpu[0], GraphedStepsAtRates)
    assert len(imitation.recorded) == NUM_GRAPHS
    assert trainer.optimizers[0].param_groups[0]["lr"] < 1e-6
    for (name, one), other in zip(graphed.named_parameters(), plain.parameters(), strict=True):
        # Adam magnifies rounding where gradients are tiny.
        assert (one - other).norm() <= 0.01 * other.norm(), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.5}},
        {"scheduler": "ReduceLROnPlateau", "scheduler_args": {"patience": 0}},
    ],
    ids=str,
)
@pytest.mark.parametrize("every", [None, 1, 3])
def test_rates_change_after_epochs_and_weights_are_averaged(
    as_on_a_gpu, imitation, settings, every
):
    averages = [[Average(0.9, every)] if every else [] for _ in range(2)]
    plain, _ = train(MLPDropout, cuda_graph=False, callbacks=averages[0], **settings)
    as_on_a_gpu.clear()
    graphed, trainer = train(MLPDropout, callbacks=averages[1], **settings)
    # A graph of a step, one of several if there are several between averages, one of seven images.
    assert len(imitation.recorded) == (2 if every == 1 else 3)
    assert trainer.global_step == 2 * trainer.train_dataloader.num_batches
    for one, other in zip(graphed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(*averages, strict=True):
        assert one._average_model.n_averaged == other._average_model.n_averaged


def test_what_graphs_fix_is_compared_once_a_block(as_on_a_gpu, imitation, monkeypatch):
    compared, blocks = [], []
    settings_now, run = GraphedSteps._settings_now, _BlockStep.run
    monkeypatch.setattr(
        GraphedSteps, "_settings_now", lambda steps: (compared.append(1), settings_now(steps))[1]
    )
    monkeypatch.setattr(
        _BlockStep, "run", lambda block, *batch: (blocks.append(1), run(block, *batch))[1]
    )
    _, trainer = train(MLPDropout, callbacks=[Average(0.9)])
    assert trainer.global_step > 4 * len(blocks) > 4
    # Each recording takes them, too.
    assert len(blocks) <= len(compared) <= len(blocks) + len(imitation.recorded)


class LessDropout(Callback):
    """Changes a setting of layers before the second epoch."""

    def on_train_epoch_start(self, trainer, network):
        if trainer.current_epoch == 1:
            for layer in network.modules():
                if isinstance(layer, nn.Dropout):
                    layer.p = 0.1


@pytest.mark.parametrize("callbacks", [[], [Average(0.9)]], ids=["alone", "average"])
def test_a_setting_that_a_callback_changes_is_heeded(as_on_a_gpu, imitation, callbacks):
    train(MLPDropout, callbacks=deepcopy(callbacks))
    graphs = len(imitation.recorded)
    as_on_a_gpu.clear()
    train(MLPDropout, callbacks=[LessDropout(), *deepcopy(callbacks)])
    # All anew in the second epoch.
    assert len(imitation.recorded) == 3 * graphs


def test_steps_are_counted_one_by_one_where_there_is_no_graph(as_on_a_gpu, monkeypatch):
    class Counting(Dense):
        def loss(self, outputs, targets):
            if self.training:
                counted.append(self.trainer.global_step)
            return super().loss(outputs, targets)

    def on_another_stream(graphed, *batch):
        graphed.steps(*batch)
        raise RuntimeError("called a synchronizing CUDA operation")

    monkeypatch.setattr(GraphedSteps, "_on_another_stream", on_another_stream)
    counted = []
    train(Counting, cuda_graph=True)
    # The first step is tried, then taken.
    assert counted == [0, *range(2 * 138)]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({**ONE_CYCLE, "scheduler_args": {}}, "the scheduler changes the momentum at every step"),
        ({**ONE_CYCLE, "optimizer": "NAdam"}, "NAdam counts steps on the CPU"),
        ({**ONE_CYCLE, "optimizer": "Adafactor"}, "Adafactor cannot have its rate changed"),
    ],
)
def test_why_there_is_no_graph_is_said_in_a_line(as_on_a_gpu, capsys, settings, reason):
    train(Dense, **settings)
    assert as_on_a_gpu == [None]
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert line.startswith(f"No CUDA graph (slower): {reason}")


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "Muon"])
@pytest.mark.parametrize("network_class", [ConvNetReLU, ConvNetBatchNorm])
def test_on_a_gpu_rates_that_change_are_replayed(network_class, optimizer, monkeypatch, capsys):
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(graph), replay(graph))
    )
    settings = {"optimizer": optimizer, "lr": 0.01, **ONE_CYCLE, **EXACTLY}
    graphed, trainer = train(network_class, "gpu", **settings)
    assert "CUDA graph" not in capsys.readouterr().out
    # One more replay of each graph, at a rate of zero, for the check; none for the steps in which
    # the optimizer creates its state.
    first = bool(trainer.optimizers[0].state)
    assert len(replays) == NUM_REPLAYS + NUM_GRAPHS - first
    plain, _ = train(network_class, "gpu", cuda_graph=False, **settings)
    for (name, one), other in zip(graphed.named_parameters(), plain.parameters(), strict=True):
        # Graphs are given the rates in single precision, and Adam magnifies the difference.
        assert (one - other).norm() <= 1e-3 * other.norm(), name


@pytest.mark.gpu
@pytest.mark.parametrize("network_class", [Dense, ConvNetReLU, MLPDropout, ConvNetBatchNorm])
def test_on_a_gpu_a_graph_trains_as_plain_steps_do(network_class, monkeypatch):
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(graph), replay(graph))
    )
    graphed, trainer = train(network_class, "gpu", **EXACTLY)
    assert len(replays) == NUM_REPLAYS
    assert trainer.global_step == 2 * trainer.train_dataloader.num_batches
    plain, _ = train(network_class, "gpu", cuda_graph=False, **EXACTLY)
    assert len(replays) == NUM_REPLAYS
    for (name, one), other in zip(graphed.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_on_a_gpu_networks_that_magnify_rounding_have_graphs(precision, capsys):
    train(ConvNetBatchNorm, "gpu", precision=precision)
    assert "CUDA graph" not in capsys.readouterr().out


class Waiting(MLPDropout):
    def loss(self, outputs, targets):
        # Nothing waits while a graph is recorded; the warm-up does not notice.
        torch.cuda.current_stream().synchronize()
        return super().loss(outputs, targets)


@pytest.mark.gpu
def test_on_a_gpu_a_network_that_cannot_be_recorded_is_trained_plainly(capsys):
    graphed, _ = train(Waiting, "gpu", cuda_graph=True)
    assert capsys.readouterr().out.count("CUDA graph disabled (slower)") == 1
    plain, _ = train(Waiting, "gpu", cuda_graph=False)
    for (name, one), other in zip(graphed.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.01, atol=0.002, msg=name)
