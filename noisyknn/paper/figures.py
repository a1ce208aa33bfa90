"""Figures 2 to 6 of the paper, as tables of what they draw: one episode, or several, watched epoch by epoch.

Symbols: N samples, D features. Each figure takes a `Study` and gives a frame in long form, one row per point.
"""

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from noisyknn.config import Config, LossName
from noisyknn.data.augment import Pixels
from noisyknn.data.noise import inject
from noisyknn.data.paths import resolve_paths
from noisyknn.data.store import decode_all
from noisyknn.data.table import label_text
from noisyknn.errors import InputError, UsageError, counted
from noisyknn.files import check_outputs
from noisyknn.knn.search import Search, find_search
from noisyknn.knn.vote import poll
from noisyknn.methods.algorithm1 import Task, gamma_of
from noisyknn.methods.selknn import select_references, selective_label_correction
from noisyknn.models.backbone import Backbone
from noisyknn.models.factory import build_backbone
from noisyknn.models.tap import find_tap, head_name, stage_names
from noisyknn.observer import Observer
from noisyknn.paper.data_set import noise_rows, read_truth
from noisyknn.paper.speed import NoCheckpoints
from noisyknn.presets import overridden, preset_settings
from noisyknn.training.device import find_device, wants_bf16
from noisyknn.training.plan import Plan, eq7_plan
from noisyknn.training.schedule import learning_rate
from noisyknn.training.trainer import Trainer

KS = (5, 20, 50, 100, 200, 500, 1000)
"""Figure 5's numbers of neighbours."""
REFERENCES = 0.2
"""Share of references in the first episode."""
POINTS = 2000
"""Most samples that figure 2 shows."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a figure is about: samples with given and true labels, and how to train on them."""

    trainer: Trainer
    truth: Tensor
    """(N,) true labels, class indices."""
    search: Search
    classes: Sequence[str]
    """Names of the classes."""
    every: int
    """Epochs from one point to the next."""

    @property
    def given(self) -> Tensor:
        """(N,) given labels."""
        return self.trainer.given_labels

    def plan(self, labels: Tensor, gamma: float, episode: int) -> Plan:
        """Training on Eq. 7 with current labels (N,)."""
        return eq7_plan(self.trainer.config, self.given, labels, gamma, episode)

    def watch(self, look: Callable[[int, Backbone, Tensor], None]) -> None:
        """Train an episode on the given labels; `look` at each point's epoch, network and cumulative losses (N,)."""

        epochs = self.trainer.config.epochs

        def after(epoch: int, model: Backbone, losses: Tensor) -> None:
            if (epoch + 1) % self.every == 0 or epoch + 1 == epochs:
                look(epoch + 1, model, losses)
                self.trainer.observer.note(f"looked at epoch {epoch + 1} of {epochs}")

        self.trainer.train(dataclasses.replace(self.plan(self.given, 1.0, 0), after_epoch=after))

    def right(self, labels: Tensor) -> float:
        """Share of labels (N,) that are the true ones."""
        return float((labels == self.truth).double().mean())

    def vote(self, features: Tensor, references: Tensor, labels: Tensor, k: int, *, keep: bool) -> Tensor:
        """What the nearest references (R,) say of every sample (N,); `keep` leaves references as they are."""
        told = poll(features, references, labels, k, self.search, len(self.classes)).winner
        if keep:
            told[references] = labels[references]
        return told

    def chosen(self, losses: Tensor) -> Tensor:
        """References (R,) of small loss (Eqs. 5 and 6)."""
        return select_references(self.given, losses, REFERENCES, None)


def prepare(
    images: Path,
    labels: Path,
    *,
    column: str | None,
    rows: int | None,
    noise: str,
    preset: str,
    settings: Mapping[str, object],
    loss: LossName,
    every: int,
    outputs: Mapping[str, Path],
    overwrite: bool,
    out: Path,
    observer: Observer,
) -> Study:
    """Decode the images, make labels noisy by the seed, and settle the configuration; raises as `clean` does."""
    table = read_truth(labels, column, rows)
    files = resolve_paths(images, table.paths, table.table.name)
    check_outputs(outputs, [labels, *files], overwrite=overwrite)
    config = overridden(
        preset_settings(preset, method="selknn", rows=4, classes=2, size=32, grey=False, gpu=False)[0],
        {**settings, "method": "selknn", "loss": loss},
    )
    _check_voters(config, len(files))
    device = find_device(config.device)
    new_model = partial(
        build_backbone,
        config.backbone,
        classes=len(table.classes),
        image_size=config.image_size,
        width=config.width,
        layer=config.layer,
        seed=config.seed,
    )
    new_model()  # what cannot be built is told before images are read
    noisy = inject(table.given_labels, noise_rows(noise, preset, table.classes), config.seed)
    observer.start("reading images", len(files), "images")
    # a mapped file stays, without a name, for as long as it is mapped
    with tempfile.TemporaryDirectory(dir=out) as folder:
        store = decode_all(files, config.store_size or config.image_size, config.fit, Path(folder), observer.advance)
    readable = np.flatnonzero(store.readable)
    if store.reasons:
        one, many = "image could not be read and is left out", "images could not be read and are left out"
        observer.note(counted(len(store.reasons), one, many))
        _check_voters(config, len(readable))
    return Study(
        trainer=Trainer(
            pixels=Pixels.of(store, readable, config.image_size, device),
            given_labels=torch.from_numpy(noisy[readable]).to(device),
            new_model=new_model,
            config=config,
            device=device,
            bf16=wants_bf16(config.precision, device),
            checkpoints=NoCheckpoints(),
            on_epoch=lambda _: None,
            observer=observer,
        ),
        truth=torch.from_numpy(table.given_labels[readable]).to(device),
        search=find_search(config.search, device),
        classes=[label_text(label) for label in table.classes],
        every=every,
    )


def _check_voters(config: Config, images: int) -> None:
    """Raise UsageError where fewer references than neighbours would vote."""
    if config.k >= REFERENCES * images:
        cure = "give a smaller --k" if config.k > 1 else "give more"
        raise UsageError(f"--k {config.k}: only a fifth of {images} images vote; {cure}")


def fig2(study: Study) -> pd.DataFrame:
    """Outputs of three layers after an episode, in two dimensions by t-SNE (scikit-learn): layer, x, y, true class."""
    from sklearn.manifold import TSNE

    model = study.trainer.train(study.plan(study.given, 1.0, 0)).model
    shown = np.linspace(0, len(study.truth) - 1, min(POINTS, len(study.truth))).astype(np.int64)
    frames, perplexity = [], min(30.0, (len(shown) - 1) / 3)
    for layer in _three_layers(model):
        features = study.trainer.inspect(_tapped(model, layer))[0].cpu().numpy()[shown]
        if not (features.std(axis=0) > 0).any():
            raise InputError(f"{layer} tells all images alike, so there is nothing to show; are they blank?")
        place = TSNE(random_state=study.trainer.config.seed, init="pca", perplexity=perplexity).fit_transform(features)
        classes = [study.classes[label] for label in study.truth.cpu().numpy()[shown]]
        frames.append(pd.DataFrame({"layer": layer, "x": place[:, 0], "y": place[:, 1], "class": classes}))
    return pd.concat(frames, ignore_index=True)


def fig3(study: Study) -> pd.DataFrame:
    """How right labels are by epoch, as the network, IterKNN and SelKNN tell them: epoch, curve, accuracy."""
    everyone = torch.arange(len(study.truth), device=study.truth.device)
    generator = torch.Generator().manual_seed(study.trainer.config.seed)
    random = torch.rand(len(everyone), generator=generator).to(everyone.device)
    clean = select_references(study.truth, random, REFERENCES, None)
    points: list[tuple[int, str, float]] = []
    k = study.trainer.config.k

    def look(epoch: int, model: Backbone, losses: Tensor) -> None:
        features, logs = study.trainer.inspect(model)
        chosen = study.chosen(losses)
        curves = {
            "network": logs.argmax(1),
            "IterKNN, noisy labels": study.vote(features, everyone, study.given, k, keep=False),
            "IterKNN, true labels": study.vote(features, everyone, study.truth, k, keep=False),
            "SelKNN, filtered labels": study.vote(features, chosen, study.given, k, keep=True),
            "SelKNN, true labels": study.vote(features, clean, study.truth, k, keep=True),
        }
        points.extend((epoch, curve, study.right(labels)) for curve, labels in curves.items())
        clean_rate = float((study.given == study.truth)[chosen].float().mean())
        points.append((epoch, "clean rate of references", clean_rate))

    study.watch(look)
    return _long(points)


def fig4(study: Study) -> pd.DataFrame:
    """Recovery of SelKNN by episode, by how each begins: episode, curve, accuracy.

    The first episode is the same of all curves. The optimiser begins anew with each, also where the network goes on.
    """
    trainer, config = study.trainer, study.trainer.config
    last_rate = learning_rate(config, config.epochs - 1, 0.0)
    points: list[tuple[int, str, float]] = []

    def corrected(plan: Plan, labels: Tensor) -> tuple[Tensor, Backbone]:
        trained = trainer.train(plan)
        return selective_label_correction(_task(study), labels, trained, plan.episode).labels, trained.model

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
    return _long(points, "episode")


def fig5(study: Study) -> pd.DataFrame:
    """Labels as SelKNN and IterKNN tell them with few and many neighbours, by epoch: epoch, curve, accuracy."""
    everyone = torch.arange(len(study.truth), device=study.truth.device)
    points: list[tuple[int, str, float]] = []
    for method, voters in (("SelKNN", study.chosen(torch.zeros_like(study.truth))), ("IterKNN", everyone)):
        if too_many := [k for k in KS if k >= len(voters)]:
            told = ", ".join(map(str, too_many))
            study.trainer.observer.note(f"{method}: {len(voters)} samples vote, so curves are left out of k = {told}")

    def look(epoch: int, model: Backbone, losses: Tensor) -> None:
        features, logs = study.trainer.inspect(model)
        chosen = study.chosen(losses)
        points.append((epoch, "network", study.right(logs.argmax(1))))
        for k in KS:  # as far as there are references
            if k < len(chosen):
                selknn = study.vote(features, chosen, study.given, k, keep=True)
                points.append((epoch, f"SelKNN, k = {k}", study.right(selknn)))
            if k < len(everyone):
                iterknn = study.vote(features, everyone, study.given, k, keep=False)
                points.append((epoch, f"IterKNN, k = {k}", study.right(iterknn)))

    study.watch(look)
    return _long(points)


def fig6(study: Study) -> pd.DataFrame:
    """Labels as SelKNN tells them by the features of each stage, by epoch: epoch, curve, accuracy."""
    points: list[tuple[int, str, float]] = []

    def look(epoch: int, model: Backbone, losses: Tensor) -> None:
        chosen = study.chosen(losses)
        for layer in stage_names(model.net):
            features = study.trainer.inspect(_tapped(model, layer))[0]
            labels = study.vote(features, chosen, study.given, study.trainer.config.k, keep=True)
            points.append((epoch, layer, study.right(labels)))

    study.watch(look)
    return _long(points)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One of the paper's figures."""

    points: Callable[[Study], pd.DataFrame]
    subject: str
    """What it shows, in words."""
    loss: LossName
    """That we train with: plain cross-entropy, but for figure 4, which is of the whole method."""
    uses: frozenset[str]
    """Options that not all figures have."""


FIGURES: Mapping[str, Kind] = {
    "fig2": Kind(points=fig2, subject="outputs of three layers, by t-SNE; colours are true classes",
                 loss="ce", uses=frozenset()),
    "fig3": Kind(points=fig3, subject="right labels by epoch, as network, IterKNN and SelKNN tell them",
                 loss="ce", uses=frozenset({"k", "every"})),
    "fig4": Kind(points=fig4, subject="recovery of SelKNN, by what its episodes start from",
                 loss="sce", uses=frozenset({"k", "episodes"})),
    "fig5": Kind(points=fig5, subject="SelKNN and IterKNN by the number k of neighbours",
                 loss="ce", uses=frozenset({"every"})),
    "fig6": Kind(points=fig6, subject="SelKNN by the features of each stage",
                 loss="ce", uses=frozenset({"k", "every"})),
}  # fmt: skip


def _long(points: Sequence[tuple[int, str, float]], steps: str = "epoch") -> pd.DataFrame:
    return pd.DataFrame(points, columns=[steps, "curve", "accuracy"])


def _task(study: Study) -> Task:
    """All of it that a label correction looks at."""
    return Task(
        given_labels=study.given,
        classes=len(study.classes),
        digests=torch.arange(len(study.given)),
        config=study.trainer.config,
        train=study.trainer.train,
        search=study.search,
    )


def _tapped(model: Backbone, layer: str) -> Backbone:
    """The same network with features of another layer."""
    return Backbone(model.net, model.spec, find_tap(model.net, model.spec.image_size, layer))


def _three_layers(model: Backbone) -> list[str]:
    """The first stage, the one that features are taken of, and the last linear layer."""
    return [stage_names(model.net)[1], model.tap.module, head_name(model.net)]
