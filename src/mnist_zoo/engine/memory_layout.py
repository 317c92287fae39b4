"""The layout of convolutions in memory: the channel outermost, or innermost."""

from __future__ import annotations

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelPruning
from torch import nn

from mnist_zoo.engine import probe
from mnist_zoo.errors import ZooError
from mnist_zoo.models.classifier import Classifier


def gains_from_channels_last(network: Classifier, trainer: Trainer) -> bool:
    """Return whether convolutions are faster with the channel innermost (docs/speed.md)."""
    if any(isinstance(callback, ModelPruning) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return False  # it takes weights for vectors, which others are not in memory
    device = trainer.strategy.root_device.type
    if device not in ("cpu", "cuda"):
        return False  # on Apple GPUs, gradients through batch norm are wrong then (pytorch#175189)
    has_norm = any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    return device == "cpu" or has_norm or "16" in str(trainer.precision)


def put_channels_last(network: Classifier) -> None:
    """Put the channel innermost in convolutions, unless the network cannot take it."""
    network.to(memory_format=torch.channels_last)
    try:
        probe.outputs_for_black(network)
    except ZooError:
        # Its forward has a view that needs the default layout.
        network.to(memory_format=torch.contiguous_format)
