"""What each pixel adds to what a network says of an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def integrated_gradients(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    classes: Tensor,
    baseline: float = 0.5,
    num_steps: int = 64,
) -> Tensor:
    """Share out an output among the pixels: its gradient, integrated from grey to the image.

    The method is that of Sundararajan, Taly and Yan, *Axiomatic Attribution for Deep Networks*
    (2017). The shares of an image add up to its output less that of a grey image. Half-way between
    paper and ink, both count: a gap can make a digit what it is.

    Args:
        network: Maps images (N, 1, 28, 28) to outputs (N, C), each image for itself.
        images: (N, 1, 28, 28).
        classes: Integers (N,): whose output is shared out.
        baseline: Value of the pixels of a grey image.
        num_steps: Points at which the gradient is taken.

    Returns:
        (N, 28, 28), in units of the output: above zero where a pixel speaks for the class.
    """
    points = (torch.arange(num_steps, device=images.device) + 0.5) / num_steps
    attributions = []
    for image, target in zip(images, classes.tolist(), strict=True):
        difference = image - baseline
        path = (baseline + points[:, None, None, None] * difference).requires_grad_()
        (gradient,) = torch.autograd.grad(network(path)[:, target].sum(), path)
        attributions.append((difference * gradient.mean(dim=0)).squeeze(0))
    return torch.stack(attributions)
