"""Where settings start from: the paper's presets, or ``auto``, which looks at the data and the device."""

import dataclasses
import math
from collections.abc import Mapping

from noisyknn.config import OF_METHODS, ON_CLOTHING1M, PRESETS, Config, make_config
from noisyknn.errors import UsageError
from noisyknn.training.schedule import image_size, stretched


def preset_settings(
    name: str, *, method: str, rows: int, classes: int, size: int, grey: bool, gpu: bool
) -> tuple[Mapping[str, object], str]:
    """Settings of the preset and, in words, why; `size` is the images' typical short edge in pixels.

    Raises UsageError for an unknown name.
    """
    if name == "auto":
        settings, reason = auto_settings(method=method, rows=rows, classes=classes, size=size, grey=grey, gpu=gpu)
    elif name in PRESETS:
        settings, reason = PRESETS[name], f"preset {name}, as in the paper"
    else:
        raise UsageError(f"--preset {name!r} is not one of auto, {', '.join(PRESETS)}")
    of_method = {**OF_METHODS.get(method, {}), **(ON_CLOTHING1M.get(method, {}) if name == "clothing1m" else {})}
    return {**settings, **of_method}, reason


def overridden(settings: Mapping[str, object], overrides: Mapping[str, object]) -> Config:
    """A preset's settings with `overrides` put over them; cut to other epochs, its schedule keeps its shape.

    A progressive preset that is told not to be takes as many epochs as end in the same time. Where crossfit is given
    only one of episodes and folds, the other follows, so that each fold has its episode.
    """
    planned = {field.name: field.default for field in dataclasses.fields(Config)} | {**settings, **overrides}
    folds, episodes, crossfit = planned["folds"], planned["episodes"], planned["method"] == "crossfit"
    if crossfit and isinstance(episodes, int) and isinstance(folds, int) and 2 <= episodes < folds:
        if "folds" not in overrides:
            overrides = {**overrides, "folds": episodes}
        elif "episodes" not in overrides:
            overrides = {**overrides, "episodes": folds}
    if "width" in settings and "width" not in overrides and planned["backbone"] != settings["backbone"]:
        overrides = {**overrides, "width": 1.0}  # that of the preset is for its own network
    config = make_config({**settings, **overrides})
    part_of_method = {
        name: value for name, value in OF_METHODS.get(config.method, {}).items() if name in config.unused()
    }
    config = dataclasses.replace(config, **part_of_method)  # type: ignore[arg-type]  # Config checks each value
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
    epochs, loss = f"{config.episodes} × {config.epochs} epochs", losses[config.loss]
    if config.method == "joint-optimization":
        epochs, rate = f"{config.epochs} epochs", f"rate {config.lr:g}"
        loss = f"α {config.prior_weight:g}, β {config.entropy_weight:g}"
    elif config.method == "pencil":
        epochs, rate = f"{config.epochs} epochs", f"rate {config.lr:g}"
        loss = f"α {config.compatibility_weight:g}, β {config.entropy_weight:g}, λ {config.label_rate:g}"
    learnt = (config.folds - 1) / config.folds if config.method == "crossfit" else 1.0
    smallest = image_size(config, 0, stretched(config.epochs, 1 / learnt))
    pixels = f"{smallest} to {config.image_size}" if smallest < config.image_size else str(config.image_size)
    return (
        f"{config.method}{_voters(config)}; {config.network} at {pixels} pixels; {epochs} in batches of "
        f"{config.batch_size}, {config.optimizer}, {rate}; {loss}"
        + (
            f", γ {config.gamma:g} divided by {config.gamma_decay:g} per episode"
            if "gamma" not in config.unused()
            else ""
        )
    )


def _voters(config: Config) -> str:
    """Who votes, where neighbours do."""
    if "k" in config.unused():
        return ""
    if config.method == "crossfit":
        voters = f"{config.folds} folds"
    elif config.method != "selknn":
        voters = "all labels vote"
    elif config.references_per_class is not None:
        voters = f"{config.references_per_class:,} labels of each class vote"
    else:
        voters = f"M = {config.reference_start:.0%}, growing by {config.reference_step:.0%}"
    by = ", by the loss of a cycle" if config.method == "selknn" and config.selector == "o2u" else ""
    return f", k = {config.k}, {voters}{by}"


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
    muon = method == "crossfit"  # the others' networks, of many more passes, would learn labels by heart
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
        "optimizer": "muon" if muon else "sgd",
        "schedule": "one-cycle",
        "lr": round((0.24 if muon else 0.3) * (batch_size / 512) ** 0.5, 3),
        "weight_decay": 5e-4,
        "loss": "sce" if few else "ce",  # reverse cross-entropy hardly learns where there are many classes
        "label_smoothing": 0.0 if few else 0.1,
        "reference_start": REFERENCE_START,
        "reference_step": 1 - REFERENCE_START,
        "k": max(1, int(min(max(voters_per_class / 2, 3), 50, rows * REFERENCE_START - 1))),
    }
    if method == "crossfit":
        # Few passes for each network: the first learns labels as they are given, and twice as many learn them by heart.
        # But a class of a handful of rows is not learnt in as few, and has few to be learnt by heart.
        enough = (28 if grey else 36) * (2 if rows < 8 * classes else 1)
        progressive = pixels >= PROGRESSIVE_PIXELS
        epochs = round(
            min(max(CROSSFIT_PASSES * passes / rows, 8), enough) / 4 / (PROGRESSIVE_COST if progressive else 1)
        )
        settings |= {"folds": 4, "episodes": 5, "epochs": epochs, "progressive": progressive}
    color, place = "grey" if grey else "colour", "a GPU" if gpu else "the CPU"
    reason = f"preset auto: {rows:,} labels, {classes} classes, {color} images of about {size} pixels, on {place}"
    return settings, reason


DEFAULT_METHOD = "crossfit"
"""The method of ``auto``, unless another is asked for."""
MIN_PIXELS, CPU_PIXELS, GPU_PIXELS = 16, 64, 128
CPU_PASSES, GPU_PASSES = 540_000, 6_000_000
"""How many 32-pixel images an episode may train on: about two and a half minutes on two cores with bf16, and, as is
estimated, on an H100."""
GPU_WIDTH = 4.0
"""Of the network: wider ones are right more often, and know where they are wrong about as well."""
CROSSFIT_PASSES = 1.35
"""How many times as many it is for crossfit, whose images are smaller most of the time."""
PROGRESSIVE_PIXELS = 24
"""Smaller images have no pixels to spare."""
PROGRESSIVE_COST = 0.57
"""Time of a progressive episode's epoch, on average, beside one of images of full size."""
REFERENCE_START = 0.5
