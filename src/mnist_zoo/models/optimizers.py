"""Optimizers and schedulers by name, and checks of their arguments and state."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mnist_zoo.errors import ZooError, did_you_mean
from mnist_zoo.models.muon import Muon

# Those of this project, in place of PyTorch's of the same name.
_OWN = {torch.optim: {"Muon": Muon}}
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


def require_usable(cls: type[Optimizer]) -> None:
    """Refuse optimizers that cannot take the steps of a ``Classifier``."""
    if cls in _UNUSABLE:
        raise ZooError(f"--model.optimizer {cls.__name__}: cannot be used: it {_UNUSABLE[cls]}.")


@contextmanager
def accepted(kind: str, cls: type) -> Iterator[None]:
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

    Fused kernels trust their size, and would write out of bounds.

    Raises:
        ZooError: There is one.
    """
    if "fused" not in inspect.signature(type(optimizer)).parameters:
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
