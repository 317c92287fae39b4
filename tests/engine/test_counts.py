"""What a step costs, in things that can be counted without a clock."""

import cProfile
import gc
import pstats

import pytest
import torch
from lightning import Trainer, seed_everything
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_zoo.data import Digits, to_float
from mnist_zoo.engine.blocks import Blocks
from mnist_zoo.models import ConvNetReLU, Dense

BATCH_SIZE = 10


class Operations(TorchDispatchMode):
    """Counts the operations that reach a kernel."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.number += 1
        return function(*arguments, **(options or {}))


def train(network, num_images, blocks):
    """Train for an epoch of so many images."""
    seed_everything(0, verbose=False)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
        callbacks=[Blocks()] if blocks else [],
    )  # fmt: skip
    data = Digits(batch_size=BATCH_SIZE, num_train=num_images, val_size=0)
    trainer.fit(network(), data)
    assert trainer.global_step == num_images // BATCH_SIZE
    return data


def python_calls(network, num_images, blocks):
    # What was left by other tests is not to be collected, and counted, meanwhile.
    gc.collect()
    gc.disable()
    try:
        with cProfile.Profile() as profile:
            train(network, num_images, blocks)
    finally:
        gc.enable()
    return pstats.Stats(profile).total_calls


def operations(function, *arguments):
    with Operations() as counter:
        function(*arguments)
    return counter.number


def bare(network, num_images):
    """Train without Lightning, on tensors in memory."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=True)
    data = Digits(num_train=num_images, val_size=0)
    data.setup("fit")
    for images, targets in zip(*(t.split(BATCH_SIZE) for t in data.splits["train"]), strict=True):
        optimizer.zero_grad()
        net.loss(net(to_float(images)), targets).backward()
        optimizer.step()


def a_step(count):
    """Return how much a count grows from one step to the next, over two blocks of 64."""
    count(640)  # what is done but once in a process
    few, many = count(640), count(1280)
    return (many - few) / 64


@pytest.mark.slow
def test_a_step_takes_a_fraction_of_the_python_calls_of_lightnings_loop():
    ours = a_step(lambda n: python_calls(Dense, n, blocks=True))
    plain = a_step(lambda n: python_calls(Dense, n, blocks=False))
    assert ours < 250  # nearly all of them in torch itself
    assert ours < plain / 8


@pytest.mark.parametrize("network", [Dense, ConvNetReLU])
def test_a_step_is_hardly_more_operations_than_in_a_bare_loop(network):
    ours = a_step(lambda n: operations(train, network, n, True))
    least = a_step(lambda n: operations(bare, network, n))
    # The detached loss, and the outputs that are kept for the accuracy, come to it; conversion to
    # floats, some six operations, is once a block.
    assert least - 9 < ours < least - 2


@pytest.mark.parametrize(("expanded", "copies"), [(False, 1), (True, 5)])
def test_images_are_held_once_as_bytes(expanded, copies):
    data = Digits(num_train=1000, val_size=0, expanded=expanded)
    data.setup("fit")
    images, _ = data.splits["train"]
    assert images.untyped_storage().nbytes() == copies * 1000 * 28 * 28
    assert data.train_dataloader().images.data_ptr() == images.data_ptr()
