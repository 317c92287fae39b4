"""What a checkpoint can hold of a network or data set."""

import numpy as np
import pytest
import torch

from mnist_zoo import stored
from mnist_zoo.errors import ZooError
from mnist_zoo.models import Dense


def quoted(text, times):
    """Return what YAML reads as a text, which it reads as a text, and so on to the first."""
    for _ in range(times):
        text = "'" + text.replace("'", "''") + "'"
    return text


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 0.5, "", " ", "1e-3", "null", "torch.nn.ReLU", quoted("sgd", 3), [1, [2]],
        (1, "x"), {1, 2}, {"momentum": 0.9, 3: ["x"]}, list(range(9000)),
    ],
)  # fmt: skip
def test_numbers_and_words_are_harmless(value):
    assert stored.is_plain(value)


@pytest.mark.parametrize(
    "value",
    [
        {"class_path": "subprocess.Popen"},
        [{"x": ({"class_path": "x"},)}],
        "{class_path: subprocess.Popen}",
        {"{a: 1}": 0},
        quoted("{a: 1}", 3),
        quoted("sgd", 11),
        "- a", "[a]", "a: b", "!!python/name:os.system", "x" * 10_001,
        list(range(10_001)), object(), torch.nn.ReLU, torch.zeros(1), np.float32(1), b"x",
    ],
)  # fmt: skip
def test_what_could_be_read_as_more_is_not(value):
    assert not stored.is_plain(value)


def test_numbers_of_numpy_and_torch_become_pythons_own():
    held = stored.to_python({"a": [np.float32(0.5), (torch.tensor(2), {np.int64(3)})], "b": "x"})
    assert held == {"a": [0.5, (2, {3})], "b": "x"}
    assert [type(held["a"][0]), type(held["a"][1][0])] == [float, int]


def test_a_network_is_its_class_and_the_arguments_that_it_takes():
    network = Dense(lr=np.float64(0.25))
    entry = stored.class_and_arguments(network)
    assert entry["class_path"] == "mnist_zoo.models.dense.Dense"
    assert entry["init_args"]["lr"] == 0.25
    assert Dense(**entry["init_args"]).hparams == network.hparams
    stored.require_plain_arguments(network)


def test_the_argument_that_is_not_plain_is_named():
    with pytest.raises(ZooError, match="Dense: its argument optimizer_args is of dict"):
        stored.require_plain_arguments(Dense(optimizer_args={"momentum": torch.zeros(2)}))
