"""Where and in which number format a method runs: ``auto`` resolved once, the same way everywhere."""

from __future__ import annotations

import contextlib
import functools
import platform
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.words import shown

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """``auto`` is CUDA, else MPS, else the CPU; anything else must exist on this machine (ConfigError)."""
    if str(name) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"Unknown device {shown(str(name))}: use auto, cpu, cuda, cuda:N or mps.") from error
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device.type, False) or (device.index or 0) >= count:
        raise ConfigError(f"Device {str(name)!r} is not available on this machine: use --device auto or cpu.")
    return device


def fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions run in hardware here (elsewhere they are emulated and slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Builds without oneDNN (macOS) lack the operator that answers the second question.
        return (
            torch.backends.mkldnn.is_available()
            and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
            and torch.cpu._is_avx512_bf16_supported()
        )
    return False


@functools.cache
def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        with contextlib.suppress(OSError):
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            if name := subprocess.run(asked, capture_output=True, encoding="utf-8", errors="replace").stdout.strip():
                return name
    return platform.processor() or platform.machine()


def resolve_precision(name: str, device: torch.device, preferred: Precision) -> Precision:
    """``auto`` is what the method prefers, or fp32 where this device would emulate it."""
    if name == "auto":
        return "fp32" if preferred == "bf16" and not fast_bf16(device) else preferred
    for known in get_args(Precision):
        if name == known:
            return known
    raise ConfigError(f"Unknown precision {shown(name)}: use auto, fp32, bf16 or fp16.")


def dtype_of(precision: Precision) -> torch.dtype:
    """The tensors' format that ``precision`` names."""
    return _DTYPES[precision]


def exact_device(device: torch.device) -> torch.device:
    """Where float64 and every operator exist: ``device`` itself, or the CPU beside an MPS device, which lacks both."""
    return torch.device("cpu") if device.type == "mps" else device


def exact(tensor: Tensor) -> Tensor:
    """``tensor`` on the :func:`exact_device` of its own; what is computed of it there must be moved back."""
    return tensor.to(exact_device(tensor.device))


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; float64 stays beside a device that has none."""
    return tensor.to(exact_device(device) if tensor.dtype == torch.float64 else device)


# -- float32 is float32 -----------------------------------------------------------------------------------------------

# What float32_rounding() reads: old switches (None where torch refuses to read them), and the new ones by name.
Rounding = tuple[tuple[bool, str] | None, tuple[tuple[str, str], ...]]
_lock = threading.Lock()
_users = 0
_before: Rounding = (None, ())


def _switches() -> dict[str, Any]:
    """torch's newer switches of how float32 is rounded (from 2.9), by name; none in an older torch."""
    backends: Any = torch.backends  # its stubs name few of them
    if not hasattr(backends.cudnn, "conv"):
        return {}
    return {
        "cudnn.conv": backends.cudnn.conv,
        "cudnn.rnn": backends.cudnn.rnn,
        "cuda.matmul": backends.cuda.matmul,
        "mkldnn.matmul": backends.mkldnn.matmul,
    }


def float32_rounding() -> Rounding:
    """How torch rounds float32 inside convolutions and matrix products, to compare and to put back."""
    try:
        old = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # the new switches were set in a way that the old ones have no word for
        old = None
    return old, tuple((name, switch.fp32_precision) for name, switch in _switches().items())


def set_float32_rounding(rounding: Rounding) -> None:
    """Put back what :func:`float32_rounding` read."""
    old, new = rounding
    if old is not None:
        # First: the old ones set new ones too.
        torch.backends.cudnn.allow_tf32 = old[0]
        torch.set_float32_matmul_precision(old[1])
    switches = _switches()
    for name, precision in new:
        switches[name].fp32_precision = precision


@contextlib.contextmanager
def ieee_float32(device: torch.device) -> Iterator[None]:
    """On CUDA, no TF32 inside the block: torch lets convolutions round float32 to ten bits of fraction by default.

    The switches are the process's. They change with the first block that any thread enters and come back with the last
    one that any leaves, so that no thread loses them in the middle of its work.
    """
    global _users, _before
    if device.type != "cuda":
        yield
        return
    with _lock:
        if _users == 0:
            _before = float32_rounding()
            old, new = _before
            set_float32_rounding(
                (None if old is None else (False, "highest"), tuple((name, "ieee") for name, _ in new))
            )
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                set_float32_rounding(_before)


# -- number formats and waiting ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run convolutions and matrix products in ``precision``; weights and the caller's tensors stay float32."""
    if precision == "fp32":
        with torch.autocast(device.type, enabled=False):
            yield
    else:
        # Weights change under training, so a cached half copy would go stale; casting is cheap beside a convolution.
        with torch.autocast(device.type, dtype=_DTYPES[precision], cache_enabled=False):
            yield


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished, so that a clock read afterwards is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
