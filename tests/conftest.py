"""Settings for every test process."""

import os

from httpx._config import DEFAULT_TIMEOUT_CONFIG

# Test processes run side by side on few cores: two pools of threads would only get in each
# other's way. Read by torch when it is imported, and inherited by engine processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Kernels in Triton run in its interpreter, unless whoever has a GPU says 0. Read by Triton when it
# is imported.
os.environ.setdefault("TRITON_INTERPRET", "1")

# A client that sets no limit of its own waits this long instead of 5 s: on a machine that has other
# work to do, a late answer is no failure.
for each in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, each, 100.0)
