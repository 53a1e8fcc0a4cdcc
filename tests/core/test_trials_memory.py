"""Memory that is not there: foreseen before the work where it can be, one sentence and exit code 2 where it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from command import run
from PIL import Image as PILImage

import zoo.cli
from zoo import memory, registry
from zoo.bench.rows import latest, read_rows
from zoo.errors import MemoryLimitError, out_of_memory
from zoo.stylizer import Stylizer

ROOT = Path(__file__).resolve().parents[2]
GB = 10**9


def raised(act: Any) -> BaseException:
    with pytest.raises((MemoryError, RuntimeError, ValueError)) as caught:
        act()
    return caught.value


FAILURES = {
    "torch": lambda: raised(lambda: torch.empty(2**47, dtype=torch.uint8)),
    "torch, more than an address holds": lambda: raised(lambda: torch.empty(2**40, 2**40)),
    "numpy": lambda: raised(lambda: np.empty(2**47, np.uint8)),
    "Python": lambda: raised(lambda: bytes(2**47)),
    "torch on Windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 25 bytes."),
    "CUDA": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "MPS": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 17.8 GB, max allowed: 18.1 GB)."),
    "cuBLAS": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "ONNX Runtime": lambda: Exception("RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 9"),
    "C++": lambda: RuntimeError("std::bad_alloc"),
    "the system": lambda: OSError(12, "Cannot allocate memory"),
    "the loader": lambda: ImportError("libtorch_cpu.so: failed to map segment from shared object"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_a_failed_allocation_is_one_sentence_in_every_verb(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = FAILURES[case]()

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(zoo.cli, "_command", lambda *_: fail)
    assert run("train") == 2
    said = capsys.readouterr().err
    assert said.startswith("zoo: There is not enough memory")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes differ"), OSError(28, "No space left on device"),
     ImportError("libgomp.so: cannot allocate memory in static TLS block")],
)  # fmt: skip
def test_other_failures_are_not_of_memory(error: Exception) -> None:
    assert out_of_memory(error) is None


def test_what_was_asked_for_is_told() -> None:
    said = out_of_memory(RuntimeError("can't allocate memory: you tried to allocate 25165824000 bytes. Error code 12"))
    assert said is not None
    assert "25.17 GB" in said


def test_what_a_pixel_takes_is_what_was_measured() -> None:
    """Between the two largest sizes, where what does not grow with the picture falls out."""
    measured: dict[str, dict[int, float]] = {}
    for row in latest(read_rows(ROOT / "results" / "speed" / "rows.jsonl")):
        if row.metric != "memory.resident" or row.status != "ok":
            continue
        assert row.precision == "bf16"
        assert row.value is not None
        measured.setdefault(row.method.partition(".")[0], {})[row.size] = row.value * 2**20
    assert len(measured) >= 8
    for method, peaks in measured.items():
        small, large = sorted(peaks)[-2:]
        slope = (peaks[large] - peaks[small]) / (large**2 - small**2)
        entry = registry.load_registry().resolve(method).entry
        taken = registry.import_object(entry.implementation).traits.pixel_bytes
        assert 0.8 * slope < taken <= slope, method


def model(precision: str = "bf16", pixel_bytes: int = 1000) -> Stylizer:
    traits = SimpleNamespace(pixel_bytes=pixel_bytes)
    return cast(Stylizer, SimpleNamespace(name="adain", precision=precision, traits=traits, device=torch.device("cpu")))


def test_half_of_it_must_be_free_and_all_of_it_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 10 * GB)
    memory.require(model("fp32"), 2000, 5000)
    memory.require(model("bf16"), 4000, 5000)
    memory.require(model("fp32", pixel_bytes=0), 10**6, 10**6)  # a method that does not say
    for precision, height in (("fp32", 2001), ("bf16", 4001), ("fp16", 4001)):
        with pytest.raises(MemoryLimitError, match=rf"5000 x {height} pixels and 10.0 GB of memory are free") as caught:
            memory.require(model(precision), height, 5000)
        advised = int(str(caught.value).split("such as ")[1].split()[0])
        assert 0 < advised < 5000
        memory.require(model(precision), height * advised // 5000, advised)


def test_limits_of_the_shell_and_of_the_group_count(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    free = memory.free_memory(cpu)
    assert free > 0
    monkeypatch.setattr(memory, "machine_memory", lambda: free // 4)
    assert memory.free_memory(cpu) < free // 2
    monkeypatch.undo()
    resource = pytest.importorskip("resource")
    soft = memory.psutil.Process().memory_info().vms + 10**8
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, -1))
    assert memory.free_memory(cpu) <= 10**8


@pytest.mark.parametrize(
    ("verb", "size"),
    [
        (("stylize", "-m", "johnson", "--style", "swirls", "--content", "a.png"), "--content-size"),
        (("texture", "-m", "texture-nets", "--style", "marbling"), "--size"),
        (("reconstruct", "content", "--image", "a.png"), "--size"),
    ],
)
def test_a_picture_larger_than_memory_is_refused_before_the_work(
    verb: tuple[str, ...],
    size: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    PILImage.new("RGB", (64, 64)).save("a.png")
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**6)
    assert run(*verb, size, "256", "-o", "out.png", "-q") == 2
    assert "256 x 256 pixels and 0.0 GB of memory are free: choose a smaller size" in capsys.readouterr().err
    assert not Path("out.png").exists()


def test_a_style_larger_than_memory_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, side in (("a.png", 64), ("style.png", 256)):
        PILImage.new("RGB", (side, side)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "free_memory", lambda device: 5 * 10**6)
    call = ("stylize", "-m", "adain", "--content", "a.png", "--content-size", "0", "--style", "style.png", "-q")
    assert run(*call, "--style-size", "0", "-o", "out.png") == 2
    assert "for a style of 256 x 256 pixels and 0.0 GB of memory are free" in capsys.readouterr().err
    with pytest.raises(MemoryLimitError):
        zoo.stylize("a.png", "a.png", "adain", size=256)
    assert run(*call, "--style-size", "64", "-o", "out.png") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space")
def test_under_a_limit_of_the_shell(tmp_path: Path) -> None:
    """A real process, at a limit that hardly lets torch be loaded: somewhere an allocation fails, unforeseen."""
    PILImage.new("RGB", (64, 64)).save(tmp_path / "a.png")
    command = f"ulimit -v 900000; exec {sys.executable} -m zoo stylize -m adain --content a.png -o out.png"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("zoo: There is not enough memory")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.png").exists()
