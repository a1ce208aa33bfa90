"""IterKNN, Algorithm 2 of the paper: every sample is a reference, and the vote replaces every label.

Source: Kong et al., KNN-enhanced Deep Learning Against Noisy Labels, Sections 3.3 and 3.4, Eq. 4.
`noisyknn.methods.algorithm1` lists how we read the paper where it is silent.
"""

from collections.abc import Iterator

from torch import Tensor

from noisyknn.knn.vote import poll
from noisyknn.methods.algorithm1 import Correction, Episode, Task, algorithm1, labelled
from noisyknn.methods.spec import COMMON_SETTINGS, VOTE_SETTINGS, MethodSpec
from noisyknn.training.trainer import Trained


def iterknn(task: Task, last: Episode | None) -> Iterator[Episode]:
    """Algorithm 1 with the label correction of Algorithm 2."""
    return algorithm1(task, label_correction, last)


def label_correction(task: Task, labels: Tensor, trained: Trained, episode: int) -> Correction:  # noqa: ARG001
    """Algorithm 2: each of the labels (N,) becomes the majority of its k nearest neighbours' current labels."""
    references = labelled(labels)
    votes = poll(trained.features, references, labels, task.config.k, task.search, task.classes)  # lines 3 to 7
    return Correction(
        labels=votes.winner,
        voted=votes.winner.clone(),
        evidence=votes.log_shares,
        distances=votes.distances,
        references=references,
    )


SPEC = MethodSpec(
    run=iterknn,
    settings=COMMON_SETTINGS | VOTE_SETTINGS | {"episodes", "gamma", "gamma_decay"},
    words=lambda config: f"k = {config.k}, all labels vote",
    voters=lambda _, counts: int(counts.sum()),
)
