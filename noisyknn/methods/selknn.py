"""SelKNN, Algorithm 3 of the paper: the samples with the smallest cumulative loss vote on the labels of the others.

Source: Kong et al., KNN-enhanced Deep Learning Against Noisy Labels, Section 3.4, Eqs. 4 to 6.
`noisyknn.methods.algorithm1` lists how we read the paper where it is silent. With selector ``o2u``, the loss is instead
summed over one further cycle of 10 epochs, from the episode's rate down to a tenth of it; the features are those at the
end of the cycle. O2U-Net (Huang et al. 2019) has many cycles.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.errors import UsageError
from noisyknn.knn.vote import poll
from noisyknn.methods.algorithm1 import Correction, Episode, Task, algorithm1, labelled
from noisyknn.methods.iterknn import SPEC as ITERKNN
from noisyknn.methods.iterknn import label_correction
from noisyknn.methods.spec import MethodSpec
from noisyknn.training.plan import Plan, eq7_plan
from noisyknn.training.schedule import CYCLE, cyclic_rate
from noisyknn.training.trainer import Trained


def selknn(task: Task, last: Episode | None) -> Iterator[Episode]:
    """Algorithm 1 with the label correction of Algorithm 3."""
    return algorithm1(task, selective_label_correction, last, o2u_plan if task.config.selector == "o2u" else eq7_plan)


def selective_label_correction(task: Task, labels: Tensor, trained: Trained, episode: int) -> Correction:
    """Algorithm 3: references B keep their current labels, all others get the majority of their nearest references.

    Once B contains all samples, this is Algorithm 2 (Section 4.2): all other samples vote on every label.

    Raises UsageError if a single reference is left, since it would decide every label.
    """
    config = task.config
    share = min(1.0, config.reference_start + episode * config.reference_step)
    references = select_references(labels, trained.cumulative_loss, share, config.references_per_class)  # lines 2 to 7
    if len(references) == len(labelled(labels)):
        return label_correction(task, labels, trained, episode)
    if len(references) < 2:
        raise UsageError(
            f"episode {episode + 1}: all labels have become one class, and a single sample would vote; "
            "give a larger `reference_start` or `references_per_class`"
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
    """Rows (R,) of smallest loss, ascending: a `share` of each class, or `per_class` of it (Eqs. 5 and 6).

    `labels` (N,) are current class indices, -1 for none; `cumulative_loss` (N,) ranks the samples.
    """
    by_loss = cumulative_loss.argsort(stable=True)
    ranked = labels[by_loss]
    chosen = []
    for label in torch.unique(labels[labels >= 0]).tolist():
        members = by_loss[ranked == label]  # B_c in ascending order of loss
        count = max(1, round(share * len(members))) if per_class is None else per_class
        chosen.append(members[:count])
    return torch.cat(chosen).sort().values


def o2u_plan(config: Config, given: Tensor, labels: Tensor, gamma: float, episode: int) -> Plan:
    """`eq7_plan` and a further cycle, in which the losses accumulate; the same arguments."""
    plan = eq7_plan(config, given, labels, gamma, episode)
    rate = partial(cyclic_rate, config)
    return dataclasses.replace(plan, epochs=plan.epochs + CYCLE, rate=rate, tracked_from=plan.epochs)


def _words(config: Config) -> str:
    if config.references_per_class is not None:
        voters = f"{config.references_per_class:,} labels of each class vote"
    else:
        voters = f"M = {config.reference_start:.0%}, growing by {config.reference_step:.0%}"
    return f"k = {config.k}, {voters}" + (", by the loss of a cycle" if config.selector == "o2u" else "")


def _voters(config: Config, counts: npt.NDArray[np.int64]) -> int:
    if config.references_per_class is not None:
        return int(counts.clip(max=config.references_per_class).sum())
    return int(np.rint(config.reference_start * counts).clip(min=1).sum())


SHARES = frozenset({"reference_start", "reference_step"})
SPEC = MethodSpec(
    run=selknn,
    settings=ITERKNN.settings | SHARES | {"references_per_class", "selector"},
    words=_words,
    voters=_voters,
    unused=lambda config: SHARES if config.references_per_class is not None else frozenset(),
)
