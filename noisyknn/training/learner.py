"""A network in training and the state that the rest of its episode depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.models.backbone import Backbone
from noisyknn.training.loss_tracker import LossTracker
from noisyknn.training.muon import Muon


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A network, its optimiser and its losses so far; each epoch seeds its random numbers, so they are not saved."""

    model: Backbone
    logits: Callable[[Tensor], Tensor]
    """Images (B, 3, S, S) to float32 logits (B, C) of the model in training."""
    whole_logits: Callable[[Tensor], Tensor]
    """The same for batches that are not split; a GPU may replay them as graphs."""
    optimizer: torch.optim.Optimizer
    tracker: LossTracker
    objective: Mapping[str, Tensor]
    """Tensors that training updates besides the weights, such as labels."""

    def state(self) -> dict[str, Tensor]:
        """The whole state as named tensors."""
        state = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{name}": tensor for name, tensor in values.items() if tensor is not None}
        state |= {f"objective.{name}": tensor for name, tensor in self.objective.items()}
        return state | {"cumulative_loss": self.tracker.cumulative}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned in this process or an earlier one."""
        self.model.load_state_dict({name[6:]: tensor for name, tensor in state.items() if name.startswith("model.")})
        parameters = list(self.model.parameters())
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                parameter = parameters[int(index)]
                if tensor.shape == parameter.shape:  # fused optimisers need moments in their parameter's memory format
                    tensor = torch.empty_like(parameter).copy_(tensor)
                moments.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for name, tensor in self.objective.items():
            tensor.copy_(state[f"objective.{name}"])
        self.tracker.cumulative.copy_(state["cumulative_loss"])


def new_optimizer(model: Backbone, config: Config, *, bf16: bool) -> torch.optim.Optimizer:
    """The configured optimiser; the trainer sets the learning rate before each step.

    `bf16` is True if the network trains under bf16 autocast.
    """
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), config.lr, weight_decay=config.weight_decay, fused=True)
    if config.optimizer == "muon":
        dtype = torch.bfloat16 if bf16 else torch.float32
        return Muon(model.parameters(), config.lr, weight_decay=config.weight_decay, dtype=dtype)
    return torch.optim.SGD(
        model.parameters(), config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay, fused=True
    )
