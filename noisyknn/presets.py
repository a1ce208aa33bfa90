"""Presets of settings: those of the paper, or ``auto``, which depends on the data and the device."""

import dataclasses
import math
from collections.abc import Mapping

from noisyknn.config import Config, make_config
from noisyknn.errors import UsageError
from noisyknn.methods.spec import Facts, find_method, unused_settings
from noisyknn.training.schedule import PROGRESSIVE_COST, image_size, stretched

PRESETS: Mapping[str, Mapping[str, object]] = {
    "mnist": {
        "backbone": "cnn5",
        "image_size": 28,
        "crop_padding": 0,
        "flip": False,
        "rotation": 0.0,
        "translation": 0.0,
        "jitter": 0.0,
        "epochs": 40,
        "drops": (20, 30),
        "batch_size": 256,
        "alpha": 0.01,
    },
    "cifar10": {},
    "cifar100": {"backbone": "preact_resnet56", "drops": (80, 120), "alpha": 6.0, "beta": 0.1},
    "clothing1m": {
        "backbone": "resnet50",
        "weights": "DEFAULT",
        "image_size": 224,
        "store_size": 256,
        "fit": "crop",
        "crop_padding": 0,
        "flip": False,
        "rotation": 0.0,
        "translation": 0.0,
        "jitter": 0.0,
        "episodes": 5,
        "epochs": 15,
        "drops": (5, 10),
        "batch_size": 64,
        "lr": 2e-3,
        "weight_decay": 5e-3,
        "alpha": 10.0,
        "k": 500,
        "references_per_class": 10_000,
    },
}
"""Sections 4.2 and 4.7 of the paper: differences from the settings for CIFAR-10.

Clothing1M deviates from the paper in two ways. The paper crops 224 pixels from the whole image with a short edge of
256; we store, and crop from, its centre of 256 x 256. Torchvision's weights of ResNet-50 are newer than the paper, and
better on ImageNet than those of its year (`weights` can name a file of others)."""


def preset_settings(
    name: str, *, method: str, rows: int, classes: int, size: int, grey: bool, gpu: bool
) -> tuple[Mapping[str, object], str]:
    """Settings of the preset and the reason for them; `size` is the typical short edge of an image, in pixels.

    Raises UsageError for an unknown name.
    """
    spec = find_method(method)
    if name == "auto":
        settings, reason = auto_settings(method=method, rows=rows, classes=classes, size=size, grey=grey, gpu=gpu)
    elif name in PRESETS:
        settings, reason = PRESETS[name], f"preset {name}, as in the paper"
    else:
        raise UsageError(f"`preset` {name!r} is not one of auto, {', '.join(PRESETS)}")
    return {**settings, **spec.defaults, **(spec.clothing1m if name == "clothing1m" else {})}, reason


def overridden(settings: Mapping[str, object], overrides: Mapping[str, object]) -> Config:
    """A preset's settings, replaced by `overrides`; with other epochs, the schedule keeps its shape.

    If `overrides` turn off a progressive preset, the number of epochs falls to keep the time. If each fold needs an
    episode and only one of episodes and folds is given, the other follows.
    """
    planned = {field.name: field.default for field in dataclasses.fields(Config)} | {**settings, **overrides}
    spec = find_method(str(planned["method"]))
    folds, episodes = planned["folds"], planned["episodes"]
    if {"folds", "episodes"} <= spec.settings and isinstance(episodes, int) and isinstance(folds, int):
        if 2 <= episodes < folds and "folds" not in overrides:
            overrides = {**overrides, "folds": episodes}
        elif 2 <= episodes < folds and "episodes" not in overrides:
            overrides = {**overrides, "episodes": folds}
    if "width" in settings and "width" not in overrides and planned["backbone"] != settings["backbone"]:
        overrides = {**overrides, "width": 1.0}  # the preset's width is for its own backbone
    config = make_config({**settings, **overrides})
    unused = unused_settings(config)
    part_of_method = {name: value for name, value in spec.defaults.items() if name in unused}
    config = dataclasses.replace(config, **part_of_method)  # type: ignore[arg-type]  # Config checks each value
    spec.check(config)
    if settings.get("progressive") and not config.progressive and "epochs" not in overrides:
        config = dataclasses.replace(config, epochs=max(1, round(config.epochs * PROGRESSIVE_COST)))
    if "epochs" not in overrides or "drops" in overrides:
        return config
    whole = make_config(settings).epochs
    drops = tuple(max(1, math.floor(drop * config.epochs / whole + 0.5)) for drop in config.drops)
    return dataclasses.replace(config, drops=drops)


def describe(config: Config) -> str:
    """Method, network, schedule and loss of a configuration in one line, with the paper's symbols."""
    losses = {
        "ce": "cross-entropy",
        "sce": f"symmetric cross-entropy (α {config.alpha:g}, β {config.beta:g}, A {config.log_zero:g})",
    }
    if config.schedule == "step":
        rate = f"rate {config.lr:g} divided by 10 after epochs {' and '.join(map(str, config.drops)) or 'none'}"
    else:
        rate = f"one-cycle rate up to {config.lr:g}"
    epochs, loss, spec = f"{config.episodes} × {config.epochs} epochs", losses[config.loss], find_method(config.method)
    if spec.objective is not None:
        epochs, rate, loss = f"{config.epochs} epochs", f"rate {config.lr:g}", spec.objective(config)
    if "gamma" not in unused_settings(config):
        loss += f", γ {config.gamma:g} divided by {config.gamma_decay:g} per episode"
    learnt = (config.folds - 1) / config.folds if "folds" in spec.settings else 1.0
    smallest = image_size(config, 0, stretched(config.epochs, 1 / learnt))
    pixels = f"{smallest} to {config.image_size}" if smallest < config.image_size else str(config.image_size)
    method = ", ".join(filter(None, [config.method, spec.words(config)]))
    return (
        f"{method}; {config.network} at {pixels} pixels; {epochs} in batches of {config.batch_size}, "
        f"{config.optimizer}, {rate}; {loss}"
    )


def auto_settings(
    *, method: str, rows: int, classes: int, size: int, grey: bool, gpu: bool
) -> tuple[Mapping[str, object], str]:
    """A backbone and a schedule for the method that finish in minutes, and the reason for them."""
    pixels = min(max(size, MIN_PIXELS), GPU_PIXELS if gpu else CPU_PIXELS)
    passes = (GPU_PASSES if gpu else CPU_PASSES) * (32 / pixels) ** 2
    enough = (24 if rows >= 5000 else 40) * (2 / 3 if grey else 1)  # scans and characters need fewer epochs
    epochs = round(min(max(passes / rows, 8), enough))
    batch_size = 2 ** min(max(round(rows / 40).bit_length(), 5), 9)
    few = classes <= 20
    own = find_method(method).auto(Facts(rows=rows, classes=classes, pixels=pixels, grey=grey, passes=passes))
    optimizer = str(own.get("optimizer", "sgd"))
    voters_per_class = rows * REFERENCE_START / classes
    settings: dict[str, object] = {
        "method": method,
        "policy": "careful",
        "backbone": "cnn8",
        "width": GPU_WIDTH if gpu else 1.0,
        "image_size": pixels,
        "crop_padding": max(1, pixels // 16),
        "flip": not grey,
        "rotation": 0.0,
        "translation": 0.0,
        "jitter": 0.0,
        "episodes": 2,
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "schedule": "one-cycle",
        "lr": round(RATES[optimizer] * (batch_size / 512) ** 0.5, 3),
        "weight_decay": 5e-4,
        "loss": "sce" if few else "ce",  # reverse cross-entropy hardly trains with many classes
        "label_smoothing": 0.0 if few else 0.1,
        "reference_start": REFERENCE_START,
        "reference_step": 1 - REFERENCE_START,
        "k": max(1, int(min(max(voters_per_class / 2, 3), 50, rows * REFERENCE_START - 1))),
        **own,
    }
    color, place = "grey" if grey else "colour", "a GPU" if gpu else "the CPU"
    reason = f"preset auto: {rows:,} labels, {classes} classes, {color} images of about {size} pixels, on {place}"
    return settings, reason


RATES = {"sgd": 0.3, "muon": 0.24}
"""Learning rate for batches of 512, by optimiser."""
MIN_PIXELS, CPU_PIXELS, GPU_PIXELS = 16, 64, 128
CPU_PASSES, GPU_PASSES = 540_000, 6_000_000
"""Budget of 32-pixel images that an episode trains on: about two and a half minutes on two cores with bf16 and, by
estimate, on an H100."""
GPU_WIDTH = 4.0
"""Width on a GPU: wider networks are more accurate, and about equally well calibrated."""
REFERENCE_START = 0.5
