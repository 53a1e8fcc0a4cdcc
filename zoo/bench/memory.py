"""Memory of this process: resident now, and the peak of a stretch of work.

On a GPU the allocator's own counters are exact. For resident memory Linux keeps a high-water mark per process
(``VmHWM``), and writing 5 to ``/proc/self/clear_refs`` sets it back to what is resident now; with that the peak of a
stretch is exact and costs nothing while it runs. Where that is not permitted, a thread samples the resident size, and
``getrusage`` helps out: its mark cannot be set back, but if it has grown during the stretch it is the stretch's peak.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

MIB = 2**20
_SAMPLE_SECONDS = 0.005


@dataclass
class Peak:
    """Bytes at the peak of a stretch, filled in when it ends; the GPU's are None without one."""

    resident: int = 0
    cuda_allocated: int | None = None
    cuda_reserved: int | None = None


def resident() -> int:
    """Bytes of this process in physical memory now."""
    return psutil.Process().memory_info().rss


@contextlib.contextmanager
def peak(device: torch.device, *, use_high_water_mark: bool = True) -> Iterator[Peak]:
    """Measure the peak of the block. ``use_high_water_mark=False`` samples even where the kernel's mark would do."""
    result = Peak()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    marked = use_high_water_mark and _reset_high_water_mark()
    before = _max_resident()
    sampler = None if marked else _Sampler()
    try:
        yield result
    finally:
        result.resident = resident()
        if sampler is not None:
            result.resident = max(result.resident, sampler.stop())
        if marked:
            result.resident = max(result.resident, _high_water_mark())
        elif _max_resident() > before:
            result.resident = max(result.resident, _max_resident())
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            result.cuda_allocated = torch.cuda.max_memory_allocated(device)
            result.cuda_reserved = torch.cuda.max_memory_reserved(device)


def _reset_high_water_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _high_water_mark() > 0


def _high_water_mark() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _max_resident() -> int:
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Sampler:
    """A thread that remembers the largest resident size it saw."""

    def __init__(self) -> None:
        self._largest = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._done.wait(_SAMPLE_SECONDS):
            self._largest = max(self._largest, process.memory_info().rss)

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self._largest
