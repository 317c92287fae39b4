"""Every network of the package keeps the contract; a new one is tested without being named."""

import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning import Trainer, seed_everything
from torch import nn

import mnist_zoo
from mnist_zoo import registry
from mnist_zoo.data import Digits
from mnist_zoo.models.classifier import num_parameters

NETWORKS = sorted(registry.builtin_networks())
PUBLISHED_PARAMETERS = {
    "Dense": 79_510,
    "ConvNetSimple": 289_630,
    "ConvNetTwoConv": 85_670,
    "ConvNetReLU": 85_670,
    "ConvNetDropout": 1_672_570,
    "MLPDropout": 669_706,
    "MLPLogSoftmax": 130_058,
    "ConvNetThreeDense": 710_794,
    "ConvNetBatchNorm": 279_402,
    "ConvNetSeparable": 1_438,
}


def build(name, **arguments):
    torch.manual_seed(0)
    return registry.import_class(registry.class_path(name))(**arguments)


@pytest.fixture
def images():
    return torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def targets():
    return torch.tensor([0, 1, 2, 3, 9, 9, 5, 7])


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


@pytest.fixture
def network(name):
    return build(name)


@pytest.mark.parametrize("num_images", [1, 3])
def test_maps_images_to_ten_finite_outputs(network, images, num_images):
    outputs = network(images[:num_images])
    assert outputs.shape == (num_images, 10)
    assert outputs.isfinite().all()


def test_gives_the_same_twice_in_evaluation_mode(network, images):
    network.eval()
    assert torch.equal(network(images), network(images))


def test_reads_an_image_alone_as_among_others(network, images):
    network.eval()
    torch.testing.assert_close(network(images)[2:3], network(images[2:3]))


def test_probabilities_are_probabilities(network, images):
    outputs = network.eval()(images)
    probabilities = network.probabilities(outputs)
    assert probabilities.shape == (8, 10)
    assert (probabilities >= 0).all()
    assert (probabilities <= 1).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(8))
    assert torch.equal(probabilities.argmax(dim=1), outputs.argmax(dim=1))


def test_loss_reaches_every_parameter(network, images, targets):
    network.eval()
    network.loss(network(images), targets).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_one_step_down_the_gradient_lowers_the_loss(network, images, targets):
    network.eval()
    before = network.loss(network(images), targets)
    before.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 1e-3 * parameter.grad
    assert network.loss(network(images), targets) < before


def test_has_a_recipe_whose_head_says_what_is_known_of_it(name, network):
    recipe = registry.recipes_of(name)[0]
    assert recipe.name == name
    assert {"System", "Command", "Parameters", "Source", "Time"} <= recipe.facts.keys()
    assert ("Published" in recipe.facts) == (not recipe.facts["System"].startswith("none"))
    assert all(recipe.facts.values())
    for recipe in registry.recipes_of(name):
        arguments = yaml.safe_load(recipe.path.read_text(encoding="utf-8"))["model"]["init_args"]
        assert recipe.facts["Parameters"] == f"{num_parameters(type(network)(**arguments)):,}"


@pytest.mark.parametrize(("name", "number"), PUBLISHED_PARAMETERS.items())
def test_has_as_many_parameters_as_published(network, number):
    assert num_parameters(network) == number


def test_a_checkpoint_of_lightnings_trainer_holds_plain_data_and_loads_as_it_was(
    name, images, tmp_path
):
    seed_everything(0, verbose=False)
    network = build(name, lr=0.01)
    untrained = network.eval()(images)
    network.train()
    trainer = Trainer(
        fast_dev_run=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(network, Digits(batch_size=8))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    torch.load(tmp_path / "a.ckpt", weights_only=True)

    loaded = mnist_zoo.load(tmp_path / "a.ckpt")
    assert type(loaded) is type(network)
    assert not loaded.training
    assert loaded.hparams["lr"] == 0.01
    outputs = loaded(images)
    assert torch.equal(outputs, network.eval()(images))
    assert not torch.equal(outputs, untrained), "the trainer trained nothing"


def test_pooling_before_the_activation_is_pooling_after_it(images):
    from mnist_zoo.models.convnet import conv_pool

    for activation in (nn.Sigmoid(), nn.ReLU()):
        block = conv_pool(1, 20, activation)
        convolution = next(m for m in block.modules() if isinstance(m, nn.Conv2d))
        published = F.max_pool2d(activation(convolution(images)), 2)
        torch.testing.assert_close(block(images), published)


def test_dense_is_trained_by_the_squared_error_against_one_hot_targets(images, targets):
    network = build("Dense")
    outputs = network(images)
    assert ((outputs > 0) & (outputs < 1)).all()
    total = sum(
        (outputs[i, digit].item() - (1 if targets[i] == digit else 0)) ** 2
        for i in range(8)
        for digit in range(10)
    )
    assert network.loss(outputs, targets).item() == pytest.approx(total / 80)


def test_mlp_log_softmax_is_trained_by_the_negative_log_likelihood(images, targets):
    network = build("MLPLogSoftmax")
    outputs = network(images)
    torch.testing.assert_close(outputs.exp().sum(dim=1), torch.ones(8))
    likelihoods = [outputs[i, target].exp().item() for i, target in enumerate(targets)]
    expected = -torch.tensor(likelihoods).log().mean().item()
    assert network.loss(outputs, targets).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["ConvNetSimple", "ConvNetReLU", "MLPDropout"])
def test_logits_are_trained_by_cross_entropy(network, images, targets):
    outputs = network.eval()(images)
    shares = [outputs[i].softmax(dim=0)[target].item() for i, target in enumerate(targets)]
    expected = -torch.tensor(shares).log().mean().item()
    assert network.loss(outputs, targets).item() == pytest.approx(expected, rel=1e-5)


def test_mlp_dropout_holds_one_dropout_module_used_twice():
    layers = list(build("MLPDropout").layers)
    dropouts = [layer for layer in layers if isinstance(layer, nn.Dropout)]
    assert len(dropouts) == 2
    assert dropouts[0] is dropouts[1]


@pytest.mark.parametrize("name", ["MLPDropout", "ConvNetDropout", "ConvNetThreeDense"])
def test_dropout_is_at_work_in_training_only(network, images):
    assert not torch.equal(network(images), network(images))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("Dense", {"num_hidden": 7}), ("ConvNetDropout", {"num_hidden": 12, "dropout": 0.1})],
)
def test_options_of_a_network_change_it(name, arguments, images):
    network = build(name, **arguments)
    assert num_parameters(network) < PUBLISHED_PARAMETERS[name]
    assert network(images).shape == (8, 10)
