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
from mnist_zoo.engine.probe import are_probabilities
from mnist_zoo.models.classifier import Classifier, num_parameters
from mnist_zoo.recipes import recipes_of

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
    "ConvNetThreeConv": 94_698,
    "ConvNetUnpadded": 1_128_180,
    "ConvNetResidual": 4_732_682,
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


def test_maps_images_to_ten_finite_outputs(network, images):
    outputs = network(images)
    assert outputs.shape == (len(images), 10)
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


def test_gives_what_its_loss_takes(network, images):
    """Probabilities in place of logits would train, but worse."""
    is_cross_entropy = type(network).loss is Classifier.loss
    assert not (is_cross_entropy and are_probabilities(network.eval()(images)))


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
    recipe = recipes_of(name)[0]
    assert recipe.name == name
    assert {"System", "Command", "Parameters", "Source", "Time"} <= recipe.facts.keys()
    assert ("Published" in recipe.facts) == (not recipe.facts["System"].startswith("none"))
    assert all(recipe.facts.values())
    for recipe in recipes_of(name):
        model = yaml.safe_load(recipe.path.read_text(encoding="utf-8"))["model"]
        assert registry.import_class(model["class_path"]) is type(network)
        arguments = model["init_args"]
        assert recipe.facts["Parameters"] == f"{num_parameters(type(network)(**arguments)):,}"


def layers(sequential):
    """The layers in the order in which an image goes through them, a dropout with its share."""
    for layer in sequential:
        if isinstance(layer, nn.Sequential):
            yield from layers(layer)
        elif not isinstance(layer, nn.Identity):
            share = f" {layer.p}" if isinstance(layer, nn.Dropout) else ""
            yield f"{type(layer).__name__}{share}"


CONV_SIGMOID, CONV_RELU = "Conv2d, MaxPool2d, Sigmoid", "Conv2d, MaxPool2d, ReLU"
POOLED, KEPT = "Conv2d, MaxPool2d, BatchNorm2d, ReLU", "Conv2d, BatchNorm2d, ReLU"


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "Dense": "Flatten, Linear, Sigmoid, Linear, Sigmoid",
        "ConvNetSimple": f"{CONV_SIGMOID}, Flatten, Linear, Sigmoid, Linear",
        "ConvNetTwoConv": f"{CONV_SIGMOID}, {CONV_SIGMOID}, Flatten, Linear, Sigmoid, Linear",
        "ConvNetReLU": f"{CONV_RELU}, {CONV_RELU}, Flatten, Linear, ReLU, Linear",
        "ConvNetDropout": f"{CONV_RELU}, {CONV_RELU}, Flatten, Dropout 0.5, Linear, ReLU,"
        " Dropout 0.5, Linear, ReLU, Dropout 0.5, Linear",
        "ConvNetThreeDense": f"{CONV_RELU}, Dropout 0.25, {CONV_RELU}, Flatten, Linear, ReLU,"
        " Dropout 0.5, Linear, ReLU, Linear",
        "MLPDropout": "Flatten, Linear, ReLU, Dropout 0.5, Linear, ReLU, Dropout 0.5, Linear",
        "MLPLogSoftmax": "Flatten, Linear, ReLU, Linear, ReLU, Linear, ReLU, Linear, ReLU, Linear,"
        " LogSoftmax",
        "ConvNetBatchNorm": f"{POOLED}, {KEPT}, {POOLED}, {KEPT}, {KEPT}, MaxPool2d, Flatten,"
        " Linear",
        "ConvNetSeparable": f"{POOLED}, Separable, MaxPool2d, Separable, MaxPool2d, Separable,"
        " AdaptiveAvgPool2d, Flatten, Linear",
    }.items(),
)
def test_has_the_layers_that_it_names(network, expected):
    assert ", ".join(layers(network.layers)) == expected


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


def test_the_probabilities_of_dense_are_in_proportion_to_its_activations():
    outputs = torch.rand(8, 10) / 2
    probabilities = build("Dense").probabilities(outputs)
    torch.testing.assert_close(probabilities, outputs / outputs.sum(dim=1, keepdim=True))


@pytest.mark.parametrize(("name", "share"), [("ConvNetBatchNorm", 0.1), ("ConvNetSeparable", 0.0)])
def test_targets_are_softened_as_much_as_the_options_say(network, share):
    assert network.label_smoothing == share


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


@pytest.mark.parametrize(
    ("name", "arguments", "shares"),
    [
        ("MLPDropout", {"dropout": 0.3}, [0.3, 0.3]),
        ("ConvNetDropout", {"dropout": 0.3}, [0.3, 0.3, 0.3]),
        ("ConvNetThreeDense", {"conv_dropout": 0.1, "dropout": 0.2}, [0.1, 0.2]),
    ],
)
def test_the_share_that_is_dropped_is_an_argument(name, arguments, shares):
    layers = build(name, **arguments).layers
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == shares


@pytest.mark.parametrize(("padding", "sides"), [(2, (14, 7)), (0, (12, 6))])
def test_padding_keeps_the_size_of_the_image(padding, sides, images):
    layers = build("ConvNetBatchNorm", padding=padding).layers
    assert [maps.shape[-1] for maps in (layers[0](images), layers[:3](images))] == list(sides)


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


NORMALIZED = ["ConvNetBatchNorm", "ConvNetSeparable"]


@pytest.mark.parametrize("name", NORMALIZED)
def test_targets_are_softened_in_training_only(name, targets):
    network, outputs = build(name, label_smoothing=0.2), torch.randn(8, 10)
    plain = F.cross_entropy(outputs, targets)
    spread = -outputs.log_softmax(dim=1).mean()
    torch.testing.assert_close(network.loss(outputs, targets), 0.8 * plain + 0.2 * spread)
    torch.testing.assert_close(network.eval().loss(outputs, targets), plain)


@pytest.mark.parametrize("name", NORMALIZED)
def test_weights_decay_and_biases_and_norms_do_not(name):
    network = build(name, lr=0.1, weight_decay=0.5)
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    network.configure_optimizers().step()
    for name, parameter in network.named_parameters():
        expected = torch.full_like(parameter, 0.95 if parameter.ndim > 1 else 1)
        torch.testing.assert_close(parameter, expected, msg=name)


def test_there_is_no_network_of_an_et_al_with_kernels_of_another_size():
    with pytest.raises(ValueError, match="kernel_size 4: must be 3, 5 or 7"):
        build("ConvNetUnpadded", kernel_size=4)


@pytest.mark.parametrize(
    ("kernel_size", "num_maps", "number"),
    [
        (3, [32, 48, 64, 80, 96, 112, 128, 144, 160, 176], 1_124_180),
        (5, [32, 64, 96, 128, 160], 1_128_180),
        (7, [48, 96, 144, 192], 2_291_972),
    ],
)
def test_the_networks_of_an_et_al_have_as_many_maps_as_published(kernel_size, num_maps, number):
    network = build("ConvNetUnpadded", kernel_size=kernel_size)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == num_maps
    assert {layer.kernel_size for layer in convolutions} == {(kernel_size, kernel_size)}
    assert num_parameters(network) == number


def test_the_middle_of_an_image_is_enlarged_and_normalised():
    from mnist_zoo.models.residual import Enlarge

    images = torch.zeros(3, 1, 28, 28)
    images[0, :, 1:26, 1:26] = torch.rand(25, 25)
    images[1] = images[0] * 0.1
    enlarged = Enlarge()(images)
    assert enlarged.shape == images.shape
    torch.testing.assert_close(enlarged[0].mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(enlarged[0].std(), torch.tensor(1.0), rtol=0, atol=1e-2)
    # Brightness makes no difference, and a black image is none.
    torch.testing.assert_close(enlarged[1], enlarged[0], rtol=0, atol=0.05)
    assert not enlarged[2].any()
    ink = torch.zeros(1, 1, 28, 28)
    ink[..., 13, 13] = 1  # the pixel in the middle of the 25
    (rows, columns) = (Enlarge()(ink)[0, 0] > 1).nonzero(as_tuple=True)
    assert (rows.float().mean(), columns.float().mean()) == (13.5, 13.5)
    ink = torch.zeros(1, 1, 28, 28)
    ink[..., 0, :] = ink[..., 26:, :] = ink[..., :, 0] = ink[..., :, 26:] = 1
    assert not Enlarge()(ink).any()


def test_what_is_residual_is_added_to_the_normalised_maps():
    from mnist_zoo.models.residual import Residual

    torch.manual_seed(0)
    layer, maps = Residual(4).train(), torch.randn(5, 4, 6, 6)
    normalised = (maps - maps.mean((0, 2, 3), keepdim=True)) / (
        maps.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(layer(maps), normalised + layer.conv(normalised).relu())


def test_a_separable_convolution_adds_to_what_it_has_from_the_second_time_on():
    from mnist_zoo.models.batchnorm import Separable

    torch.manual_seed(0)
    separable, maps = Separable(4, num_times=3).eval(), torch.randn(2, 4, 6, 6)
    first, second, third = separable.norms
    torch.nn.init.zeros_(third.weight)
    once = first(separable.conv(maps)).relu()
    twice = once + second(separable.conv(once)).relu()
    torch.testing.assert_close(separable(maps), twice)
