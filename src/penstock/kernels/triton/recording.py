"""Recording what a GPU is told to compute (https://docs.nvidia.com/cuda/cuda-programming-guide/)."""

import torch
from torch import Tensor

from penstock.kernels.recording import Compute


def record(compute: Compute) -> Compute:
    """Record a computation whose kernels have been compiled, in memory of its own."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = compute()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
