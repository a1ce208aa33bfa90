"""Figures 2 to 6 of the paper, from one or several episodes.

The function of a figure takes a `Study` and returns a table with one row per point.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from noisyknn.config import LossName
from noisyknn.data.paths import resolve_paths
from noisyknn.data.table import write_table
from noisyknn.errors import InputError, UsageError
from noisyknn.files import check_outputs, make_folder
from noisyknn.methods.algorithm1 import gamma_of
from noisyknn.methods.selknn import select_references, selective_label_correction
from noisyknn.models.backbone import Backbone
from noisyknn.models.tap import find_tap, head_name, stage_names
from noisyknn.observer import Observer
from noisyknn.paper.data_set import read_truth
from noisyknn.paper.drawing import check_matplotlib, draw
from noisyknn.paper.study import REFERENCES, Study, make_study
from noisyknn.training.plan import Plan
from noisyknn.training.schedule import learning_rate

KS = (5, 20, 50, 100, 200, 500, 1000)
"""Numbers of neighbours in figure 5."""
POINTS = 2000
"""Largest number of samples in figure 2."""


def fig2(study: Study) -> pd.DataFrame:
    """scikit-learn's t-SNE of the outputs of three layers after an episode: layer, x, y, true class."""
    from sklearn.manifold import TSNE

    model = study.trainer.train(study.plan(study.given, 1.0, 0)).model
    shown = np.linspace(0, len(study.truth) - 1, min(POINTS, len(study.truth))).astype(np.int64)
    frames, perplexity = [], min(30.0, (len(shown) - 1) / 3)
    for layer in _three_layers(model):
        features = study.trainer.inspect(_tapped(model, layer))[0].cpu().numpy()[shown]
        if not (features.std(axis=0) > 0).any():
            raise InputError(f"{layer} gives the same output for all images; check that they are not blank")
        place = TSNE(random_state=study.trainer.config.seed, init="pca", perplexity=perplexity).fit_transform(features)
        classes = [study.classes[label] for label in study.truth.cpu().numpy()[shown]]
        frames.append(pd.DataFrame({"layer": layer, "x": place[:, 0], "y": place[:, 1], "class": classes}))
    return pd.concat(frames, ignore_index=True)


def fig3(study: Study) -> pd.DataFrame:
    """Accuracy of the labels from the network, IterKNN and SelKNN: epoch, curve, accuracy."""
    given, truth, k = study.given, study.truth, study.trainer.config.k
    everyone = torch.arange(len(truth), device=truth.device)
    generator = torch.Generator().manual_seed(study.trainer.config.seed)
    clean = select_references(truth, torch.rand(len(truth), generator=generator).to(truth.device), REFERENCES, None)

    def look(model: Backbone, losses: Tensor) -> Mapping[str, Tensor | float]:
        features, logs = study.trainer.inspect(model)
        chosen = study.chosen(losses)
        return {
            "network": logs.argmax(1),
            "IterKNN, noisy labels": study.vote(features, everyone, given, k, keep=False),
            "IterKNN, true labels": study.vote(features, everyone, truth, k, keep=False),
            "SelKNN, filtered labels": study.vote(features, chosen, given, k, keep=True),
            "SelKNN, true labels": study.vote(features, clean, truth, k, keep=True),
            "clean rate of references": float((given == truth)[chosen].float().mean()),
        }

    return study.watch(look)


def fig4(study: Study) -> pd.DataFrame:
    """Recovery of SelKNN for three ways to start an episode: episode, curve, accuracy.

    All curves share the first episode. Each episode has a new optimiser, even if it keeps the network.
    """
    trainer, config = study.trainer, study.trainer.config
    last_rate = learning_rate(config, config.epochs - 1, 0.0)
    points: list[tuple[int, str, float]] = []

    def corrected(plan: Plan, labels: Tensor) -> tuple[Tensor, Backbone]:
        trained = trainer.train(plan)
        return selective_label_correction(study.task, labels, trained, plan.episode).labels, trained.model

    after_first, first_model = corrected(study.plan(study.given, gamma_of(config, 0), 0), study.given)
    trainer.observer.note(f"episode 1 of {config.episodes}")
    for curve in ("from new weights", "learning rate reset", "no retraining"):
        labels, model = after_first, copy.deepcopy(first_model)
        points.append((1, curve, study.right(labels)))
        for episode in range(1, config.episodes):
            plan = study.plan(labels, gamma_of(config, episode), episode)
            if curve != "from new weights":
                plan = dataclasses.replace(plan, start=model)
            if curve == "no retraining":
                plan = dataclasses.replace(plan, rate=lambda *_: last_rate)
            labels, model = corrected(plan, labels)
            points.append((episode + 1, curve, study.right(labels)))
            trainer.observer.note(f"{curve}: episode {episode + 1} of {config.episodes}")
    return pd.DataFrame(points, columns=["episode", "curve", "accuracy"])


def fig5(study: Study) -> pd.DataFrame:
    """Accuracy of SelKNN and IterKNN with few and many neighbours: epoch, curve, accuracy.

    Leaves out numbers of neighbours that are not smaller than the number of voters.
    """
    everyone = torch.arange(len(study.truth), device=study.truth.device)

    def look(model: Backbone, losses: Tensor) -> Mapping[str, Tensor | float]:
        features, logs = study.trainer.inspect(model)
        chosen = study.chosen(losses)
        curves = {"network": logs.argmax(1)}
        for k in KS:
            if k < len(chosen):
                curves[f"SelKNN, k = {k}"] = study.vote(features, chosen, study.given, k, keep=True)
            if k < len(everyone):
                curves[f"IterKNN, k = {k}"] = study.vote(features, everyone, study.given, k, keep=False)
        return curves

    return study.watch(look)


def fig6(study: Study) -> pd.DataFrame:
    """Accuracy of SelKNN with the features of each stage: epoch, curve, accuracy."""

    def look(model: Backbone, losses: Tensor) -> Mapping[str, Tensor | float]:
        chosen, k = study.chosen(losses), study.trainer.config.k
        curves = {}
        for layer in stage_names(model.net):
            features, _ = study.trainer.inspect(_tapped(model, layer))
            curves[layer] = study.vote(features, chosen, study.given, k, keep=True)
        return curves

    return study.watch(look)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One of the paper's figures."""

    points: Callable[[Study], pd.DataFrame]
    subject: str
    """Its subject, in words."""
    loss: LossName = "ce"
    """The training loss: plain cross-entropy, except for figure 4, which shows the whole method."""
    uses: frozenset[str] = frozenset()
    """The options among k, every and episodes that have an effect."""


FIGURES: Mapping[str, Kind] = {
    "fig2": Kind(points=fig2, subject="outputs of three layers, by t-SNE; colours are true classes"),
    "fig3": Kind(points=fig3, subject="correct labels by epoch: network, IterKNN and SelKNN",
                 uses=frozenset({"k", "every"})),
    "fig4": Kind(points=fig4, subject="recovery of SelKNN, by what an episode starts from",
                 loss="sce", uses=frozenset({"k", "episodes"})),
    "fig5": Kind(points=fig5, subject="SelKNN and IterKNN by the number k of neighbours", uses=frozenset({"every"})),
    "fig6": Kind(points=fig6, subject="SelKNN by the features of each stage", uses=frozenset({"k", "every"})),
}  # fmt: skip


def make_figure(
    name: str,
    images: Path,
    labels: Path,
    out: Path,
    *,
    label_column: str | None,
    noise: str,
    preset: str,
    rows: int | None,
    settings: Mapping[str, object],
    every: int | None,
    overwrite: bool,
    observer: Observer,
) -> None:
    """Train on the images, and write ``NAME.csv``, ``NAME.png`` and ``NAME.svg`` into the folder `out`.

    Raises UsageError for an option without effect on the figure, and the errors of `clean` for its input.
    """
    kind = FIGURES[name]
    for option, value in (("every", every), ("k", settings.get("k")), ("episodes", settings.get("episodes"))):
        if value is not None and option not in kind.uses:
            raise UsageError(f"`{option}` has no effect on {name}; remove it")
    check_matplotlib()
    table = read_truth(labels, label_column, rows)
    make_folder("`out`", out)
    csv, png, svg = files = [out / f"{name}.{ending}" for ending in ("csv", "png", "svg")]
    inputs = [labels, *resolve_paths(images, table.paths, table.table.name)]
    check_outputs({f"`out` ({file.name})": file for file in files}, inputs, overwrite=overwrite)
    unused = {option: 1 for option in ("k", "episodes") if option not in kind.uses}
    fixed = {**settings, **unused, "method": "selknn", "loss": kind.loss}
    study = make_study(table, images, noise, preset, fixed, every=every or 1, out=out, observer=observer)
    points = kind.points(study)
    draw(points, f"{kind.subject}\n{_caption(study, noise, kind)}", [png, svg])
    write_table(points, csv)
    for file in files:
        observer.note(f"wrote {file}")


def _caption(study: Study, noise: str, kind: Kind) -> str:
    """Data and settings of a figure, in words."""
    config = study.trainer.config
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs} epochs"
    loss = {"ce": "cross-entropy", "sce": "symmetric cross-entropy"}[config.loss]
    data = f"{len(study.truth):,} images, {noise.replace('-', ' ')} %, {config.network}"
    votes = f", k = {config.k}" if "k" in kind.uses else ""
    return f"{data}\n{epochs}, batches of {config.batch_size}, {loss}{votes}"


def _tapped(model: Backbone, layer: str) -> Backbone:
    """The same network with features of another layer."""
    return Backbone(model.net, model.spec, find_tap(model.net, model.spec.image_size, layer))


def _three_layers(model: Backbone) -> list[str]:
    """The first stage, the stage of the features, and the last linear layer."""
    return [stage_names(model.net)[1], model.tap.module, head_name(model.net)]
