"""Muon: steps along the nearest rotation of the momentum. Chapter 14."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

STEEP = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd polynomial that Jordan et al. 2024 iterate."""


def orthogonalised(matrix: Tensor, *, steps: int = 5) -> Tensor:
    """Bring all singular values of a matrix (r, c) near 1 and keep its directions.

    A Newton-Schulz iteration with coefficients that trade exactness for speed: the
    singular values end within about 0.7 to 1.2. Jordan et al. 2024.
    """
    a, b, c = STEEP
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for matrices, AdamW without decay for the rest.

    A kernel (out, in, h, w) counts as a matrix (out, in h w). The update is scaled by
    0.2 sqrt(max(r, c)), which gives it about the size of Adam's, so that one learning
    rate serves both: Liu et al. 2025, section 2.2. Jordan et al. 2024.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        """Take a step along the gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    update = self._matrix if p.ndim > 1 else self._adam
                    p.add_(update(p, group), alpha=-group["lr"])

    def _matrix(self, p: nn.Parameter, group: dict) -> Tensor:
        state, decay = self.state[p], group["momentum"]
        average = state.setdefault("momentum", torch.zeros_like(p))
        average.lerp_(p.grad, 1 - decay)
        ahead = p.grad.lerp(average, decay)  # Nesterov
        flat = ahead.flatten(1)
        scale = 0.2 * max(flat.shape) ** 0.5
        return scale * orthogonalised(flat).reshape(p.shape)

    def _adam(self, p: nn.Parameter, group: dict) -> Tensor:
        state, (fast, slow) = self.state[p], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        k = state["step"].item()
        state["mean"].lerp_(p.grad, 1 - fast)
        state["square"].lerp_(p.grad.square(), 1 - slow)
        size = (state["square"] / (1 - slow**k)).sqrt() + 1e-8
        return state["mean"] / (1 - fast**k) / size
