"""The CPU backend: what its kernels share, and how they are chosen."""
