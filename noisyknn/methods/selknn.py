"""SelKNN, Algorithm 3 of the paper: the samples of smallest cumulative loss vote on the labels of the others.

Source: Kong et al., KNN-enhanced Deep Learning Against Noisy Labels, Section 3.4, Eqs. 4 to 6. Where the paper is
silent: the loss is O2U-Net's (Huang et al. 2019), the per-sample training loss minus the epoch's mean, summed over
the episode; a class keeps at least one reference; references of equal loss are taken in the order of their rows. With
selector ``o2u`` it is summed over one further cycle of 10 epochs instead, from the episode's rate down to a tenth of
it, where O2U-Net has many, and the features are those at its end.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from noisyknn.errors import UsageError
from noisyknn.knn.vote import poll
from noisyknn.methods.base import Correction, Episode, Task, iterate, labelled
from noisyknn.methods.iterknn import label_correction
from noisyknn.training.trainer import Trained


def selknn(task: Task, last: Episode | None) -> Iterator[Episode]:
    """Algorithm 1 with the label correction of Algorithm 3."""
    return iterate(task, selective_label_correction, last)


def selective_label_correction(task: Task, labels: Tensor, trained: Trained, episode: int) -> Correction:
    """Algorithm 3: references B keep their current labels, all others get the majority of their nearest references'.

    When B has grown to all samples, this is Algorithm 2 (Section 4.2): every label is voted on by all the others.

    Raises UsageError where a single reference is left, since it would decide everything.
    """
    config = task.config
    share = min(1.0, config.reference_start + episode * config.reference_step)
    references = select_references(labels, trained.cumulative_loss, share, config.references_per_class)  # lines 2 to 7
    if len(references) == len(labelled(labels)):
        return label_correction(task, labels, trained, episode)
    if len(references) < 2:
        raise UsageError(
            f"episode {episode + 1}: all labels have become one class, of which one sample would vote; "
            "give a larger --reference-start (or setting references_per_class)"
        )
    votes = poll(trained.features, references, labels, config.k, task.search, task.classes)
    corrected = votes.winner  # lines 9 to 13
    corrected[references] = labels[references]  # line 8
    return Correction(
        labels=corrected,
        voted=corrected.clone(),
        evidence=votes.log_shares,
        distances=votes.distances,
        references=references,
    )


def select_references(labels: Tensor, cumulative_loss: Tensor, share: float, per_class: int | None) -> Tensor:
    """Rows (R,) of each class's `share`, or of its `per_class`, smallest cumulative losses (Eqs. 5 and 6), ascending.

    `labels` (N,) are current class indices, -1 for none; `cumulative_loss` (N,) is the ranking quantity.
    """
    by_loss = cumulative_loss.argsort(stable=True)
    ranked = labels[by_loss]
    chosen = []
    for label in torch.unique(labels[labels >= 0]).tolist():
        members = by_loss[ranked == label]  # B_c in ascending order of loss
        count = max(1, round(share * len(members))) if per_class is None else per_class
        chosen.append(members[:count])
    return torch.cat(chosen).sort().values
