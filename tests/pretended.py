"""A CUDA or MPS device that is only pretended: tensors are computed on the CPU, but carry the device they would be on.

``with Pretended("mps") as device:`` makes ``torch.zeros(2, device="mps")`` and ``tensor.to("mps")`` work on any
machine, and ``tensor.device`` say ``mps:0``. Values are real, so that optimisers and all else that looks at them run as
they do. What would fail on the device fails here:

* two tensors of different devices in one operation (zero-dimensional ones of the CPU may join, as in torch);
* on MPS: float64, and operators without a kernel there: those to which torch's own list (native_functions.yaml, which
  comes with it) gives none, those that came later than the oldest torch that the zoo runs with (:data:`LATER`), and
  what the kernels refuse (:func:`_refused`);
* ``.numpy()`` without ``.cpu()``.

``syncs`` counts how often the host waited for the device. The devices' number formats are not pretended: autocast runs
as on the CPU. Nor is their arithmetic: only a real device shows that.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch
import torchgen
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

# Operators that have an MPS kernel in torch 2.14 and none in 2.6, or are made of such: two-dimensional, dense and real.
_LATER = """
    _cdist_backward _cholesky_solve_helper _cummax_helper _cummin_helper _linalg_det _linalg_eigh _linalg_slogdet
    _linalg_solve_ex _linalg_svd _logcumsumexp _unique _upsample_bicubic2d_aa _upsample_bicubic2d_aa_backward
    _upsample_bilinear2d_aa _upsample_bilinear2d_aa_backward angle cholesky_inverse cholesky_solve col2im erfc gcd geqrf
    grid_sampler_2d_backward hardshrink index_copy index_reduce kthvalue lcm linalg_cholesky_ex
    linalg_householder_product linalg_lu linalg_lu_factor_ex linalg_lu_solve linalg_matrix_exp linalg_qr lu_unpack
    max_unpool2d nanmedian native_group_norm_backward nonzero_static sinc unique_dim vdot
"""
LATER = frozenset(_LATER.split())

_WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten._unique2.default, aten.unique_dim.default}
_MAY_CROSS = {aten.copy_.default}
# Their index may be on the CPU.
_INDEXED = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default, aten.index_put.default}


class DeviceError(RuntimeError):
    """What would be an error of torch on the real device."""


@functools.cache
def mps_operators() -> frozenset[str]:
    """Names, with overloads (``add.Tensor``), of all that runs on MPS or is made of what may."""
    text = (Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml").read_text()
    entries: dict[str, str] = {}
    for entry in re.split(r"^- func: ", text, flags=re.MULTILINE)[1:]:
        entries[entry[: entry.index("(")]] = entry
    found = set()
    for name, entry in entries.items():
        delegate = re.search(r"^  structured_delegate: (\S+)", entry, flags=re.MULTILINE)
        body = entries[delegate[1]] if delegate else entry
        table = re.search(r"^  dispatch:\n((?:    .*\n|\s*#.*\n)+)", body, flags=re.MULTILINE)
        keys = re.findall(r"^    ([\w, ]+):", table[1], flags=re.MULTILINE) if table else ["CompositeImplicitAutograd"]
        if any(key == "MPS" or key.startswith("Composite") for key in re.split(r",\s*", ", ".join(keys))):
            found.add(name)
    return frozenset(found)


def _refused(func: Any, args: tuple[Any, ...]) -> str:
    """Why an MPS kernel, where there is one, refuses these arguments; empty where it takes them."""
    if func is aten.grid_sampler_2d.default and args[3] == 1:
        return "grid_sample with border padding"
    if func is aten._adaptive_avg_pool2d.default and any(
        a % b for a, b in zip(args[0].shape[-2:], args[1], strict=True)
    ):
        return "adaptive pooling to a size that does not divide the input's"
    return ""


class Pretended:
    """See the module's docstring. ``operators`` are the names of those that ran on the device."""

    def __init__(self, kind: Literal["cuda", "mps"]) -> None:
        self.device = torch.device(kind, 0)
        self.syncs = 0
        self.operators: set[str] = set()
        # By the storage, which views share. A weak reference keeps its address from being used again.
        self._places: dict[int, tuple[StorageWeakRef, torch.device]] = {}

    def __enter__(self) -> Pretended:
        self._stack = contextlib.ExitStack()
        for patch in _machine(self.device.type):
            self._stack.enter_context(patch)
        self._stack.enter_context(_Operations(self))
        self._stack.enter_context(_Functions(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def begun(self) -> bool:
        """Whether any tensor has been put on the device."""
        return bool(self._places)

    def place(self, tensor: Tensor) -> torch.device:
        """The device that the tensor is said to be on."""
        if tensor.is_meta or tensor.layout != torch.strided:
            return torch.device("cpu")
        entry = self._places.get(tensor.untyped_storage()._cdata)
        return entry[1] if entry else torch.device("cpu")

    def put(self, tensor: Tensor, device: torch.device) -> Tensor:
        """The tensor, whose memory is new, said to be on ``device``."""
        if device.type == "mps" and tensor.dtype in (torch.float64, torch.complex128):
            raise DeviceError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        storage = tensor.untyped_storage()
        if device.type == self.device.type:
            self._places[storage._cdata] = StorageWeakRef(storage), self.device
        else:
            self._places.pop(storage._cdata, None)
        return tensor

    def transfer(self, tensor: Tensor, device: torch.device, dtype: torch.dtype | None, **options: Any) -> Tensor:
        """What ``tensor.to(device, dtype)`` gives: itself, or a copy."""
        here = self.place(tensor)
        if here.type == device.type and dtype in (None, tensor.dtype):
            return tensor
        if here.type == device.type:
            return tensor.to(dtype, **options)
        self.syncs += device.type == "cpu"
        moved = tensor.to(dtype=dtype or tensor.dtype, copy=True, **options)
        return self.put(moved, device)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


class _Operations(TorchDispatchMode):
    """Below autograd: every operation, those of gradients included."""

    def __init__(self, pretended: Pretended) -> None:
        super().__init__()
        self.pretended = pretended

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.pretended.begun:
            return func(*args, **kwargs)
        tensors = list(_tensors((*args, *kwargs.values())))
        places = [self.pretended.place(t) for t in tensors]
        there = [place for place in places if place.type != "cpu"]
        if not there:
            return func(*args, **kwargs)
        self._check(func, args, tensors, places)
        if func in _WAITS:
            self.pretended.syncs += 1
        if "dtype" in aten.bmm.overloads() and func is aten.bmm.dtype:  # only CUDA has it
            out = torch.bmm(args[0].float(), args[1].float())
        else:
            out = func(*args, **kwargs)
        known = {t.untyped_storage()._cdata for t in tensors if not t.is_meta}
        for tensor in _tensors((out,)):
            if tensor.untyped_storage()._cdata not in known:
                self.pretended.put(tensor, there[0])
        return out

    def _check(self, func: Any, args: Any, tensors: list[Tensor], places: list[torch.device]) -> None:
        # A device's own scalar does not join tensors of the CPU, only the other way round.
        apart = [t for t, place in zip(tensors, places, strict=True) if place.type == "cpu" and t.dim() > 0]
        if func in _INDEXED:
            apart = [t for t in apart if t.dtype not in (torch.int64, torch.bool)]
        if apart and func not in _MAY_CROSS:
            raise DeviceError(f"Expected all tensors to be on the same device: {func} got {places}.")
        name = str(func).removeprefix("aten.").removesuffix(".default")
        self.pretended.operators.add(name)
        if self.pretended.device.type == "mps":
            if name not in mps_operators() or name.split(".")[0] in LATER:
                raise DeviceError(f"The operator {func} has no MPS kernel in every torch that the zoo runs with.")
            if reason := _refused(func, args):
                raise DeviceError(f"MPS does not do {reason}.")


# Properties that tell the device, and what they ask for.
_GETTERS: dict[Any, str] = {
    Tensor.device.__get__: "",
    Tensor.is_cuda.__get__: "cuda",
    Tensor.is_mps.__get__: "mps",
    Tensor.is_cpu.__get__: "cpu",
}  # type: ignore[attr-defined]


class _Functions(TorchFunctionMode):
    """Above autograd: what names a device or asks for one."""

    def __init__(self, pretended: Pretended) -> None:
        super().__init__()
        self.pretended = pretended

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        ours = self.pretended
        if getattr(func, "__name__", "") == "__get__" and func in _GETTERS:
            if args[0].is_meta:
                return func(*args)
            place, kind = ours.place(args[0]), _GETTERS[func]
            return place.type == kind if kind else place
        if func is Tensor.cpu:
            return ours.transfer(args[0], torch.device("cpu"), None)
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        if func in (Tensor.numpy, Tensor.__array__) and ours.place(args[0]).type != "cpu":
            raise DeviceError(f"can't convert {ours.device} device type tensor to numpy.")
        device = kwargs.get("device")
        if func is torch._C._nn._parse_to:
            return func(*args, **kwargs)
        if device is None:
            out = func(*args, **kwargs)
            return ours.put(out, ours.place(args[0])) if func is Tensor.new_tensor else out
        wanted = torch.device(device)
        if wanted.type == ours.device.type:
            kwargs["device"] = "cpu"
        out = func(*args, **kwargs)
        return out if wanted.type == "meta" else ours.put(out, wanted)

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        copy, kwargs = kwargs.pop("copy", False), dict(kwargs)
        if (args and isinstance(args[0], Tensor)) or "other" in kwargs:
            other = args[0] if args else kwargs.pop("other")
            device, dtype, options = self.pretended.place(other), other.dtype, {}
        else:
            device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
            options = {} if layout is None else {"memory_format": layout}
        if tensor.is_meta or (device is not None and device.type == "meta"):
            return Tensor.to(tensor, *args, **kwargs)
        here = self.pretended.place(tensor)
        moved = self.pretended.transfer(tensor, here if device is None else device, dtype, **options)
        if moved is tensor and options:
            moved = tensor.contiguous(**options)
        return moved.clone() if copy and moved is tensor else moved


def _machine(kind: str) -> Iterator[Any]:
    """What the machine says of itself."""

    def answer(where: Any, name: str, value: Any) -> Any:
        def says(*args: Any, **kwargs: Any) -> Any:
            return value

        says.__wrapped__ = says  # type: ignore[attr-defined]  # torch's compiler, imported on the way, looks at it
        return mock.patch.object(where, name, says)

    cuda = kind == "cuda"
    yield answer(torch.cuda, "is_available", cuda)
    yield answer(torch.cuda, "device_count", int(cuda))
    yield answer(torch.cuda, "is_bf16_supported", cuda)
    yield answer(torch.cuda, "synchronize", None)
    yield answer(torch.cuda, "get_rng_state", torch.zeros(16, dtype=torch.uint8))
    yield answer(torch.cuda, "set_rng_state", None)
    yield answer(torch.backends.mps, "is_available", kind == "mps")
    yield answer(torch.mps, "synchronize", None)
    for name in ("_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check"):
        if hasattr(torch.optim.Optimizer, name):
            yield answer(torch.optim.Optimizer, name, None)
    real = torch.autocast

    def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return real("cpu" if device_type == kind else device_type, *args, **kwargs)

    yield mock.patch.object(torch, "autocast", autocast)
