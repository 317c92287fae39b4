"""The contribution of each pixel to a network's output for an image."""

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
    """Attribute an output to the pixels: its gradient, integrated from grey to the image.

    The method is that of Sundararajan, Taly and Yan, *Axiomatic Attribution for Deep Networks*
    (2017). An image's attributions sum to its output minus that of a grey image. The baseline is
    halfway between paper and ink so that both count: a gap can define a digit.

    Args:
        network: Maps images (N, 1, 28, 28) to outputs (N, C), each image independently.
        images: (N, 1, 28, 28).
        classes: Integers (N,): the output to attribute for each image.
        baseline: Pixel value of a grey image.
        num_steps: Number of points at which the gradient is evaluated.

    Returns:
        (N, 28, 28), in units of the output: positive where a pixel is evidence for the class.
    """
    points = (torch.arange(num_steps, device=images.device) + 0.5) / num_steps
    attributions = []
    for image, target in zip(images, classes.tolist(), strict=True):
        difference = image - baseline
        path = (baseline + points[:, None, None, None] * difference).requires_grad_()
        (gradient,) = torch.autograd.grad(network(path)[:, target].sum(), path)
        attributions.append((difference * gradient.mean(dim=0)).squeeze(0))
    return torch.stack(attributions)
