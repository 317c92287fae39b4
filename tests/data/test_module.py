from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything

from mnist_zoo.data import MNIST, DataError, Digits, ImageData, expand, to_float


class Synthetic(ImageData):
    """200 training and 30 test images, each unlike any other, also when shifted."""

    def __init__(self, val_size=20, **kwargs):
        super().__init__(val_size=val_size, **kwargs)
        self.loads = []

    def load(self, train):
        self.loads.append(train)
        num = 200 if train else 30
        generator = torch.Generator().manual_seed(int(train))
        images = torch.randint(0, 256, (num, 28, 28), dtype=torch.uint8, generator=generator)
        return images, torch.arange(num) % 10


def ready(stage="fit", **kwargs):
    data = Synthetic(**kwargs)
    data.setup(stage)
    return data


def rows(images):
    return {image.numpy().tobytes() for image in images}


def test_splits():
    data = ready()
    images, targets = data.load(train=True)
    train, validation = rows(data.splits["train"][0]), rows(data.splits["validation"][0])
    assert (len(train), len(validation)) == (180, 20)
    assert train | validation == rows(images)
    label = {image.numpy().tobytes(): target for image, target in zip(images, targets, strict=True)}
    for split in data.splits.values():
        for image, target in zip(*split, strict=True):
            assert label[image.numpy().tobytes()] == target


def test_the_split_is_the_same_for_ever():
    images, _ = Synthetic().load(train=True)
    held_out = ready(val_size=5).splits["validation"][0]
    assert torch.equal(held_out, images[[18, 98, 107, 170, 177]])
    assert np.random.RandomState(0).permutation(60_000)[:5].tolist() == [
        3048,
        19563,
        58303,
        8870,
        40228,
    ]


def test_another_seed_holds_out_others():
    one, two = (rows(ready(split_seed=seed).splits["validation"][0]) for seed in (0, 1))
    assert one != two


def test_without_a_seed_the_last_images_are_held_out():
    data = ready(split_seed=None, val_size=30)
    images, targets = data.load(train=True)
    for split, part in (("train", slice(None, -30)), ("validation", slice(-30, None))):
        assert torch.equal(data.splits[split][0], images[part])
        assert torch.equal(data.splits[split][1], targets[part])


def test_without_validation_the_training_images_keep_their_order():
    data = ready(val_size=0, num_train=50)
    images, targets = data.load(train=True)
    assert torch.equal(data.splits["train"][0], images[:50])
    assert torch.equal(data.splits["train"][1], targets[:50])
    assert data.val_dataloader() == []


@pytest.mark.parametrize(
    ("val_size", "num_val"), [(0, 0), (1, 1), (199, 199), (0.0, 0), (0.2, 40), (0.29, 58)]
)
def test_val_size(val_size, num_val):
    data = ready(val_size=val_size)
    assert (data.num_val_images, data.num_train_images) == (num_val, 200 - num_val)


def test_no_shifted_copy_of_a_validation_image_is_trained_on():
    data = ready(expanded=True)
    assert data.num_train_images == 5 * 180
    validation = expand(*data.splits["validation"])[0]
    assert not rows(validation) & rows(data.splits["train"][0])


def test_setup_twice_changes_nothing_and_loads_what_is_needed():
    data = ready("validate")
    before = dict(data.splits)
    data.setup("fit")
    assert all(data.splits[name] is before[name] for name in ("train", "validation"))
    assert data.loads == [True]
    data.setup("test")
    data.setup("predict")
    assert data.loads == [True, False]
    assert data.num_test_images == 30
    assert Synthetic().num_test_images == 0


def test_setup_without_a_stage_loads_everything():
    data = Synthetic()
    data.setup()
    assert (data.num_train_images, data.num_val_images, data.num_test_images) == (180, 20, 30)
    assert data.loads == [True, False]


def test_says_what_is_loaded():
    data = Synthetic()
    assert str(data) == repr(data) == "<Synthetic: no images>"
    data.setup()
    assert str(data) == repr(data) == "<Synthetic: 180 train, 20 validation, 30 test images>"


@pytest.mark.parametrize(
    ("loader", "loaded", "stage"),
    [
        ("train_dataloader", "test", "fit"),
        ("val_dataloader", "test", "fit"),
        ("test_dataloader", "fit", "test"),
        ("predict_dataloader", "fit", "test"),
    ],
)
def test_a_loader_of_images_not_loaded_says_what_to_call(loader, loaded, stage):
    data = ready(loaded)
    with pytest.raises(DataError, match=rf'^Synthetic has .*\n.* setup\("{stage}"\)\.$'):
        getattr(data, loader)()


def test_first_images():
    data = ready(num_train=100, num_test=7)
    data.setup("test")
    images, _ = data.load(train=True)
    train = data.splits["train"][0], data.splits["validation"][0]
    assert rows(torch.cat(train)) == rows(images[:100])
    assert torch.equal(data.splits["test"][0], data.load(train=False)[0][:7])


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("batch_size", 0),
        ("val_size", -1),
        ("val_size", -0.1),
        ("val_size", 1.0),
        ("val_size", 1.5),
        ("num_train", 0),
        ("num_test", -3),
        ("mean", float("nan")),
        ("std", 0.0),
        ("std", -1.0),
        ("std", float("inf")),
        ("split_seed", -1),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_at_once(flag, value):
    with pytest.raises(DataError, match=rf"^--data\.{flag} {value}: .*\.$"):
        Synthetic(**{flag: value})


NONE_LEFT = "leaves none of the 200 training images to train on"


@pytest.mark.parametrize(
    ("stage", "flag", "value", "message", "advice"),
    [
        ("fit", "val_size", 200, NONE_LEFT, "Hold out fewer: --data.val_size 0.1"),
        ("fit", "val_size", 70_000, NONE_LEFT, "Hold out fewer: --data.val_size 0.1"),
        ("fit", "num_train", 201, "there are only 200 training images", "--data.num_train null"),
        ("test", "num_test", 31, "there are only 30 test images", "--data.num_test null"),
        ("validate", "val_size", 0, "nothing to validate on", "--data.val_size 0.1"),
    ],
)
def test_a_value_that_the_data_cannot_meet(stage, flag, value, message, advice):
    with pytest.raises(DataError, match=rf"^--data\.{flag} {value}: {message}\.\n.*{advice}$"):
        ready(stage, **{flag: value})


def test_a_value_that_nobody_gave_is_not_called_a_flag():
    with pytest.raises(
        DataError, match=r"^by default, 5,000 .* none of the 200 .*\n.*val_size 0\.1$"
    ):
        ready(val_size=None)


def test_to_float():
    images = torch.tensor([[[0, 51, 255]]], dtype=torch.uint8)
    assert torch.equal(to_float(images), torch.tensor([[[[0, 0.2, 1]]]]))
    torch.testing.assert_close(to_float(images, 0.5, 0.5), torch.tensor([[[[-1, -0.6, 1]]]]))
    assert images.dtype == torch.uint8


def test_only_bytes_are_converted():
    data = Synthetic(mean=0.5, std=0.5)
    images, targets = torch.full((2, 28, 28), 255, dtype=torch.uint8), torch.tensor([1, 2])
    floats, same = data.on_after_batch_transfer((images, targets), 0)
    assert (floats.shape, floats.dtype) == ((2, 1, 28, 28), torch.float32)
    assert (floats == 1).all()
    assert same is targets
    assert data.on_after_batch_transfer((floats, targets), 0)[0] is floats
    # Others than pairs, such as an example input, and batches of loaders of one's own.
    assert data.on_after_batch_transfer(floats, 0) is floats
    torch.testing.assert_close(data.on_after_batch_transfer(images, 0), floats)
    alone = {"images": images}
    assert data.on_after_batch_transfer(alone, 0) is alone
    assert len(data.on_after_batch_transfer([images, targets, targets], 0)) == 3


def test_loaders():
    data = ready(batch_size=32)
    data.setup("test")
    images, targets = next(iter(data.train_dataloader()))
    assert (images.dtype, images.shape, targets.shape) == (torch.uint8, (32, 28, 28), (32,))
    assert len(data.train_dataloader()) == 6
    for loader in (data.test_dataloader(), data.predict_dataloader()):
        [(images, targets)] = loader
        assert torch.equal(images, data.splits["test"][0])
        assert torch.equal(targets, data.splits["test"][1])
    [(images, _)] = data.val_dataloader()
    assert torch.equal(images, data.splits["validation"][0])


def test_seed_everything_decides_the_order():
    def order(seed):
        seed_everything(seed, verbose=False)
        return [targets.tolist() for _, targets in ready().train_dataloader()]

    assert order(1) == order(1) != order(2)


def test_a_loop_of_ones_own_has_another_order_and_other_distortions_in_each_epoch():
    def epochs(seed):
        seed_everything(seed, verbose=False)
        data = ready(batch_size=180, rotation=20)
        return [next(iter(data.train_dataloader())) for _ in range(3)]

    seen = epochs(1)
    assert len({tuple(targets.tolist()) for _, targets in seen}) == 3
    assert not rows(seen[0][0]) & rows(seen[1][0])
    for (images, targets), (again, same) in zip(seen, epochs(1), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(targets, same)


def test_other_loaders_draw_no_random_numbers():
    data = ready()
    data.setup("test")
    before = torch.get_rng_state()
    data.val_dataloader(), data.test_dataloader()
    assert torch.equal(torch.get_rng_state(), before)


def test_processes_share_one_order_whatever_their_own_seeds():
    def share(rank):
        seed_everything(rank, verbose=False)
        data = ready()
        data.trainer = SimpleNamespace(
            strategy=SimpleNamespace(root_device=torch.device("cpu"), broadcast=lambda seed: 7),
            distributed_sampler_kwargs={"num_replicas": 2, "rank": rank},
            overfit_batches=0,
        )
        return torch.cat([images for images, _ in data.train_dataloader()])

    shares = [share(rank) for rank in range(2)]
    assert [len(images) for images in shares] == [90, 90]
    assert rows(torch.cat(shares)) == rows(ready().splits["train"][0])


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.evaluated = [], []

    def training_step(self, batch, batch_idx):
        images, targets = batch
        assert (images.dtype, images.shape[1:]) == (torch.float32, (1, 28, 28))
        self.trained.append(targets.tolist())
        return self.weight * images.sum()

    def validation_step(self, batch, batch_idx):
        self.evaluated.append(len(batch[1]))

    test_step = predict_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**kwargs):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=2,
        **kwargs,
    )


def test_every_stage_of_lightning(recwarn):
    model, data = Recorder(), Synthetic()
    trainer(num_sanity_val_steps=0).fit(model, datamodule=data)
    assert model.evaluated == [20, 20]
    assert model.trained[:18] != model.trained[18:]
    trainer().validate(model, datamodule=data, verbose=False)
    trainer().test(model, datamodule=data, verbose=False)
    trainer().predict(model, datamodule=data)
    assert model.evaluated == [20, 20, 20, 30, 30]
    assert not [warning for warning in recwarn if "shuffl" in str(warning.message)]


def test_lightning_skips_validation_without_images(recwarn):
    model = Recorder()
    trainer().fit(model, datamodule=Synthetic(val_size=0))
    assert model.evaluated == []
    assert len(model.trained) == 40
    assert not [warning for warning in recwarn if "zero" in str(warning.message)]


def test_overfitting_repeats_the_first_minibatches(recwarn):
    model = Recorder()
    trainer(overfit_batches=2).fit(model, datamodule=Synthetic())
    assert model.trained[:2] == model.trained[2:]
    assert not [warning for warning in recwarn if "overfit" in str(warning.message)]


@pytest.mark.mnist
def test_real_data_has_no_leak(mnist_root):
    data = MNIST(root=str(mnist_root), download=False, expanded=True)
    data.setup("fit")
    assert (data.num_train_images, data.num_val_images) == (275_000, 5_000)
    validation = {hash(image.tobytes()) for image in expand(*data.splits["validation"])[0].numpy()}
    assert len(validation) == 25_000
    assert not any(hash(image.tobytes()) in validation for image in data.splits["train"][0].numpy())


def test_pixels_are_scaled_shifted_and_divided():
    images = torch.tensor([[[0, 51, 255]]], dtype=torch.uint8)
    for mean, std in ((0.0, 1.0), (0.0, 0.5), (0.25, 1.0), (0.25, 0.5)):
        expected = (torch.tensor([[[[0.0, 0.2, 1.0]]]]) - mean) / std
        torch.testing.assert_close(to_float(images, mean, std), expected)


@pytest.mark.parametrize("in_a_trainer", [False, True])
def test_the_order_of_the_images_follows_the_seed(in_a_trainer):
    data = Digits()
    data.setup("fit")
    if in_a_trainer:
        data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    orders = []
    for seed in (1, 2, 1):
        seed_everything(seed, verbose=False)
        orders.append(torch.cat([targets for _, targets in data.train_dataloader()]))
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])


def test_only_training_images_are_shared_out_equally():
    data = Digits()
    data.setup()
    loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert [loader.filled_up for loader in loaders] == [True, False, False]


@pytest.mark.parametrize(
    ("images", "targets", "text"),
    [
        (torch.zeros(4, 28, 28), torch.zeros(4).long(), "images of torch.float32 and targets of"),
        (
            torch.zeros(4, 28, 28).byte(),
            torch.zeros(3).long(),
            r"\(4, 28, 28\) and targets of \(3,",
        ),
        (torch.zeros(4, 28, 28).byte(), torch.full((4,), 10), "targets from 10 to 10"),
        (np.zeros((4, 28, 28)), np.zeros(4), "ndarray and ndarray"),
    ],
)
def test_what_a_data_set_of_ones_own_gives_is_checked(images, targets, text):
    class Own(ImageData):
        def load(self, train):
            return images, targets

    with pytest.raises(DataError, match=f"^Own.load returns .*{text}"):
        Own().setup("test")


def test_a_data_set_of_ones_own_that_gives_images_alone_is_told_so():
    class Own(ImageData):
        def load(self, train):
            return torch.zeros(4, 28, 28).byte()

    with pytest.raises(DataError, match=r"^Own.load returns Tensor"):
        Own().setup("test")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b"), "Own.classes must hold ten different names, not a, b."),
        (
            ("a",) * 10,
            "Own.classes must hold ten different names, not a, a, ",
        ),
    ],
)
def test_classes_are_ten(names, message):
    class Own(Synthetic):
        classes = names

    with pytest.raises(DataError, match=message):
        Own()


def test_a_class_that_forgets_those_above_it_is_told_so():
    class Own(Synthetic):
        def __init__(self):
            self.loads = []

    with pytest.raises(DataError, match=r"Own: its __init__ must begin with super\(\)"):
        Own().setup("fit")
