"""The basis of the paper's figures: images with given and true labels, and a trainer.

Symbols: N samples, D features.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from noisyknn.data.images import some_unreadable
from noisyknn.data.store import decode_all
from noisyknn.data.table import LabelTable, label_text, read_labels
from noisyknn.errors import InputError
from noisyknn.knn.vote import poll
from noisyknn.methods.algorithm1 import Task
from noisyknn.methods.selknn import select_references
from noisyknn.models.backbone import Backbone
from noisyknn.observer import Observer, Silent
from noisyknn.paper.data_set import NOISY, TRUE, with_noise
from noisyknn.preparation import check_labels, prepare
from noisyknn.run import new_task, new_trainer
from noisyknn.training.plan import Plan, eq7_plan
from noisyknn.training.trainer import Trainer

REFERENCES = 0.2
"""Share of references in the first episode."""


class NoCheckpoints:
    """Checkpoints that save nothing."""

    def load(self, episode: int) -> None:  # noqa: ARG002
        """Return None: nothing was saved."""
        return None

    def save(self, episode: int, epochs_done: int, state: Mapping[str, Tensor]) -> None:
        """Save nothing."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Samples with given and true labels, and how to train on them."""

    trainer: Trainer
    task: Task
    truth: Tensor
    """(N,) true labels, class indices."""
    classes: Sequence[str]
    """Names of the classes."""
    every: int
    """Epochs between two points."""

    @property
    def given(self) -> Tensor:
        """(N,) given labels."""
        return self.trainer.given_labels

    def plan(self, labels: Tensor, gamma: float, episode: int) -> Plan:
        """The plan to train on Eq. 7 with current labels (N,)."""
        return eq7_plan(self.trainer.config, self.given, labels, gamma, episode)

    def watch(self, look: Callable[[Backbone, Tensor], Mapping[str, Tensor | float]]) -> pd.DataFrame:
        """Train one episode on the given labels; returns epoch, curve and accuracy of each point.

        `look` takes the network and the cumulative losses (N,), and returns labels (N,) or a share for each curve.
        """
        epochs = self.trainer.config.epochs
        points: list[tuple[int, str, float]] = []

        def after(epoch: int, model: Backbone, losses: Tensor) -> None:
            if (epoch + 1) % self.every == 0 or epoch + 1 == epochs:
                for curve, found in look(model, losses).items():
                    points.append((epoch + 1, curve, found if isinstance(found, float) else self.right(found)))
                self.trainer.observer.note(f"looked at epoch {epoch + 1} of {epochs}")

        self.trainer.train(dataclasses.replace(self.plan(self.given, 1.0, 0), after_epoch=after))
        return pd.DataFrame(points, columns=["epoch", "curve", "accuracy"])

    def right(self, labels: Tensor) -> float:
        """Share of labels (N,) that are correct."""
        return float((labels == self.truth).double().mean())

    def vote(self, features: Tensor, references: Tensor, labels: Tensor, k: int, *, keep: bool) -> Tensor:
        """Labels (N,) by vote of the nearest references (R,); with `keep`, references keep their own."""
        voted = poll(features, references, labels, k, self.task.search, len(self.classes)).winner
        if keep:
            voted[references] = labels[references]
        return voted

    def chosen(self, losses: Tensor) -> Tensor:
        """The references (R,): samples of small loss (Eqs. 5 and 6)."""
        return select_references(self.given, losses, REFERENCES, None)


def make_study(
    table: LabelTable,
    images: Path,
    noise: str,
    preset: str,
    settings: Mapping[str, Any],
    *,
    every: int,
    out: Path,
    observer: Observer,
) -> Study:
    """Add noise to the true labels in `table` and decode the images; raises the errors of `clean` for that input."""
    frame, _ = with_noise(table, noise, preset, settings["seed"])
    job = prepare(read_labels(frame, label_column=NOISY), images, TRUE, preset, settings, Silent())
    config, classes, given, truth = job.config, job.table.classes, job.table.given_labels, job.truth
    if truth is None or (truth == len(classes)).any():
        raise InputError(f"{table.table.name}: `noise` {noise} leaves a class no row; choose another noise")
    observer.start("reading images", len(job.files), "images")
    size = config.store_size or config.image_size
    with tempfile.TemporaryDirectory(dir=out) as folder:  # a mapped file outlives its name
        store = decode_all(job.files, size, config.fit, Path(folder), observer.advance)
    rows = np.flatnonzero(store.readable)
    if store.reasons:
        observer.note(some_unreadable(len(store.reasons)))
        check_labels(job.table, np.where(store.readable, given, -1), config, "readable ")
    trainer = new_trainer(config, store, rows, given[rows], job.new_model, NoCheckpoints(), lambda _: None, observer)
    return Study(
        trainer=trainer,
        task=new_task(trainer, store.digests[rows], len(classes)),
        truth=torch.from_numpy(truth[rows]).to(trainer.device),
        classes=[label_text(label) for label in classes],
        every=every,
    )
