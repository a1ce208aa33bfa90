import errno
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from noisyknn.data import images, store
from noisyknn.data.images import Fit, decode
from noisyknn.data.store import ImageStore, available_memory, decode_all
from noisyknn.errors import InputError, MachineError

SIZE = 6


def draw(folder: Path, count: int) -> list[Path]:
    """Images of one colour each: row i is (i, 2 i, 255 - i)."""
    paths = [folder / f"{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.new("RGB", (SIZE, SIZE), colour(i)).save(path)
    return paths


def colour(row: int) -> tuple[int, int, int]:
    return row, 2 * row, 255 - row


def a_store(images: npt.NDArray[np.uint8]) -> ImageStore:
    readable = np.ones(len(images), dtype=np.bool_)
    return ImageStore(images=images, readable=readable, reasons={}, digests=np.arange(len(images)))


class TestDecodeAll:
    @pytest.mark.parametrize("workers", [1, 3, None])
    def test_rows_keep_their_order(self, tmp_path: Path, workers: int | None) -> None:
        done = decode_all(draw(tmp_path, 100), SIZE, "squash", tmp_path, workers=workers)
        assert done.images.shape == (100, SIZE, SIZE, 3)
        assert done.images.dtype == np.uint8
        assert all((done.images[row] == colour(row)).all() for row in range(100))
        assert done.readable.all()
        assert done.reasons == {}

    def test_copies_have_the_same_digest(self, tmp_path: Path) -> None:
        paths = draw(tmp_path, 4)
        Image.open(paths[1]).save(tmp_path / "copy.bmp")
        (tmp_path / "broken.png").write_bytes(b"no image")
        done = decode_all([*paths, tmp_path / "copy.bmp", tmp_path / "broken.png"], SIZE, "squash", tmp_path)
        assert len(set(done.digests[:4].tolist())) == 4
        assert done.digests[4] == done.digests[1]
        assert done.digests[5] == 0

    def test_rows_are_what_decode_gives(self, tmp_path: Path) -> None:
        paths = [tmp_path / f"{i}.jpg" for i in range(5)]
        dice = np.random.default_rng(0)
        for path in paths:
            Image.fromarray(dice.integers(0, 256, (30, 50, 3), dtype=np.uint8)).save(path)
        fits: tuple[Fit, ...] = ("squash", "crop")
        for fit in fits:
            done = decode_all(paths, SIZE, fit, tmp_path)
            assert np.array_equal(done.images, np.stack([decode(path, SIZE, fit) for path in paths]))

    def test_unreadable_rows_are_zeros_with_a_reason(self, tmp_path: Path) -> None:
        paths = draw(tmp_path, 40)
        paths[3].unlink()
        paths[39].write_bytes(b"")
        paths[20].write_text("path,label\n")
        done = decode_all(paths, SIZE, "squash", tmp_path, workers=2)
        assert list(done.reasons.items()) == [
            (3, "no such file"),
            (20, "not an image that Pillow can read"),
            (39, "zero bytes"),
        ]
        assert np.flatnonzero(~done.readable).tolist() == [3, 20, 39]
        assert not done.images[[3, 20, 39]].any()
        assert all((done.images[row] == colour(row)).all() for row in range(40) if row not in done.reasons)

    def test_progress_adds_up_and_stays_in_this_thread(self, tmp_path: Path) -> None:
        steps: list[int] = []
        threads = set()

        def advance(step: int) -> None:
            steps.append(step)
            threads.add(threading.get_ident())

        decode_all(draw(tmp_path, 70), SIZE, "squash", tmp_path, advance=advance, workers=2)
        assert sum(steps) == 70
        assert len(steps) > 2
        assert threads == {threading.get_ident()}

    def test_an_interrupt_stops_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        begun: list[Path] = []

        def slow(path: Path, size: int, _: Fit) -> npt.NDArray[np.uint8]:
            begun.append(path)
            time.sleep(0.005)
            return np.zeros((size, size, 3), dtype=np.uint8)

        def interrupt(_: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(store, "decode", slow)
        paths = [tmp_path / f"{i}.png" for i in range(2000)]
        with pytest.raises(KeyboardInterrupt):
            decode_all(paths, SIZE, "squash", tmp_path, advance=interrupt, workers=2)
        assert 0 < len(begun) < 150  # what the workers had at hand

    @pytest.mark.parametrize(("large", "together"), [(SIZE * SIZE - 1, 1), (SIZE * SIZE, 2)])
    def test_large_images_are_decoded_one_at_a_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int, together: int
    ) -> None:
        busy: list[int] = []
        most = 0
        squared = images._squared

        def slow(*arguments: Any) -> Image.Image:
            nonlocal most
            busy.append(1)
            time.sleep(0.005)
            most = max(most, len(busy))
            busy.pop()
            return squared(*arguments)

        monkeypatch.setattr(images, "_squared", slow)
        monkeypatch.setattr(images, "_LARGE", large)
        assert decode_all(draw(tmp_path, 40), SIZE, "squash", tmp_path, workers=2).readable.all()
        assert most == together

    def test_warnings_of_pillow_stay_inside(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jpg"
        Image.new("RGB", (SIZE, SIZE), (90, 90, 90)).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x63\x01")
        with pytest.warns(UserWarning, match="EXIF"), Image.open(path) as image:
            image.getexif()
        done = decode_all([path] * 20, SIZE, "squash", tmp_path, workers=2)
        assert (done.images == 90).all()

    def test_nothing_readable(self, tmp_path: Path) -> None:
        paths = [tmp_path / f"{i}.png" for i in range(30)]
        with pytest.raises(InputError) as caught:
            decode_all(paths, SIZE, "squash", tmp_path, workers=2)
        message = str(caught.value)
        assert message.startswith(f"none of the 30 images could be read ({tmp_path}/0.png: no such file, ")
        assert f"{tmp_path}/9.png: no such file … and 20 more" in message
        assert message.endswith("check `images`")

    def test_other_errors_are_not_swallowed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> npt.NDArray[np.uint8]:
            raise AssertionError("a fault of the tool")

        monkeypatch.setattr(store, "decode", broken)
        with pytest.raises(AssertionError, match="a fault of the tool"):
            decode_all([tmp_path] * 50, SIZE, "squash", tmp_path, workers=2)


class TestMappedFile:
    def test_holds_the_same_pixels_as_memory(self, tmp_path: Path) -> None:
        paths = draw(tmp_path, 40)
        paths[7].unlink()
        (tmp_path / "run").mkdir()
        (tmp_path / "run/images.u8").write_bytes(b"left over from an interrupted run" * 1000)
        in_memory = decode_all(paths, SIZE, "squash", tmp_path)
        mapped = decode_all(paths, SIZE, "squash", tmp_path / "run", memory_limit=40 * SIZE * SIZE * 3 - 1)
        assert isinstance(mapped.images, np.memmap)
        assert not isinstance(in_memory.images, np.memmap)
        assert np.array_equal(mapped.images, in_memory.images)
        assert mapped.reasons == in_memory.reasons
        assert (tmp_path / "run/images.u8").stat().st_size == 40 * SIZE * SIZE * 3
        assert not (tmp_path / "images.u8").exists()

    def test_can_be_read_ahead(self, tmp_path: Path) -> None:
        mapped = decode_all(draw(tmp_path, 5), SIZE, "squash", tmp_path, memory_limit=0)
        assert mapped.on_disk
        mapped.read_ahead(np.array([4, 0, 2]))  # the system refuses what does not begin at a page
        assert not decode_all(draw(tmp_path, 5), SIZE, "squash", tmp_path).on_disk

    def test_memory_is_used_up_to_the_limit(self, tmp_path: Path) -> None:
        done = decode_all(draw(tmp_path, 2), SIZE, "squash", tmp_path, memory_limit=2 * SIZE * SIZE * 3)
        assert not isinstance(done.images, np.memmap)

    def test_half_of_the_available_memory_is_the_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        paths = draw(tmp_path, 2)
        needed = 2 * SIZE * SIZE * 3
        monkeypatch.setattr(store, "available_memory", lambda: 2 * needed)
        assert not isinstance(decode_all(paths, SIZE, "squash", tmp_path).images, np.memmap)
        monkeypatch.setattr(store, "available_memory", lambda: 2 * needed - 2)
        assert isinstance(decode_all(paths, SIZE, "squash", tmp_path).images, np.memmap)

    def test_a_full_disk_is_found_before_anything_is_decoded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "posix_fallocate", full)
        monkeypatch.setattr(store, "decode", lambda *_: pytest.fail("decoded"))
        with pytest.raises(MachineError, match=r"images\.u8 cannot be made: no space left.*40 images.*0\.0 GB"):
            decode_all([tmp_path] * 40, SIZE, "squash", tmp_path, memory_limit=0)
        assert not (tmp_path / "images.u8").exists()

    def test_the_disk_blocks_are_taken_at_once(self, tmp_path: Path) -> None:
        decode_all(draw(tmp_path, 1), 600, "squash", tmp_path, memory_limit=0)
        status = (tmp_path / "images.u8").stat()
        assert status.st_blocks * 512 >= status.st_size == 600 * 600 * 3

    def test_a_file_instead_of_a_folder(self, tmp_path: Path) -> None:
        paths = draw(tmp_path, 1)
        with pytest.raises(MachineError, match=r"0\.png/images\.u8 cannot be made: not a directory"):
            decode_all(paths, SIZE, "squash", paths[0], memory_limit=0)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(MachineError, match=r"gone/images\.u8 cannot be made: no such file"):
            decode_all(draw(tmp_path, 1), SIZE, "squash", tmp_path / "gone", memory_limit=0)


class TestTensor:
    @pytest.mark.parametrize("memory_limit", [None, 0])
    def test_on_the_cpu_it_is_a_view(self, tmp_path: Path, memory_limit: int | None) -> None:
        done = decode_all(draw(tmp_path, 3), SIZE, "squash", tmp_path, memory_limit=memory_limit)
        tensor = done.tensor(torch.device("cpu"))
        assert tensor.shape == (3, SIZE, SIZE, 3)
        assert tensor.dtype == torch.uint8
        assert tensor.data_ptr() == done.images.ctypes.data

    def test_stays_on_the_host_where_the_gpu_is_too_full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (999, 10**9))  # 60 % of 999 holds 599 bytes
        images = np.zeros((2, 10, 10, 3), dtype=np.uint8)
        tensor = a_store(images).tensor(torch.device("cuda"))
        assert tensor.device.type == "cpu"
        assert tensor.data_ptr() == images.ctypes.data

    def test_moves_where_the_gpu_has_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        moved = []

        def move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
            moved.append(device)
            return tensor

        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 10**9))
        monkeypatch.setattr(torch.Tensor, "to", move)
        a_store(np.zeros((2, 10, 10, 3), dtype=np.uint8)).tensor(torch.device("cuda:1"))
        assert moved == [torch.device("cuda:1")]

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_on_a_gpu(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
        tensor = a_store(images).tensor(torch.device("cuda"))
        assert tensor.device.type == "cuda"
        assert np.array_equal(tensor.cpu().numpy(), images)


class TestMeanStd:
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 5, 3), dtype=np.uint8)

    def test_are_those_of_the_rows(self) -> None:
        mean, std = a_store(self.images).mean_std(np.array([1, 3, 15]))
        pixels = self.images[[1, 3, 15]].astype(np.float64) / 255
        assert mean.dtype == std.dtype == np.float32
        assert mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), abs=1e-6)
        assert std == pytest.approx(pixels.std(axis=(0, 1, 2)), abs=1e-6)

    def test_of_many_images_are_those_of_an_even_sample(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (9000, 1, 1, 3), dtype=np.uint8)
        mean, _ = a_store(images).mean_std(np.arange(9000))
        sample = np.linspace(0, 8999, 4096).astype(int)
        assert mean == pytest.approx(images[sample].mean(axis=(0, 1, 2)) / 255, abs=1e-6)

    @pytest.mark.parametrize("level", [0, 77, 255])
    def test_blank_images_can_be_divided_by_their_std(self, level: int) -> None:
        mean, std = a_store(np.full((3, 4, 4, 3), level, dtype=np.uint8)).mean_std(np.arange(3))
        assert mean == pytest.approx([level / 255] * 3)
        assert std == pytest.approx([1e-3] * 3)


class TestAvailableMemory:
    @pytest.fixture(autouse=True)
    def machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "meminfo").write_text("MemTotal:       16000 kB\nMemAvailable:    8000 kB\nHugePages_Total:  0\n")
        monkeypatch.setattr(store, "_MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(store, "_CGROUP", tmp_path)

    def limit_container(self, folder: Path, limit: str, used: int) -> None:
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.stat").write_text(f"anon {used}\nfile 999999\n")

    def test_of_the_machine(self) -> None:
        assert available_memory() == 8000 * 1024

    def test_of_a_container_with_a_limit(self, tmp_path: Path) -> None:
        self.limit_container(tmp_path, "5000000", used=2_000_000)
        assert available_memory() == 3_000_000

    def test_of_a_container_with_more_than_the_machine_has(self, tmp_path: Path) -> None:
        self.limit_container(tmp_path, "99000000", used=0)
        assert available_memory() == 8000 * 1024

    def test_of_a_container_without_a_limit(self, tmp_path: Path) -> None:
        self.limit_container(tmp_path, "max", used=0)
        assert available_memory() == 8000 * 1024

    def test_without_meminfo(self, tmp_path: Path) -> None:
        (tmp_path / "meminfo").unlink()
        assert 1 << 26 < available_memory() < sys.maxsize
