import itertools

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from mnist_zoo.data import Batches, DataError


def batches(num_images=10, batch_size=3, **kwargs):
    kwargs.setdefault("shuffle", True)
    targets = torch.arange(num_images)
    return Batches(targets.view(-1, 1) * 2, targets, batch_size, **kwargs)


def epoch(loader):
    return [targets.tolist() for _, targets in loader]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def test_unshuffled():
    loader = batches(shuffle=False)
    expected = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert len(loader) == 4
    assert epoch(loader) == epoch(loader) == expected


def test_images_go_with_their_targets():
    for images, targets in batches():
        assert torch.equal(images, targets.view(-1, 1) * 2)


def test_every_image_once_in_a_new_order_each_epoch():
    loader = batches(100)
    first, second = epoch(loader), epoch(loader)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(100))
    assert first != second


def test_the_order_depends_on_seed_and_epoch_alone():
    loader, other = batches(100, seed=5), batches(100, seed=5)
    orders = [epoch(loader) for _ in range(3)]
    torch.rand(7)
    other.set_epoch(2)
    assert epoch(other) == orders[2]
    other.set_epoch(0)
    assert epoch(other) == orders[0]
    assert epoch(batches(100, seed=6)) not in orders
    epoch(batches(100, seed=2**64 - 1))  # as large as torch.initial_seed() can be


def test_an_epoch_that_was_left_early_is_followed_by_the_next():
    loader, whole = batches(100), batches(100)
    first = [targets.tolist() for _, targets in itertools.islice(iter(loader), 2)]
    assert first == epoch(whole)[:2]
    assert epoch(loader) == epoch(whole)
    assert epoch(loader) == epoch(whole)


def test_an_epoch_that_was_left_early_can_be_started_anew_or_gone_on_with():
    loader, whole = batches(100), epoch(batches(100))
    next(iter(loader))
    state = loader.state_dict()
    loader.set_epoch(0)
    assert epoch(loader) == whole
    loader.load_state_dict(state)
    assert epoch(loader) == whole[1:]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("num_done", range(9))
def test_resume_after_any_minibatch(num_done, shuffle):
    loader = batches(shuffle=shuffle)
    stream = itertools.chain.from_iterable(loader for _ in range(3))
    for _ in range(num_done):
        next(stream)
    state = loader.state_dict()
    rest = [targets.tolist() for _, targets in stream]

    resumed = batches(shuffle=shuffle, seed=99)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert len(resumed) == 4
    resumed.set_epoch(state["epoch"])  # must not lose the position
    epochs = [epoch(resumed) for _ in range(3 - num_done // 4)]
    assert flat(epochs) == rest


CHANGES = [
    ({"batch_size": 4}, r"--data\.batch_size cannot change from 3 to 4"),
    ({"num_replicas": 2}, r"the number of processes \(.*\) cannot change from 1 to 2"),
    ({"num_images": 50}, r"the number of training images \(.*\) cannot change from 10 to 50"),
]


def stopped_after(num_done):
    loader = batches()
    list(itertools.islice(iter(loader), num_done))
    return loader.state_dict()


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_a_place_in_an_epoch_is_counted_in_cannot_change(change, message):
    for go_on in (epoch, lambda loader: loader.set_epoch(0)):
        resumed = batches(**change)
        resumed.load_state_dict(stopped_after(2))
        with pytest.raises(DataError, match=message):
            go_on(resumed)


@pytest.mark.parametrize("change", [change for change, _ in CHANGES])
def test_it_can_change_between_two_epochs(change):
    expected = batches(**change)
    expected.set_epoch(1)
    order = epoch(expected)
    resumed = batches(**change)
    resumed.load_state_dict(stopped_after(4))
    assert epoch(resumed) == order
    # Lightning can end an epoch before its last minibatch.
    resumed = batches(**change)
    resumed.load_state_dict(stopped_after(2))
    resumed.set_epoch(1)
    assert epoch(resumed) == order


def test_a_place_of_which_older_checkpoints_tell_less_is_found():
    state, resumed = stopped_after(2), batches(seed=99)
    resumed.load_state_dict({name: state[name] for name in ("seed", "epoch", "position")})
    assert epoch(resumed) == epoch(batches())[2:]


@pytest.mark.parametrize(("num_images", "num_replicas"), [(12, 3), (10, 4), (2, 5)])
def test_replicas_share_an_epoch_equally(num_images, num_replicas):
    parts = [
        batches(num_images, 2, rank=rank, num_replicas=num_replicas, seed=1)
        for rank in range(num_replicas)
    ]
    indices = [flat(epoch(part)) for part in parts]
    assert len({len(part) for part in parts}) == 1
    assert len({len(own) for own in indices}) == 1
    together = flat(indices)
    assert set(together) == set(range(num_images))
    assert len(together) - num_images < num_replicas
    # What is missing to equal shares comes from the beginning of the order.
    whole = flat(epoch(batches(num_images, 2, seed=1))) * num_replicas
    in_turn = [index for group in zip(*indices, strict=True) for index in group]
    assert in_turn == whole[: len(together)]


@pytest.mark.parametrize(
    ("num_images", "num_replicas", "batch_size"),
    [(12, 3, 2), (10, 4, 2), (21, 2, 5), (21, 2, 100), (4001, 2, 1000), (5, 5, 1)],
)
def test_shares_that_are_not_filled_up_have_every_image_once(num_images, num_replicas, batch_size):
    parts = [
        epoch(batches(num_images, batch_size, rank=n, num_replicas=num_replicas, filled_up=False))
        for n in range(num_replicas)
    ]
    assert sorted(flat(flat(parts))) == list(range(num_images))
    assert len({len(part) for part in parts}) == 1
    assert {len(minibatch) for minibatch in flat(parts)} <= set(range(1, batch_size + 1))


@pytest.mark.parametrize(("num_images", "num_replicas", "batch_size"), [(2, 3, 10), (5, 2, 1)])
def test_shares_that_cannot_have_as_many_minibatches_are_told(num_images, num_replicas, batch_size):
    for rank in range(num_replicas):
        with pytest.raises(DataError, match=f"^{num_images} images cannot be shared by"):
            batches(num_images, batch_size, rank=rank, num_replicas=num_replicas, filled_up=False)


@pytest.mark.parametrize(("limit", "number"), [(3, 3), (9, 4), (0.5, 2), (0.9, 3), (1.0, 4)])
def test_a_limit_is_a_number_of_minibatches_or_a_share_rounded_down(limit, number):
    loader = batches(limit=limit, shuffle=False)
    assert len(loader) == number
    assert epoch(loader) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]][:number]


class Recorder(LightningModule):
    """Notes the targets that it is trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[1].tolist())
        return self.weight * batch[1].sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, *, ckpt_path=None, seed=3, callbacks=(), **kwargs):
    model = Recorder()
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **kwargs,
    )
    trainer.fit(model, batches(seed=seed), batches(shuffle=False), ckpt_path=ckpt_path)
    return model.seen


def every(folder, **kwargs):
    return ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **kwargs)


@pytest.mark.filterwarnings("ignore:Be aware that when using")
@pytest.mark.parametrize("limit", [{}, {"limit_train_batches": 2}], ids=["whole", "limited"])
def test_lightning_replays_the_order_from_any_checkpoint(tmp_path, limit):
    seen = fit(tmp_path, callbacks=[every(tmp_path / "mid", every_n_train_steps=1)], **limit)
    fit(tmp_path, callbacks=[every(tmp_path / "end", every_n_epochs=1)], **limit)
    checkpoints = sorted(tmp_path.glob("*/*.ckpt"))
    assert len(checkpoints) == len(seen) + 3
    for path in checkpoints:
        step = int(path.stem.removeprefix("step="))
        assert fit(tmp_path, ckpt_path=path, **limit) == seen[step:], path


def test_lightning_shuffles_each_epoch_anew_under_a_limit(tmp_path):
    seen = fit(tmp_path, limit_train_batches=2)
    order = batches(seed=3)
    expected = []
    for number in range(3):
        order.set_epoch(number)
        expected += epoch(order)[:2]
    assert seen == expected
