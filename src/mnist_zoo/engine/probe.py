"""Checks of a network with two black images, before anything is trained."""

from __future__ import annotations

import copy

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from mnist_zoo import stored
from mnist_zoo.errors import ZooError, first_lines
from mnist_zoo.models.classifier import Classifier, evaluation_mode, num_parameters, sizes

_IMAGES = (2, 1, 28, 28)


def check(network: Classifier) -> Tensor:
    """Refuse a network that cannot be trained to sort images into ten classes.

    Returns:
        Its outputs for two black images, (2, 10).

    Raises:
        ZooError: It fails on them or returns other than (2, 10), or other than a tensor in
            training; it has no parameters, its loss is not a single number, its optimizer rejects
            its arguments, or rebuilding it from its arguments gives another network.
    """
    name = type(network).__name__
    outputs = outputs_for_black(network)
    if not num_parameters(network):
        if next(network.parameters(), None) is not None:
            raise ZooError(f"{name} has nothing to train: all of its parameters are frozen.")
        raise ZooError(
            f"{name} has no parameters to train: its layers must be attributes, or in a"
            " Sequential or ModuleList, not in a plain list."
        )
    # Random numbers drawn here must not change the run.
    with isolate_rng(include_cuda=False):
        _require_an_optimizer(network)
        _require_rebuilt_alike(network)
        _require_outputs_in_training(network)
    try:
        loss = network.loss(outputs, torch.zeros(2, dtype=torch.int64))
    except Exception:
        return outputs  # it may need something that exists only in training
    if not isinstance(loss, Tensor) or loss.shape:
        found = f"{tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ZooError(f"the loss of {name} is {found} instead of a tensor of one number.")
    return outputs


def outputs_for_black(network: Classifier) -> Tensor:
    """Return a network's outputs for two black images, (2, 10), or refuse it."""
    name = type(network).__name__
    try:
        with isolate_rng(include_cuda=False), torch.no_grad(), evaluation_mode(network):
            outputs: Tensor = network(torch.zeros(_IMAGES))
            shape = tuple(outputs.shape)
    except Exception as error:
        reason = first_lines(error)
        raise ZooError(f"{name} fails on images of shape {_IMAGES}: {reason}") from error
    if shape != (2, 10):
        raise ZooError(f"{name} returns shape {shape} for 2 images instead of (2, 10).")
    return outputs


def _require_an_optimizer(network: Classifier) -> None:
    """Refuse an optimizer that rejects its arguments."""
    if type(network).configure_optimizers is not Classifier.configure_optimizers:
        return
    try:
        network.build_optimizer()
    except ZooError:
        raise
    except Exception:
        return  # its groups may need the trainer


def _require_rebuilt_alike(network: Classifier) -> None:
    """Refuse a network that could not be rebuilt for its checkpoint."""
    arguments = stored.class_and_arguments(network)["init_args"]
    try:
        with torch.device("meta"):
            again = type(network)(**arguments)
    except Exception:
        return  # it may read its weights from elsewhere
    now, then = sizes(network), sizes(again)
    if odd := next((name for name in then if now.get(name, then[name]) != then[name]), None):
        raise ZooError(
            f"{type(network).__name__}: rebuilt from its arguments, its {odd} has shape"
            f" {tuple(then[odd])} instead of {tuple(now[odd])}, so no checkpoint would load.\n"
            "Call super().__init__(**kwargs) before changing an argument."
        )


def _require_outputs_in_training(network: Classifier) -> None:
    """Refuse a network whose output in training is not a tensor."""
    if type(network).training_step is not Classifier.training_step:
        return
    try:
        # A copy, since batch norm has state and dropout draws.
        copied = copy.deepcopy(network).train()
        with torch.no_grad():
            outputs = copied(torch.zeros(_IMAGES))
    except Exception:
        return  # two black images may not be enough for it
    if not isinstance(outputs, Tensor):
        raise ZooError(
            f"{type(network).__name__} returns a {type(outputs).__name__} in training instead of a"
            " tensor.\nGive it its own training_step."
        )


def are_probabilities(outputs: Tensor) -> bool:
    """Return whether each row of outputs (N, 10) has no negative number and sums to 1."""
    return bool((outputs >= 0).all() and ((outputs.sum(dim=1) - 1).abs() < 1e-4).all())
