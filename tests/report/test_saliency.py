"""What each pixel adds to what a network says of an image."""

import pytest
import torch
from torch import nn

from mnist_zoo.models import ConvNetReLU, MLPLogSoftmax
from mnist_zoo.report.saliency import integrated_gradients


def test_of_a_linear_network_the_shares_are_weight_times_difference_from_grey():
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    images, classes = torch.rand(3, 1, 28, 28), torch.tensor([1, 0, 9])
    shares = integrated_gradients(network, images, classes)
    expected = (images.flatten(1) - 0.5) * network[1].weight[classes]
    assert torch.allclose(shares.flatten(1), expected, atol=1e-6)


def test_of_a_quadratic_network_few_steps_are_exact():
    images = torch.rand(2, 1, 28, 28)
    shares = integrated_gradients(
        lambda some: some.square().flatten(1).sum(1, keepdim=True),
        images,
        torch.tensor([0, 0]),
        baseline=0.25,
        num_steps=3,
    )
    torch.testing.assert_close(shares, (images.square() - 0.25**2).squeeze(1))


@pytest.mark.parametrize("network_class", [ConvNetReLU, MLPLogSoftmax])
@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_the_shares_add_up_to_what_the_image_changes(network_class, baseline):
    torch.manual_seed(0)
    network = network_class().eval()
    images, classes = torch.rand(4, 1, 28, 28), torch.tensor([3, 1, 4, 1])
    shares = integrated_gradients(network, images, classes, baseline, num_steps=300)
    assert shares.shape == (4, 28, 28)
    with torch.no_grad():
        changes = network(images) - network(torch.full_like(images, baseline))
    expected = changes[torch.arange(4), classes]
    assert torch.allclose(shares.sum(dim=(1, 2)), expected, atol=2e-3)


def test_the_network_keeps_no_gradients():
    network = ConvNetReLU()
    integrated_gradients(network, torch.rand(1, 1, 28, 28), torch.tensor([0]), num_steps=2)
    assert all(parameter.grad is None for parameter in network.parameters())
