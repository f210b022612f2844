"""What belongs to all kernels in Triton: how they are launched, and the choice of them."""
