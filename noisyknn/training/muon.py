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
        """Apply the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter in self._turned:
                    momentum = self._with_momentum(parameter, parameter.grad, MATRIX_MOMENTUM)
                    update = orthogonalized(momentum.flatten(1), self._dtype)
                    _turn(parameter, update.view(parameter.shape), group["lr"])
                else:
                    gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                    parameter.sub_(self._with_momentum(parameter, gradient, MOMENTUM), alpha=group["lr"])

    def _with_momentum(self, parameter: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """Nesterov's momentum, of the parameter's shape."""
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"].mul_(momentum).add_(gradient)
        return gradient.add(buffer, alpha=momentum)


def orthogonalized(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """About the semi-orthogonal matrix (R, S) nearest to `matrix` (R, S), by Newton-Schulz iteration in `dtype`.

    Singular values come out between 0.5 and 1.3 or so, unless they were below a hundredth of the matrix's norm.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found: Tensor = (wide / wide.norm().clamp_min(1e-12)).to(dtype)
    for _ in range(STEPS):
        gram = found @ found.T
        found = a * found + (b * gram + c * gram @ gram) @ found
    found = found if wide is matrix else found.T
    return found.to(matrix.dtype)


def _turn(parameter: Tensor, direction: Tensor, angle: float) -> None:
    """Move the parameter against the direction, by `angle` times its norm, and back to its norm."""
    norm = parameter.norm()
    parameter.sub_(direction * (angle * norm / direction.norm().clamp_min(1e-12)))
    parameter.mul_(norm / parameter.norm().clamp_min(1e-12))
