#!/usr/bin/env python3
"""Time each stage of clean on this machine, beside plain code for the same work: speed.py [--rows 2000 …]

Draws its pictures, so it needs no data. Times decoding beside a Pillow loop, a training epoch beside a DataLoader in
float32, the features of all images, and the nearest neighbours beside scikit-learn; then the parts of a training step.
Several --rows show how the cost grows. Prints a table, or JSON with --json. Run nothing else on the machine.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from pictures import PHOTOGRAPH, Pictures, plain_epoch, write_pictures
from PIL import Image
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from noisyknn.config import Config, PresetName
from noisyknn.data.augment import Pixels
from noisyknn.data.store import ImageStore, decode_all
from noisyknn.errors import NoisyKnnError
from noisyknn.knn.search import find_search, nearest
from noisyknn.methods.spec import DEFAULT
from noisyknn.models.backbone import Backbone
from noisyknn.models.factory import build_backbone
from noisyknn.observer import Silent
from noisyknn.paper.study import NoCheckpoints
from noisyknn.presets import overridden, preset_settings
from noisyknn.training.device import find_device, thread_count, threads, wants_bf16
from noisyknn.training.plan import eq7_plan
from noisyknn.training.trainer import EpochReport, Trainer

CLASSES = 10
STORED = 224
"""Height and width of decoded photographs, in pixels."""
MOST_DECODED = 5_000
"""Largest number of pictures to decode; the time per picture does not depend on it."""


def main() -> None:
    """Read the options, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2000], help="numbers of pictures, 100 or more")
    parser.add_argument("--preset", choices=get_args(PresetName), default="auto")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions; the medians are printed")
    parser.add_argument("--workers", type=int, default=2, help="processes that load images for the DataLoader")
    parser.add_argument("--json", action="store_true", help="print JSON")
    for option in ("--backbone", "--search", "--device", "--precision"):
        parser.add_argument(option, help="as in noisyknn clean")
    for option in ("--image-size", "--batch-size", "--seed"):
        parser.add_argument(option, type=int, help="as in noisyknn clean")
    parser.add_argument("--width", type=float, help="as in noisyknn clean")
    chosen = vars(parser.parse_args())
    rows, preset, repeats, workers, as_json = map(chosen.pop, ("rows", "preset", "repeats", "workers", "json"))
    if min(rows) < 100 or repeats < 1:
        parser.error("--rows must be at least 100, and --repeats at least 1")
    settings = {name: value for name, value in chosen.items() if value is not None}
    try:
        found = measure(rows, preset, settings, repeats=repeats, workers=workers)
    except NoisyKnnError as error:
        sys.exit(str(error))
    print(json.dumps(found, indent=2) if as_json else as_text(found))


def as_text(found: dict[str, Any]) -> str:
    """The stages and the parts of a training step, one per line."""
    lines = [f"{'stage':26}{'rows':>9}{'seconds':>10}{'a second':>10}{'ratio':>8}  beside"]
    for stage in found["stages"]:
        ratio = "" if stage["ratio"] is None else f"{stage['ratio']:.2f}"
        numbers = f"{stage['rows']:9,}{stage['seconds']:10.3f}{stage['per_second']:10,}{ratio:>8}"
        lines.append(f"{stage['name']:26}{numbers}  {stage['plain'] or ''}".rstrip())
    lines += ["", "part of a training step"]
    return "\n".join([*lines, *(f"{part:26}{share:9.1%}" for part, share in found["step"].items())])


def measure(
    rows: Sequence[int], preset: str, overrides: dict[str, Any], *, repeats: int = 3, workers: int = 2
) -> dict[str, Any]:
    """Measure every stage on drawn pictures; `overrides` replace settings of the preset.

    Training and neighbours run once for each number in `rows`, decoding on the first `rows[0]` pictures, at most
    MOST_DECODED. Raises UsageError or MachineError for settings that do not work here.
    """
    device = find_device(str(overrides.get("device", "auto")))
    settings, _ = preset_settings(
        preset,
        method=DEFAULT,
        rows=rows[0],
        classes=CLASSES,
        size=overrides.get("image_size", 32),
        grey=False,
        gpu=device.type == "cuda",
    )
    config = overridden(settings, overrides)
    find_search(config.search, device)  # fails early, before any work
    new_model(config)
    side, decoded = config.store_size or config.image_size, min(rows[0], MOST_DECODED)
    with tempfile.TemporaryDirectory(prefix="noisyknn-speed-") as temporary, threads(thread_count(config)):
        folder = Path(temporary)
        print(f"drawing {max(rows):,} pictures of {side} x {side} pixels and {decoded:,} photographs", file=sys.stderr)
        small = write_pictures(folder, max(rows), side, side, config.seed)
        large = write_pictures(folder, decoded, *PHOTOGRAPH, config.seed)
        stages = [
            decoding(f"decode {PHOTOGRAPH[0]} x {PHOTOGRAPH[1]} to {STORED}", large, STORED, folder, repeats),
            decoding(f"decode {side} x {side}", small[:decoded], side, folder, repeats),
        ]
        bench = Bench(config, device, small, decode_all(small, side, config.fit, folder))
        for count in rows:
            print(f"training on {count:,} pictures and searching among them", file=sys.stderr)
            stages += bench.stages(count, repeats, workers)
        return {
            "stages": stages,
            "step": bench.step_shares(rows[0]),
            "bf16": bench.bf16,
            "config": dataclasses.asdict(config),
        }


def stage(
    name: str, rows: int, seconds: float, plain: str | None = None, plain_seconds: float | None = None
) -> dict[str, Any]:
    """The time of one stage for `rows` images, and the ratio of the plain time to it."""
    ratio = None if plain_seconds is None else round(plain_seconds / seconds, 2)
    beside = {"plain": plain, "plain_seconds": plain_seconds, "ratio": ratio}
    return {"name": name, "rows": rows, "seconds": seconds, "per_second": round(rows / seconds), **beside}


@dataclass(frozen=True)
class Bench:
    """Drawn pictures, decoded, and the configuration to train on them."""

    config: Config
    device: torch.device
    files: Sequence[Path]
    store: ImageStore

    @property
    def bf16(self) -> bool:
        """Whether training computes in bf16."""
        return wants_bf16(self.config.precision, self.device)

    def stages(self, count: int, repeats: int, workers: int) -> list[dict[str, Any]]:
        """Time training, inspection and the search for neighbours on the first `count` pictures."""
        pixels, labels = self.samples(count)
        pictures = Pictures(self.files[:count], labels.tolist(), self.config)
        first_batch = Pictures(self.files[: self.config.batch_size], labels.tolist(), self.config)
        epochs: list[float] = []
        trainer = self.trainer(pixels, labels, lambda report: epochs.append(report.seconds))
        network = new_model(self.config).to(self.device)
        plain_epoch(network, first_batch, self.config.batch_size, self.device, 0)  # warms up
        plain_epochs = []
        for _ in range(repeats):
            model = trainer.train(eq7_plan(trainer.config, labels, labels, 0.0, 0)).model
            plain_epochs.append(plain_epoch(network, pictures, self.config.batch_size, self.device, workers))
        inspected, (features, _) = timed(lambda: trainer.inspect(model), self.device)
        own = statistics.median(epochs[1::2])  # the first of each pair warms up
        return [
            stage("train an epoch", count, own, "DataLoader, fp32", statistics.median(plain_epochs)),
            stage("features of all", count, inspected),
            neighbours(features, self.config, self.device, repeats),
        ]

    def step_shares(self, count: int) -> dict[str, float]:
        """Share of each part of a training step in its time."""
        parts = Parts(self.device)
        pixels, labels = self.samples(count)
        trainer = self.trainer(TimedPixels(**vars(pixels), parts=parts), labels, parts.restart)
        with parts.watching_optimizers():
            watched = dataclasses.replace(trainer, new_model=lambda: parts.watching(new_model(self.config)))
            watched.train(eq7_plan(trainer.config, labels, labels, 0.0, 0))
        whole = sum(parts.seconds.values())
        return {name: round(seconds / whole, 4) for name, seconds in parts.seconds.items()}

    def samples(self, count: int) -> tuple[Pixels, Tensor]:
        """The first `count` pictures and labels (count,)."""
        pixels = Pixels.of(self.store, np.arange(count), self.config.image_size, self.device)
        return pixels, torch.arange(count, device=self.device) % CLASSES

    def trainer(self, pixels: Pixels, labels: Tensor, on_epoch: Callable[[EpochReport], None]) -> Trainer:
        """A trainer of two epochs."""
        return Trainer(
            pixels=pixels,
            given_labels=labels,
            new_model=partial(new_model, self.config),
            config=dataclasses.replace(self.config, epochs=2, progressive=False),
            device=self.device,
            bf16=self.bf16,
            checkpoints=NoCheckpoints(),
            on_epoch=on_epoch,
            observer=Silent(),
        )


def new_model(config: Config) -> Backbone:
    """The configured network with its initial weights."""
    return build_backbone(
        config.backbone, classes=CLASSES, image_size=config.image_size, width=config.width, seed=config.seed
    )


class Parts:
    """A clock for the parts of a training step; it waits for the GPU at the end of each part."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(("augmentation", "forward", "loss and backward", "optimiser", "tracking"), 0.0)
        self._device, self._since = device, time.perf_counter()

    def end(self, part: str) -> None:
        """Count the time since the last call as `part`."""
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
        """The model, made to report each forward pass to the clock."""
        model.register_forward_hook(lambda *_: self.end("forward"))
        return model

    @contextmanager
    def watching_optimizers(self) -> Iterator[None]:
        """Report each step of an optimiser to the clock."""
        before = register_optimizer_step_pre_hook(lambda *_: self.end("loss and backward"))
        after = register_optimizer_step_post_hook(lambda *_: self.end("optimiser"))
        try:
            yield
        finally:
            before.remove()
            after.remove()


@dataclass(frozen=True, kw_only=True)
class TimedPixels(Pixels):
    """Pixels that report each augmentation to a clock."""

    parts: Parts

    def augmented(self, samples: Tensor, size: int, config: Config, generator: torch.Generator) -> Tensor:
        """As `Pixels.augmented`."""
        self.parts.end("tracking")
        batch = super().augmented(samples, size, config, generator)
        self.parts.end("augmentation")
        return batch


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds that `work` takes, and its result."""
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
    """Median seconds of both functions, run in turn."""
    pairs = [(timed(ours, device)[0], timed(theirs, device)[0]) for _ in range(repeats)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def decoding(name: str, files: Sequence[Path], size: int, folder: Path, repeats: int) -> dict[str, Any]:
    """Time decoding to `size` pixels, beside a Pillow loop."""

    def plain() -> None:
        for file in files:
            np.asarray(Image.open(file).convert("RGB").resize((size, size), Image.Resampling.BILINEAR))

    seconds = in_turn(lambda: decode_all(files, size, "squash", folder), plain, torch.device("cpu"), repeats)
    return stage(name, len(files), seconds[0], "Pillow, a loop", seconds[1])


def neighbours(features: Tensor, config: Config, device: torch.device, repeats: int) -> dict[str, Any]:
    """Time the search for the k nearest among features (N, D), beside scikit-learn."""
    from sklearn.neighbors import NearestNeighbors

    search, everyone = find_search(config.search, device), torch.arange(len(features), device=device)
    k, host = min(config.k, len(features) - 1), features.cpu().numpy()
    seconds = in_turn(
        lambda: list(nearest(features, everyone, k, search)),
        lambda: NearestNeighbors(n_neighbors=k, algorithm="brute").fit(host).kneighbors(host),
        device,
        repeats,
    )
    return stage(f"nearest {k} of all", len(features), seconds[0], "scikit-learn, brute", seconds[1])


if __name__ == "__main__":
    main()
