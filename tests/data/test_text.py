import errno
import gzip
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from mnist_zoo.data import MNIST, DataError, read_text, write_text
from mnist_zoo.errors import ZooError


def line(*, pixels=(0,) * 784, label=5):
    return "\t".join(map(str, (*pixels, label)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "digits.txt"


def test_round_trip(path):
    images = torch.randint(0, 256, (20, 28, 28), dtype=torch.uint8)
    targets = torch.arange(20) % 10
    write_text(path, images, targets, comment="two\nlines")
    read_images, read_targets = read_text(path)
    assert (read_images.dtype, read_targets.dtype) == (torch.uint8, torch.int64)
    assert torch.equal(read_images, images)
    assert torch.equal(read_targets, targets)


def test_the_format_is_that_of_the_converter(path):
    images = torch.zeros(1, 28, 28, dtype=torch.uint8)
    images[0, 0, 1], images[0, 27, 27] = 12, 255
    write_text(path, images, torch.tensor([7]), comment="hello")
    pixels = [0, 12, *[0] * 781, 255]
    assert path.read_text() == "# hello\n" + line(pixels=pixels, label=7) + "\n"
    assert path.read_text().count("\t") == 784


def test_comments_blank_lines_and_windows_line_ends(path):
    path.write_bytes(
        b"\xef\xbb\xbf# made \xc3\xbcp\r\n\r\n"
        + line(label=3).encode()
        + b"\t# a three\r\n   \r\n"
        + line(label=4).encode()
    )
    assert read_text(path)[1].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            line(pixels=[0] * 780),
            "expected 784 pixel values and a label, 785 in all, found 781",
        ),
        (line() + "\t1", "expected 784 pixel values and a label, 785 in all, found 786"),
        (line(pixels=[0] * 783 + ["1.5"]), r"expected integers, found '1\.5'"),
        (line(pixels=[0] * 783 + ["9" * 40]), "expected integers, found '999"),
        (line(pixels=[0, 256] + [0] * 782), "expected pixels from 0 to 255, found 256 as value 2"),
        (line(pixels=[-1] + [0] * 783), "expected pixels from 0 to 255, found -1 as value 1"),
        (line(label=10), "expected a label from 0 to 9 as the last value, found 10"),
        (line(pixels=[0] * 783 + ["1_0"]), "expected integers, found '1_0'"),
        (line(label="five"), "expected integers, found 'five'"),
        (line(pixels=["1,5"] + [0] * 783), "expected integers, found '1,5'"),
        (line().replace("\t", ","), "the values are separated by commas; expected tabs, and"),
        (line().replace("\t", ", "), "the values are separated by commas; expected tabs, and"),
    ],
)
def test_a_bad_line_is_named(path, bad, message):
    path.write_text(f"# comment\n\n{line()}\n{bad}\n{line()}\n")
    with pytest.raises(DataError, match=rf"digits\.txt, line 4: {message}"):
        read_text(path)


def test_not_text(path):
    path.write_bytes(line().encode() + b"\n\xff\xfe\x00\n")
    with pytest.raises(DataError, match="line 2: this is not text in UTF-8"):
        read_text(path)


@pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n"])
def test_empty(path, content):
    path.write_text(content)
    with pytest.raises(DataError, match=r"digits\.txt holds no images"):
        read_text(path)


def test_missing(path):
    with pytest.raises(DataError, match=r"digits\.txt cannot be read: No such file"):
        read_text(path)


def test_cannot_be_written(tmp_path):
    with pytest.raises(ZooError, match=r"cannot write .*a\.txt: No such file or directory"):
        write_text(
            tmp_path / "none" / "a.txt",
            torch.zeros(1, 28, 28, dtype=torch.uint8),
            torch.tensor([1]),
        )


def test_a_failed_write_leaves_the_old_file_and_no_other(path, monkeypatch):
    path.write_text("old")

    def replace(self, target):
        assert self.stat().st_size > 1000  # all of it is written by now
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(ZooError, match=r"cannot write .*: No space left on device"):
        write_text(path, torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([1, 2]))
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.mnist
def test_round_trip_of_real_images(mnist_root, path):
    images, targets = MNIST(root=str(mnist_root), download=False).load(train=True)
    write_text(path, images[:1000], targets[:1000])
    read_images, read_targets = read_text(path)
    assert torch.equal(read_images, images[:1000])
    assert torch.equal(read_targets, targets[:1000])
    assert np.array_equal(np.loadtxt(path, dtype=int)[:, -1], targets[:1000])


def test_a_compressed_file_says_what_to_do(tmp_path):
    file = tmp_path / "images.txt.gz"
    file.write_bytes(gzip.compress(line().encode()))
    with pytest.raises(DataError, match=r"line 1: this is compressed; unpack it first\."):
        read_text(file)


def test_labels_that_stand_first_are_told(path):
    path.write_text("\n".join(line(pixels=[label, *[0] * 783], label=0) for label in (3, 4)))
    with pytest.raises(DataError, match="is that the label"):
        read_text(path)
    path.write_text("\n".join(line(label=0) for _ in range(2)))
    assert read_text(path)[1].tolist() == [0, 0]


def test_a_file_without_lines_is_not_read_whole(path, monkeypatch):
    path.write_bytes(b"\0" * 10**6)
    asked = []

    class Asked(io.BytesIO):
        def readline(self, size=-1):
            asked.append(size)
            return super().readline(size)

    monkeypatch.setattr(type(path), "open", lambda *_: Asked(b"\0" * 10**6))
    with pytest.raises(DataError, match=r"line 1: expected 784 pixel values"):
        read_text(path)
    assert all(0 < size < 10**6 for size in asked)
