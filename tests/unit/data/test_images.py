import io
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from noisyknn.data.images import (
    Fit,
    UnreadableImageError,
    decode,
    evenly_spread,
    quiet_pillow,
    typical_size,
)
from noisyknn.errors import InputError

WHITE = [255, 255, 255]


def noise(height: int = 8, width: int = 8, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def reason(path: Path) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(path, 8, "squash")
    return str(caught.value)


class TestExactPixels:
    @pytest.mark.parametrize("ending", ["png", "PNG", "bmp", "tif", "TIFF", "ppm", "webp"])
    @pytest.mark.parametrize("fit", ["squash", "crop"])
    def test_an_image_of_the_size_keeps_every_bit(self, tmp_path: Path, ending: str, fit: str) -> None:
        path = save(tmp_path / f"sub/dir/a.{ending}", Image.fromarray(noise()), lossless=True)
        decoded = decode(path, 8, fit)  # type: ignore[arg-type]
        assert decoded.dtype == np.uint8
        assert np.array_equal(decoded, noise())

    def test_jpeg_is_what_pillow_decodes(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.JPEG", Image.fromarray(noise()))
        with Image.open(path) as image:
            assert np.array_equal(decode(path, 8, "squash"), np.asarray(image))

    def test_compressed_tiff(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.tif", Image.fromarray(noise()), compression="tiff_lzw")
        assert np.array_equal(decode(path, 8, "squash"), noise())

    def test_the_ending_does_not_matter(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.jpg", Image.fromarray(noise()), format="PNG")
        assert np.array_equal(decode(path, 8, "squash"), noise())

    @pytest.mark.parametrize("shape", [(8, 13), (13, 8), (8, 8)])
    def test_crop_cuts_out_the_centre(self, tmp_path: Path, shape: tuple[int, int]) -> None:
        path = save(tmp_path / "a.png", Image.fromarray(noise(*shape)))
        top, left = (shape[0] - 8) // 2, (shape[1] - 8) // 2
        assert np.array_equal(decode(path, 8, "crop"), noise(*shape)[top : top + 8, left : left + 8])


class TestResizing:
    def test_squash_keeps_all_of_an_oblong_image(self, tmp_path: Path) -> None:
        halves = np.zeros((20, 60, 3), dtype=np.uint8)
        halves[:, 30:] = 200
        decoded = decode(save(tmp_path / "a.png", Image.fromarray(halves)), 10, "squash")
        assert (decoded[:, :4] == 0).all()
        assert (decoded[:, 6:] == 200).all()

    def test_shrinking_averages_instead_of_picking(self, tmp_path: Path) -> None:
        board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
        decoded = decode(save(tmp_path / "a.png", Image.fromarray(board.astype(np.uint8))), 8, "squash")
        assert (abs(decoded.astype(int) - 127) <= 2).all()

    def test_enlarges(self, tmp_path: Path) -> None:
        decoded = decode(save(tmp_path / "a.png", Image.new("RGB", (1, 3), (9, 8, 7))), 8, "crop")
        assert (decoded == [9, 8, 7]).all()

    def test_a_big_jpeg_shrinks_to_what_it_shows(self, tmp_path: Path) -> None:
        ramp = np.linspace(0, 255, 800)[None, :, None].repeat(600, 0).repeat(3, 2)
        path = save(tmp_path / "a.jpg", Image.fromarray(ramp.astype(np.uint8)), quality=95)
        cells = ramp.reshape(20, 30, 20, 40, 3).mean(axis=(1, 3))
        error = abs(decode(path, 20, "squash") - cells)
        assert error[:, 1:-1].max() < 3  # at the edges, antialiasing looks at half a neighbourhood
        assert error.max() < 6

    def test_a_big_jpeg_is_decoded_at_a_fraction_of_its_size(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.jpg", Image.fromarray(noise(800, 640)))
        with Image.open(path) as image:
            image.draft(None, (40, 40))
            assert image.size == (80, 100)
            expected = image.resize((20, 20), Image.Resampling.BILINEAR, reducing_gap=2)
        assert np.array_equal(decode(path, 20, "squash"), np.asarray(expected))

    @pytest.mark.parametrize("fit", ["squash", "crop"])
    def test_shrinks_as_pillow_does(self, tmp_path: Path, fit: Fit) -> None:
        image = Image.fromarray(noise(123, 97))
        cut = image if fit == "squash" else image.crop((0, 13, 97, 110))
        expected = cut.resize((10, 10), Image.Resampling.BILINEAR, reducing_gap=2)
        assert np.array_equal(decode(save(tmp_path / "a.png", image), 10, fit), np.asarray(expected))

    def test_transparent_images_shrink_as_they_look_on_white(self, tmp_path: Path) -> None:
        image = Image.fromarray(np.dstack([noise(123, 97), noise(123, 97, seed=1)[..., 0]]))
        white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        seen = decode(save(tmp_path / "a.png", image), 10, "squash").astype(int)
        assert abs(seen - decode(save(tmp_path / "b.png", white), 10, "squash")).max() <= 2

    def test_a_large_image_takes_no_more_than_twice_the_memory_of_its_pixels(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", Image.new("RGBA", (5000, 5000)))  # 100 MB decoded
        code = (
            "import resource, sys; from pathlib import Path; from noisyknn.data.images import decode\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "before = peak(); decode(Path(sys.argv[1]), 32, 'crop'); print(peak() - before)"
        )
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        assert int(done.stdout) * (1 if sys.platform == "darwin" else 1024) < 250e6


class TestColours:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
    def test_opaque_modes_show_the_same_picture(self, tmp_path: Path, mode: str) -> None:
        grey = np.where(noise()[..., :1] > 127, 255, 0).astype(np.uint8).repeat(3, 2)
        path = save(tmp_path / "a.png", Image.fromarray(grey).convert(mode))
        assert np.array_equal(decode(path, 8, "squash"), grey)

    def test_palette_colours(self, tmp_path: Path) -> None:
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, 10, 20, 30])
        assert (decode(save(tmp_path / "a.gif", image), 8, "squash") == [10, 20, 30]).all()

    def test_cmyk(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.tif", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
        assert (decode(path, 8, "squash") == [255, 0, 0]).all()

    def test_cmyk_jpeg(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (255, 0, 255, 0)), quality=95)
        assert abs(decode(path, 8, "squash").astype(int) - [0, 255, 0]).max() <= 3

    @pytest.mark.parametrize("ending", ["png", "webp", "tif"])
    def test_half_transparent_black_on_white_is_grey(self, tmp_path: Path, ending: str) -> None:
        path = save(tmp_path / f"a.{ending}", Image.new("RGBA", (8, 8), (0, 0, 0, 128)), lossless=True)
        assert (decode(path, 8, "squash") == 127).all()

    def test_black_glyphs_on_a_transparent_ground_stay_visible(self, tmp_path: Path) -> None:
        alpha = np.zeros((8, 8), dtype=np.uint8)
        alpha[2:6, 3:5] = 255
        glyph = np.stack([np.zeros_like(alpha), alpha], axis=-1)
        decoded = decode(save(tmp_path / "a.png", Image.fromarray(glyph)), 8, "squash")
        assert np.array_equal(decoded[..., 0], 255 - alpha)

    def test_transparent_palette_entry(self, tmp_path: Path) -> None:
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, 10, 20, 30])
        image.putpixel((0, 0), 0)
        for path in (
            save(tmp_path / "a.gif", image, transparency=0),
            save(tmp_path / "b.png", image, transparency=0),
            save(tmp_path / "c.png", image, transparency=b"\0\xff"),
        ):
            decoded = decode(path, 8, "squash")
            assert decoded[0, 0].tolist() == WHITE
            assert decoded[1, 1].tolist() == [10, 20, 30]

    def test_transparent_colour_of_rgb(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", Image.new("RGB", (8, 8), (1, 2, 3)), transparency=(1, 2, 3))
        assert (decode(path, 8, "squash") == 255).all()

    def test_palette_with_alpha_channel(self, tmp_path: Path) -> None:
        image = Image.new("PA", (8, 8), (1, 255))
        image.putpalette([0, 0, 0, 10, 20, 30])
        image.putpixel((0, 0), (1, 0))
        path = save(tmp_path / "a.tif", image)
        with Image.open(path) as saved:
            assert saved.mode == "PA"
        decoded = decode(path, 8, "squash")
        assert decoded[0, 0].tolist() == WHITE
        assert decoded[1, 1].tolist() == [10, 20, 30]


class TestDeepGreys:
    wide = np.array([[0, 257, 32_896, 65_535]] * 4, dtype=np.uint16)
    expected = (0, 1, 128, 255)

    def check(self, path: Path) -> None:
        decoded = decode(path, 4, "squash")
        assert (decoded == np.array(self.expected, dtype=np.uint8)[None, :, None]).all()

    @pytest.mark.parametrize("ending", ["png", "tif"])
    def test_16_bits_are_scaled_not_clipped(self, tmp_path: Path, ending: str) -> None:
        self.check(save(tmp_path / f"a.{ending}", Image.fromarray(self.wide)))

    def test_16_bits_big_endian(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        big = Image.frombytes("I;16B", (4, 4), self.wide.astype(">u2").tobytes())
        with Image.open(save(path, big)) as image:
            assert image.mode == "I;16B"
        self.check(path)

    def test_16_bits_of_a_pgm_which_pillow_opens_as_32(self, tmp_path: Path) -> None:
        path = tmp_path / "a.pgm"
        path.write_bytes(b"P5\n4 4\n65535\n" + self.wide.astype(">u2").tobytes())
        self.check(path)

    def test_a_dark_16_bit_png_opened_as_32_stays_dark(self, tmp_path: Path) -> None:
        path = tmp_path / "a.pgm"
        path.write_bytes(b"P5\n4 4\n65535\n" + np.full((4, 4), 200, dtype=">u2").tobytes())
        assert (decode(path, 4, "squash") == 1).all()

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0, 1, 128, 255], [0, 1, 128, 255]),
            ([0, 257, 32_896, 65_535], [0, 1, 128, 255]),
            ([0, 10_000_000, 20_000_000, 1_000_000_000], [0, 3, 5, 255]),
            ([-100, -50, 0, 100], [0, 64, 128, 255]),
            ([7, 7, 7, 7], [7, 7, 7, 7]),
        ],
    )
    def test_32_bit_integers(self, tmp_path: Path, values: list[int], expected: list[int]) -> None:
        path = save(tmp_path / "a.tif", Image.fromarray(np.array([values] * 4, dtype=np.int32)))
        assert decode(path, 4, "squash")[0, :, 0].tolist() == expected

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0.0, 0.25, 0.5, 1.0], [0, 64, 128, 255]),
            ([0.0, 1.0, 128.0, 255.0], [0, 1, 128, 255]),
            ([0.0, 257.0, 32_896.0, 65_535.0], [0, 1, 128, 255]),
            ([-1.0, 0.0, 0.5, 1.0], [0, 128, 191, 255]),
            ([-3.0, -3.0, -3.0, -3.0], [0, 0, 0, 0]),
            ([float("nan"), 0.5, float("-inf"), float("inf")], [0, 128, 0, 255]),
            ([float("nan")] * 4, [0, 0, 0, 0]),
        ],
    )
    def test_floats(self, tmp_path: Path, values: list[float], expected: list[int]) -> None:
        path = save(tmp_path / "a.tif", Image.fromarray(np.array([values] * 4, dtype=np.float32)))
        assert decode(path, 4, "squash")[0, :, 0].tolist() == expected


class TestFramesAndOrientation:
    @pytest.mark.parametrize("ending", ["gif", "tif", "webp"])
    def test_the_first_frame_counts(self, tmp_path: Path, ending: str) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
        path = save(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], lossless=True)
        assert (decode(path, 8, "squash") == [200, 0, 0]).all()

    @pytest.mark.parametrize("ending", ["png", "tif", "webp"])
    @pytest.mark.parametrize(
        ("orientation", "stored"),
        [
            (1, lambda upright: upright),
            (2, lambda upright: upright[:, ::-1]),
            (3, lambda upright: upright[::-1, ::-1]),
            (4, lambda upright: upright[::-1]),
            (5, lambda upright: upright.swapaxes(0, 1)),
            (6, lambda upright: np.rot90(upright, 1)),
            (7, lambda upright: upright[::-1, ::-1].swapaxes(0, 1)),
            (8, lambda upright: np.rot90(upright, -1)),
        ],
    )
    def test_exif_turns_the_image_upright(
        self,
        tmp_path: Path,
        ending: str,
        orientation: int,
        stored: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]],
    ) -> None:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        picture = Image.fromarray(np.ascontiguousarray(stored(noise(10, 8))))
        path = save(tmp_path / f"a.{ending}", picture, exif=exif, lossless=True)
        assert np.array_equal(decode(path, 8, "crop"), noise(10, 8)[1:9])

    def test_exif_of_a_jpeg(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6  # to be turned a quarter clockwise
        halves = np.zeros((16, 16, 3), dtype=np.uint8)
        halves[:, 8:] = 255
        decoded = decode(save(tmp_path / "a.jpg", Image.fromarray(halves), exif=exif), 8, "squash")
        assert decoded[:3].max() < 30
        assert decoded[5:].min() > 225

    def test_orientation_in_xmp_counts_too(self, tmp_path: Path) -> None:
        halves = np.zeros((16, 16, 3), dtype=np.uint8)
        halves[:, 8:] = 255
        xmp = b'<x tiff:Orientation="6"/>'
        decoded = decode(save(tmp_path / "a.jpg", Image.fromarray(halves), xmp=xmp), 8, "squash")
        assert decoded[:3].max() < 30
        assert decoded[5:].min() > 225

    def test_a_damaged_tag_beside_the_orientation_does_no_harm(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation], exif[ExifTags.Base.UserComment] = "x" * 6, 6, b"text"
        raw = exif.tobytes().replace(b"\x92\x86\0\x07", b"\x92\x86\0\x01")  # a text that is told to be numbers
        halves = np.zeros((16, 16, 3), dtype=np.uint8)
        halves[:, 8:] = 255
        with quiet_pillow():
            decoded = decode(save(tmp_path / "a.jpg", Image.fromarray(halves), exif=raw), 8, "squash")
        assert decoded[:3].max() < 30

    @pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x63\x01", b"Exif\0\0nonsense"])
    def test_damaged_exif_does_not_damage_the_picture(self, tmp_path: Path, exif: bytes) -> None:
        path = save(tmp_path / "a.jpg", Image.new("RGB", (8, 8), (90, 90, 90)), exif=exif)
        with quiet_pillow():
            assert (decode(path, 8, "squash") == 90).all()


class TestUnreadable:
    def test_missing(self, tmp_path: Path) -> None:
        assert reason(tmp_path / "gone.png") == "no such file"

    def test_below_a_file_instead_of_a_folder(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", Image.fromarray(noise()))
        assert reason(tmp_path / "a.png/b.png") == "no such file"

    def test_folder(self, tmp_path: Path) -> None:
        assert reason(tmp_path) == "a folder, not a file"

    def test_zero_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").touch()
        assert reason(tmp_path / "a.png") == "zero bytes"

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.png")
        assert reason(tmp_path / "a.png") == "not a regular file"

    def test_a_link_to_itself(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
        assert reason(tmp_path / "a.png") == "too many levels of symbolic links"

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = save(tmp_path / "a.png", Image.fromarray(noise()))

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patch:  # file modes do not bind root, whom tests may run as
            patch.setattr(Path, "open", refuse)
            assert reason(path) == "no permission to read it"

    @pytest.mark.parametrize(
        "raw", [b"path,label\na.png,cat\n", b"\0" * 500, b"%PDF-1.4\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
    )
    def test_no_image(self, tmp_path: Path, raw: bytes) -> None:
        (tmp_path / "a.jpg").write_bytes(raw)
        with quiet_pillow():
            assert reason(tmp_path / "a.jpg") == "not an image that Pillow can read"

    def test_formats_that_run_programs_are_not_opened(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.eps", Image.fromarray(noise()))
        assert reason(path) == "not an image that Pillow can read"

    @pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif", "gif", "ppm"])
    def test_truncated(self, tmp_path: Path, ending: str) -> None:
        path = save(tmp_path / f"a.{ending}", Image.fromarray(noise(64, 64)))
        path.write_bytes(path.read_bytes()[:-600])
        with quiet_pillow():
            assert reason(path) in ("truncated or damaged", "not an image that Pillow can read")

    def test_a_picture_of_50_000_by_50_000_is_refused_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(png_of(50_000, 50_000))
        start = time.perf_counter()
        assert reason(tmp_path / "a.png") == "2,500,000,000 pixels; at most 89,478,485 are decoded"
        assert time.perf_counter() - start < 1

    @pytest.mark.parametrize("quiet", [True, False])
    def test_a_picture_that_pillow_would_only_warn_about_is_refused(self, tmp_path: Path, quiet: bool) -> None:
        (tmp_path / "a.png").write_bytes(png_of(10_000, 10_000))
        expected = "100,000,000 pixels; at most 89,478,485 are decoded"
        if quiet:
            with quiet_pillow():
                assert reason(tmp_path / "a.png") == expected
        else:  # warnings are errors in these tests
            assert reason(tmp_path / "a.png") == expected

    def test_random_damage_is_an_unreadable_image_or_a_picture(self, tmp_path: Path) -> None:
        dice = random.Random(0)
        outcomes = set()
        for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"):
            buffer = io.BytesIO()
            Image.fromarray(noise(12, 12)).save(buffer, format=kind)
            for _ in range(60):
                raw = bytearray(buffer.getvalue())
                for _ in range(dice.choice([1, 3, 20])):
                    raw[dice.randrange(min(len(raw), 200))] = dice.randrange(256)
                (tmp_path / "a").write_bytes(raw[: dice.choice([len(raw), dice.randrange(len(raw))])])
                try:
                    with quiet_pillow():
                        outcomes.add(decode(tmp_path / "a", 8, "squash").shape)
                except UnreadableImageError:
                    outcomes.add(())
        assert outcomes == {(8, 8, 3), ()}


class TestTypicalSize:
    def test_median_of_the_short_edges(self, tmp_path: Path) -> None:
        shapes = [(10, 40), (50, 20), (30, 30)]
        paths = [save(tmp_path / f"{i}.png", Image.fromarray(noise(*shape))) for i, shape in enumerate(shapes)]
        assert typical_size(paths) == (20, False)

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "P", "I;16", "F"])
    def test_grey_by_mode_or_by_equal_channels(self, tmp_path: Path, mode: str) -> None:
        grey = Image.fromarray(noise()[..., 0])
        image = Image.fromarray(np.asarray(grey).astype(np.uint16)) if mode == "I;16" else grey.convert(mode)
        assert typical_size([save(tmp_path / "a.tif", image)]) == (8, True)

    @pytest.mark.parametrize("mode", ["RGB", "P"])
    def test_one_coloured_image_is_enough_for_colour(self, tmp_path: Path, mode: str) -> None:
        grey = save(tmp_path / "a.png", Image.fromarray(noise()[..., 0]))
        coloured = save(tmp_path / "b.png", Image.fromarray(noise()).convert(mode))
        assert typical_size([grey] * 5 + [coloured]) == (8, False)

    def test_large_images_are_not_decoded(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(png_of(4000, 3000))  # its pixels are missing
        assert typical_size([tmp_path / "a.png"]) == (3000, False)

    def test_samples_evenly_and_skips_the_unreadable(self, tmp_path: Path) -> None:
        paths = [save(tmp_path / f"{i}.png", Image.new("L", (i + 1, 99))) for i in range(9)]
        paths[4] = tmp_path / "gone.png"
        assert typical_size(paths, sample=3) == (5, True)  # of 0, 4, 8: edges 1 and 9

    def test_looks_at_all_when_the_sample_cannot_be_read(self, tmp_path: Path) -> None:
        paths = [tmp_path / f"gone{i}.png" for i in range(50)]
        paths[7] = save(tmp_path / "a.png", Image.new("L", (6, 5)))
        assert typical_size(paths, sample=2) == (5, True)

    def test_nothing_readable(self, tmp_path: Path) -> None:
        paths = [tmp_path / f"gone{i}.png" for i in range(3)]
        with pytest.raises(
            InputError, match=r"none of the 3 images .*gone0\.png: no such file, .*gone1.*check `images`"
        ):
            typical_size(paths, sample=2)


@pytest.mark.parametrize(
    ("total", "sample", "expected"), [(3, 9, [0, 1, 2]), (9, 3, [0, 4, 8]), (1, 1, [0]), (0, 5, [])]
)
def test_evenly_spread(total: int, sample: int, expected: list[int]) -> None:
    assert evenly_spread(total, sample).tolist() == expected
