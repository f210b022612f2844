"""Muon in float32 for the hidden matrices: momentum, made orthogonal before it is applied.

`torch.optim.Muon` orthogonalises in bfloat16, which CPUs without such units emulate slowly; here
all matrices of one shape are orthogonalised together, in float32.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Quintic Newton-Schulz coefficients: steep at zero, so five rounds bring singular values near one.
A, B, C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrices: Tensor, rounds: int = 5) -> Tensor:
    """Bring the singular values of each matrix in [N, rows, columns] close to one."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.transpose(1, 2)
        x = A * x + (B * gram + C * gram @ gram) @ x
    out: Tensor = x.transpose(1, 2) if tall else x
    return out


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update of each matrix is orthogonalised."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no line searches
        """Update every matrix, one batch of equal shapes at a time."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, float]) -> None:
        directions = torch.stack([self._direction(p, group["momentum"]) for p in parameters])
        rows, columns = directions.shape[1:]
        # Tall matrices get larger steps: their updates spread over more outputs.
        rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        for parameter, update in zip(parameters, orthogonalise(directions), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.sub_(update, alpha=rate)

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        velocity: Tensor = state["velocity"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(velocity, momentum)
