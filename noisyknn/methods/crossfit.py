"""Crossfit: no label is judged by what has learnt it. The default method; not in the paper, built on its Algorithm 1.

Samples are dealt into folds. Each episode trains one network and then judges the samples of one fold, whose given
labels it has not seen; the folds take turns (cross-fitting, Chernozhukov et al. 2018). What counts for a sample is the
network's own opinion and the vote of its nearest neighbours among the samples that were learnt from, mixed as
logarithms. After each episode this evidence is calibrated (`noisyknn.trust`) and becomes, with the given label, the
posterior probability of every class.

While some folds have not been judged yet, a network learns all other folds: the given labels of those not judged, the
posterior of those that are. From then on it learns from all images, each as the mixture of classes that the posterior
says (Tanaka et al. 2018 train on soft labels too), but for the fold that it is to judge as the mixture that does not
know the given label.

What remains of a sample's own label in its judgement is indirect: it was learnt by networks that judged others, which
later networks learn. Symbols: N samples, C classes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from noisyknn.methods.base import Correction, Episode, Task
from noisyknn.neighbors.vote import poll_uncertain
from noisyknn.trust.calibration import calibrate

VOTE_WEIGHT = 0.3
"""Share of the neighbours' vote in the evidence; the rest is the network's own opinion."""


def crossfit(task: Task, last: Episode | None) -> Iterator[Episode]:
    """Train on all folds but one and judge that one, fold after fold, in turn."""
    config, given = task.config, task.given_labels
    folds = deal(given, config.folds, config.seed)
    start = 0 if last is None else last.index + 1
    evidence = given.new_zeros(len(given), task.classes, dtype=torch.float16)
    voted = torch.full_like(given, -1)
    distances, cumulative_loss = torch.zeros(2, len(given), device=given.device)
    if last is not None:
        evidence, voted, distances = last.correction.evidence, last.correction.voted, last.correction.distances
        cumulative_loss = last.cumulative_loss
    blind, beliefs = _beliefs(evidence, given, folds < start)
    for index in range(start, config.episodes):
        in_fold = folds == index % config.folds
        learnt = (given >= 0) & ~in_fold if index < config.folds else torch.ones_like(in_fold)
        rows, judged, references = (torch.nonzero(mask)[:, 0] for mask in (learnt, in_fold, learnt & ~in_fold))
        targets = torch.where(in_fold[:, None], blind, beliefs)
        trained = task.train_on_targets(rows, targets.__getitem__, index, robust=index == 0)
        votes = poll_uncertain(trained.features, references, beliefs, config.k, task.search, judged)
        voted = voted.index_copy(0, judged, votes.winner)
        distances = distances.index_copy(0, judged, votes.distances)
        own = trained.log_probabilities[judged].float()
        mixed = own.lerp(votes.log_shares.float(), VOTE_WEIGHT).log_softmax(1)
        evidence = evidence.index_copy(0, judged, mixed.half())
        cumulative_loss = cumulative_loss.index_copy(0, rows, trained.cumulative_loss[rows])
        blind, beliefs = _beliefs(evidence, given, folds <= index)
        labels = torch.where((given >= 0) | (folds <= index), beliefs.argmax(1), -1)
        yield Episode(
            index=index,
            gamma=0.0,
            cumulative_loss=cumulative_loss,
            correction=Correction(
                labels=labels, voted=voted, evidence=evidence, distances=distances, references=references
            ),
        )


def deal(given: Tensor, folds: int, seed: int) -> Tensor:
    """The fold (N,) of each sample, at random; every class of `given` (N,) is spread over all folds evenly."""
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(seed)).to(given.device)
    by_class = order[given[order].argsort(stable=True)]
    return torch.empty_like(given).index_copy(0, by_class, torch.arange(len(given), device=given.device) % folds)


def _beliefs(evidence: Tensor, given: Tensor, judged: Tensor) -> tuple[Tensor, Tensor]:
    """Two times the probabilities of the classes (N, C) float16, without and with what the given label says.

    Of samples that are not `judged` (N,) yet, the given label is all that is known.
    """
    certain = F.one_hot(given.clamp_min(0), evidence.shape[1]).half()
    if not (judged & (given >= 0)).any():
        return certain, certain
    calibration = calibrate(evidence[judged], given[judged])
    blind, beliefs = certain, certain.clone()
    blind[judged] = calibration.prior(evidence[judged]).half()
    beliefs[judged] = calibration.posterior(evidence[judged], given[judged]).half()
    return blind, beliefs
