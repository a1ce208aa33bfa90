"""The optimiser that turns matrices, against its definition by singular values and on problems with a known answer."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from noisyknn.config import make_config
from noisyknn.models.factory import build_backbone
from noisyknn.training import muon
from noisyknn.training.learner import new_optimizer
from noisyknn.training.muon import Muon, orthogonalized


def _matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8, 8), (8, 50), (50, 8), (1, 5)])
def test_singular_values_become_about_one_and_directions_stay(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """The nearest semi-orthogonal matrix to U S Vᵀ is U Vᵀ."""
    matrix = _matrix(*shape)
    found = orthogonalized(matrix, dtype)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert found.shape == matrix.shape
    along = left.T @ found @ right.T
    assert (along.diagonal() > 0.4).all()
    assert (along.diagonal() < 1.4).all()
    assert (along - torch.diag(along.diagonal())).abs().max() < 0.05


def test_a_gradient_of_zeros_moves_nothing_and_is_no_nan() -> None:
    weight, head = nn.Parameter(_matrix(4, 6)), nn.Parameter(_matrix(2, 4))
    before = weight.detach().clone()
    weight.grad, head.grad = torch.zeros_like(weight), torch.zeros_like(head)
    Muon([weight, head], lr=0.2, weight_decay=0.0).step()
    torch.testing.assert_close(weight.detach(), before)


def test_a_matrix_turns_by_the_rate_and_keeps_its_norm() -> None:
    weight, head = nn.Parameter(_matrix(16, 3 * 9).view(16, 3, 3, 3)), nn.Parameter(_matrix(2, 4))
    before = weight.detach().clone()
    weight.grad = _matrix(3 * 9, 16).T.reshape(16, 3, 3, 3).contiguous()
    Muon([weight, head], lr=0.1, weight_decay=0.0).step()
    after = weight.detach()
    cosine = (after * before).sum() / before.norm() ** 2
    assert float(after.norm() / before.norm()) == pytest.approx(1, abs=1e-5)
    assert float(torch.acos(cosine)) == pytest.approx(0.1, abs=0.02)


def test_vectors_and_the_last_matrix_do_sgd() -> None:
    """As torch's own SGD with Nesterov momentum and weight decay does, over several steps."""
    values = [_matrix(4, 6), torch.ones(4), _matrix(3, 4), torch.ones(3), torch.ones(1, 2, 3)]
    ours, theirs = ([nn.Parameter(value.clone()) for value in values] for _ in range(2))
    turning = Muon(ours, lr=0.1, weight_decay=0.01)
    sgd = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    for step in range(3):
        for parameter, other in zip(ours, theirs, strict=True):
            parameter.grad = torch.full_like(parameter, step + 1)
            other.grad = parameter.grad.clone()
        turning.step()
        sgd.step()
    assert not torch.equal(ours[0], theirs[0])
    for parameter, other in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(parameter, other)


def test_it_learns_what_lies_along_weak_directions_sooner_than_sgd() -> None:
    """Inputs of which some are a hundred times smaller than others: every direction of a matrix counts the same."""
    scales = torch.logspace(0, -2, 8)
    inputs = torch.randn(256, 8, generator=torch.Generator().manual_seed(1)) * scales
    wanted = (inputs / scales) @ _matrix(8, 4)

    def least_loss(optimizer_of: Callable[[nn.Module], torch.optim.Optimizer], rate: float) -> float:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
        optimizer = optimizer_of(model)
        for step in range(60):
            optimizer.param_groups[0]["lr"] = rate * (1 - step / 60)
            optimizer.zero_grad()
            loss: torch.Tensor = (model(inputs) - wanted).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return float(loss.detach())

    def sgd(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True)

    turned = least_loss(lambda model: Muon(model.parameters(), lr=0.2, weight_decay=0.0), 0.2)
    assert turned < 0.5 * min(least_loss(sgd, rate) for rate in (0.02, 0.05, 0.1, 0.2))


@pytest.mark.parametrize("bf16", [True, False])
def test_a_run_without_bf16_computes_none(monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    """Processors without instructions for it take many times as long."""
    seen = []

    def spy(matrix: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        seen.append(dtype)
        return orthogonalized(matrix, dtype)

    monkeypatch.setattr(muon, "orthogonalized", spy)
    model = build_backbone("cnn5", classes=2, image_size=8, seed=0)
    optimizer = new_optimizer(model, make_config({"optimizer": "muon"}), bf16=bf16)
    model(torch.zeros(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    assert set(seen) == {torch.bfloat16 if bf16 else torch.float32}
