"""Image files: read their headers and decode them into RGB squares.

Files are untrusted. Any fault becomes an UnreadableImageError with a short reason. No image is decoded before its
header shows an acceptable size.
"""

import contextlib
import errno
import itertools
import logging
import re
import stat
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from noisyknn.errors import InputError, counted, first_ten, shortened

Fit = Literal["squash", "crop"]
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # rasters only: for EPS, Pillow runs other programs
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")
_SMALL = 256 * 256  # typical_size decodes images up to this size, to see whether they are grey
_LARGE = 16 * 2**20  # larger images are decoded one at a time, to bound memory
_REDUCING_GAP = 2  # a cheap first reduction leaves at least this many times the target size

_one_large_image = threading.Lock()

# Without a handler, Python prints Pillow's log of damaged files to standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class UnreadableImageError(ValueError):
    """An image cannot be decoded; the message is a short reason, without the path."""


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about odd files.

    Warning filters belong to the whole process: use this once, around all decoding threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def some_unreadable(number: int) -> str:
    """The message that `number` images are unreadable."""
    return counted(
        number, "image could not be read and keeps its label", "images could not be read and keep their labels"
    )


def nothing_readable(total: int, failures: Sequence[str]) -> InputError:
    """The error that none of `total` images can be read; `failures` are ``path: reason``."""
    return InputError(f"none of the {total:,} images could be read ({first_ten(failures)}); check `images`")


def evenly_spread(total: int, sample: int) -> npt.NDArray[np.int64]:
    """At most `sample` distinct, ascending indices, spread evenly from 0 to ``total - 1``."""
    return np.linspace(0, total - 1, min(sample, total)).astype(np.int64)


def decode(path: Path, size: int, fit: Fit) -> npt.NDArray[np.uint8]:
    """The first frame of an image file, upright, in RGB on white: (size, size, 3).

    ``squash`` squeezes an oblong image whole, ``crop`` keeps its centre square. An RGB image of `size` by `size` pixels
    keeps every bit. Raises UnreadableImageError for a file that cannot be decoded. Pillow may warn: see `quiet_pillow`.
    """
    with _opened(path) as image:
        # a JPEG decodes faster to a half, a quarter or an eighth; a progressive one still needs memory for the whole
        whole = image.width * image.height if "progressive" in image.info else 0
        image.draft(None, (size * _REDUCING_GAP, size * _REDUCING_GAP))
        large = max(whole, image.width * image.height) > _LARGE
        with _one_large_image if large else contextlib.nullcontext():
            image.load()
            with contextlib.suppress(Exception):  # damaged metadata does not damage the picture
                ImageOps.exif_transpose(image, in_place=True)
            return np.array(_squared(image, size, fit))


def _squared(image: ImageFile.ImageFile, size: int, fit: Fit) -> Image.Image:
    """A decoded image as RGB of `size` by `size` pixels."""
    plain = _eight_bits(image)
    if fit == "crop":
        edge = min(plain.size)
        left, top = (plain.width - edge) // 2, (plain.height - edge) // 2
        plain = plain.crop((left, top, left + edge, top + edge))
    return _on_white(plain.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP))


def typical_size(paths: Sequence[Path], sample: int = 256) -> tuple[int, bool]:
    """Median short edge, in pixels, of an even sample of the readable images, and whether all of the sample are grey.

    Only headers are read, but small colour images are decoded to see whether their channels differ; large ones count as
    coloured. Raises InputError if no image at all is readable.
    """
    failures: dict[Path, str] = {}
    with quiet_pillow():
        found = [glance for i in evenly_spread(len(paths), sample) if (glance := _glance(paths[i], failures))]
        if not found:
            found = list(itertools.islice(filter(None, (_glance(path, failures) for path in paths)), sample))
    if not found:
        raise nothing_readable(len(paths), [f"{shortened(str(path))}: {why}" for path, why in failures.items()])
    edges, grey = zip(*found, strict=True)
    return int(np.median(edges)), all(grey)


def _glance(path: Path, failures: dict[Path, str]) -> tuple[int, bool] | None:
    """Short edge in pixels, and whether the image is grey if that is cheap to check; None after a failure."""
    try:
        with _opened(path) as image:
            edge = min(image.size)
            if image.mode in _GREY_MODES or image.mode.startswith("I;"):
                return edge, True
            if image.width * image.height > _SMALL:
                return edge, False
            pixels = np.asarray(_on_white(_eight_bits(image)))
            return edge, bool((pixels == pixels[..., :1]).all())
    except UnreadableImageError as error:
        failures[path] = str(error)
        return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """An image with an acceptable size in its header; every failure inside becomes an UnreadableImageError."""
    try:
        _check_file(path)
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
            if limit is not None and pixels > limit:
                raise UnreadableImageError(_too_many(pixels))
            yield image
    except UnreadableImageError:
        raise
    except Exception as error:  # damaged files make Pillow's plug-ins raise almost anything
        raise UnreadableImageError(_reason(error)) from error


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except ValueError as error:  # a NUL byte, or letters that the file system lacks
        raise UnreadableImageError("no file can have this name") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableImageError("a folder, not a file")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
        raise UnreadableImageError("not a regular file")
    if status.st_size == 0:
        raise UnreadableImageError("zero bytes")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        told = re.search(r"\d+", str(error))
        return _too_many(int(told.group()) if told else None)
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, OSError) and error.errno:
        known = {
            errno.ENOENT: "no such file",
            errno.ENOTDIR: "no such file",
            errno.EACCES: "no permission to read it",
            errno.EPERM: "no permission to read it",
            errno.EINVAL: "truncated or damaged",  # its header points before its start
        }
        return known.get(error.errno, str(error.strerror).lower())
    return "truncated or damaged"


def _too_many(pixels: int | None) -> str:
    counted = "too many" if pixels is None else f"{pixels:,}"
    return f"{counted} pixels; at most {Image.MAX_IMAGE_PIXELS:,} are decoded"


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image as RGB, grey (L) or, with transparency, RGBA, 8 bits each: modes that Pillow resizes well."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled_greys(image))
    mode = "RGBA" if image.has_transparency_data else "L" if image.mode == "L" else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image) -> Image.Image:
    """The RGB of an image from `_eight_bits`; on Pillow's black, black glyphs with transparency would vanish."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _scaled_greys(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Greys of 16 or 32 bits, (H, W), scaled to 0..255; Pillow's own conversion clips them.

    Greys of 16 bits have a white of 65,535. Greys of 32 bits do not name theirs: it is taken as 1 (floats only), 255 or
    65,535, the first that no value exceeds, so that most images of a set scale alike. Values that fit none are
    stretched from their smallest to their largest.
    """
    values = np.asarray(image).astype(np.float32)
    low, high = 0.0, 65_535.0
    # older Pillow opens 16-bit PNG and PPM as 32 bits
    if image.mode in ("I", "F") and not (image.mode == "I" and image.format in ("PNG", "PPM")):
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        whites = [white for white in (1.0, 255.0, 65_535.0) if high <= white and (image.mode == "F" or white > 1)]
        low, high = (0.0, whites[0]) if low >= 0 and whites else (low, max(high, low + 1e-6))
    scaled = np.nan_to_num((values - low) * np.float32(255 / (high - low)))
    grey: npt.NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return grey
