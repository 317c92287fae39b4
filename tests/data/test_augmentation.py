"""Random distortions of training images."""

import math

import pytest
import torch

from mnist_zoo.data import DataError, Digits
from mnist_zoo.data.augmentation import Augmentation
from mnist_zoo.data.expansion import expand
from mnist_zoo.data.loader import Batches

EVERYTHING = Augmentation(rotation=20, scale=0.2, shear=10, shift=2, elastic=0.5)


@pytest.fixture(scope="module")
def images():
    data = Digits(val_size=0)
    data.setup("fit")
    return data.splits["train"][0][:40]


def draw(augmentation, num_images=40, seed=0):
    return augmentation.draw(num_images, torch.Generator().manual_seed(seed))


def test_no_distortion_changes_nothing(images):
    nothing = Augmentation()
    assert torch.equal(nothing(images, draw(nothing)), images)


def test_a_shift_is_by_whole_pixels_and_up_to_its_bound(images):
    by_one = Augmentation(shift=1)
    shifted = by_one(images, draw(by_one))
    neighbours = expand(*[torch.nn.functional.pad(images, (1, 1, 1, 1)), torch.zeros(40)])[0]
    # Of the nine possible shifts, the expansion has the five that are not along a diagonal.
    straight = neighbours[:, 1:-1, 1:-1].view(5, 40, 28, 28)
    matches = (straight == shifted).all(dim=(2, 3)).any(dim=0)
    assert 10 < matches.sum() < 40
    right = by_one(images, torch.tensor([[0.5, 0.5, 0.5, 0.99, 0.5]]).expand(40, 5))
    assert torch.equal(right, straight[1])


def test_a_quarter_turn_is_clockwise(images):
    turn = Augmentation(rotation=90)
    quarter = turn(images, torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.5]]).expand(40, 5))
    assert torch.equal(quarter, images.rot90(-1, (1, 2)))


def test_the_lean_of_upright_lines_has_a_draw_of_its_own(images):
    lean = Augmentation(shear=math.degrees(math.atan(2)))
    leaning = lean(images, torch.tensor([[0.5, 1.0, 0.5, 0.5, 0.5]]).expand(40, 5))
    # Two pixels a row, none half-way between the two rows in the middle.
    for row, steps in ((12, 3), (13, 1), (14, -1), (15, -3)):
        assert torch.equal(leaning[:, row], images[:, row].roll(steps, 1))


def test_the_field_that_bends_has_the_deviation_that_was_asked_for():
    bend = Augmentation(elastic=1.5)
    ramp = (9 * torch.arange(28, dtype=torch.uint8)).expand(200, 28, 28)
    bent = bend(ramp, draw(bend, 200))
    # Of the random shifts, 7 × 7 in an image, these lie on pixels.
    shifts = (bent.float() - ramp)[:, 9:19:9, 9:19:9] / 9
    assert shifts.std() == pytest.approx(1.5, rel=0.1)


def test_it_bends_sideways_and_up_and_down_each_in_its_own_way():
    bend = Augmentation(elastic=1.5)
    ramp = (9 * torch.arange(28, dtype=torch.uint8)).expand(200, 28, 28)
    draws = draw(bend, 200)
    right, down = (
        (bend(ramp, draws).float() - ramp)[:, 9:19, 9:19],
        (bend(ramp.mT, draws).float() - ramp.mT)[:, 9:19, 9:19],
    )
    assert down.std() == pytest.approx(float(right.std()), rel=0.1)
    assert abs(torch.corrcoef(torch.stack([right.flatten(), down.flatten()]))[0, 1]) < 0.1


def test_what_comes_from_outside_is_black():
    white = torch.full((1, 28, 28), 255, dtype=torch.uint8)
    aside = Augmentation(shift=3)(white, torch.tensor([[0.5, 0.5, 0.5, 0.99, 0.0]]))
    assert not aside[0, :, :3].any()
    assert not aside[0, -3:].any()
    assert (aside[0, :-3, 3:] == 255).all()


@pytest.mark.parametrize("shift", [1, 3])
def test_every_shift_up_to_the_bound_is_as_likely(shift):
    dot = torch.zeros(2000, 28, 28, dtype=torch.uint8)
    dot[:, 14, 14] = 255
    shifting = Augmentation(shift=shift)
    places = shifting(dot, draw(shifting, 2000)).nonzero()[:, 1:] - 14
    for direction in (0, 1):
        values, counts = places[:, direction].unique(return_counts=True)
        assert values.tolist() == list(range(-shift, shift + 1))
        assert counts.min() > 0.7 * 2000 / (2 * shift + 1)


def test_the_field_that_bends_is_smooth():
    bend = Augmentation(elastic=1.5)
    ramp = (9 * torch.arange(28, dtype=torch.uint8)).expand(200, 28, 28)
    bent = bend(ramp, draw(bend, 200))
    shifts = (bent.float() - ramp)[:, 9:19, 9:19] / 9
    # Random shifts, 4.5 pixels apart, differ by up to 5.2.
    for direction in (1, 2):
        assert 1 < shifts.diff(dim=direction).abs().max() < 2.5


def test_larger_digits_cover_more(images):
    grow = Augmentation(scale=0.3)
    larger = grow(images, torch.tensor([[0.5, 0.5, 1.0, 0.5, 0.5]]).expand(40, 5))
    smaller = grow(images, torch.tensor([[0.5, 0.5, 0.0, 0.5, 0.5]]).expand(40, 5))
    for changed, times in ((larger, 1.3), (smaller, 0.7)):
        for side, before in zip(box(changed), box(images), strict=True):
            assert (side / before).mean() == pytest.approx(times, abs=0.05)


def box(images):
    """Return height and width of the digits, as far as they are bright."""
    bright = images >= 52
    lines = bright.any(2).float(), bright.any(1).float()
    return [28 - line.argmax(1) - line.flip(1).argmax(1) for line in lines]


def test_an_image_without_ink_stays_without(images):
    black = torch.zeros(3, 28, 28, dtype=torch.uint8)
    assert torch.equal(EVERYTHING(black, draw(EVERYTHING, 3)), black)


def test_an_image_is_distorted_alike_in_any_batch(images):
    draws = draw(EVERYTHING)
    whole = EVERYTHING(images, draws)
    assert whole.dtype == torch.uint8
    assert whole.shape == images.shape
    assert not torch.equal(whole, images)
    parts = [EVERYTHING(i, d) for i, d in zip(images.split(7), draws.split(7), strict=True)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("setting", "most", "message"),
    [
        ("rotation", 180, "must be from 0 to 180."),
        ("scale", 1, "must be from 0 to below 1."),
        ("shear", 90, "must be from 0 to below 90."),
        ("shift", 28, "must be from 0 to 28."),
        ("elastic", 28, "must be from 0 to 28."),
    ],
)
def test_values_out_of_range_are_refused(setting, most, message):
    for value in (-1, most + 1, math.nan, *([most] if "below" in message else [])):
        with pytest.raises(DataError, match=f"^--data.{setting} {value}: {message}$"):
            Augmentation(**{setting: value})
        with pytest.raises(DataError, match=f"^--data.{setting} {value}: {message}$"):
            Digits(**{setting: value})
    if "below" not in message:
        assert getattr(Augmentation(**{setting: most}), setting) == most


def epoch(loader):
    return torch.cat([batch for batch, _ in loader])


def loader(images, **options):
    targets = torch.arange(40)
    return Batches(images, targets, 6, shuffle=True, seed=5, augmentation=EVERYTHING, **options)


def test_epochs_differ_and_come_again_with_the_seed(images):
    one, other = loader(images), loader(images, block_size=3)
    first = epoch(one)
    assert torch.equal(first, epoch(other))
    assert not torch.equal(first.sort(dim=0).values, epoch(one).sort(dim=0).values)


def test_order_and_distortions_come_from_different_numbers(images):
    shuffled = loader(images)
    order = torch.randperm(40, generator=shuffled._generator(5, 0))
    assert torch.equal(shuffled._order(), order)
    assert not torch.equal(shuffled._draws(), EVERYTHING.draw(40, shuffled._generator(5, 0)))


def test_the_distortions_follow_from_seed_and_epoch(images):
    def in_order(seed):
        return Batches(images, torch.arange(40), 6, seed=seed, augmentation=EVERYTHING)

    one = in_order(seed=1)
    first, second = epoch(one), epoch(one)
    assert torch.equal(first, epoch(in_order(seed=1)))
    for other in (second, epoch(in_order(seed=2))):
        assert (first != other).flatten(1).any(dim=1).all()


@pytest.mark.parametrize(
    "settings",
    [{"rotation": 1.0}, {"scale": 0.2}, {"shear": 3.0}, {"shift": 4}, {"elastic": 0.5}],
)
def test_every_flag_of_the_data_distorts_by_itself(settings):
    assert Digits(**settings).augmentation == Augmentation(**settings)


def test_a_loader_resumed_in_mid_epoch_distorts_as_it_would_have(images):
    stopped, resumed = loader(images), loader(images)
    batches = iter(stopped)
    seen = [next(batches)[0] for _ in range(3)]
    resumed.load_state_dict(stopped.state_dict())
    assert torch.equal(torch.cat([*seen, epoch(resumed)]), epoch(loader(images)))


def test_replicas_share_the_images_and_distort_each_its_own_way(images):
    parts = [epoch(loader(images, rank=rank, num_replicas=2)) for rank in range(2)]
    assert [len(part) for part in parts] == [20, 20]
    whole = {image.numpy().tobytes() for image in epoch(loader(images))}
    assert whole == {image.numpy().tobytes() for part in parts for image in part}


def test_validation_images_are_left_as_they_are():
    data = Digits(rotation=30, elastic=1)
    data.setup("fit")
    plain = Digits()
    plain.setup("fit")
    assert torch.equal(epoch(data.val_dataloader()), epoch(plain.val_dataloader()))
    assert not torch.equal(epoch(data.train_dataloader()), epoch(plain.train_dataloader()))
