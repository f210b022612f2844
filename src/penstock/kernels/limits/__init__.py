"""What the processor can do at most, for comparing kernels with."""
