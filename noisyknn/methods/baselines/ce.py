"""CE: train one network on the given labels with cross-entropy; each label becomes its prediction.

The first baseline of Kong et al. (Section 4.2); its test accuracy is that of this network after the last epoch.
Schedule, optimiser and augmentation are those of the preset, as in the paper for all methods. Deviation: where training
mirrors images, labels are the predictions averaged over an image and its mirror image.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from noisyknn.methods.algorithm1 import Correction, Episode, Task, labelled
from noisyknn.methods.spec import COMMON_SETTINGS, MethodSpec
from noisyknn.training.plan import eq7_plan


def one_network(task: Task, last: Episode | None) -> Iterator[Episode]:
    """Train one episode on the given labels; each label becomes the network's prediction."""
    if last is None:
        trained = task.train(eq7_plan(task.config, task.given_labels, task.given_labels, 1.0, 0))
        logs = trained.log_probabilities
        yield Episode(
            index=0,
            gamma=1.0,
            cumulative_loss=trained.cumulative_loss,
            correction=without_votes(logs.argmax(1), logs, labelled(task.given_labels)),
            network=trained.model,
        )


def without_votes(labels: Tensor, evidence: Tensor, references: Tensor) -> Correction:
    """A correction without a k-NN vote, from labels (N,), evidence (N, C) and the rows (R,) trained on."""
    return Correction(
        labels=labels,
        voted=labels.clone(),
        evidence=evidence,
        distances=torch.zeros(len(labels), device=labels.device),
        references=references,
    )


ONE_EPISODE = {"policy": "paper", "episodes": 1}
SPEC = MethodSpec(
    run=one_network,
    settings=COMMON_SETTINGS - {"loss"},
    words=lambda _: "",
    defaults={**ONE_EPISODE, "loss": "ce"},
)
