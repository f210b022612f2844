"""What `scripts/gpu-check` runs on a GPU: correctness first, then speed."""
