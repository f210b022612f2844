"""Layer normalisation (https://arxiv.org/abs/1607.06450)."""

from torch import Tensor
from torch.nn import functional


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Centre every row of x [..., D] and scale it to unit variance, then weight and shift; float32
    inside.

    weight and bias are [D], or [N, D] for x [T, N, D]: one norm for each of N heads.
    """
    h = functional.layer_norm(x.float(), x.shape[-1:], eps=eps)
    return h.mul_(weight).add_(bias).to(x.dtype)
