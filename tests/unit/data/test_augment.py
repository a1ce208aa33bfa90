import dataclasses
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.data.augment import Pixels, affine, color_jitter, crop_and_flip
from noisyknn.data.store import decode_all
from tests.small_data import draw

PLAIN = Config(crop_padding=0, flip=False, rotation=0, translation=0, jitter=0)
EVERYTHING = Config(crop_padding=2, flip=True, rotation=20, translation=0.2, jitter=0.4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_images(count: int, size: int) -> Tensor:
    return torch.randint(256, (count, size, size, 3), generator=seeded(99), dtype=torch.uint8)


def draw_floats(count: int, size: int) -> Tensor:
    return torch.rand(count, size, size, 3, generator=seeded(98))


def pixels_of(images: Tensor, rows: list[int], size: int) -> Pixels:
    mean, std = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.5, 0.25, 0.125])
    return Pixels(images=images, rows=torch.tensor(rows), mean=mean, std=std, size=size)


def always_one(*shape: Any, **_: Any) -> Tensor:
    return torch.ones(shape)


def test_without_padding_and_flip_nothing_moves() -> None:
    images = draw_images(5, 6)
    rows = torch.tensor([4, 0, 0, 2])
    assert torch.equal(crop_and_flip(images, rows, 6, 0, False, seeded()), images[rows])


@pytest.mark.parametrize(
    ("stored", "size", "padding", "flip"),
    [(8, 8, 3, True), (8, 8, 3, False), (12, 8, 0, True), (11, 6, 2, True), (4, 4, 9, True), (5, 4, 256, True)],
)
def test_every_pixel_comes_from_its_place(stored: int, size: int, padding: int, flip: bool) -> None:
    images = draw_images(10, stored)
    rows = torch.tensor([3, 3, 9, 0, 5, 7, 1, 2] * 4)
    batch = crop_and_flip(images, rows, size, padding, flip, seeded(5))
    draws = seeded(5)
    tops, lefts = torch.randint(0, stored + 2 * padding - size + 1, (2, len(rows), 1), generator=draws)
    mirrored = torch.rand(len(rows), 1, generator=draws) < 0.5 if flip else torch.zeros(len(rows), 1)
    for i, row in enumerate(rows.tolist()):
        border = (padding, padding)
        padded = np.pad(images[row].numpy(), (border, border, (0, 0)), mode="reflect")
        top, left = int(tops[i]), int(lefts[i])
        crop = padded[top : top + size, left : left + size]
        assert np.array_equal(batch[i].numpy(), crop[:, ::-1] if mirrored[i] else crop)


def test_crops_start_everywhere_about_as_often() -> None:
    images = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8, 1).expand(1, 8, 8, 3)
    batch = crop_and_flip(images, torch.zeros(2500, dtype=torch.int64), 4, 0, False, seeded())
    corners = batch[:, 0, 0, 0].tolist()
    counts = [corners.count(8 * top + left) for top in range(5) for left in range(5)]
    assert sum(counts) == 2500
    assert 50 < min(counts) <= max(counts) < 150  # 100 each, five deviations of 10


def test_about_half_are_mirrored_independently_of_their_place() -> None:
    images = draw_images(1, 6)
    batch = crop_and_flip(images, torch.zeros(1000, dtype=torch.int64), 6, 0, True, seeded())
    mirrored = sum(torch.equal(each, images[0].flip(1)) for each in batch)
    assert 420 < mirrored < 580
    assert mirrored + sum(torch.equal(each, images[0]) for each in batch) == 1000


def test_affine_of_nothing_is_the_identity() -> None:
    batch = draw_floats(4, 7).permute(0, 3, 1, 2)
    torch.testing.assert_close(affine(batch, 0, 0, seeded()), batch, atol=1e-5, rtol=0)


def test_affine_equals_a_slow_loop() -> None:
    batch = draw_floats(5, 6).permute(0, 3, 1, 2)
    ours = affine(batch, 25, 0.3, seeded(4))
    assert ours.is_contiguous(memory_format=torch.channels_last)
    draws = (torch.rand(3, 5, generator=seeded(4)).double() * 2 - 1).tolist()
    for i, image in enumerate(batch.double().tolist()):
        angle, right, down = math.radians(25) * draws[0][i], 6 * 0.3 * draws[1][i], 6 * 0.3 * draws[2][i]
        for y in range(6):
            for x in range(6):  # where this pixel's value comes from, turned about the image's centre
                from_x = math.cos(angle) * (x - 2.5) - math.sin(angle) * (y - 2.5) + 2.5 + right
                from_y = math.sin(angle) * (x - 2.5) + math.cos(angle) * (y - 2.5) + 2.5 + down
                for channel in range(3):
                    expected = sum(
                        image[channel][v][u] * max(0, 1 - abs(from_x - u)) * max(0, 1 - abs(from_y - v))
                        for v in range(6)
                        for u in range(6)
                    )
                    assert float(ours[i, channel, y, x]) == pytest.approx(expected, abs=1e-5)


def test_a_quarter_turn_and_a_shift_of_whole_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = draw_floats(2, 8).permute(0, 3, 1, 2)
    monkeypatch.setattr(torch, "rand", always_one)  # the largest angle and shift
    torch.testing.assert_close(affine(batch, 90, 0, seeded()), batch.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    shifted = affine(batch, 0, 0.25, seeded())
    torch.testing.assert_close(shifted[:, :, :6, :6], batch[:, :, 2:, 2:], atol=1e-5, rtol=0)
    assert shifted[:, :, 6:].count_nonzero() == shifted[:, :, :, 6:].count_nonzero() == 0


def test_color_jitter_of_no_strength_is_the_identity() -> None:
    batch = draw_floats(4, 5)
    torch.testing.assert_close(color_jitter(batch, 0, seeded()), batch, atol=1e-6, rtol=0)


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_color_jitter_equals_a_loop_over_images(strength: float) -> None:
    batch = draw_floats(20, 4)
    ours = color_jitter(batch, strength, seeded(3))
    assert 0 <= ours.min() <= ours.max() <= 1
    draws = 1 + strength * (torch.rand(3, 20, generator=seeded(3)).double().numpy() * 2 - 1)
    for i, image in enumerate(batch.double().numpy()):
        bright, contrast, saturation = draws[:, i]
        image = image * bright
        average = np.mean(0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2])
        image = average + contrast * (image - average)
        grey = (0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2])[..., None]
        image = grey + saturation * (image - grey)
        np.testing.assert_allclose(ours[i].numpy(), image.clip(0, 1), atol=1e-5)


def test_color_jitter_leaves_grey_images_grey() -> None:
    grey = draw_floats(6, 4)[..., :1].expand(-1, -1, -1, 3)
    ours = color_jitter(grey, 0.8, seeded())
    torch.testing.assert_close(ours, ours[..., :1].expand(-1, -1, -1, 3), atol=1e-5, rtol=0)
    assert not torch.allclose(ours, grey, atol=0.01)


def test_plain_pixels_are_the_normalised_centre_crops() -> None:
    images = draw_images(6, 9)
    batch = pixels_of(images, [0, 2, 3, 5], 5).plain(torch.tensor([3, 1]))  # images 1 and 4 could not be read
    assert batch.shape == (2, 3, 5, 5)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for i, row in enumerate((5, 2)):
        for channel, (mean, std) in enumerate(((0.2, 0.5), (0.4, 0.25), (0.6, 0.125))):
            expected = (images[row, 2:7, 2:7, channel].double() / 255 - mean) / std
            torch.testing.assert_close(batch[i, channel].double(), expected, atol=1e-5, rtol=0)


def test_without_augmentation_both_ways_give_the_same() -> None:
    pixels = pixels_of(draw_images(6, 8), [5, 4, 2], 8)
    samples = torch.tensor([2, 0, 0, 1])
    assert torch.equal(pixels.augmented(samples, pixels.size, PLAIN, seeded()), pixels.plain(samples))


@pytest.mark.parametrize(
    ("config", "stored", "size"),
    [(EVERYTHING, 8, 8), (EVERYTHING, 11, 8), (PLAIN, 8, 8), (EVERYTHING, 4, 4), (Config(crop_padding=9), 4, 4)],
)
def test_a_batch_depends_on_its_generator_alone(config: Config, stored: int, size: int) -> None:
    images = draw_images(7, stored)
    pixels, samples = pixels_of(images, [0, 1, 2, 4, 6], size), torch.tensor([4, 0, 1, 1, 3, 2])
    before = images.clone()
    first = pixels.augmented(samples, pixels.size, config, seeded(1))
    torch.manual_seed(123)
    again, other = (pixels.augmented(samples, pixels.size, config, seeded(seed)) for seed in (1, 2))
    assert first.shape == (6, 3, size, size)
    assert first.dtype == torch.float32
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (config == PLAIN)
    assert torch.equal(images, before)


def test_augmentation_is_crop_then_jitter_then_normalisation_then_affine() -> None:
    images = draw_images(5, 9)
    pixels, samples = pixels_of(images, [1, 2, 4], 6), torch.tensor([2, 2, 0, 1])
    generator = seeded(8)
    batch = crop_and_flip(images, torch.tensor([4, 4, 1, 2]), 6, 2, True, generator).float() / 255
    batch = color_jitter(batch, 0.4, generator)
    batch = ((batch - pixels.mean) / pixels.std).permute(0, 3, 1, 2)
    expected = affine(batch, 20, 0.2, generator)
    torch.testing.assert_close(pixels.augmented(samples, pixels.size, EVERYTHING, seeded(8)), expected)


@pytest.mark.parametrize("field", ["crop_padding", "flip", "rotation", "translation", "jitter"])
def test_each_setting_acts_by_itself(field: str) -> None:
    settings = {"crop_padding": 0, "flip": False, "rotation": 0, "translation": 0, "jitter": 0}
    settings[field] = getattr(EVERYTHING, field)
    pixels, samples = pixels_of(draw_images(8, 8), list(range(8)), 8), torch.arange(8)
    changed = pixels.augmented(samples, pixels.size, Config(**settings), seeded())  # type: ignore[arg-type]
    assert not torch.equal(changed, pixels.plain(samples))


def test_smaller_images_are_averages_of_the_same_crops() -> None:
    pixels = pixels_of(draw_images(5, 8), [4, 0, 2], 8)
    samples = torch.arange(3)
    whole = pixels.augmented(samples, 8, PLAIN, seeded())
    half = pixels.augmented(samples, 4, PLAIN, seeded())
    assert half.shape == (3, 3, 4, 4)
    assert half.is_contiguous(memory_format=torch.channels_last)
    expected = torch.nn.functional.interpolate(whole, (4, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(half, expected, atol=1.2 / 255 / 0.125, rtol=0)  # bytes are rounded


def test_smaller_images_are_moved_as_the_large_ones_are() -> None:
    pixels = pixels_of(draw_images(5, 32), list(range(5)), 32)
    config = dataclasses.replace(PLAIN, crop_padding=4, flip=True)
    whole, half = (pixels.augmented(torch.arange(5), size, config, seeded(3)) for size in (32, 16))
    expected = torch.nn.functional.interpolate(whole, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(half, expected, atol=1.2 / 255 / 0.125, rtol=0)


def batches_of(pixels: Pixels, generator: torch.Generator) -> list[Tensor]:
    batches = torch.split(torch.arange(7), 3)
    return list(pixels.ahead(batches, lambda samples: pixels.augmented(samples, pixels.size, EVERYTHING, generator)))


def test_batches_made_ahead_are_the_same() -> None:
    asked: list[list[int]] = []
    pixels = pixels_of(draw_images(9, 8), [8, 7, 6, 5, 4, 3, 2], 8)
    from_disk = dataclasses.replace(pixels, read_ahead=lambda rows: asked.append(rows.tolist()))
    plainly, ahead = batches_of(pixels, seeded()), batches_of(from_disk, seeded())
    assert [len(batch) for batch in ahead] == [3, 3, 1]
    assert all(torch.equal(one, other) for one, other in zip(plainly, ahead, strict=True))
    assert asked == [[8, 7, 6], [5, 4, 3], [2]]


def test_the_next_batch_is_made_while_one_is_in_use() -> None:
    begun = [threading.Event() for _ in range(3)]

    def make(samples: Tensor) -> Tensor:
        begun[int(samples[0])].set()
        return samples

    pixels = dataclasses.replace(pixels_of(draw_images(3, 4), [0, 1, 2], 4), read_ahead=lambda _: None)
    coming = pixels.ahead(torch.split(torch.arange(3), 1), make)
    assert next(coming).tolist() == [0]
    assert begun[1].wait(10)
    assert not begun[2].is_set()
    assert [batch.tolist() for batch in coming] == [[1], [2]]


def test_what_fails_ahead_fails_in_its_turn() -> None:
    def make(samples: Tensor) -> Tensor:
        if samples[0] == 1:
            raise OSError("the disk is gone")
        return samples

    pixels = dataclasses.replace(pixels_of(draw_images(3, 4), [0, 1, 2], 4), read_ahead=lambda _: None)
    coming = pixels.ahead(torch.split(torch.arange(3), 1), make)
    assert next(coming).tolist() == [0]
    with pytest.raises(OSError, match="gone"):
        next(coming)


@pytest.mark.parametrize("memory_limit", [None, 0])
def test_pixels_of_a_store(memory_limit: int | None, tmp_path: Path) -> None:
    paths = [tmp_path / "images" / path for path in draw(tmp_path / "images", rows=5)["path"]]
    store = decode_all(paths, 8, "squash", tmp_path, memory_limit=memory_limit)
    pixels = Pixels.of(store, np.array([1, 4]), 6, torch.device("cpu"))
    assert torch.equal(pixels.images[pixels.rows], torch.from_numpy(store.images[[1, 4]]))
    assert pixels.mean.numpy() == pytest.approx(store.images[[1, 4]].mean((0, 1, 2)) / 255, abs=1e-5)
    assert pixels.size == 6
    assert (pixels.read_ahead is not None) == (memory_limit == 0)
