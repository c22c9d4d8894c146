"""Views: a pure function of (view seed, epoch, sample), and what each of them shows."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from denature.core.compute import Compute
from denature.core.errors import ConfigError
from denature.data import views as views_module
from denature.data.dataset import Split
from denature.data.feed import Batch, Feed, steps_per_epoch
from denature.data.views import NONE, Views, epoch_order, views

CROP_FLIP = Views(padding=4, flip=True)
CPU = Compute(torch.device("cpu"), "fp32", channels_last=False)


def random_images(count: int, *, channels: int = 3, size: int = 32) -> np.ndarray:
    return np.random.default_rng(5).integers(1, 256, (count, channels, size, size), dtype=np.uint8)


def slow_view(image: np.ndarray, number: int, family: Views) -> np.ndarray:
    """Zero padding, crop, then flip: the lowest digit of a number is the flip, then the offsets."""
    mirrored = 0
    if family.flip:
        number, mirrored = divmod(number, 2)
    down, right = divmod(number, 2 * family.padding + 1)
    size = image.shape[-1]
    padded = np.pad(image, ((0, 0), (family.padding,) * 2, (family.padding,) * 2))
    crop = padded[:, down : down + size, right : right + size]
    return crop[:, :, ::-1] if mirrored else crop


@pytest.mark.parametrize(
    ("family", "count"),
    [
        (NONE, 1),
        (Views(flip=True), 2),
        (Views(padding=1), 9),
        (Views(padding=4), 81),
        (CROP_FLIP, 162),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_view_is_the_one_that_slicing_gives(family: Views, count: int, channels: int) -> None:
    assert family.count == count
    image = random_images(1, channels=channels)
    seen = family.apply(torch.from_numpy(image).expand(count, -1, -1, -1), torch.arange(count))
    assert seen.dtype == torch.uint8
    expected = np.stack([slow_view(image[0], number, family) for number in range(count)])
    np.testing.assert_array_equal(seen.numpy(), expected)
    assert len(np.unique(expected.reshape(count, -1), axis=0)) == count


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 32, 64])
def test_a_rotated_view_is_the_one_that_pillow_gives(size: int, channels: int) -> None:
    """Counter-clockwise by whole degrees from -20; pixels on a border between two may differ."""
    family = Views(flip=True, degrees=20)
    assert family.count == 82
    image = random_images(1, channels=channels, size=size)
    seen = family.apply(torch.from_numpy(image).expand(82, -1, -1, -1), torch.arange(82)).numpy()
    for number, view in enumerate(seen):
        angle, mirrored = divmod(number, 2)
        turned = [
            np.asarray(Image.fromarray(plane).rotate(angle - 20, Image.Resampling.NEAREST))
            for plane in image[0]
        ]
        wanted = np.stack(turned)[:, :, ::-1] if mirrored else np.stack(turned)
        assert (view != wanted).mean() <= 0.002
    np.testing.assert_array_equal(seen[40], image[0])


def test_rotations_shifts_and_mirror_images_make_a_family_together() -> None:
    """A rotation comes first, and numbers below those of angle -2 are those of it alone."""
    images, numbers = torch.from_numpy(random_images(4)), torch.tensor([0, 17, 18, 89])
    both = Views(padding=1, flip=True, degrees=2)
    assert both.count == 90
    turned = Views(degrees=2).apply(images, numbers // 18)
    expected = Views(padding=1, flip=True).apply(turned, numbers % 18)
    torch.testing.assert_close(both.apply(images, numbers), expected)


def test_each_image_of_a_batch_gets_its_own_view() -> None:
    images, numbers = random_images(8), torch.tensor([161, 0, 80, 81, 3, 3, 160, 1])
    seen = CROP_FLIP.apply(torch.from_numpy(images), numbers).numpy()
    for image, number, view in zip(images, numbers.tolist(), seen, strict=True):
        np.testing.assert_array_equal(view, slow_view(image, number, CROP_FLIP))


def test_the_plain_image_is_among_its_views() -> None:
    image = torch.from_numpy(random_images(1))
    centre = torch.tensor([2 * (4 * 9 + 4)])
    torch.testing.assert_close(CROP_FLIP.apply(image, centre), image)
    torch.testing.assert_close(CROP_FLIP.apply(image, centre + 1), image.flip(-1))


def test_no_augmentation_shows_images_as_they_are() -> None:
    images = torch.from_numpy(random_images(5))
    numbers = NONE.numbers(view_seed=1, epoch=2, samples=5)
    assert numbers.tolist() == [0] * 5
    torch.testing.assert_close(NONE.apply(images, numbers), images)


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000), samples=st.integers(1, 300))
def test_a_view_depends_on_seed_epoch_and_sample_only(seed: int, epoch: int, samples: int) -> None:
    """The same sample sees the same view however many others there are."""
    few = CROP_FLIP.numbers(view_seed=seed, epoch=epoch, samples=samples)
    many = CROP_FLIP.numbers(view_seed=seed, epoch=epoch, samples=1000)
    assert few.dtype == torch.int64
    assert few.tolist() == many[:samples].tolist()
    assert 0 <= int(many.min()) <= int(many.max()) < 162


def test_views_differ_by_seed_and_by_epoch() -> None:
    drawn = [
        CROP_FLIP.numbers(view_seed=seed, epoch=epoch, samples=2000)
        for seed in range(3)
        for epoch in range(3)
    ]
    for i, first in enumerate(drawn):
        for second in drawn[:i]:
            # By chance one in 162 is equal.
            assert (first == second).float().mean() < 0.02


def test_drawing_views_neither_uses_nor_changes_the_state_of_the_world() -> None:
    before = torch.random.get_rng_state()
    first = CROP_FLIP.numbers(view_seed=0, epoch=0, samples=100)
    torch.testing.assert_close(torch.random.get_rng_state(), before)
    torch.rand(7)
    second = CROP_FLIP.numbers(view_seed=0, epoch=0, samples=100)
    assert first.tolist() == second.tolist()


def test_all_views_appear_about_equally_often() -> None:
    expected = 500
    numbers = CROP_FLIP.numbers(view_seed=0, epoch=0, samples=162 * expected)
    counts = torch.bincount(numbers, minlength=162).double()
    # Chi-square with 161 degrees of freedom: mean 161, standard deviation 18.
    assert 100 < ((counts - expected) ** 2 / expected).sum() < 222


def split_of(count: int) -> Split:
    images = torch.from_numpy(random_images(count, size=8))
    return Split(images, torch.arange(count), torch.arange(count))


def seen_of(feed: Feed, *, batch_size: int, epoch: int = 0) -> dict[int, Batch]:
    """Each sample's own row of what an epoch of `feed` shows."""
    return {
        int(sample): Batch(*(column[i] for column in batch))
        for batch in feed.epoch(epoch, view_seed=3, batch_size=batch_size)
        for i, sample in enumerate(batch.samples)
    }


def assert_same_views(first: dict[int, Batch], second: dict[int, Batch]) -> None:
    for sample in first.keys() & second.keys():
        for one, other in zip(first[sample], second[sample], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_what_a_sample_shows_does_not_depend_on_its_batch() -> None:
    family = Views(padding=1, flip=True)
    feed = Feed(split_of(24), compute=CPU, views=family)
    small, large = seen_of(feed, batch_size=4), seen_of(feed, batch_size=24)
    assert small.keys() == large.keys() == set(range(24))
    assert_same_views(small, large)
    for sample, batch in small.items():
        image = feed.split.images[sample].numpy()
        expected = slow_view(image, int(batch.views), family).astype(np.float32) / 255
        np.testing.assert_array_equal(batch.pixels, expected)
        assert batch.labels == sample


def test_what_a_sample_shows_does_not_depend_on_the_others_of_its_split() -> None:
    """A fraction of the training samples sees the views that all of them would see."""
    whole = split_of(24)
    part = whole.take(np.array([1, 4, 5, 17, 20, 23]))
    family = Views(padding=1, flip=True)
    seen = seen_of(Feed(part, compute=CPU, views=family), batch_size=3)
    assert seen.keys() == {1, 4, 5, 17, 20, 23}
    assert_same_views(seen, seen_of(Feed(whole, compute=CPU, views=family), batch_size=24))


def test_another_epoch_shows_other_views_and_another_order() -> None:
    feed = Feed(split_of(60), compute=CPU, views=CROP_FLIP)
    first, second = (next(feed.epoch(epoch, view_seed=3, batch_size=60)) for epoch in (0, 1))
    assert first.samples.tolist() != second.samples.tolist()
    assert sorted(first.samples.tolist()) == sorted(second.samples.tolist())
    at_first, at_second = (
        first.views[first.samples.argsort()],
        second.views[second.samples.argsort()],
    )
    assert (at_first == at_second).float().mean() < 0.2


@pytest.mark.parametrize(
    ("samples", "batch_size", "sizes"),
    [(10, 5, [5, 5]), (12, 5, [5, 5, 2]), (11, 5, [5, 5]), (3, 8, [3])],
)
def test_a_last_batch_of_one_is_left_out_because_batch_norm_cannot_take_it(
    samples: int, batch_size: int, sizes: Sequence[int]
) -> None:
    feed = Feed(split_of(samples), compute=CPU)
    batches = list(feed.epoch(0, view_seed=0, batch_size=batch_size))
    assert [len(batch.labels) for batch in batches] == sizes
    assert steps_per_epoch(samples, batch_size) == len(sizes)


def test_a_plain_pass_shows_every_sample_once_as_it_is() -> None:
    feed = Feed(split_of(600), compute=CPU, views=CROP_FLIP)
    batches = list(feed.plain())
    assert len(batches) == 2
    assert torch.cat([batch.samples for batch in batches]).tolist() == list(range(600))
    pixels = torch.cat([batch.pixels for batch in batches])
    torch.testing.assert_close(pixels, feed.split.images.float() / 255)


@settings(deadline=None)
@given(
    rows=st.lists(st.integers(0, 10**6), min_size=1, max_size=200, unique=True),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
)
def test_an_order_is_a_permutation_that_repeats(rows: list[int], seed: int, epoch: int) -> None:
    first = epoch_order(torch.tensor(rows), view_seed=seed, epoch=epoch).tolist()
    again = epoch_order(torch.tensor(rows), view_seed=seed, epoch=epoch).tolist()
    assert first == again
    assert sorted(first) == sorted(rows)


def test_orders_differ_by_seed_and_by_epoch() -> None:
    orders = {
        tuple(epoch_order(torch.arange(50), view_seed=seed, epoch=epoch).tolist())
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


@pytest.mark.parametrize(
    ("name", "channels", "size", "family"),
    [
        ("auto", 3, 32, CROP_FLIP),
        ("auto", 3, 64, Views(padding=8, flip=True)),
        ("auto", 3, 8, NONE),
        ("auto", 1, 32, NONE),
        ("none", 3, 32, NONE),
        ("flip", 3, 32, Views(flip=True)),
        ("crop", 1, 8, Views(padding=1)),
        ("crop-flip", 3, 32, CROP_FLIP),
        ("rotate-flip", 3, 64, Views(flip=True, degrees=20)),
    ],
)
def test_a_name_stands_for_a_family_of_views(
    name: str, channels: int, size: int, family: Views
) -> None:
    assert views(name, channels=channels, image_size=size) == family


def test_an_unknown_augmentation_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no augmentation 'rotate'.*crop-flip"):
        views("rotate", channels=3, image_size=32)


@pytest.mark.parametrize("padding", [1, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_both_ways_to_cut_views_agree(padding: int, channels: int) -> None:
    """Windows on a CPU, one gather on a device."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, channels, 12, 12), dtype=torch.uint8, generator=draw)
    down, right = (torch.randint(0, 2 * padding + 1, (60,), generator=draw) for _ in range(2))
    mirrored = torch.randint(0, 2, (60,), generator=draw).bool()
    cut = views_module._windows(images, down, right, mirrored, padding)
    assert torch.equal(cut, views_module._gather(images, down, right, mirrored, padding))
