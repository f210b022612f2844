"""Recording what a GPU is told to compute (https://docs.nvidia.com/cuda/cuda-programming-guide/)."""

import torch
from torch import Tensor

from penstock.kernels.recording import Compute, NotRecorded


def record(compute: Compute) -> Compute:
    """Record a computation whose kernels have been compiled, in memory of its own. Raises
    `NotRecorded` if there is none left: what can be computed as it stands must not fail for that.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            result = compute()
    except torch.OutOfMemoryError as error:
        raise NotRecorded("the GPU has no memory left for it") from error

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
