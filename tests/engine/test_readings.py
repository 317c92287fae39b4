"""What pictures of an evaluation are drawn from: counts, first images, confident mistakes."""

import pytest
import torch
from lightning import Trainer

from mnist_zoo.data import Digits
from mnist_zoo.engine.readings import Gather, Gathered
from mnist_zoo.models import ConvNetReLU, Dense


@pytest.fixture
def readings():
    """Images of 100 digits, what was read, and what stood there."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(100, 1, 28, 28, generator=generator)
    probabilities = (3 * torch.randn(100, 10, generator=generator)).softmax(dim=1)
    return images, probabilities, torch.randint(10, (100,), generator=generator)


def gathered(readings, batch_size, **limits):
    gathered = Gathered(**limits)
    for batch in zip(*(torch.split(part, batch_size) for part in readings), strict=True):
        gathered.update(*batch)
    return gathered


def test_counts_the_true_class_by_rows_and_the_class_read_by_columns(readings):
    _, probabilities, targets = readings
    counts = gathered(readings, 30).readings().counts
    assert counts.sum() == 100
    for true, read in ((3, 3), (3, 7), (0, 9)):
        here = (targets == true) & (probabilities.argmax(dim=1) == read)
        assert counts[true, read] == here.sum()


@pytest.mark.parametrize("batch_size", [7, 30, 100])
def test_keeps_the_first_images_and_the_most_confident_mistakes(readings, batch_size):
    images, probabilities, targets = readings
    found = gathered(readings, batch_size, num_first=12, num_wrong=15).readings()
    assert torch.equal(found.first.images, images[:12, 0])
    assert torch.equal(found.first.probabilities, probabilities[:12])
    assert torch.equal(found.first.targets, targets[:12])
    confidence, predictions = probabilities.max(dim=1)
    wrong = (predictions != targets).nonzero().flatten()
    expected = wrong[confidence[wrong].argsort(descending=True)][:15]
    assert torch.equal(found.wrong.targets, targets[expected])
    assert torch.equal(found.wrong.probabilities, probabilities[expected])
    assert torch.equal(found.wrong.images, images[expected, 0])


def test_memory_does_not_grow_with_the_number_of_images(readings):
    few, many = gathered(readings, 50), gathered(readings, 50)
    for _ in range(5):
        many.update(*readings)
    assert [part.shape for part in few.first + few.wrong] == [
        part.shape for part in many.first + many.wrong
    ]


def test_without_mistakes_there_are_none(readings):
    images, probabilities, _ = readings
    found = gathered((images, probabilities, probabilities.argmax(dim=1)), 30).readings()
    assert len(found.wrong.targets) == 0
    assert found.wrong.images.shape == (0, 28, 28)


def test_a_single_image_or_mistake_is_like_any_other_number(readings):
    images, probabilities, _ = readings
    targets = probabilities.argmax(dim=1)
    targets[5] = (targets[5] + 1) % 10
    found = gathered((images, probabilities, targets), 30, num_first=1).readings()
    assert found.wrong.targets.tolist() == [targets[5]]
    assert found.first.targets.tolist() == [targets[0]]
    assert found.wrong.images.shape == found.first.images.shape == (1, 28, 28)


@pytest.mark.parametrize("network", [ConvNetReLU, Dense])
def test_gathers_what_the_trainer_evaluates(network):
    network, data, gather = network(), Digits(), Gather()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[gather],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    (metrics,) = trainer.test(network, data, verbose=False)
    assert gather.readings is not None
    counts, first, _ = gather.readings
    assert counts.sum() == 360
    assert counts.trace() / 360 == pytest.approx(metrics["test/acc"])
    images, targets = data.splits["test"]
    assert torch.equal((255 * first.images).round().to(torch.uint8), images[:20])
    assert torch.equal(first.targets, targets[:20])
    assert torch.allclose(first.probabilities.sum(dim=1), torch.ones(20))
    trainer.validate(network, data, verbose=False)
    assert gather.readings.counts.sum() == 144


def test_a_network_whose_steps_return_nothing_is_left_alone():
    class Silent(ConvNetReLU):
        def test_step(self, batch, batch_idx):
            super().test_step(batch, batch_idx)

    gather = Gather()
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[gather], enable_progress_bar=False
    )
    trainer.test(Silent(), Digits(), verbose=False)
    assert gather.readings is None


def test_what_several_processes_gathered_is_put_together(readings):
    parts = [gathered([part[n::2] for part in readings], 30) for n in range(2)]
    whole = Gathered()
    for name, combine in whole._reductions.items():
        states = [getattr(part, name) for part in parts]
        # As torchmetrics does: a stack of tensors, a list of those in lists.
        together = [t for s in states for t in s] if name != "counts" else torch.stack(states)
        setattr(whole, name, combine(together))
    found, expected = whole.readings(), gathered(readings, 100).readings()
    assert torch.equal(found.counts, expected.counts)
    assert torch.equal(found.first.targets, readings[2][::2][:20])
    assert torch.equal(found.wrong.targets, expected.wrong.targets)
