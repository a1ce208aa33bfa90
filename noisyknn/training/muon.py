"""Muon (Jordan et al. 2024): momentum of which all directions count the same, for the matrices of a network.

The momentum of a matrix is replaced by the nearest semi-orthogonal matrix before it is applied. What the gradient
hardly touches is so learnt as fast as what dominates it, and a network needs far fewer epochs than with SGD.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MATRIX_MOMENTUM, MOMENTUM = 0.6, 0.9
"""Nesterov momentum of matrices and of all other parameters."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Jordan's coefficients, which trade exact singular values of 1 for few steps."""
STEPS = 3
"""Iterations of it."""
Tensors = list[Tensor] | tuple[Tensor, ...]


class Muon(torch.optim.Optimizer):
    """Each step turns each matrix by about the learning rate, in radians; all other parameters do SGD at that rate.

    The weights of a convolution are a matrix too: channels out × the rest. A matrix keeps the norm that it starts
    with, which needs no other decay, and gives the rate the same meaning for every layer. The last matrix makes
    the logits, whose scale is to be learnt: it belongs to the others, SGD with Nesterov momentum and weight decay.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, dtype: torch.dtype = torch.float32
    ) -> None:
        """Take `parameters` in the order of the network; `weight_decay` is that of those not turned.

        Matrices are made orthogonal in `dtype`: bfloat16 does, but is slow on processors that do not have it.
        """
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        matrices = [p for group in self.param_groups for p in group["params"] if p.dim() in (2, 4)]
        self._turned = set(matrices[:-1])
        self._dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: nothing here evaluates a loss again
        """Apply the gradients, all at once where they can be: on a GPU, launching so little work takes the time."""
        for group in self.param_groups:
            learnt = [parameter for parameter in group["params"] if parameter.grad is not None]
            turned = [parameter for parameter in learnt if parameter in self._turned]
            others = [parameter for parameter in learnt if parameter not in self._turned]
            if turned:
                momenta = self._with_momentum(turned, [parameter.grad for parameter in turned], MATRIX_MOMENTUM)
                for parameter, momentum in zip(turned, momenta, strict=True):
                    update = orthogonalized(momentum.flatten(1), self._dtype)
                    _turn(parameter, update.view(parameter.shape), group["lr"])
            if others:
                gradients = torch._foreach_add(
                    [parameter.grad for parameter in others], others, alpha=group["weight_decay"]
                )
                torch._foreach_add_(others, self._with_momentum(others, gradients, MOMENTUM), alpha=-group["lr"])

    def _with_momentum(self, parameters: list[Tensor], gradients: Tensors, momentum: float) -> Tensors:
        """Nesterov's momentum, of the parameters' shapes."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        return torch._foreach_add(gradients, buffers, alpha=momentum)


def orthogonalized(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """About the semi-orthogonal matrix (R, S) nearest to `matrix` (R, S), by Newton-Schulz iteration in `dtype`.

    Singular values come out between 0.5 and 1.3 or so, unless they were below a hundredth of the matrix's norm.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found: Tensor = (wide / wide.norm().clamp_min(1e-12)).to(dtype)
    for _ in range(STEPS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    found = found if wide is matrix else found.T
    return found.to(matrix.dtype)


def _turn(parameter: Tensor, direction: Tensor, angle: float) -> None:
    """Move the parameter against the direction, by `angle` times its norm, and back to its norm."""
    norm = parameter.norm()
    parameter.sub_(direction * (angle * norm / direction.norm().clamp_min(1e-12)))
    parameter.mul_(norm / parameter.norm().clamp_min(1e-12))
