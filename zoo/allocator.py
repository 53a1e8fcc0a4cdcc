"""How the project's own processes take memory from the system: large blocks in huge pages, and kept once taken.

Feature maps are made and freed layer by layer. glibc gives blocks above 32 MiB back at once and takes new ones page by
page, zeroed by the system each time: at 512 x 512 a fifth of a forward pass in float32.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Variable that glibc reads when a process starts, mallopt's number for one that runs already, value: no block is mapped
# on its own, and up to 1 GiB stays at the end of the heap.
_KEPT = (("MALLOC_MMAP_MAX_", -4, 0), ("MALLOC_TRIM_THRESHOLD_", -1, 1 << 30))


def use_huge_pages() -> None:
    """For this process and those that it starts (Linux), before torch's first allocation."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_memory() -> None:
    """Keep freed blocks in this process, for the next layer. What the user has set in the environment stays.

    For programs that run a network forward again and again: their resident set grows by a tenth at most. With
    gradients, where blocks live long and unequally, the heap would break up: by a third with Gatys at 1024. Elsewhere
    than on Linux with glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    for name, number, value in _KEPT:
        if mallopt is not None and name not in os.environ:
            mallopt(number, value)
