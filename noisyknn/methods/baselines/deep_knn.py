"""The deep k-NN filter leaves out a sample if its label differs from that of most of its neighbours.

Source: Bahri, Jiang and Gupta, Deep k-NN for Noisy Labels (2020). A preliminary network trains on the given
labels; neighbours are the nearest in the space of its logits, among all samples; a new network, if one is wanted,
trains on the samples that agree with their neighbours. The filter corrects nothing: a sample that is left out keeps its
label and becomes ``uncertain``.

Deviations, since we found no official code: logits are known up to a constant, as log-probabilities minus their mean,
and averaged over the mirror image where training flips images; both networks train with the loss and the schedule of
the preset. A sample without a label gets that of most of its neighbours and is not trained on.
"""

from collections.abc import Iterator

import torch

from noisyknn.errors import UsageError
from noisyknn.knn.vote import poll
from noisyknn.methods.algorithm1 import Correction, Episode, Task, labelled
from noisyknn.methods.baselines.ce import ONE_EPISODE
from noisyknn.methods.spec import LOSS_SETTINGS, SCHEDULE_SETTINGS, MethodSpec
from noisyknn.models.backbone import Backbone
from noisyknn.training.plan import eq7_plan


def deep_knn(task: Task, last: Episode | None) -> Iterator[Episode]:
    """Run the filter."""
    if last is None:
        yield _filter(task)


def learn_what_is_left(task: Task, last: Episode) -> Backbone:
    """Train a new network on the samples that agree with their neighbours; raises UsageError if too few do."""
    kept = torch.where(task.given_labels >= 0, last.correction.labels, -1)
    if len(torch.unique(kept[kept >= 0])) < 2:
        raise UsageError("the deep k-NN filter leaves fewer than two classes to train on; give a smaller `k`")
    return task.train(eq7_plan(task.config, task.given_labels, kept, 0.0, task.config.episodes)).model


def _filter(task: Task) -> Episode:
    given = task.given_labels
    trained = task.train(eq7_plan(task.config, given, given, 1.0, 0))
    logits = trained.log_probabilities.float()
    logits -= logits.mean(1, keepdim=True)
    references = labelled(given)
    votes = poll(logits, references, given, task.config.k, task.search, task.classes)
    correction = Correction(
        labels=torch.where((given < 0) | (votes.winner == given), votes.winner, -1),
        voted=votes.winner,
        evidence=votes.log_shares,
        distances=votes.distances,
        references=references,
    )
    return Episode(index=0, gamma=1.0, cumulative_loss=trained.cumulative_loss, correction=correction)


SPEC = MethodSpec(
    run=deep_knn,
    settings=LOSS_SETTINGS | SCHEDULE_SETTINGS | {"k", "search"},
    words=lambda config: f"k = {config.k}, all labels vote",
    voters=lambda _, counts: int(counts.sum()),
    defaults=ONE_EPISODE,
    final_network=learn_what_is_left,
)
