"""Muon: hidden weights take orthogonal steps, all else those of SGD."""

import copy

import pytest
import torch
from torch import nn

from mnist_zoo.models.muon import Muon, orthogonal


@pytest.mark.parametrize(
    ("shape", "largest"),
    [((20, 50), 1), ((50, 20), 2.5**0.5), ((8, 2, 3, 3), 1), ((16, 1, 3, 3), (16 / 9) ** 0.5)],
)
def test_an_update_has_singular_values_near_one(shape, largest):
    torch.manual_seed(0)
    update = orthogonal(torch.randn(shape) * 1e-3)
    assert update.shape == shape
    values = torch.linalg.svdvals(update.flatten(1)) / largest
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_an_update_of_zero_stays_zero():
    assert torch.equal(orthogonal(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_hidden_weights_take_orthogonal_steps_and_all_else_those_of_sgd():
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    batch = torch.randn(10, 6)

    def step(make):
        network = copy.deepcopy(start)
        network(batch).pow(3).sum().backward()
        make(network.parameters(), lr=0.1, momentum=0.9).step()
        return dict(network.named_parameters())

    sgd = step(lambda *args, **kwargs: torch.optim.SGD(*args, nesterov=True, **kwargs))
    muon = step(Muon)
    hidden = muon.pop("0.weight") - dict(start.named_parameters())["0.weight"]
    assert torch.linalg.svdvals(hidden.detach() / 0.1 / (8 / 6) ** 0.5).sub(1).abs().max() < 0.5
    torch.testing.assert_close(muon, {name: sgd[name] for name in muon})


def test_the_iteration_is_that_of_the_source():
    update = orthogonal(torch.diag(torch.tensor([3.0, 4.0])))
    expected = torch.tensor([3.0, 4.0]) / 5
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    torch.testing.assert_close(update, torch.diag(expected))


def test_momentum_is_kept_from_step_to_step():
    one, other = (nn.Parameter(torch.zeros(3)) for _ in range(2))
    optimizers = (
        Muon([one], lr=0.1, momentum=0.9),
        torch.optim.SGD([other], lr=0.1, momentum=0.9, nesterov=True),
    )
    for number in range(3):
        for weight, optimizer in zip((one, other), optimizers, strict=True):
            weight.grad = torch.tensor([1.0, 0.0, -2.0]) * (number + 1)
            optimizer.step()
    torch.testing.assert_close(one, other)


def test_only_the_last_weight_of_all_groups_is_that_of_the_output_layer():
    torch.manual_seed(0)
    hidden, output = (nn.Parameter(torch.zeros(3, 3)) for _ in range(2))
    gradient = torch.randn(3, 3)
    hidden.grad, output.grad = gradient.clone(), gradient.clone()
    Muon([{"params": [hidden]}, {"params": [output]}], lr=1.0, momentum=0.0).step()
    torch.testing.assert_close(output.detach(), -gradient)
    torch.testing.assert_close(hidden.detach(), -orthogonal(gradient))


def test_a_learning_rate_may_be_a_tensor():
    torch.manual_seed(0)
    number, tensor = (nn.Linear(4, 4) for _ in range(2))
    tensor.load_state_dict(number.state_dict())
    batch = torch.randn(5, 4)
    for network, lr in ((number, 0.5), (tensor, torch.tensor(0.5))):
        optimizer = Muon(network.parameters(), weight_decay=0.1)
        optimizer.param_groups[0]["lr"] = lr
        for _ in range(3):
            optimizer.zero_grad()
            network(batch).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(tensor.state_dict(), number.state_dict())


def test_weights_shrink_by_a_share_of_the_learning_rate():
    weight = nn.Parameter(torch.ones(2, 3))
    weight.grad = torch.zeros(2, 3)
    Muon([weight], lr=0.5, weight_decay=0.2).step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 3), 0.9))


def test_weights_without_a_gradient_are_left_alone():
    weight = nn.Parameter(torch.ones(2, 3))
    optimizer = Muon([weight], weight_decay=0.2)
    assert optimizer.step(lambda: 3.0) == 3.0
    assert torch.equal(weight, torch.ones(2, 3))
    assert not optimizer.state


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"lr": -1}, "learning rate"), ({"momentum": 1}, "momentum"), ({"weight_decay": -1}, "decay")],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Muon([nn.Parameter(torch.ones(1))], **settings)
