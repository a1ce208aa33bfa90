"""How fast each stage of `clean` is on this machine, beside the same work by plain means in the same run."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from noisyknn.config import Config
from noisyknn.data.augment import Pixels
from noisyknn.data.store import ImageStore, decode_all
from noisyknn.knn.search import find_search, nearest
from noisyknn.methods.spec import DEFAULT
from noisyknn.models.backbone import Backbone
from noisyknn.models.factory import build_backbone
from noisyknn.observer import Observer, Silent
from noisyknn.paper import plain
from noisyknn.paper.pictures import PHOTOGRAPH, write_pictures
from noisyknn.presets import overridden, preset_settings
from noisyknn.training.device import find_device, thread_count, threads, wants_bf16
from noisyknn.training.plan import eq7_plan
from noisyknn.training.trainer import EpochReport, Trainer

CLASSES = 10
PHOTOGRAPH_STORED = 224
MOST_DECODED = 5_000
"""Pictures that decoding is measured with: it takes as long for each, however many there are."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One piece of work, and the same by plain means."""

    name: str
    rows: int
    """Images that it was done for."""
    seconds: float
    """Median of the repetitions."""
    plain: str | None = None
    """What it is compared with."""
    plain_seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it, with images per second and how many times longer the plain way takes."""
        ratio = None if self.plain_seconds is None else round(self.plain_seconds / self.seconds, 2)
        return dataclasses.asdict(self) | {"per_second": round(self.rows / self.seconds), "ratio": ratio}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured."""

    config: Config
    bf16: bool
    stages: tuple[Stage, ...]
    step: Mapping[str, float]
    """Share of each part of a training step in its time."""

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "stages": [stage.as_dict() for stage in self.stages],
            "step": dict(self.step),
            "bf16": self.bf16,
            "config": dataclasses.asdict(self.config),
        }


def measure(
    rows: Sequence[int],
    preset: str,
    overrides: Mapping[str, object],
    *,
    repeats: int = 3,
    workers: int = 2,
    observer: Observer | None = None,
) -> Speed:
    """Measure every stage on drawn pictures.

    Training and neighbours are measured for each number of `rows`, decoding for up to MOST_DECODED of the first.
    `overrides` are settings that go before those of the preset. Work of ours and its plain counterpart are repeated in
    turn. `workers` processes load the plain loop's images. Raises UsageError or MachineError for settings that do not
    work here.
    """
    told = observer or Silent()
    device = find_device(str(overrides.get("device", "auto")))
    size = overrides.get("image_size", 32)
    settings, _ = preset_settings(
        preset,
        method=DEFAULT,
        rows=rows[0],
        classes=CLASSES,
        size=size if isinstance(size, int) else 32,
        grey=False,
        gpu=device.type == "cuda",
    )
    config = overridden(settings, overrides)
    find_search(config.search, device)  # what cannot be had is told now, before any work
    _new_model(config)
    with tempfile.TemporaryDirectory(prefix="noisyknn-benchmark-") as temporary, threads(thread_count(config)):
        folder = Path(temporary)
        side = config.store_size or config.image_size
        decoded = min(rows[0], MOST_DECODED)
        told.note(f"drawing {max(rows):,} pictures of {side} x {side} pixels and {decoded:,} of 500 x 375")
        small = write_pictures(folder, max(rows), side, side, config.seed)
        large = write_pictures(folder, decoded, *PHOTOGRAPH, config.seed)
        stages = [
            _decoding("decode 500 x 375 to 224", large, PHOTOGRAPH_STORED, folder, repeats),
            _decoding(f"decode {side} x {side}", small[:decoded], side, folder, repeats),
        ]
        bench = _Bench(config=config, device=device, files=small, store=decode_all(small, side, config.fit, folder))
        for count in rows:
            told.note(f"training on and searching among {count:,}")
            stages += bench.stages(count, repeats, workers)
        return Speed(config=config, bf16=bench.bf16, stages=tuple(stages), step=bench.step_shares(rows[0]))


@dataclass(frozen=True, kw_only=True)
class _Bench:
    config: Config
    device: torch.device
    files: Sequence[Path]
    store: ImageStore

    @property
    def bf16(self) -> bool:
        return wants_bf16(self.config.precision, self.device)

    def stages(self, count: int, repeats: int, workers: int) -> list[Stage]:
        """Training, inspection and neighbours of that many rows."""
        pixels = Pixels.of(self.store, np.arange(count), self.config.image_size, self.device)
        labels = torch.arange(count, device=self.device) % CLASSES
        pictures = plain.Pictures(self.files[:count], labels.tolist(), self.config)
        first_batch = plain.Pictures(self.files[: self.config.batch_size], labels.tolist(), self.config)
        epochs: list[float] = []
        trainer = self.trainer(pixels, labels, lambda report: epochs.append(report.seconds))
        network = _new_model(self.config).to(self.device)
        plain.train_epoch(network, first_batch, self.config.batch_size, self.device, 0)  # warms up, as ours does
        plain_epochs = []
        for _ in range(repeats):
            model = trainer.train(eq7_plan(trainer.config, labels, labels, 0.0, 0)).model
            plain_epochs.append(plain.train_epoch(network, pictures, self.config.batch_size, self.device, workers))
        inspected, (features, _) = timed(lambda: trainer.inspect(model), self.device)
        return [
            Stage(
                name="train an epoch",
                rows=count,
                seconds=statistics.median(epochs[1::2]),  # the first of each two warms up
                plain="DataLoader, fp32",
                plain_seconds=statistics.median(plain_epochs),
            ),
            Stage(name="features of all", rows=count, seconds=inspected),
            _neighbors(features, self.config, self.device, repeats),
        ]

    def step_shares(self, count: int) -> dict[str, float]:
        """Share of each part of a training step in its time."""
        parts = _Parts(self.device)
        pixels = Pixels.of(self.store, np.arange(count), self.config.image_size, self.device)
        labels = torch.arange(count, device=self.device) % CLASSES
        trainer = self.trainer(_TimedPixels(**vars(pixels), parts=parts), labels, parts.restart)
        with parts.watching_optimizers():
            watched = dataclasses.replace(trainer, new_model=lambda: parts.watching(_new_model(self.config)))
            watched.train(eq7_plan(trainer.config, labels, labels, 0.0, 0))
        whole = sum(parts.seconds.values())
        return {name: round(seconds / whole, 4) for name, seconds in parts.seconds.items()}

    def trainer(self, pixels: Pixels, labels: Tensor, on_epoch: Callable[[EpochReport], None]) -> Trainer:
        """A trainer of two epochs."""
        return Trainer(
            pixels=pixels,
            given_labels=labels,
            new_model=partial(_new_model, self.config),
            config=dataclasses.replace(self.config, epochs=2, progressive=False),
            device=self.device,
            bf16=self.bf16,
            checkpoints=NoCheckpoints(),
            on_epoch=on_epoch,
            observer=Silent(),
        )


def _new_model(config: Config) -> Backbone:
    return build_backbone(
        config.backbone, classes=CLASSES, image_size=config.image_size, width=config.width, seed=config.seed
    )


class NoCheckpoints:
    """Keeps nothing."""

    def load(self, episode: int) -> None:  # noqa: ARG002
        """Nothing was kept."""
        return None

    def save(self, episode: int, epochs_done: int, state: Mapping[str, Tensor]) -> None:
        """Keep nothing."""


class _Parts:
    """A clock that says how long each part of a step took; a GPU is waited for at every part's end."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(
            ("augmentation", "forward", "loss and backward", "optimiser", "tracking"), 0.0
        )
        self._device = device
        self._since = time.perf_counter()

    def end(self, part: str) -> None:
        """What was done since the last part's end was `part`."""
        synchronize(self._device)
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now

    def restart(self, report: EpochReport) -> None:
        """Forget the first epoch, which warms up."""
        if report.epoch == 0:
            self.seconds = dict.fromkeys(self.seconds, 0.0)
            self._since = time.perf_counter()

    def watching(self, model: Backbone) -> Backbone:
        """The model, telling the clock of every forward pass."""
        model.register_forward_hook(lambda *_: self.end("forward"))
        return model

    @contextmanager
    def watching_optimizers(self) -> Iterator[None]:
        before = register_optimizer_step_pre_hook(lambda *_: self.end("loss and backward"))
        after = register_optimizer_step_post_hook(lambda *_: self.end("optimiser"))
        try:
            yield
        finally:
            before.remove()
            after.remove()


@dataclass(frozen=True, kw_only=True)
class _TimedPixels(Pixels):
    parts: _Parts

    def augmented(self, samples: Tensor, size: int, config: Config, generator: torch.Generator) -> Tensor:
        self.parts.end("tracking")
        batch = super().augmented(samples, size, config, generator)
        self.parts.end("augmentation")
        return batch


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds that `work` takes, and what it gives."""
    synchronize(device)
    started = time.perf_counter()
    result = work()
    synchronize(device)
    return time.perf_counter() - started, result


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turn(
    ours: Callable[[], Any], theirs: Callable[[], Any], device: torch.device, repeats: int
) -> tuple[float, float]:
    """Median seconds of both, done in turn."""
    pairs = [(timed(ours, device)[0], timed(theirs, device)[0]) for _ in range(repeats)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def _decoding(name: str, files: Sequence[Path], size: int, folder: Path, repeats: int) -> Stage:
    seconds, plain_seconds = in_turn(
        lambda: decode_all(files, size, "squash", folder),
        lambda: plain.decode(files, size),
        torch.device("cpu"),
        repeats,
    )
    return Stage(name=name, rows=len(files), seconds=seconds, plain="Pillow, a loop", plain_seconds=plain_seconds)


def _neighbors(features: Tensor, config: Config, device: torch.device, repeats: int) -> Stage:
    from sklearn.neighbors import NearestNeighbors

    count = len(features)
    search, everyone = find_search(config.search, device), torch.arange(count, device=device)
    k = min(config.k, count - 1)
    host = features.cpu().numpy()

    def ours() -> None:
        for _ in nearest(features, everyone, k, search):
            pass

    def theirs() -> None:
        NearestNeighbors(n_neighbors=k, algorithm="brute").fit(host).kneighbors(host)

    seconds, plain_seconds = in_turn(ours, theirs, device, repeats)
    return Stage(
        name=f"nearest {k} of all",
        rows=count,
        seconds=seconds,
        plain="scikit-learn, brute",
        plain_seconds=plain_seconds,
    )
