"""Where and in which number format a method runs: ``auto`` resolved once, the same way everywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, get_args

import torch

from zoo.errors import ConfigError

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
    except RuntimeError as error:
        raise ConfigError(f"Unknown device {str(name)!r}: use auto, cpu, cuda, cuda:N or mps.") from error
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


def resolve_precision(name: str, device: torch.device, preferred: Precision) -> Precision:
    """``auto`` is what the method prefers, or fp32 where this device would emulate it."""
    if name == "auto":
        return "fp32" if preferred == "bf16" and not fast_bf16(device) else preferred
    for known in get_args(Precision):
        if name == known:
            return known
    raise ConfigError(f"Unknown precision {name!r}: use auto, fp32, bf16 or fp16.")


def dtype_of(precision: Precision) -> torch.dtype:
    """The tensors' format that ``precision`` names."""
    return _DTYPES[precision]


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
