"""Calibrated probabilities of the true class, estimated from noisy labels alone.

Symbols: N samples, C classes, y true class, ỹ given label.

    p(y | x) = softmax(τ · evidence + b),   P(ỹ | x) = Σ_y p(y | x) · P(ỹ | x, y)

The fit finds the temperature τ, the class offsets b and the noise P(ỹ | x, y) (`noisyknn.calibration.noise_model`)
that make the given labels most likely: temperature scaling (Guo et al. 2017) through label noise, as in the forward
correction of Patrini et al. (2017). Weak priors hold τ, b and the class sizes where labels carry little information.

The noise rate and τ compete: much noise and confident evidence explain labels almost as well as little noise and
cautious evidence. So gradient steps fit both at once, starting from several noise rates. Expectation maximisation
(Dempster et al. 1977) then gives each class its own noise, as far as held-out labels support it: with few rows per
class, the network's confusions would otherwise pass for label flips.

The noise may grow with ambiguity: the fit takes the largest growth that MISFIT allows.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div, one_hot

from noisyknn.calibration.noise_model import HALF, LEAST, NoiseModel, posterior, reestimated, symmetric

OFFSET_SPREAD = 0.5
"""Standard deviation of the Gaussian prior of class offsets, which keeps rare classes from being explained away."""
SIZES = 0.05
"""Weight, per label, of the Kullback-Leibler divergence of the class sizes from those among the given labels. Labels
hardly tell which of two confused classes is larger; this prior keeps one from absorbing the other."""
CONFIDENCE = 0.4
"""Scale of the log-prior of log τ, -2 · log(1 + (log τ / CONFIDENCE)²), heavy-tailed like Student's.
It decides where labels do not: few labels, or mostly wrong ones, hardly distinguish confident evidence and much noise
from cautious evidence and little noise. The prior assumes that the network is roughly calibrated."""
SCALE_SPREAD = 0.5
"""Standard deviation of the Gaussian prior of the log of a network's confidence, relative to the others."""
ALIGNMENTS = 2
"""Rounds of making networks equally confident; each estimates the noise anew."""
NOISES = (0.1, 0.5, 0.8)
"""Noise rates that the fit starts from: a start from little noise may miss much noise, and vice versa."""
STRENGTHS = (1e5, 2500.0, 500.0, 100.0, 20.0)
"""Candidate weights, in rows, of the average noise in the estimate of each class's own noise; descending."""
ROUNDS = 50
"""Maximum number of steps of expectation maximisation."""
SETTLED = 3e-4
"""Change of the transition matrix below which these steps end."""
GROWTHS = (0.0, 0.05, 0.1, 0.15, 0.2)
"""Candidate values of the growth of noise with ambiguity; ascending."""
LITTLE = 0.1
"""The candidate that labels must support before any growth is accepted."""
MISFIT = 0.01
"""Log-likelihood, per label that is probably wrong, by which a larger growth may fall short of the best growth.
Networks trained on people's labels repeat people's errors, and repeated errors look like correct labels."""
LIKELIER = 5.0
"""Log-likelihood, of all labels together, that the growth LITTLE must gain to be accepted. Otherwise, a network trained
on few images would make images look ambiguous by its low confidence."""
MOST_DOUBT = 0.5
"""Largest doubt. If the evidence does not predict the labels, either they are random or the network learnt nothing.
Both count as equally likely; in the second case the labels stand."""
TILE_ELEMENTS = 1 << 22
"""Rows times classes of one tile."""
FIT_ELEMENTS, GROWTH_ELEMENTS = 1 << 22, 1 << 19
"""Most rows times classes to fit the parameters, and the growth, to; larger data are sampled."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Turns evidence into calibrated probabilities."""

    temperature: float
    """τ, the factor on the evidence: below 1 for overconfident evidence."""
    offsets: Tensor
    """b (C,)."""
    noise: NoiseModel
    strength: float
    """Weight, in rows, of the average noise in the estimate of each class's own noise."""
    chances: Tensor
    """Share (C,) of each class among the given labels."""
    doubt: float = 0.0
    """Probability, up to MOST_DOUBT, that the given labels are unrelated to the images."""

    def prior(self, evidence: Tensor) -> Tensor:
        """p(y | x) (N, C) float32 from evidence (N, C), without the given label."""
        return tiled(self._prior, evidence)

    def posterior(self, evidence: Tensor, given: Tensor) -> Tensor:
        """P(y | x, ỹ) (N, C) float32 from evidence (N, C) and given labels (N,); p(y | x) where none was given (-1)."""
        return tiled(self._posterior, evidence, given)

    def surprise(self, evidence: Tensor, given: Tensor) -> Tensor:
        """How many times likelier each given label (N,) is at random than by its image (N,); 1 where there is none."""
        return tiled(self._surprise, evidence, given)

    def _surprise(self, evidence: Tensor, given: Tensor) -> Tensor:
        prior, label = self._prior(evidence), given.clamp_min(0)
        explained = (prior * self.noise.likelihood(prior, label)).sum(1).clamp_min(LEAST)
        return torch.where(given >= 0, self.chances[label].clamp_min(LEAST) / explained, 1.0)

    def _prior(self, evidence: Tensor) -> Tensor:
        return (self.temperature * evidence.float() + self.offsets).softmax(1)

    def _posterior(self, evidence: Tensor, given: Tensor) -> Tensor:
        prior = self._prior(evidence)
        labelled = given >= 0
        likelihood = torch.ones_like(prior)
        likelihood[labelled] = self.noise.likelihood(prior[labelled], given[labelled])
        found = posterior(prior, likelihood)
        told = torch.where(labelled[:, None], one_hot(given.clamp_min(0), len(self.chances)), self.chances)
        return (1 - 2 * self.doubt) * found + self.doubt * (self.chances + told)


def tiled(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply `function` to tensors with N rows, the first (N, C), in tiles, to keep its temporary memory small."""
    tile_rows = max(1, TILE_ELEMENTS // tensors[0].shape[1])
    return torch.cat([function(*tile) for tile in zip(*(torch.split(t, tile_rows) for t in tensors), strict=True)])


def aligned(evidence: Tensor, given: Tensor, judges: Tensor) -> Tensor:
    """Rescale evidence (N, C) so that all networks, which `judges` (N,) numbers from 0, are equally confident.

    One temperature then suits all. A network trained on the given labels is more confident than those trained on
    mixtures, and would otherwise outweigh them. Given labels (N,) are -1 where there is none, or where the network was
    trained on the label; the scale found on the other rows applies to all predictions of the network.
    """
    classes, networks = evidence.shape[1], int(judges.max()) + 1
    rows = _fit_rows(given, classes)
    some, labels, network = evidence[rows].float(), given[rows], judges[rows]
    scales = some.new_ones(networks)
    for _ in range(ALIGNMENTS if networks > 1 and len(rows) > 0 else 0):
        scaled = some * scales[network, None]
        scales *= _relative_scales(_start(scaled, labels), scaled, labels, network, networks)
    return evidence * scales[judges, None].to(evidence.dtype)


def _relative_scales(found: Calibration, evidence: Tensor, given: Tensor, network: Tensor, networks: int) -> Tensor:
    """Factors (networks,), with geometric mean 1, that make the labels likelier than one temperature does."""
    logs = evidence.new_zeros(networks).requires_grad_()
    optimizer = torch.optim.LBFGS([logs], max_iter=20, line_search_fn="strong_wolfe")
    likelihood = found.noise.likelihood(evidence, given)

    def loss() -> Tensor:
        optimizer.zero_grad()
        prior = (found.temperature * logs.exp()[network, None] * evidence + found.offsets).softmax(1)
        value = _loss(prior, likelihood) + logs.square().sum() / (2 * SCALE_SPREAD**2 * len(given))
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return (logs - logs.mean()).detach().exp()


def calibrate(evidence: Tensor, given: Tensor) -> Calibration:
    """Fit a calibration to evidence (N, C), log-probabilities, and given labels (N,), -1 for none.

    The same input gives the same result, on a CPU bit for bit. At least one sample must have a label.
    """
    classes = evidence.shape[1]
    rows = _fit_rows(given, classes)
    evidence, given = evidence[rows].float(), given[rows]
    found = _likeliest(evidence, given)
    some = _sample(given, GROWTH_ELEMENTS // classes)
    found = _with_growth(found, evidence[some], given[some])
    return dataclasses.replace(found, doubt=_doubt(found, evidence, given))


def _noise_of(found: Calibration, evidence: Tensor, given: Tensor) -> float:
    """The expected share of wrong labels."""
    return 1 - float(found.posterior(evidence, given).gather(1, given[:, None]).mean())


def _doubt(found: Calibration, evidence: Tensor, given: Tensor) -> float:
    """Probability that the labels are drawn by their frequencies alone, whatever the evidence (N, C).

    The Bayesian information criterion (Schwarz 1978) compares that explanation with the calibration. Both fit the class
    sizes; the calibration has two more parameters, temperature and noise rate.
    """
    chance = -found.chances[given].log().mean()
    gained = len(given) * (float(chance) - _negative_log_likelihood(found, evidence, given))
    return MOST_DOUBT / (1 + math.exp(min(gained - math.log(len(given)), 700.0)))


def _with_growth(simple: Calibration, evidence: Tensor, given: Tensor) -> Calibration:
    """The calibration with the largest growth that the labels do not contradict, if they support growth at all.

    They support it if the growth LITTLE raises their log-likelihood by LIKELIER. People do mislabel ambiguous images,
    so more growth is accepted until the labels become less likely than MISFIT allows.
    """
    losses, candidates = [_negative_log_likelihood(simple, evidence, given)], [simple]
    for growth in GROWTHS[1:]:
        noise = NoiseModel(transition=simple.noise.transition, growth=growth)
        candidates.append(_maximised(candidates[-1], noise, evidence, given, steps=20))
        losses.append(_negative_log_likelihood(candidates[-1], evidence, given))
        if growth == LITTLE and (losses[0] - losses[-1]) * len(given) < LIKELIER:
            return simple
    tolerated = min(losses) + MISFIT * _noise_of(simple, evidence, given)
    return next(found for loss, found in zip(reversed(losses), reversed(candidates), strict=True) if loss <= tolerated)


def _fit_rows(given: Tensor, classes: int) -> Tensor:
    """Labelled rows to fit to."""
    rows = torch.nonzero(given >= 0)[:, 0]
    return rows[_sample(rows, FIT_ELEMENTS // classes)]


def _sample(rows: Tensor, most: int) -> Tensor:
    """Ascending indices into `rows`: all of them, or a random `most`, the same each time.

    Taking every n-th row would be biased where the order repeats: many tables list the classes in turn.
    """
    if len(rows) <= most:
        return torch.arange(len(rows), device=rows.device)
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return shuffled[: max(most, 1)].sort().values.to(rows.device)


def _likeliest(evidence: Tensor, given: Tensor) -> Calibration:
    """The likeliest calibration with the same noise on all images.

    Held-out labels decide how far classes may differ in their noise: a fit to each half of the rows predicts the other
    half. More freedom must gain one nat (a factor of e in likelihood) for each class. The freest fit starts from the
    flips between the evidence's likeliest classes and the given labels.
    """
    classes, start = evidence.shape[1], _start(evidence, given)
    voted = reestimated(one_hot(evidence.argmax(1), classes).to(evidence), given, STRENGTHS[-1])
    noise = NoiseModel(transition=voted, growth=0.0)
    votes = _maximised(dataclasses.replace(start, temperature=1.0), noise, evidence, given, steps=20)
    half = torch.randperm(len(given), generator=torch.Generator().manual_seed(0)).to(given.device) % 2 == 0
    best, least = STRENGTHS[0], math.inf
    for strength in STRENGTHS if len(given) > 1 else ():
        unlikely = 0.0
        for rows in (half, ~half):
            begun = votes if strength == STRENGTHS[-1] else start
            found = _settled(begun, evidence[rows], given[rows], strength)
            unlikely += _penalised(found, evidence[~rows], given[~rows]) * int((~rows).sum())
        if unlikely < least - classes or strength == best:
            best, least = strength, unlikely
    return _settled(votes if best == STRENGTHS[-1] else start, evidence, given, best)


def _start(evidence: Tensor, given: Tensor) -> Calibration:
    """The likeliest temperature, offsets and noise rate, with the same noise for all classes."""
    classes = evidence.shape[1]
    found = [
        Calibration(
            temperature=1.0,
            offsets=evidence.new_zeros(classes),
            noise=NoiseModel(transition=symmetric(classes, rate).to(evidence.device), growth=0.0),
            strength=math.inf,
            chances=torch.bincount(given, minlength=classes) / len(given),
        )
        for rate in NOISES
    ]
    for level in (False, True):
        found = [_maximised(each, each.noise, evidence, given, steps=20, level=level) for each in found]
    return min(found, key=lambda each: _penalised(each, evidence, given))


def _settled(start: Calibration, evidence: Tensor, given: Tensor, strength: float) -> Calibration:
    """The likeliest calibration if the average noise counts for `strength` rows in each class's own noise."""
    found = dataclasses.replace(start, strength=strength)
    for _ in range(ROUNDS):
        before = found.noise.transition
        transition = reestimated(found.posterior(evidence, given), given, strength)
        found = _maximised(found, NoiseModel(transition=transition, growth=0.0), evidence, given, steps=4, level=True)
        if (found.noise.transition - before).abs().max() < SETTLED:
            break
    return found


def _maximised(
    start: Calibration, noise: NoiseModel, evidence: Tensor, given: Tensor, steps: int, *, level: bool = False
) -> Calibration:
    """Fit the temperature and the offsets that make the labels most likely, given their noise.

    With `level`, fit the noise rate too; only the pattern of flips is given.
    """
    scale = torch.tensor(math.log(start.temperature), device=evidence.device).requires_grad_()
    offsets = start.offsets.clone().requires_grad_()
    shift = torch.zeros((), device=evidence.device, requires_grad=level)
    parameters = [scale, offsets, *([shift] if level else [])]
    optimizer = torch.optim.LBFGS(parameters, max_iter=steps, line_search_fn="strong_wolfe")
    same = noise.likelihood(evidence, given) if noise.growth == 0 else None  # for all images: it ignores the prior

    def loss() -> Tensor:
        optimizer.zero_grad()
        prior = (_bounded(scale).exp() * evidence + offsets).softmax(1)
        likelihood = noise.likelihood(prior, given) if same is None else same
        value = offsets.new_zeros(())
        if level:
            shifted = noise.shifted(shift)
            likelihood = shifted.likelihood(prior, given)
            rate = (start.chances * (1 - shifted.transition.diagonal())).sum()
            value = value - HALF * (rate.log() + (1 - rate).log()) / len(given)
        value = value + _loss(prior, likelihood) + offsets.square().sum() / (2 * OFFSET_SPREAD**2 * len(given))
        value = value + 2 * (1 + (scale / CONFIDENCE).square()).log() / len(given)
        sizes = prior.mean(0).clamp_min(LEAST).log()
        value = value + SIZES * kl_div(sizes, start.chances, reduction="sum")
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    temperature, noise = float(_bounded(scale.detach()).exp()), noise.shifted(shift.detach()) if level else noise
    return dataclasses.replace(start, temperature=temperature, offsets=offsets.detach(), noise=noise)


def _bounded(scale: Tensor) -> Tensor:
    """log τ within limits: useless evidence would drive it to minus infinity."""
    return scale.clamp(-10, 10)


def _penalised(found: Calibration, evidence: Tensor, given: Tensor) -> float:
    """Mean of -log P(ỹ | x) and of the negative log-prior of τ."""
    prior = 2 * math.log1p((math.log(found.temperature) / CONFIDENCE) ** 2)
    return _negative_log_likelihood(found, evidence, given) + prior / len(given)


def _negative_log_likelihood(calibration: Calibration, evidence: Tensor, given: Tensor) -> float:
    prior = calibration.prior(evidence)
    return float(_loss(prior, calibration.noise.likelihood(prior, given)))


def _loss(prior: Tensor, likelihood: Tensor) -> Tensor:
    """Mean of -log P(ỹ | x), from p(y | x) and P(ỹ | x, y), both (N, C)."""
    return -(prior * likelihood).sum(1).clamp_min(LEAST).log().mean()
