"""Muon: momentum in which all directions of a weight matrix move equally far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

# Coefficients of the iteration and their number of rounds, from the source.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_NUM_ROUNDS = 5


class Muon(Optimizer):
    """Muon for the weights of hidden layers, SGD for the output layer, biases and norms.

    The update of a weight is its gradient with Nesterov momentum, made orthogonal: seen as a matrix
    of outputs × inputs, all its singular values become about 1. The last weight of two or more
    dimensions is taken for that of the output layer, which, as in the source, learns better by SGD.
    All share the learning rate. The class of that name in PyTorch takes nothing but matrices:
    neither biases nor convolutions.

    Source: K. Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024,
    kellerjordan.github.io/posts/muon.

    Args:
        params: Parameters, or groups of parameters with their own settings.
        lr: Learning rate, at least 0: about how far each step moves a weight, in spectral norm; one
            with more outputs than inputs moves further.
        momentum: Share of the previous update in the next one, in [0, 1).
        weight_decay: Share of ``lr`` by which each step shrinks the parameters, at least 0.

    Raises:
        ValueError: A setting is outside its range.
    """

    takes_tensors_as_lr = True
    """Whether a group's learning rate may be a tensor, which a CUDA graph reads at every replay."""

    def __init__(
        self, params: Any, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if not weight_decay >= 0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step; return what ``closure``, which computes the loss anew, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        weights = [weight for group in self.param_groups for weight in group["params"]]
        output = next((weight for weight in reversed(weights) if weight.ndim >= 2), None)
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            velocities = [self._velocity(weight) for weight in weights]
            torch._foreach_mul_(velocities, momentum)
            torch._foreach_add_(velocities, gradients)
            ahead = torch._foreach_add(gradients, velocities, alpha=momentum)
            updates = [
                orthogonal(update) if weight.ndim >= 2 and weight is not output else update
                for weight, update in zip(weights, ahead, strict=True)
            ]
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
            if isinstance(lr, Tensor):
                torch._foreach_mul_(updates, -lr)
                torch._foreach_add_(weights, updates)
            else:
                torch._foreach_add_(weights, updates, alpha=-lr)
        return loss

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        velocity: Tensor = state["momentum_buffer"]
        return velocity


def orthogonal(update: Tensor) -> Tensor:
    """Return the nearest tensor whose matrix is orthogonal, roughly, and of its size.

    Newton-Schulz iteration, which brings all singular values to between about 0.7 and 1.2; tall
    matrices are scaled up so that their outputs change as much as those of wide ones.

    Args:
        update: (outputs, ...), of two or more dimensions; all but the first are inputs.

    Returns:
        The same shape and type.
    """
    matrix = update.flatten(1)
    num_outputs, num_inputs = matrix.shape
    is_tall = num_outputs > num_inputs
    if is_tall:
        matrix = matrix.T
    matrix = matrix / (matrix.norm() + 1e-7)
    for _ in range(_NUM_ROUNDS):
        square = matrix @ matrix.T
        polynomial = torch.addmm(square, square, square, beta=_B, alpha=_C)
        matrix = torch.addmm(matrix, polynomial, matrix, beta=_A)
    if is_tall:
        matrix = matrix.T * (num_outputs / num_inputs) ** 0.5
    return matrix.reshape(update.shape)
