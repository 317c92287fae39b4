"""Minibatches from tensors in memory, in an order that a resumed run can pick up exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import SequentialSampler

from mnist_zoo.data.augmentation import Augmentation
from mnist_zoo.data.files import DataError

# What a position in an epoch is counted in, and what users call it.
_COUNTED_IN = {
    "batch_size": "--data.batch_size",
    "num_replicas": "the number of processes (--trainer.devices)",
    "num_images": "the number of training images (--data.expanded, --data.num_train)",
}


class Batches:
    """Yields ``(images, targets)`` minibatches of two tensors, the last one possibly smaller.

    The order of an epoch depends on nothing but ``seed`` and the number of the epoch. Each
    iteration is followed by the next epoch, also one that was left early; ``set_epoch`` chooses
    one. It starts at the first minibatch, except the first one after ``load_state_dict``: it
    continues at the saved position.

    Lightning saves and restores the state of a training loader that has these methods, and calls
    ``loader.sampler.set_epoch`` before each epoch. Both are needed for a run that goes on exactly:
    it restores the state in the middle of an epoch only, and has but the epoch's number at an end.

    Of several replicas each gets an equal share of the order, which is filled up from its
    beginning where it cannot be shared equally, as in ``DistributedSampler``. Where every image is
    to count once, it is not filled up, and some shares have an image less. All are of as many
    minibatches even so: replicas that run different numbers of them would wait for each other.

    Args:
        images: (N, ...), N >= 1.
        targets: (N, ...), on the same device as ``images``.
        batch_size: Number of images in a minibatch, at least 1.
        shuffle: Whether each epoch has an order of its own; else that of the tensors.
        seed: What the orders follow from, at least 0.
        rank: Which of the replicas this is, from 0.
        num_replicas: Number of processes that share the images.
        filled_up: Whether shares are filled up where the images cannot be shared equally.
        block_size: Number of minibatches yielded at a time, one after the other in one pair of
            tensors; only the last of an epoch may be of fewer, and of a smaller last minibatch.
        limit: End each epoch after so many minibatches (a number), or after this share of them
            (a fraction).
        augmentation: Distorts the images, uint8 (N, H, W) then, differently in each epoch.
        num_distorted_epochs: After so many epochs the images are left as they are; None: never.

    Raises:
        DataError: ``limit`` is a fraction that makes less than one minibatch, or a share that is
            not filled up has too few images for as many minibatches as the others.
    """

    batch_sampler = None
    """Lightning looks at it wherever there is a ``sampler``."""

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        num_replicas: int = 1,
        filled_up: bool = True,
        block_size: int = 1,
        limit: int | float = 1.0,
        augmentation: Augmentation | None = None,
        num_distorted_epochs: int | None = None,
    ) -> None:
        self.images = images
        self.targets = targets
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.num_replicas = num_replicas
        self.filled_up = filled_up
        self.block_size = block_size
        self.augmentation = augmentation
        self.num_distorted_epochs = num_distorted_epochs
        whole = self._num_whole
        self.num_batches = min(limit if isinstance(limit, int) else int(limit * whole), whole)
        if limit and not self.num_batches:
            raise DataError(
                f"--trainer.limit_train_batches {limit}: less than one of the {whole} minibatches"
                " of an epoch."
            )
        if not filled_up and len(targets) // num_replicas < whole:
            raise DataError(
                f"{len(targets):,} images cannot be shared by {num_replicas} processes in"
                f" minibatches of {batch_size}.\nTake fewer devices: --trainer.devices 1"
            )
        self._epoch = 0
        self._position = 0
        self._resumed = False
        self._counted_in = self._counts

    def __len__(self) -> int:
        """Return the number of blocks in a whole epoch, wherever the loader stands in it."""
        return -(-self.num_batches // self.block_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the blocks of minibatches of the epoch that are still to come.

        Raises:
            DataError: See ``set_epoch``.
        """
        self._check_position()
        if self._position and not self._resumed:
            # The iteration before was left early.
            self._epoch, self._position = self._epoch + 1, 0
        self._resumed = False
        order, draws = self._order(), self._draws()
        for first in range(self._position, self.num_batches, self.block_size):
            # Advanced before the yield: nobody asks for more once the last minibatch is out, and
            # a state taken while a minibatch is at work must count that minibatch as used.
            self._position = min(first + self.block_size, self.num_batches)
            block = slice(self._start(first), self._start(self._position))
            if self._position == self.num_batches:
                self._epoch, self._position = self._epoch + 1, 0
            images = self.images.index_select(0, order[block])
            if self.augmentation and draws is not None:
                images = self.augmentation(images, draws[block])
            yield images, self.targets.index_select(0, order[block])

    @property
    def sampler(self) -> Batches | SequentialSampler:
        """Itself, for ``set_epoch``; unshuffled, the sampler by which Lightning recognises that."""
        return self if self.shuffle else SequentialSampler(self.targets)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; stay at a place in it that was loaded.

        Raises:
            DataError: The loader stands in the midst of it, at a place that was saved by a loader
                of other minibatches, another number of replicas, or of images.
        """
        if epoch != self._epoch or not self._resumed:
            self._epoch, self._position, self._resumed = epoch, 0, False
        self._check_position()

    def take_back(self, num_batches: int) -> None:
        """Count so many of the minibatches yielded last as not yielded."""
        if self._position == 0:
            self._epoch, self._position = self._epoch - 1, self.num_batches
        self._position -= num_batches

    def state_dict(self) -> dict[str, Any]:
        """Return seed, epoch, how many minibatches of it were yielded, and what makes these up."""
        place = {"seed": self.seed, "epoch": self._epoch, "position": self._position}
        return place | self._counts

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to where a state was taken; whether one can go on from there shows later.

        Where Lightning ends an epoch before its last minibatch, as by ``limit_train_batches``, only
        ``set_epoch`` tells that it has ended.
        """
        self.seed = state_dict["seed"]
        self._epoch = state_dict["epoch"]
        self._position = state_dict["position"]
        self._resumed = True
        # Older checkpoints do not say.
        self._counted_in = {name: state_dict.get(name, now) for name, now in self._counts.items()}

    @property
    def _counts(self) -> dict[str, int]:
        """What a position is counted in."""
        return {
            "batch_size": self.batch_size,
            "num_replicas": self.num_replicas,
            "num_images": len(self.targets),
        }

    def _check_position(self) -> None:
        """Raise DataError where minibatches of another making were counted in this epoch."""
        if not (self._resumed and self._position):
            return
        for name, now in self._counts.items():
            if (before := self._counted_in[name]) != now:
                raise DataError(
                    f"the run was stopped in the midst of an epoch: {_COUNTED_IN[name]} cannot"
                    f" change from {before:,} to {now:,} before its end.\nLeave it as it was until"
                    " then, or start a new run."
                )

    @property
    def _share(self) -> int:
        """Number of images in an epoch of the replica that has most."""
        return -(-len(self.targets) // self.num_replicas)

    @property
    def _num_whole(self) -> int:
        """Number of minibatches in an epoch without a limit."""
        return -(-self._share // self.batch_size)

    def _start(self, number: int) -> int:
        """Place in this replica's share where a minibatch starts."""
        # A share of an image less could have none left for its last minibatch.
        return min(number * self.batch_size, len(self._places) - (self._num_whole - number))

    def _order(self) -> Tensor:
        """Indices of this replica's images in the present epoch."""
        num_images = len(self.targets)
        order = torch.arange(num_images)
        if self.shuffle:
            order = torch.randperm(num_images, generator=self._generator(self.seed, self._epoch))
        return order[self._own % num_images].to(self.targets.device)

    def _draws(self) -> Tensor | None:
        """Random numbers for the augmentation of the present epoch, a row for each place in it."""
        last = self.num_distorted_epochs
        if self.augmentation is None or (last is not None and self._epoch >= last):
            return None
        generator = self._generator(self.seed, self._epoch, 1)
        draws = self.augmentation.draw(self._share * self.num_replicas, generator)
        return draws[self._own].to(self.images.device)

    @property
    def _places(self) -> range:
        """This replica's places among those of all replicas."""
        num_places = self._share * self.num_replicas if self.filled_up else len(self.targets)
        return range(self.rank, num_places, self.num_replicas)

    @property
    def _own(self) -> Tensor:
        """The same as a tensor."""
        return torch.arange(self._places.start, self._places.stop, self._places.step)

    @staticmethod
    def _generator(*seeds: int) -> torch.Generator:
        # Mixed by SeedSequence, as seed + epoch would give neighbouring seeds the same numbers.
        mixed = np.random.SeedSequence(seeds).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(mixed[0]))
