"""Where settings start from: the paper's presets, or ``auto``, which looks at the data and the device."""

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
"""Section 4.2 and 4.7 of the paper, as far as they differ from CIFAR-10's settings.

Of Clothing1M two things differ from it: its crops of 224 pixels are taken from the whole image resized to a short edge
of 256, ours from the centre of 256 x 256, which is what is stored; and torchvision's weights of ResNet-50 are newer,
and better on ImageNet, than any of its year (`weights` may be a file of others)."""


def preset_settings(
    name: str, *, method: str, rows: int, classes: int, size: int, grey: bool, gpu: bool
) -> tuple[Mapping[str, object], str]:
    """Settings of the preset and the reason for them; `size` is the images' typical short edge in pixels.

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
    """A preset's settings with `overrides` put over them; with other epochs, its schedule keeps its shape.

    A progressive preset that is told not to be takes as many epochs as end in the same time. Where each fold needs an
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
        overrides = {**overrides, "width": 1.0}  # that of the preset is for its own network
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
    """The method, the network, the loss and the schedule of a configuration, in the paper's symbols."""
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
    """A backbone and a schedule for the method that end in minutes."""
    pixels = min(max(size, MIN_PIXELS), GPU_PIXELS if gpu else CPU_PIXELS)
    passes = (GPU_PASSES if gpu else CPU_PASSES) * (32 / pixels) ** 2
    enough = (24 if rows >= 5000 else 40) * (2 / 3 if grey else 1)  # scans and characters are learnt sooner
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
        "loss": "sce" if few else "ce",  # reverse cross-entropy hardly learns where there are many classes
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
"""How many 32-pixel images an episode may train on: about two and a half minutes on two cores with bf16, and, as is
estimated, on an H100."""
GPU_WIDTH = 4.0
"""Of the network: wider ones are right more often, and know where they are wrong about as well."""
REFERENCE_START = 0.5
