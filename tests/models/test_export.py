"""Every network of the zoo in every format; weights of strangers."""

import errno
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mnist_zoo
from mnist_zoo import registry
from mnist_zoo.errors import ZooError
from mnist_zoo.models import MLPLogSoftmax, checkpoint, checkpoint_files, export
from mnist_zoo.models.checkpoint_files import CheckpointError

NETWORKS = sorted(registry.builtin_networks())


def build(name):
    torch.manual_seed(0)
    return registry.import_class(registry.class_path(name))().eval()


def about(network, **data):
    entry = {"class_path": registry.path_of(type(network)), "init_args": {}}
    mnist = {"class_path": "mnist_zoo.data.MNIST", "init_args": data}
    return {"model": entry, "data": mnist, "record": {}, "licence": "MIT"}


@pytest.fixture
def images():
    return torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["state_dict", "safetensors"])
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_every_network(name, kind, images, tmp_path):
    network = build(name)
    file = tmp_path / "x.safetensors"
    assert export.export(network, kind, file, images, about(network)) == 0
    if kind == "safetensors":
        assert torch.equal(mnist_zoo.load(file).predict(images), network.predict(images))
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch_export"])
@pytest.mark.parametrize("name", NETWORKS)
def test_graph_of_every_network(name, kind, images, tmp_path):
    if kind == "onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(package)
    network = build(name)
    if kind == "onnx" and any(isinstance(m, nn.BatchNorm2d) for m in network.modules()):
        pytest.importorskip("torch", "2.7", reason="torch 2.6 exports no batch normalisation")
    network.pixel_mean, network.pixel_std = 0.5, 0.25
    assert export.export(network, kind, tmp_path / "x", images, about(network)) < 1e-5


class TwoParts(MLPLogSoftmax):
    """Has weights outside of ``layers``."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, images):
        return (super().forward(images) * self.scale).log_softmax(dim=1)


def test_only_of_a_network_that_is_its_layers_keys_are_those_of_the_layers(images, tmp_path):
    for network, first in ((build("Dense"), "1.weight"), (TwoParts().eval(), "scale")):
        file = tmp_path / "x.pt"
        assert export.export(network, "state_dict", file, images, about(network)) == 0
        keys = torch.load(file, weights_only=True).keys()
        assert next(iter(keys)) == first
        assert all(key.startswith("layers.") for key in keys - {"scale"}) == (first == "scale")


class Tied(MLPLogSoftmax):
    """Two of its layers have the same weights."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        one, two = nn.Linear(784, 784), nn.Linear(784, 784)
        two.weight = one.weight
        self.layers = nn.Sequential(nn.Flatten(), one, two, nn.Linear(784, 10))


@pytest.mark.parametrize("kind", ["state_dict", "safetensors"])
def test_weights_that_layers_share(kind, images, tmp_path):
    network = Tied().eval()
    assert export.export(network, kind, tmp_path / "x", images, about(network)) == 0


def test_a_file_may_be_read_by_whom_other_files_may(images, tmp_path):
    (tmp_path / "other").touch()
    network = build("Dense")
    for kind in ("state_dict", "safetensors"):
        export.export(network, kind, tmp_path / kind, images, about(network))
        assert (tmp_path / kind).stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("kind", ["state_dict", "safetensors", "torch_export"])
def test_a_full_disk_is_told(kind, images, tmp_path, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write)
    network = build("Dense")
    with pytest.raises(ZooError, match=r"^cannot write .*x: No space left on device\.$"):
        export.export(network, kind, tmp_path / "x", images, about(network))
    assert not list(tmp_path.iterdir())


def test_the_network_may_be_named_by_either_path(images, tmp_path):
    file = tmp_path / "x.safetensors"
    export.export(build("Dense"), "safetensors", file, images, about(build("Dense")))
    for path in ("mnist_zoo.models.Dense", "mnist_zoo.models.dense.Dense"):
        assert type(mnist_zoo.load(file, named=path)).__name__ == "Dense"
    text = r"--model my_net\.Dense does not fit .* is a checkpoint of Dense\.\n"
    with pytest.raises(CheckpointError, match=text):
        mnist_zoo.load(file, named="my_net.Dense")


def test_normalization_travels_with_the_weights(images, tmp_path):
    network = build("MLPLogSoftmax")
    network.pixel_mean, network.pixel_std = 0.5, 0.5
    file = tmp_path / "x.safetensors"
    export.export(network, "safetensors", file, images, about(network, mean=0.5, std=0.5))
    loaded = mnist_zoo.load(file)
    assert type(loaded) is MLPLogSoftmax
    assert (loaded.pixel_mean, loaded.pixel_std) == (0.5, 0.5)
    expected = network.probabilities(network((images - 0.5) / 0.5))
    assert torch.allclose(loaded.predict(images), expected)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": {"class_path": "os.system", "init_args": {}}}, "neither in this zoo"),
        ({"model": {"class_path": "mnist_zoo.models.dense.Dense"}}, "no mnist-zoo network"),
        ({"model": {"class_path": "mnist_zoo.models.dense.Dense",
                    "init_args": {"lr": {"class_path": "os.system"}}}}, "no mnist-zoo network"),
        ({"model": {"class_path": "mnist_zoo.models.dense.Dense",
                    "init_args": {"surprise": 1}}}, "does not fit"),
        ({"record": 3}, "no mnist-zoo network"),
        ({"data": {"class_path": "x", "init_args": {"std": 0}}}, "is not usable"),
        ({"data": {"class_path": "x", "init_args": {"mean": "much"}}}, "is not usable"),
    ],
)  # fmt: skip
def test_weights_of_a_stranger_run_nothing(change, text, tmp_path):
    network = build("Dense")
    content = json.dumps(about(network) | change)
    save_file(network.state_dict(), tmp_path / "x.safetensors", {"mnist_zoo": content})
    with pytest.raises(CheckpointError, match=text):
        mnist_zoo.load(tmp_path / "x.safetensors")


def test_damaged_weights_are_told(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(100)}, file)
    with pytest.raises(CheckpointError, match="no mnist-zoo network"):
        mnist_zoo.load(file)
    for content in (file.read_bytes()[:-9], b"hello", b"\xff" * 100):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged"):
            mnist_zoo.load(file)
    file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty"):
        mnist_zoo.load(file)


def test_installed_weights_have_names(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in registry.shipped_weights():
        assert isinstance(mnist_zoo.load(name), mnist_zoo.models.Classifier)
    assert checkpoint_files.find(None).stem == registry.DEFAULT_WEIGHTS
    with pytest.raises(CheckpointError, match="Did you mean ConvNetReLU"):
        mnist_zoo.load("ConvNetRelu")
    (tmp_path / "ConvNetReLU").mkdir()
    assert isinstance(mnist_zoo.load("ConvNetReLU"), mnist_zoo.models.ConvNetReLU)
    with pytest.raises(CheckpointError, match="is a folder, not a file"):
        mnist_zoo.load(tmp_path / "ConvNetReLU")
    file = checkpoint_files.find(None)
    monkeypatch.setattr(registry, "shipped_weights", lambda: {"Net-99.7": file})
    assert checkpoint_files.find("Net-99.7") == file
    monkeypatch.setattr(registry, "shipped_weights", dict)
    with pytest.raises(CheckpointError, match="no weights are installed"):
        checkpoint_files.find(None)


def test_weights_that_may_not_be_read_are_told(monkeypatch, tmp_path):
    def refused(*_, **__):  # as safetensors says it
        raise FileNotFoundError("No such file or directory: x.safetensors")

    (tmp_path / "x.safetensors").write_bytes(b"secret")
    monkeypatch.setattr(checkpoint, "safe_open", refused)
    with pytest.raises(CheckpointError, match="cannot be opened: permission denied"):
        mnist_zoo.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("kind", "module"), [("state_dict", torch), ("safetensors", export)])
def test_what_is_compared_is_what_the_file_holds(kind, module, images, tmp_path, monkeypatch):
    network, save = build("Dense"), module.save

    def damaged(state, *more):
        return save({name: weight + 1 for name, weight in state.items()}, *more)

    monkeypatch.setattr(module, "save", damaged)
    with pytest.raises(export.ExportError, match=r"differs by .*: nothing was written"):
        export.export(network, kind, tmp_path / "x", images, about(network))
    assert not list(tmp_path.iterdir())


def test_what_becomes_a_graph_normalises_pixels_and_gives_probabilities(images):
    network = build("ConvNetReLU")
    network.pixel_mean, network.pixel_std = 0.5, 0.25
    torch.testing.assert_close(export.EndToEnd(network)(images), network.predict(images))


@pytest.mark.parametrize("argument", [{1: 2}, {2, 3}, {"a": {(1, 2): 3}}])
@pytest.mark.parametrize("kind", sorted(export.FORMATS.keys() - {"state_dict"}))
def test_an_argument_that_the_file_cannot_hold_is_told(kind, argument, images, tmp_path):
    network = build("Dense")
    described = about(network)
    described["model"]["init_args"] = {"own": argument, "lr": math.nan}
    with pytest.raises(export.ExportError, match="Dense or its data has an argument that JSON"):
        export.export(network, kind, tmp_path / "x", images, described)
    assert not list(tmp_path.iterdir())


def test_tuples_are_stored_as_lists(images, tmp_path):
    network = build("Dense")
    described = about(network)
    described["model"]["init_args"] = {"optimizer_args": {"betas": (0.9, 0.99)}}
    export.export(network, "safetensors", tmp_path / "x.safetensors", images, described)
    assert mnist_zoo.load(tmp_path / "x.safetensors").optimizer_args == {"betas": [0.9, 0.99]}


@pytest.mark.parametrize(
    "record",
    [
        {"test_acc": "abc", "num_test_images": 10}, {"test_acc": math.nan, "num_test_images": 10},
        {"test_acc": 10**400, "num_test_images": 10}, {"test_acc": 0.9, "num_test_images": None},
        {"test_acc": 0.9},
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_told(record, images, tmp_path):
    network, file = build("Dense"), tmp_path / "x.safetensors"
    export.export(network, "safetensors", file, images, {**about(network), "record": record})
    with pytest.raises(CheckpointError, match="no mnist-zoo network"):
        mnist_zoo.load(file)
