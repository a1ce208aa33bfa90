import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageOps

from noisyknn.data import images, jpeg
from noisyknn.data.images import decode
from noisyknn.data.jpeg import decode_plain
from noisyknn.data.orientation import orientation_of, upright


def picture(height: int, width: int) -> Image.Image:
    """Smooth colours, as in photographs, that differ everywhere."""
    rough = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **options: object) -> io.BufferedReader:
    raw = io.BytesIO()
    image.save(raw, "JPEG", **options)
    return opened(raw.getvalue())


def opened(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))


def pillows(file: io.BufferedReader) -> npt.NDArray[np.uint8]:
    file.seek(0)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "options",
    [{}, {"quality": 30}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"optimize": True}],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_pixels_are_pillows(mode: str, options: dict[str, object]) -> None:
    file = encoded(picture(37, 50).convert(mode), **options)
    plain = decode_plain(file, 50)
    assert plain is not None
    assert plain[1] == 1
    assert np.array_equal(plain[0], pillows(file))


@pytest.mark.parametrize(
    ("least", "expected"), [(301, (600, 800)), (300, (300, 400)), (150, (150, 200)), (20, (75, 100))]
)
def test_a_fraction_of_the_size_is_decoded_where_enough_is_left(least: int, expected: tuple[int, int]) -> None:
    plain = decode_plain(encoded(picture(600, 800)), least)
    assert plain is not None
    assert plain[0].shape[:2] == expected


def test_other_files_are_left_to_pillow() -> None:
    raw = io.BytesIO()
    picture(8, 8).save(raw, "PNG")
    assert decode_plain(opened(raw.getvalue()), 8) is None
    assert decode_plain(opened(b""), 8) is None
    assert decode_plain(encoded(picture(8, 8).convert("CMYK")), 8) is None


def test_damaged_files_are_left_to_pillow() -> None:
    whole = encoded(picture(64, 64)).read()
    for length in (3, 100, 400, len(whole) // 2, len(whole) - 2):
        assert decode_plain(opened(whole[:length]), 8) is None


def test_large_files_and_images_are_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    file = encoded(picture(64, 64))
    monkeypatch.setattr(jpeg, "_MOST_PIXELS", 64 * 64 - 1)
    assert decode_plain(file, 8) is None
    monkeypatch.undo()
    file.seek(0)
    monkeypatch.setattr(jpeg, "_MOST_BYTES", 100)
    assert decode_plain(file, 8) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_told_and_turned_as_pillow_turns_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = encoded(picture(30, 20), exif=exif)
    plain = decode_plain(file, 20)
    assert plain is not None
    assert plain[1] == orientation
    file.seek(0)
    with Image.open(file) as image:
        assert np.array_equal(upright(*plain), np.asarray(ImageOps.exif_transpose(image)))


def test_orientation_in_xmp_is_found() -> None:
    file = encoded(picture(8, 8), xmp=b'<x tiff:Orientation="6"/>')
    with Image.open(file) as image:
        expected = orientation_of(image)
    file.seek(0)
    plain = decode_plain(file, 8)
    assert plain is not None
    assert plain[1] == expected == 6


def test_an_orientation_that_there_is_none_of_turns_nothing() -> None:
    pixels = np.asarray(picture(4, 3))
    assert np.array_equal(upright(pixels, 99), pixels)


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_pillow_is_not_asked_and_would_say_the_same(
    fit: images.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    picture(150, 200).save(path)
    expected = np.asarray(Image.open(path).resize((80, 80), Image.Resampling.BILINEAR))
    if fit == "crop":
        expected = np.asarray(Image.open(path).crop((25, 0, 175, 150)).resize((80, 80), Image.Resampling.BILINEAR))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Image, "open", refuse)
    assert abs(decode(path, 80, fit).astype(int) - expected).max() <= 1
