"""Optimizers and schedulers: found by name, built for a network, and their state checked."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.optim import Optimizer

from mnist_zoo.errors import ZooError, did_you_mean
from mnist_zoo.models.muon import Muon

if TYPE_CHECKING:
    from mnist_zoo.models.classifier import Classifier

# Those of this project, in place of PyTorch's of the same name.
_OWN = {torch.optim: {"Muon": Muon}}
# Those that update all weights in one kernel on accelerators, too, in every version.
_FUSED_ON_ACCELERATORS = ("SGD", "Adam", "AdamW")
# Optimizers that cannot be used, and why.
_UNUSABLE = {
    torch.optim.LBFGS: "needs a closure",
    torch.optim.SparseAdam: "supports only sparse gradients",
}


def class_in(module: ModuleType, name: str, kind: str) -> Any:
    """Return a class of ``torch.optim`` or of this project by name.

    Only names are accepted, never import paths: the name may come from an untrusted checkpoint.
    """
    if not isinstance(name, str):
        raise ZooError(f"--model.{kind} {name}: give the name of the class, such as 'SGD'.")
    classes = {n: c for n, c in vars(module).items() if inspect.isclass(c) and n[0] != "_"}
    classes |= _OWN.get(module, {})
    if name not in classes:
        hint = did_you_mean(name, classes)
        raise ZooError(f"--model.{kind} {name}: {module.__name__} has no such class.{hint}")
    return classes[name]


@contextmanager
def arguments_explained(kind: str, cls: type) -> Iterator[None]:
    """Raise ``ZooError`` if a class of ``torch.optim`` rejects its arguments."""
    try:
        yield
    except (ArithmeticError, TypeError, ValueError, NotImplementedError) as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        hint = did_you_mean(unknown[1], inspect.signature(cls).parameters) if unknown else ""
        own = re.match("Invalid weight_decay", str(error))
        flag = "--model.weight_decay" if own else f"--model.{kind}_args"
        raise ZooError(
            f"{cls.__name__} does not accept this: {str(error).rstrip('.')}.{hint}\n"
            f"It is given by {flag}"
        ) from error


def build(network: Classifier) -> Optimizer:
    """Build the optimizer of a network from its arguments.

    Raises:
        ZooError: The optimizer cannot be used, or does not accept the arguments.
    """
    cls = network.optimizer_class
    if cls in _UNUSABLE:
        raise ZooError(f"--model.optimizer {cls.__name__}: cannot be used: it {_UNUSABLE[cls]}.")
    known = inspect.signature(cls).parameters
    decay = {"weight_decay": network.weight_decay}
    groups = network.parameter_groups()
    with arguments_explained("optimizer", cls):
        optimizer: Optimizer = cls(
            groups,
            lr=network.lr,
            **(decay if network.weight_decay or "weight_decay" in known else {}),
            **_fused(network),
            **network.optimizer_args,
        )
    return optimizer


def _fused(network: Classifier) -> dict[str, bool]:
    """Return the argument that selects a fused kernel, if the optimizer has one."""
    known = inspect.signature(network.optimizer_class).parameters
    # A fused kernel unscales gradients itself, too late for Lightning to clip them.
    plugin = getattr(network._trainer, "precision_plugin", None)
    clips = getattr(network._trainer, "gradient_clip_val", None)
    scaled = isinstance(plugin, MixedPrecision) and (plugin.scaler or clips)
    if "fused" not in known or scaled or {"fused", "foreach"} & network.optimizer_args.keys():
        return {}
    everywhere = network.optimizer_class.__name__ in _FUSED_ON_ACCELERATORS
    kind = network.device.type
    return {"fused": kind == "cpu" or (everywhere and kind in ("cuda", "mps"))}


def scheduler_args(network: Classifier) -> dict[str, Any]:
    """Return the arguments of a network's scheduler, with the length of its run.

    Raises:
        ZooError: The run has no end, or more steps than the arguments allow.
    """
    assert network.scheduler_class
    known = inspect.signature(network.scheduler_class).parameters
    if "total_steps" in known:
        num_steps = _length_of_run(network)
        args = {"max_lr": network.lr, "total_steps": num_steps} | network.scheduler_args
        total = args["total_steps"]
        if isinstance(total, int) and total < num_steps:
            raise ZooError(
                f"--model.scheduler_args: total_steps is {total}, but the run has"
                f" {num_steps:,} steps.\nLeave it out to span the whole run."
            )
        if isinstance(total, int) and args.get("pct_start") == 1 / total:
            # PyTorch divides by zero if the rate is to rise for exactly one step.
            args["pct_start"] *= 1.0001
        return args
    if "T_max" in known:
        num_epochs = _length_of_run(network) / network.num_steps_per_epoch()
        return {"T_max": math.ceil(num_epochs)} | network.scheduler_args
    return network.scheduler_args


def _length_of_run(network: Classifier) -> int:
    assert network.scheduler_class
    num_steps = network.num_training_steps()
    if num_steps == math.inf:
        raise ZooError(
            f"{network.scheduler_class.__name__} spans the whole run, which has no end: give"
            " --trainer.max_epochs or --trainer.max_steps."
        )
    return int(num_steps)


def lay_out_as_weights(optimizer: Optimizer) -> None:
    """Give an optimizer's tensors the memory layout of their weights.

    Fused kernels traverse memory in order, and a run may be resumed in another layout
    (``channels_last``) than it was saved in.
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def require_state_sizes(optimizer: Optimizer) -> None:
    """Refuse restored optimizer tensors that do not fit the weights.

    Fused kernels trust their size, and would write out of bounds; Muon would end in a traceback.

    Raises:
        ZooError: There is one.
    """
    cls = type(optimizer)
    if cls is not Muon and "fused" not in inspect.signature(cls).parameters:
        return  # such as Adafactor, which keeps only a row and a column per weight
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, Tensor) or (name == "step" and value.numel() == 1):
                continue
            if value.shape != weight.shape or value.dtype != weight.dtype:
                raise ZooError(
                    "the optimizer state in the checkpoint does not fit the network:"
                    f" {name} is {tuple(value.shape)} in {value.dtype}, its weight"
                    f" {tuple(weight.shape)} in {weight.dtype}."
                )
