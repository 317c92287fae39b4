import gzip
import hashlib
import shutil
import struct

import numpy as np
import pytest
import torch

from mnist_zoo.data import MNIST, DataError
from mnist_zoo.data.idx import IMAGES, LABELS, LONG_LABELS, read_idx, read_images


def idx(magic, array):
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


@pytest.fixture
def pair(tmp_path):
    images = np.arange(4 * 784, dtype=np.uint32).reshape(4, 28, 28).astype(np.uint8)
    labels = np.array([3, 0, 9, 1], dtype=np.uint8)
    paths = tmp_path / "images", tmp_path / "labels"
    paths[0].write_bytes(idx(IMAGES, images))
    paths[1].write_bytes(idx(LABELS, labels))
    return paths


def test_reads_images_and_targets(pair):
    images, targets = read_images(*pair)
    assert (images.dtype, images.shape) == (torch.uint8, (4, 28, 28))
    assert images.flatten()[:300].tolist() == [i % 256 for i in range(300)]
    assert (targets.dtype, targets.tolist()) == (torch.int64, [3, 0, 9, 1])


def test_reads_gzip_beside(pair):
    plain = read_images(*pair)
    for path in pair:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert all(map(torch.equal, read_images(*pair), plain))


def test_of_a_file_and_its_gzip_the_file_is_read(pair):
    plain = read_images(*pair)
    for path in pair:
        path.with_name(path.name + ".gz").write_bytes(b"an older one")
    assert all(map(torch.equal, read_images(*pair), plain))


def test_reads_long_labels(pair):
    labels = np.zeros((4, 8), dtype=">i4")
    labels[:, 0] = [9, 8, 0, 1]
    pair[1].write_bytes(idx(LONG_LABELS, labels))
    assert read_images(*pair, labels_magic=LONG_LABELS)[1].tolist() == [9, 8, 0, 1]


def test_missing(tmp_path):
    with pytest.raises(DataError, match=r"none does not exist, nor does none\.gz\.\nRun again"):
        read_idx(tmp_path / "none", IMAGES)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:1000], r"expected 3,152 bytes for shape \(4, 28, 28\), found 1,000"),
        (lambda data: data + b"x", r"expected 3,152 bytes .* found 3,153"),
        (lambda data: data[:5], "expected at least 16 bytes, found 5"),
        (lambda data: b"", "expected at least 16 bytes, found 0"),
        (
            lambda data: b"<!DOCTYPE html><html>",
            "expected the magic number 0x00000803, found 0x3C21444F",
        ),
        (
            lambda data: idx(IMAGES, np.zeros((4, 14, 14), np.uint8)),
            "expected images of 28 × 28 pixels, found 14 × 14",
        ),
    ],
)
def test_damaged_images(pair, damage, message):
    pair[0].write_bytes(damage(pair[0].read_bytes()))
    with pytest.raises(DataError, match=message) as error:
        read_images(*pair)
    assert str(error.value).startswith(f"{pair[0]} is damaged: ")
    assert str(error.value).endswith("\nDelete it and run again to download it.")


def test_no_images_or_labels_at_all(pair):
    whole = [path.read_bytes() for path in pair]
    pair[0].write_bytes(idx(IMAGES, np.zeros((0, 28, 28), np.uint8)))
    with pytest.raises(DataError, match=r"images is damaged: expected images, found none"):
        read_images(*pair)
    pair[0].write_bytes(whole[0])
    pair[1].write_bytes(idx(LONG_LABELS, np.zeros((4, 0), ">i4")))
    with pytest.raises(DataError, match=r"labels is damaged: expected labels, found none"):
        read_images(*pair, labels_magic=LONG_LABELS)


def test_checksum(pair):
    good = hashlib.md5(pair[0].read_bytes()).hexdigest()
    read_images(*pair, md5s={"images": good})
    data = bytearray(pair[0].read_bytes())
    data[-1] ^= 1
    pair[0].write_bytes(data)
    with pytest.raises(DataError, match=f"expected the MD5 checksum {good}, found [0-9a-f]{{32}}"):
        read_images(*pair, md5s={"images": good})


def test_damaged_gzip(pair):
    packed = pair[0].with_name("images.gz")
    packed.write_bytes(gzip.compress(pair[0].read_bytes())[:-20])
    pair[0].unlink()
    with pytest.raises(DataError, match=r"images\.gz is damaged: expected a whole gzip file"):
        read_images(*pair)


def test_images_and_labels_that_do_not_belong_together(pair):
    pair[1].write_bytes(idx(LABELS, np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match=r"holds 4 images, but .* holds 5 labels"):
        read_images(*pair)


def test_label_out_of_range(pair):
    pair[1].write_bytes(idx(LABELS, np.array([0, 10, 1, 2], np.uint8)))
    with pytest.raises(DataError, match="expected labels from 0 to 9, found 10"):
        read_images(*pair)


@pytest.mark.mnist
def test_one_flipped_bit_of_the_real_file_is_found(mnist_root, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(mnist_root / "MNIST" / "raw", raw)
    (raw / "t10k-images-idx3-ubyte").chmod(0o644)
    data = MNIST(root=str(tmp_path), download=False)
    data.load(train=False)
    with (raw / "t10k-images-idx3-ubyte").open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"\x01")
    with pytest.raises(DataError, match="MD5"):
        data.load(train=False)


def test_a_gzip_file_that_unpacks_to_more_than_any_data_set(pair, monkeypatch):
    path = pair[0]
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    monkeypatch.setattr("mnist_zoo.data.idx._LARGEST", 3000)
    with pytest.raises(DataError, match="expected at most 3,000 bytes unpacked, found more"):
        read_images(*pair)
