import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from noisyknn.training.losses import LossFn, cross_entropy, expected_loss, mixed_loss, symmetric_cross_entropy

LOG_ZERO = math.log(1e-4)


def _draw(samples: int = 7, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(samples, classes, generator=generator)
    labels = torch.randint(classes, (samples,), generator=generator)
    return logits, labels, (labels + 1) % classes


def _softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def test_values_worked_out_by_hand() -> None:
    logits = torch.tensor([[math.log(1.0), math.log(3.0)]])  # probabilities 1/4 and 3/4
    label = torch.tensor([0])
    assert cross_entropy(logits, label).item() == pytest.approx(math.log(4))
    smoothed = 0.8 * math.log(4) + 0.2 * (math.log(4) + math.log(4 / 3)) / 2
    assert cross_entropy(logits, label, 0.2).item() == pytest.approx(smoothed)
    assert symmetric_cross_entropy(logits, label, 0.1, 2.0, -4.0).item() == pytest.approx(0.1 * math.log(4) + 2 * 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_equal_a_slow_loop_over_samples_and_classes(smoothing: float) -> None:
    logits, labels, _ = _draw()
    entropies, symmetric = [], []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        p = _softmax(row)
        target = [smoothing / len(p) + (1 - smoothing) * (c == label) for c in range(len(p))]
        entropy = -sum(t * math.log(q) for t, q in zip(target, p, strict=True))
        clipped = [min(max(float(c == label), math.exp(-4.0)), 1.0) for c in range(len(p))]
        reverse = -sum(q * math.log(t) for q, t in zip(p, clipped, strict=True))
        entropies.append(entropy)
        symmetric.append(6.0 * entropy + 0.1 * reverse)
    torch.testing.assert_close(cross_entropy(logits, labels, smoothing), torch.tensor(entropies))
    ours = symmetric_cross_entropy(logits, labels, 6.0, 0.1, -4.0, smoothing)
    torch.testing.assert_close(ours, torch.tensor(symmetric))


def test_symmetric_loss_equals_the_official_code() -> None:
    logits, labels, _ = _draw()
    # https://github.com/HanxunH/SCELoss-Reproduce, loss.py
    prediction = torch.clamp(F.softmax(logits, dim=1), min=1e-7, max=1.0)
    one_hot = torch.clamp(F.one_hot(labels, 5).float(), min=1e-4, max=1.0)
    reverse = -1 * torch.sum(prediction * torch.log(one_hot), dim=1)
    official = 0.1 * F.cross_entropy(logits, labels) + 1.0 * reverse.mean()
    ours = symmetric_cross_entropy(logits, labels, 0.1, 1.0, LOG_ZERO).mean()
    torch.testing.assert_close(ours, official, atol=1e-5, rtol=1e-5)


def test_gradients_equal_those_of_torch_s_cross_entropy() -> None:
    logits, labels, _ = _draw()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    mine = torch.autograd.grad(cross_entropy(ours, labels, 0.1).mean(), ours)
    torch.testing.assert_close(mine, torch.autograd.grad(F.cross_entropy(theirs, labels, label_smoothing=0.1), theirs))


def test_bfloat16_logits_lose_nothing_more() -> None:
    logits, labels, _ = _draw()
    rounded = logits.bfloat16()
    loss = cross_entropy(rounded, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(rounded.float(), labels), atol=0, rtol=0)


@pytest.mark.parametrize(
    "loss", [cross_entropy, partial(symmetric_cross_entropy, alpha=0.1, beta=1.0, log_zero=LOG_ZERO)]
)
@pytest.mark.parametrize("gamma", [1.0, 0.3, torch.tensor(0.3), 0.0])
def test_mixed_loss_weighs_the_given_labels_with_gamma(loss: LossFn, gamma: float | Tensor) -> None:
    logits, labels, given = _draw()
    training, current = mixed_loss(logits, labels, given, gamma, loss)
    torch.testing.assert_close(current, loss(logits, labels))
    torch.testing.assert_close(training, (1 - float(gamma)) * loss(logits, labels) + float(gamma) * loss(logits, given))


def test_mixed_loss_computes_one_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels, given = _draw()
    calls: list[int] = []
    softmax = F.log_softmax

    def counted(values: Tensor, dim: int) -> Tensor:
        calls.append(dim)
        return softmax(values, dim=dim)

    monkeypatch.setattr(F, "log_softmax", counted)
    mixed_loss(logits, labels, given, 0.5, cross_entropy)
    assert calls == [1]


@pytest.mark.parametrize("loss", [cross_entropy, partial(symmetric_cross_entropy, alpha=0.3, beta=0.7, log_zero=-4)])
def test_the_expected_loss_is_the_mean_of_all_labels_by_their_probability(loss: LossFn) -> None:
    logits, labels, _ = _draw()
    targets = torch.rand(7, 5, generator=torch.Generator().manual_seed(1))
    targets /= targets.sum(1, keepdim=True)
    by_hand = sum(targets[:, c] * loss(logits, torch.full((7,), c)) for c in range(5))
    torch.testing.assert_close(expected_loss(logits, targets, loss), by_hand)
    certain = F.one_hot(labels, 5).float()
    torch.testing.assert_close(expected_loss(logits, certain, loss), loss(logits, labels))


def test_the_expected_cross_entropy_is_that_with_soft_labels() -> None:
    logits, *_ = _draw()
    targets = torch.rand(7, 5, generator=torch.Generator().manual_seed(1)).softmax(1)
    expected = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(expected_loss(logits, targets, cross_entropy), expected)
