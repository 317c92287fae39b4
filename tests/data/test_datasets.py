import re
import struct
import threading
from concurrent import futures
from contextlib import nullcontext
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torchvision import datasets as vision

from mnist_zoo.data import (
    EMNIST,
    KMNIST,
    MNIST,
    QMNIST,
    DataError,
    Digits,
    FashionMNIST,
    ImageData,
    TextFile,
    write_text,
)
from mnist_zoo.data import datasets as datasets_module
from mnist_zoo.data.download import alone

OTHERS = [FashionMNIST, KMNIST, QMNIST, EMNIST]


def write_files(cls, root):
    """Write 20 training and 10 test images in the layout of torchvision; return the images."""
    raw = Path(root, cls.__name__, "raw")
    raw.mkdir(parents=True)
    random = np.random.RandomState(0)
    written = []
    for names, num in ((cls.names[:2], 20), (cls.names[2:], 10)):
        images = random.randint(0, 256, (num, 28, 28)).astype(np.uint8)
        labels = np.arange(num) % 10
        (raw / names[0]).write_bytes(struct.pack(">4I", 0x803, *images.shape) + images.tobytes())
        if cls is QMNIST:
            table = np.stack([labels, *[np.full(num, 77)] * 7], axis=1).astype(">i4")
            header = struct.pack(">3I", 0xC02, num, 8)
        else:
            table = labels.astype(np.uint8)
            header = struct.pack(">2I", 0x801, num)
        (raw / names[1]).write_bytes(header + table.tobytes())
        written.append(torch.from_numpy(images))
    return written


@pytest.mark.parametrize("cls", OTHERS)
def test_reads_what_torchvision_reads(cls, tmp_path):
    written = write_files(cls, tmp_path)
    data = cls(root=str(tmp_path), download=False)
    data.prepare_data()
    for train in (True, False):
        images, targets = data.load(train)
        reference = getattr(vision, cls.__name__)(tmp_path, train=train, **cls.options)
        assert (images.dtype, targets.dtype) == (torch.uint8, torch.int64)
        assert images.is_contiguous()
        assert targets.tolist() == [int(target) for _, target in reference]
        expected = written[0 if train else 1]
        assert torch.equal(reference.data, expected)
        assert torch.equal(images, expected.transpose(1, 2) if cls is EMNIST else expected)
    assert len(data.classes) == 10


def test_files_not_of_mnist_are_refused_by_checksum(tmp_path):
    write_files(MNIST, tmp_path)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is damaged: expected the MD5"):
        MNIST(root=str(tmp_path)).load(train=True)


def test_class_names():
    assert MNIST.classes == tuple("0123456789")
    assert FashionMNIST.classes == tuple(vision.FashionMNIST.classes)
    assert KMNIST.classes == tuple(vision.KMNIST.classes)


def test_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MNIST_ZOO_DATA", raising=False)
    assert MNIST().hparams["root"] == str(tmp_path / "data")
    monkeypatch.setenv("MNIST_ZOO_DATA", "elsewhere")
    assert MNIST().hparams["root"] == str(tmp_path / "elsewhere")
    assert MNIST(root="mine").hparams["root"] == str(tmp_path / "mine")
    assert MNIST(root="~/x").hparams["root"] == str(Path.home() / "x")


def test_hyperparameters_make_the_same_data_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = KMNIST(root="data", batch_size=7, val_size=0.25)
    assert all(isinstance(v, str | int | float | None) for v in data.hparams.values())
    monkeypatch.chdir("/")
    again = KMNIST(**data.hparams)
    assert again.hparams == data.hparams
    assert (again.root, again.batch_size, again.val_size) == (tmp_path / "data", 7, 0.25)


class FakeVision:
    """Stands for a class of torchvision that downloads; fails where it is told to."""

    def __init__(self, cls, error=None):
        self.cls, self.error, self.calls = cls, error, []

    def __call__(self, root, train, download, **options):
        assert download
        self.calls.append((train, options))
        raw = Path(root, self.cls.__name__, "raw")
        if self.error:
            raw.mkdir(parents=True)
            (raw / self.cls.names[0]).write_bytes(b"half")
            raise self.error
        if not raw.exists():
            write_files(self.cls, root)
            (raw / "archive.gz").write_bytes(b"not wanted")


@pytest.fixture
def fake(monkeypatch):
    def install(cls, error=None):
        vision_class = FakeVision(cls, error)
        monkeypatch.setattr(vision, cls.__name__, vision_class)
        return vision_class

    return install


@pytest.mark.parametrize("cls", [KMNIST, EMNIST])
def test_downloads_what_is_missing_and_nothing_else(cls, tmp_path, fake):
    vision_class = fake(cls)
    data = cls(root=str(tmp_path / "new" / "root"))
    data.prepare_data()
    assert sorted(path.name for path in data.raw.iterdir()) == sorted(cls.names)
    assert list(data.root.iterdir()) == [data.root / cls.__name__]
    assert vision_class.calls == [(True, cls.options), (False, cls.options)]
    assert len(data.load(train=True)[0]) == 20

    (data.raw / cls.names[0]).unlink()
    (data.raw / cls.names[1]).write_bytes(b"mine")
    data.prepare_data()
    assert (data.raw / cls.names[0]).exists()
    assert (data.raw / cls.names[1]).read_bytes() == b"mine"
    assert len(vision_class.calls) == 4
    data.prepare_data()
    assert len(vision_class.calls) == 4


def test_of_processes_that_want_the_same_one_downloads(tmp_path, fake):
    vision_class = fake(KMNIST)
    datasets = [KMNIST(root=str(tmp_path)) for _ in range(2)]
    asked = threading.Event()

    def asking(root):
        asked.set()
        return alone(root)

    with (
        futures.ThreadPoolExecutor() as pool,
        alone(tmp_path),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(datasets_module, "alone", asking)
        waiting = pool.submit(datasets[0].prepare_data)
        assert asked.wait(60)
        with pytest.raises(futures.TimeoutError):
            waiting.result(0.2)
        patch.setattr(datasets_module, "alone", lambda _: nullcontext())
        datasets[1].prepare_data()
    waiting.result(60)
    assert len(vision_class.calls) == 2


@pytest.mark.parametrize(
    "error",
    [
        URLError("no network"),
        RuntimeError("Error downloading x:\nTried y, got:\nno network"),
        OSError(28, "no network"),
    ],
)
def test_a_failed_download_says_what_to_do_and_leaves_nothing(error, tmp_path, fake):
    fake(MNIST, error)
    data = MNIST(root=str(tmp_path))
    with pytest.raises(DataError) as caught:
        data.prepare_data()
    message = str(caught.value)
    assert re.match(r"MNIST could not be downloaded: .*no network.*\n[^\n]*$", message)
    for hint in (*MNIST.names, str(tmp_path / "MNIST" / "raw"), "--data.root", "--data Digits"):
        assert hint in message
    assert not list(tmp_path.iterdir())


def test_a_download_that_fails_half_way_leaves_nothing(tmp_path, fake, monkeypatch):
    whole = fake(MNIST)

    def half(root, train, download):
        if not train:
            raise URLError("no network")
        whole(root, train, download)

    monkeypatch.setattr(vision, "MNIST", half)
    with pytest.raises(DataError, match="could not be downloaded: no network"):
        MNIST(root=str(tmp_path)).prepare_data()
    assert not list(tmp_path.iterdir())


def test_an_interrupted_download_leaves_nothing(tmp_path, fake):
    fake(MNIST, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        MNIST(root=str(tmp_path)).prepare_data()
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


def test_without_download_missing_files_are_an_error(tmp_path):
    with pytest.raises(DataError, match=r"^MNIST is not in .*raw and --data\.download is false"):
        MNIST(root=str(tmp_path), download=False).prepare_data()
    assert not list(tmp_path.iterdir())


def test_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/x cannot be written \(Not a directory\).\n.*--data"):
        MNIST(root=str(tmp_path / "file" / "x")).prepare_data()


def test_digits():
    data = Digits()
    data.setup("fit")
    data.setup("test")
    assert (data.num_train_images, data.num_val_images, data.num_test_images) == (1293, 144, 360)
    images, targets = data.load(train=True)
    assert (images.dtype, images.shape) == (torch.uint8, (1437, 28, 28))
    assert images.max() == 255
    inner = images[:, 4:24, 4:24]
    assert images.sum() == inner.sum()
    assert targets.dtype == torch.int64

    test_images, test_targets = data.load(train=False)
    assert torch.bincount(test_targets).min() >= 34
    assert test_targets[:8].tolist() == [7, 6, 3, 7, 7, 3, 2, 8]  # the same for ever
    assert data.val_size == 0.1
    train, test = ({image.tobytes() for image in part.numpy()} for part in (images, test_images))
    assert not train & test


def test_digits_look_like_their_originals():
    from sklearn.datasets import load_digits

    images, targets = Digits().load(train=True)
    small, labels = load_digits(return_X_y=True)
    # Each enlarged image, made small again, is nearest to an original of its own label.
    shrunk = torch.nn.functional.adaptive_avg_pool2d(images[:50, 4:24, 4:24].float(), 8)
    distances = torch.cdist(shrunk.flatten(1) * 16 / 255, torch.from_numpy(small).float())
    assert labels[distances.argmin(dim=1)].tolist() == targets[:50].tolist()


def test_text_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8)
    write_text("train.txt", images, torch.arange(40) % 10)
    data = TextFile(train_file="train.txt")
    monkeypatch.chdir("/")
    data.setup("fit")
    assert (data.num_train_images, data.num_val_images) == (36, 4)
    assert data.hparams["train_file"] == str(tmp_path / "train.txt")
    with pytest.raises(
        DataError, match=r"TextFile has no file for this: name it with --data\.test"
    ):
        data.setup("test")
    with pytest.raises(DataError, match=r"name it with --data\.train_file"):
        TextFile(test_file=str(tmp_path / "train.txt")).setup("fit")


@pytest.fixture
def parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    return parser


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("text", "value"), [("0.2", 0.2), ("5000", 5000), ("0", 0)])
def test_flags(parser, text, value):
    args = parser.parse_args(["--data=MNIST", f"--data.val_size={text}", "--data.root=there"])
    data = parser.instantiate_classes(args).data
    assert isinstance(data, MNIST)
    assert (data.val_size, type(data.val_size)) == (value, type(value))
    assert data.root == Path("there").absolute()


def test_help_shows_every_argument(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--data.help=FashionMNIST"])
    text = capsys.readouterr().out
    for argument in ("root", "download", "batch_size", "val_size", "expanded", "split_seed"):
        assert re.search(rf"^  --data\.{argument} [^\n]*\n +[^ (]", text, re.MULTILINE), argument


@pytest.mark.mnist
def test_real_mnist(mnist_root):
    data = MNIST(root=str(mnist_root), download=False)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert (data.num_train_images, data.num_val_images, data.num_test_images) == (
        55_000,
        5_000,
        10_000,
    )
    reference = vision.MNIST(mnist_root, train=False)
    assert torch.equal(data.splits["test"][0], reference.data)
    assert torch.equal(data.splits["test"][1], reference.targets)


@pytest.mark.parametrize("given", ["MNIST", "MNIST/raw"])
def test_a_root_that_is_one_level_too_deep_is_told(given, tmp_path):
    write_files(MNIST, tmp_path)
    with pytest.raises(DataError, match=f"Did you mean --data.root {tmp_path}\\?"):
        MNIST(root=str(tmp_path / given)).prepare_data()
