"""Muon (Jordan et al. 2024): orthogonalised momentum for the matrices of a network.

Each step replaces a matrix's momentum by the nearest semi-orthogonal matrix. All directions then learn equally fast,
even those with small gradients, and a network needs far fewer epochs than with SGD.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MATRIX_MOMENTUM, MOMENTUM = 0.6, 0.9
"""Nesterov momentum of matrices and of all other parameters."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Jordan's coefficients: singular values only near 1, but in few steps."""
STEPS = 3
"""Newton-Schulz iterations."""
Tensors = list[Tensor] | tuple[Tensor, ...]


class Muon(torch.optim.Optimizer):
    """Each step rotates each matrix by about the learning rate, in radians; all other parameters use SGD at that rate.

    The weights of a convolution are a matrix too: output channels × the rest. A matrix keeps its initial norm, so it
    needs no weight decay, and the rate means the same for every layer. The last matrix makes the logits, whose scale
    must be free: like the other parameters, it uses SGD with Nesterov momentum and weight decay.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, dtype: torch.dtype = torch.float32
    ) -> None:
        """Take `parameters` in the order of the network; `weight_decay` applies to those that are not rotated.

        `dtype` is the precision of the orthogonalisation: bfloat16 suffices, but is slow on processors without it.
        """
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        matrices = [p for group in self.param_groups for p in group["params"] if p.dim() in (2, 4)]
        self._turned = set(matrices[:-1])
        self._dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: nothing here evaluates a loss again
        """Apply the gradients, batched where possible: on a GPU, launching small kernels takes most of the time."""
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
        """Nesterov momentum, in the parameters' shapes."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        return torch._foreach_add(gradients, buffers, alpha=momentum)


def orthogonalized(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Approximate the semi-orthogonal matrix (R, S) nearest to `matrix` (R, S), by Newton-Schulz iteration in `dtype`.

    Singular values become about 0.5 to 1.3, except those below a hundredth of the matrix's norm.
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
    """Move the parameter against the direction by `angle` times its norm, then rescale it to that norm."""
    norm = parameter.norm()
    parameter.sub_(direction * (angle * norm / direction.norm().clamp_min(1e-12)))
    parameter.mul_(norm / parameter.norm().clamp_min(1e-12))
