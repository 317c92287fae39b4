"""The base class of every data set."""

from __future__ import annotations

import abc
import math
import warnings
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from mnist_zoo.data.augmentation import Augmentation
from mnist_zoo.data.expansion import expand
from mnist_zoo.data.loader import Batches
from mnist_zoo.errors import DataError


def to_float(images: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Turn stored images into network input.

    Args:
        images: uint8 in 0..255, (B, 28, 28).
        mean: Subtracted from the pixels after scaling to [0, 1].
        std: Divisor applied after that.

    Returns:
        float32, (B, 1, 28, 28); in [0, 1] for the default ``mean`` and ``std``.
    """
    floats = images.unsqueeze(1).float().div_(255)
    # Most recipes do not normalise; skipping it saves two passes over the pixels.
    return floats if (mean, std) == (0, 1) else floats.sub_(mean).div_(std)


class ImageData(LightningDataModule, abc.ABC):
    """Images of 28 × 28 pixels in ten classes, held in memory as bytes.

    A subclass implements ``load``. Validation images are held out before the training images are
    expanded, so that no shifted copy of one is ever trained on. Minibatches are ``(images,
    targets)``. The loaders yield uint8 (B, 28, 28) and int64 (B,), which are faster to transfer;
    the network gets float32 (B, 1, 28, 28). Lightning's trainer converts them through
    ``on_after_batch_transfer``; elsewhere, use ``to_float``. Validation, test and prediction use
    ``eval_batch_size`` images at a time, in order.

    Args:
        batch_size: Number of images in a training minibatch.
        val_size: Number or fraction (0.2) of training images held out for validation; by default
            5000, or a tenth for the small data sets (Digits, TextFile).
        expanded: Whether to train on each image five times: unchanged, and shifted by one pixel
            right, left, up and down.
        num_train: Use only the first ``num_train`` training images, before any are held out.
        num_test: Use only the first ``num_test`` test images.
        mean: Subtracted from the pixels, which are in [0, 1].
        std: Divisor applied after that.
        split_seed: Seed that decides which images are held out. None holds out the last
            ones in the data set's own order, which in MNIST hardly share a writer with those before
            them.
        rotation: Largest random rotation of training images, in degrees.
        scale: Largest random change of size, as a fraction below 1.
        shear: Largest random shear angle, in degrees below 90.
        shift: Largest random shift, in pixels.
        elastic: Standard deviation, in pixels, of the random shifts on a coarse grid between which
            every pixel's own is interpolated.

    Raises:
        DataError: A value is invalid for every data set, or ``classes`` are not ten different
            names.
    """

    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    """Names of the classes 0 to 9."""
    default_val_size: ClassVar[int | float] = 5000
    eval_batch_size: ClassVar[int] = 1000

    def __init__(
        self,
        batch_size: int = 10,
        val_size: int | float | None = None,
        expanded: bool = False,
        num_train: int | None = None,
        num_test: int | None = None,
        mean: float = 0.0,
        std: float = 1.0,
        split_seed: int | None = 0,
        rotation: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        shift: int = 0,
        elastic: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        words = [name for name in self.classes if isinstance(name, str)]
        if not len(self.classes) == len({*words}) == 10:
            raise DataError(
                f"{type(self).__name__}.classes must hold ten different names, not"
                f" {', '.join(map(str, self.classes))}."
            )
        self._val_size_is_given = val_size is not None
        val_size = self.default_val_size if val_size is None else val_size
        if isinstance(val_size, float) and val_size.is_integer() and val_size != 1:
            # A number of images, which the command-line parser may have made 5000.0.
            val_size = int(val_size)
        is_fraction = isinstance(val_size, float)
        _require(batch_size >= 1, "batch_size", batch_size, "must be at least 1")
        _require(0 <= val_size < math.inf, "val_size", val_size, "must be a number from 0")
        _require(
            not is_fraction or val_size < 1,
            "val_size",
            val_size,
            "must be a whole number of images, or a fraction below 1",
        )
        _require(num_train is None or num_train >= 1, "num_train", num_train, "must be at least 1")
        _require(num_test is None or num_test >= 1, "num_test", num_test, "must be at least 1")
        _require(math.isfinite(mean), "mean", mean, "must be a finite number")
        _require(0 < std < math.inf, "std", std, "must be a finite number above 0")
        seed_is_right = split_seed is None or 0 <= split_seed < 2**32
        _require(seed_is_right, "split_seed", split_seed, "must be from 0 to 2**32 - 1")
        self.batch_size = batch_size
        self.val_size = val_size
        self.expanded = expanded
        self.num_train = num_train
        self.num_test = num_test
        self.mean = float(mean)
        self.std = float(std)
        self.split_seed = split_seed
        self.augmentation: Augmentation | None = None
        if any((rotation, scale, shear, shift, elastic)):
            self.augmentation = Augmentation(rotation, scale, shear, shift, elastic)
        self.block_size = 1
        """Training minibatches yielded at a time; see ``Batches``."""
        self.limit_train_batches: int | float = 1.0
        """How much of an epoch the training loader yields; see ``Batches``."""
        self.splits: dict[str, tuple[Tensor, Tensor]] = {}
        """After ``setup``: images and targets of "train" and "validation", or of "test"."""

    @abc.abstractmethod
    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return all training images, or all test images, in the data set's own order.

        Args:
            train: Whether to return the training images, or else the test images.

        Returns:
            Images, uint8 in 0..255, (N, 28, 28), and targets, int64 in 0..9, (N,).

        Raises:
            DataError: The images are missing or damaged.
        """

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{len(self.splits[split][1]):,} {split}"
            for split in ("train", "validation", "test")
            if split in self.splits
        )
        return f"<{type(self).__name__}: {sizes or 'no'} images>"

    # Lightning's expects torch loaders.
    __str__ = __repr__

    def setup(self, stage: str | None = None) -> None:
        """Load what a stage needs, unless it is loaded already.

        Args:
            stage: "fit" or "validate" for the training images, "test" or "predict" for the test
                images; None for all.

        Raises:
            DataError: There are fewer images than requested, the stage has none, or a subclass did
                not call ``super().__init__``.
        """
        if not hasattr(self, "splits"):
            raise DataError(
                f"{type(self).__name__}: its __init__ must begin with super().__init__(**kwargs)."
            )
        if stage in ("fit", "validate", None):
            if "train" not in self.splits:
                self._hold_out(*self._load_first(True, "num_train", self.num_train))
            if stage == "validate":
                _require(
                    self.num_val_images > 0,
                    "val_size",
                    self.val_size,
                    "nothing to validate on",
                    "Test on the test images instead, or hold some out: --data.val_size 0.1",
                )
        if stage not in ("fit", "validate") and "test" not in self.splits:
            self.splits["test"] = self._load_first(False, "num_test", self.num_test)

    @property
    def num_train_images(self) -> int:
        """Number of images in an epoch of training, shifted ones included; 0 before ``setup``."""
        return self._num_images("train")

    @property
    def num_val_images(self) -> int:
        """Number of images held out; 0 before ``setup``."""
        return self._num_images("validation")

    @property
    def num_test_images(self) -> int:
        """Number of test images; 0 before ``setup``."""
        return self._num_images("test")

    def train_dataloader(self) -> Batches:
        """Return the training minibatches, in bytes; ``seed_everything`` decides their order.

        Outside Lightning's trainer, each loader has its own orders and distortions, like torch's.
        ``to_float`` turns its images into network input.
        """
        trainer = self.trainer
        seed = torch.initial_seed()
        if trainer is None:
            seed = int(torch.randint(2**63 - 1, ()))
        # Lightning wants a fixed order when a run is to overfit its first few minibatches.
        shuffle = trainer is None or trainer.overfit_batches == 0  # type: ignore[attr-defined]
        return self._batches(
            "train",
            self.batch_size,
            seed=seed,
            shuffle=shuffle,
            block_size=self.block_size,
            limit=self.limit_train_batches,
            augmentation=self.augmentation,
        )

    def val_dataloader(self) -> Batches | list[Batches]:
        """Return the validation minibatches, in bytes; [] makes Lightning skip validation."""
        if len(self._loaded("validation")[1]):
            return self._batches("validation", self.eval_batch_size, filled_up=False)
        # Lightning warns in case this was not intended; it is.
        warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
        return []

    def test_dataloader(self) -> Batches:
        """Return the test minibatches, in bytes and in order."""
        return self._batches("test", self.eval_batch_size, filled_up=False)

    def predict_dataloader(self) -> Batches:
        """Return the test minibatches, in bytes and in order."""
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn the bytes of images, with or without targets, into floats on the device.

        Anything else is left unchanged: Lightning also passes on a network's example input.
        Lightning would call only the data's hook; the network's is called after it.
        """
        if _are_bytes(batch):
            batch = self._floats(batch)
        elif isinstance(batch, tuple | list) and batch and _are_bytes(batch[0]):
            batch = (self._floats(batch[0]), *batch[1:])
        network = self.trainer and self.trainer.lightning_module
        if network and is_overridden("on_after_batch_transfer", network):
            batch = network.on_after_batch_transfer(batch, dataloader_idx)
        return batch

    def _floats(self, images: Tensor) -> Tensor:
        images = to_float(images, self.mean, self.std)
        # Lightning converts batches for 16-true while they are still bytes.
        return self.trainer.precision_plugin.convert_input(images) if self.trainer else images

    def _load_first(self, train: bool, flag: str, num: int | None) -> tuple[Tensor, Tensor]:
        """Load the first ``num`` training or test images."""
        loaded: Any = self.load(train)
        is_pair = isinstance(loaded, tuple | list) and len(loaded) == 2
        if found := _misfit(*loaded) if is_pair else type(loaded).__name__:
            raise DataError(
                f"{type(self).__name__}.load returns {found}.\nExpected tensors: images, uint8"
                " (N, 28, 28), and as many targets, int64 from 0 to 9."
            )
        images, targets = loaded
        available = f"there are only {len(targets):,} {'training' if train else 'test'} images"
        # The number may come from a recipe or a checkpoint.
        advice = f"To take all of them: --data.{flag} null"
        _require(num is None or num <= len(targets), flag, num, available, advice)
        return images[:num], targets[:num]

    def _hold_out(self, images: Tensor, targets: Tensor) -> None:
        """Split the training images into validation and training, then expand the latter."""
        num_images, num_val = len(targets), self.val_size
        if isinstance(num_val, float):
            num_val = round(num_val * num_images)
        advice = "Hold out fewer: --data.val_size 0.1"
        if num_val >= num_images and not self._val_size_is_given:
            raise DataError(
                f"by default, {num_val:,} images are held out, which leaves none of the"
                f" {num_images:,} for training.\n{advice}"
            )
        _require(
            num_val < num_images,
            "val_size",
            self.val_size,
            f"leaves none of the {num_images:,} training images to train on",
            advice,
        )
        if self.split_seed is None:
            order = torch.arange(num_images).flip(0)
        else:
            # NumPy guarantees a stable stream of numbers; torch does not.
            order = torch.as_tensor(np.random.RandomState(self.split_seed).permutation(num_images))
        held_out, rest = order[:num_val].sort().values, order[num_val:].sort().values
        train = images[rest], targets[rest]
        self.splits["validation"] = images[held_out], targets[held_out]
        self.splits["train"] = expand(*train) if self.expanded else train

    def _num_images(self, split: str) -> int:
        return len(self.splits[split][1]) if split in self.splits else 0

    def _loaded(self, split: str) -> tuple[Tensor, Tensor]:
        if split not in self.splits:
            stage = "test" if split == "test" else "fit"
            raise DataError(
                f"{type(self).__name__} has loaded no {split} images yet."
                f'\nFirst call prepare_data() and setup("{stage}").'
            )
        return self.splits[split]

    def _batches(self, split: str, batch_size: int, seed: int = 0, **options: Any) -> Batches:
        """Return the minibatches of a split; with a distributed trainer, this process's share."""
        images, targets = self._loaded(split)
        share = {}
        if self.trainer is not None:
            images, targets = _on_device(self.trainer.strategy.root_device, images, targets)
            # Without seed_everything each process has its own seed, but they share one order.
            seed = self.trainer.strategy.broadcast(seed)
            share = self.trainer.distributed_sampler_kwargs or {}
        return Batches(images, targets, batch_size, seed=seed, **share, **options)


def _on_device(device: torch.device, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Move tensors to a device if they fit, so that minibatches need no transfer."""
    if device.type == "cuda":
        needed = sum(tensor.nbytes for tensor in tensors)
        if needed > torch.cuda.mem_get_info(device)[0] / 4:
            return tensors
    return tuple(tensor.to(device) for tensor in tensors)


def _misfit(images: Any, targets: Any) -> str:
    """Return what is wrong with the tensors that a data set loaded, else ``""``."""
    parts = images, targets
    if not all(isinstance(part, Tensor) for part in parts):
        return " and ".join(type(part).__name__ for part in parts)
    if (images.dtype, targets.dtype) != (torch.uint8, torch.int64):
        return f"images of {images.dtype} and targets of {targets.dtype}"
    if (
        not len(images)
        or images.shape != (len(images), 28, 28)
        or targets.shape != images.shape[:1]
    ):
        return f"images of shape {tuple(images.shape)} and targets of {tuple(targets.shape)}"
    if targets.min() < 0 or targets.max() > 9:
        return f"targets from {targets.min()} to {targets.max()}"
    return ""


def _are_bytes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8


def _require(condition: bool, flag: str, value: object, message: str, advice: str = "") -> None:
    """Raise DataError about a flag's value unless the condition holds."""
    if not condition:
        raise DataError(f"--data.{flag} {value}: {message}.\n{advice}".rstrip())
