"""Minibatches from tensors in memory, with exactly resumable order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import SequentialSampler

from mnist_zoo.data.augmentation import Augmentation
from mnist_zoo.errors import DataError

# What a position in an epoch depends on, and its name for users.
_COUNTED_IN = {
    "batch_size": "--data.batch_size",
    "num_replicas": "the number of processes (--trainer.devices)",
    "num_images": "the number of training images (--data.expanded, --data.num_train)",
}


class Batches:
    """Yields ``(images, targets)`` minibatches of two tensors, the last one possibly smaller.

    The order of an epoch depends only on ``seed`` and the epoch's number. Each iteration, even one
    left early, is followed by the next epoch; ``set_epoch`` selects one. An iteration starts at the
    first minibatch, except the first after ``load_state_dict``, which continues at the saved
    position.

    Lightning saves and restores the state of a training loader that has these methods, and calls
    ``loader.sampler.set_epoch`` before each epoch. Exact resuming needs both: Lightning restores
    the state only in mid-epoch, and knows only the epoch's number at the end of one.

    Several replicas get equal shares of the order, padded from its beginning if necessary, as in
    ``DistributedSampler``. Without padding (``filled_up=False``), every image counts once and some
    shares have one image less, but all have the same number of minibatches: otherwise replicas
    would wait for each other.

    Args:
        images: (N, ...), N >= 1.
        targets: (N, ...), on the same device as ``images``.
        batch_size: Number of images in a minibatch, at least 1.
        shuffle: Whether each epoch has its own random order, instead of that of the tensors.
        seed: Seed of the orders, at least 0.
        rank: Which of the replicas this is, from 0.
        num_replicas: Number of processes that share the images.
        filled_up: Whether unequal shares are padded.
        block_size: Number of minibatches yielded at a time, concatenated into one pair of tensors;
            only the last block of an epoch may be smaller.
        limit: End each epoch after this many minibatches (int), or this fraction of them (float).
        augmentation: Distorts the images (then uint8, (N, H, W)) differently in each epoch.

    Raises:
        DataError: ``limit`` is a fraction of less than one minibatch, or an unpadded share has too
            few images for the common number of minibatches.
    """

    batch_sampler = None
    """Lightning reads it wherever there is a ``sampler``."""

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
        """Return the number of blocks in a whole epoch, regardless of the position."""
        return -(-self.num_batches // self.block_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the remaining blocks of minibatches of the epoch.

        Raises:
            DataError: See ``set_epoch``.
        """
        self._check_position()
        if self._position and not self._resumed:
            # The previous iteration was left early.
            self._epoch, self._position = self._epoch + 1, 0
        self._resumed = False
        order, draws = self._order(), self._draws()
        for first in range(self._position, self.num_batches, self.block_size):
            # Advanced before the yield: nobody asks for more after the last minibatch, and a state
            # taken while a minibatch is being used must count it as used.
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
        """Itself, for ``set_epoch``; if unshuffled, the sampler by which Lightning can tell."""
        return self if self.shuffle else SequentialSampler(self.targets)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless a position in it was loaded.

        Raises:
            DataError: The loaded position in mid-epoch was saved with another batch size, number of
                replicas, or number of images.
        """
        if epoch != self._epoch or not self._resumed:
            self._epoch, self._position, self._resumed = epoch, 0, False
        self._check_position()

    def take_back(self, num_batches: int) -> None:
        """Count the last ``num_batches`` minibatches as not yielded."""
        if self._position == 0:
            self._epoch, self._position = self._epoch - 1, self.num_batches
        self._position -= num_batches

    def state_dict(self) -> dict[str, Any]:
        """Return seed, epoch, position in minibatches, and what the position depends on."""
        place = {"seed": self.seed, "epoch": self._epoch, "position": self._position}
        return place | self._counts

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a saved state; whether it can be continued is checked later.

        If Lightning ends an epoch before its last minibatch (``limit_train_batches``), only
        ``set_epoch`` shows that it has ended.
        """
        self.seed = state_dict["seed"]
        self._epoch = state_dict["epoch"]
        self._position = state_dict["position"]
        self._resumed = True
        # Older checkpoints do not say.
        self._counted_in = {name: state_dict.get(name, now) for name, now in self._counts.items()}

    @property
    def _counts(self) -> dict[str, int]:
        """What a position depends on."""
        return {
            "batch_size": self.batch_size,
            "num_replicas": self.num_replicas,
            "num_images": len(self.targets),
        }

    def _check_position(self) -> None:
        """Raise DataError if the position was counted in other minibatches."""
        if not (self._resumed and self._position):
            return
        for name, now in self._counts.items():
            if (before := self._counted_in[name]) != now:
                raise DataError(
                    f"the run was stopped in mid-epoch: {_COUNTED_IN[name]} cannot change from"
                    f" {before:,} to {now:,} until that epoch is finished.\nKeep it until then, or"
                    " start a new run."
                )

    @property
    def _share(self) -> int:
        """Number of images per epoch in the largest share."""
        return -(-len(self.targets) // self.num_replicas)

    @property
    def _num_whole(self) -> int:
        """Number of minibatches in an epoch without a limit."""
        return -(-self._share // self.batch_size)

    def _start(self, number: int) -> int:
        """Position in this replica's share where a minibatch starts."""
        # A share with one image less could have none left for its last minibatch.
        return min(number * self.batch_size, len(self._places) - (self._num_whole - number))

    def _order(self) -> Tensor:
        """Indices of this replica's images in the current epoch."""
        num_images = len(self.targets)
        order = torch.arange(num_images)
        if self.shuffle:
            order = torch.randperm(num_images, generator=self._generator(self.seed, self._epoch))
        return order[self._own % num_images].to(self.targets.device)

    def _draws(self) -> Tensor | None:
        """Random numbers for augmenting the current epoch, one row per position."""
        if self.augmentation is None:
            return None
        generator = self._generator(self.seed, self._epoch, 1)
        draws = self.augmentation.draw(self._share * self.num_replicas, generator)
        return draws[self._own].to(self.images.device)

    @property
    def _places(self) -> range:
        """This replica's positions among those of all replicas."""
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
