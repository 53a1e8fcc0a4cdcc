"""Float32 is float32 on CUDA, whose switches torch has everywhere, and float64 stays beside a device without it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo import device as devices
from zoo.checks import process
from zoo.stylizer import Mix, Style, StyleCode, Stylized, Stylizer, Traits

CUDA, CPU, MPS = map(torch.device, ("cuda", "cpu", "mps"))


@pytest.fixture(autouse=True)
def _flags() -> Iterator[None]:
    before = devices.float32_rounding()
    yield
    devices.set_float32_rounding(before)


def rounds() -> tuple[bool, bool]:
    """Whether products and convolutions of float32 are rounded to TF32 on CUDA."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("products", ["highest", "high", "medium"])
@pytest.mark.parametrize("convolutions", [False, True])
def test_float32_is_ieee_inside_and_as_it_was_after(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions
    before = devices.float32_rounding()
    with devices.ieee_float32(CUDA):
        assert rounds() == (False, False)
        with pytest.raises(KeyError), devices.ieee_float32(CUDA):
            raise KeyError
        assert rounds() == (False, False)
    assert devices.float32_rounding() == before
    with devices.ieee_float32(CPU):
        assert devices.float32_rounding() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="switches of torch 2.9 and later")
def test_switches_that_the_old_ones_cannot_tell_are_kept_too() -> None:
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    with pytest.raises(RuntimeError):
        _ = torch.backends.cudnn.allow_tf32
    before = devices.float32_rounding()
    with devices.ieee_float32(CUDA):
        assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert devices.float32_rounding() == before


def test_the_first_thread_to_leave_does_not_take_it_from_the_others() -> None:
    before = rounds()
    entered, left, seen = threading.Event(), threading.Event(), []

    def other() -> None:
        with devices.ieee_float32(CUDA):
            entered.set()
            assert left.wait(10)
            seen.append(rounds())

    thread = threading.Thread(target=other)
    with devices.ieee_float32(CUDA):
        thread.start()
        assert entered.wait(10)
    left.set()
    thread.join(10)
    assert seen == [(False, False)]
    assert rounds() == before


class Told(Stylizer):
    """Notes how float32 is rounded in each of its hooks, as if it were on CUDA."""

    traits = Traits(strength="blend", texture=True)

    def _build(self) -> None:
        self.seen: list[tuple[bool, bool]] = []

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> dict[str, Any]:
        self.seen.append(rounds())
        return {"image": style.image}

    def _stylize(self, content: Tensor, style: Mix, call: Any) -> Stylized:
        self.seen.append(rounds())
        return Stylized(content)

    def _synthesize(self, style: Mix, size: tuple[int, int], call: Any) -> Stylized:
        self.seen.append(rounds())
        return Stylized(torch.zeros(1, 3, *size))


def test_every_public_call_of_a_method_is_ieee(monkeypatch: pytest.MonkeyPatch) -> None:
    real = devices.ieee_float32
    monkeypatch.setattr(devices, "ieee_float32", lambda device: real(CUDA))
    torch.set_float32_matmul_precision("high")
    before, model = process.read(), Told(device="cpu")
    code = model.encode_style(torch.rand(1, 3, 16, 16))
    model.stylize(torch.rand(1, 3, 16, 16), code)
    model.synthesize(code, (16, 16))
    assert model.seen == [(False, False)] * 3
    torch.backends.cudnn.allow_tf32 = not torch.backends.cudnn.allow_tf32
    assert process.restore(before) == ["random-state", "backends"]


def test_a_code_keeps_its_float64_beside_a_device_that_has_none() -> None:
    code = StyleCode("m", "c", "s", {"exact": torch.ones(2, dtype=torch.float64), "plain": torch.ones(2)})
    placed: dict[torch.dtype, torch.device] = {}

    class Watched(torch.Tensor):
        def to(self, device: torch.device) -> Tensor:  # type: ignore[override]
            placed[self.dtype] = device
            return self

    data = {name: value.as_subclass(Watched) for name, value in code.data.items()}
    StyleCode("m", "c", "s", data).to("mps")
    assert placed == {torch.float64: CPU, torch.float32: MPS}
    StyleCode("m", "c", "s", data).to(CUDA)
    assert placed == {torch.float64: CUDA, torch.float32: CUDA}
    assert devices.exact_device(MPS) == CPU
    assert devices.exact_device(CUDA) == CUDA
