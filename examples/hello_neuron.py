"""The smallest trainable network: one training step, by hand and by autograd.

A number is the input of a sigmoid neuron, whose output is the input of a second one:

    h = sigmoid(w1 x + b1)        y = sigmoid(w2 h + b2)        loss = (y - target)²

One step of gradient descent moves the four parameters so that y comes closer to the target.
It is computed twice: with derivatives written out by the chain rule, in NumPy, and with
PyTorch's autograd. Both give the same numbers.

Run it: python examples/hello_neuron.py
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class Parameters(NamedTuple):
    """Weight and bias of the first neuron, then of the second."""

    w1: float
    b1: float
    w2: float
    b2: float


class Step(NamedTuple):
    """The result of a training step: the output before, the new parameters, the output after."""

    before: float
    parameters: Parameters
    after: float


INITIAL = Parameters(w1=1.58, b1=-0.14, w2=2.45, b2=-0.11)
INPUT = 0.8
TARGET = 1.0
LEARNING_RATE = 0.1


def sigmoid(z: float) -> float:
    """Squash any number into (0, 1). Where its value is s, its derivative is s (1 - s)."""
    return float(1 / (1 + np.exp(-z)))


def step_by_hand(p: Parameters, x: float, target: float, lr: float) -> Step:
    """Take one step with the derivatives written out by the chain rule."""
    # Forward: from the input to the output.
    h = sigmoid(p.w1 * x + p.b1)
    y = sigmoid(p.w2 * h + p.b2)

    # Backward: from the loss to every parameter. d_z is the derivative of the loss by z.
    d_y = 2 * (y - target)
    d_z2 = d_y * y * (1 - y)
    d_w2 = d_z2 * h
    d_b2 = d_z2
    d_h = d_z2 * p.w2
    d_z1 = d_h * h * (1 - h)
    d_w1 = d_z1 * x
    d_b1 = d_z1

    # Each parameter moves a small step against its derivative: downhill.
    new = Parameters(p.w1 - lr * d_w1, p.b1 - lr * d_b1, p.w2 - lr * d_w2, p.b2 - lr * d_b2)
    new_h = sigmoid(new.w1 * x + new.b1)
    return Step(y, new, sigmoid(new.w2 * new_h + new.b2))


def step_by_autograd(p: Parameters, x: float, target: float, lr: float) -> Step:
    """Take the same step with PyTorch's derivatives."""
    # Double precision, as in NumPy, so that both agree to the last printed digit.
    parameters = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in p]
    w1, b1, w2, b2 = parameters
    optimizer = torch.optim.SGD(parameters, lr=lr)

    def output() -> torch.Tensor:
        return torch.sigmoid(w2 * torch.sigmoid(w1 * x + b1) + b2)

    y = output()
    loss = (y - target) ** 2
    loss.backward()
    optimizer.step()
    return Step(y.item(), Parameters(*(value.item() for value in parameters)), output().item())


def table(by_hand: Step, by_autograd: Step) -> str:
    """Lay out both results side by side."""
    lines = [f"{'':<14}{'by hand':>10}{'autograd':>10}"]
    for name, left, right in zip(
        ("output before", *(f"{name} after" for name in Parameters._fields), "output after"),
        (by_hand.before, *by_hand.parameters, by_hand.after),
        (by_autograd.before, *by_autograd.parameters, by_autograd.after),
        strict=True,
    ):
        lines.append(f"{name:<14}{left:>10.4f}{right:>10.4f}")
    return "\n".join(lines)


def main() -> None:
    print(f"One training step from input {INPUT} towards target {TARGET}:\n")
    print(
        table(
            step_by_hand(INITIAL, INPUT, TARGET, LEARNING_RATE),
            step_by_autograd(INITIAL, INPUT, TARGET, LEARNING_RATE),
        )
    )


if __name__ == "__main__":
    main()
