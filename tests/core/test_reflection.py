"""Convolutions over reflected borders equal those over a padded copy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.nn import fused, reflection
from zoo.nn.reflection import reflect, reflected

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("shape", [(1, 5, 9, 7), (2, 3, 4, 12), (3, 8, 2, 2)])
def test_border_lines_equal_a_padded_copy(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "_WORTHWHILE", 0)
    features, conv = torch.randn(shape, dtype=torch.float64), nn.Conv2d(shape[1], 6, 3).double()
    with torch.no_grad():
        wanted = conv(reflect(features))
        torch.testing.assert_close(reflected(conv, features), wanted)
        last = features.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(reflected(conv, last), wanted)
    torch.testing.assert_close(reflected(conv, features), wanted)


@pytest.mark.parametrize("size", [(9, 7), (2, 12)])
@pytest.mark.parametrize("worthwhile", [0, 1 << 30])
def test_a_relu_in_the_same_pass_is_the_relu_after_it(
    size: tuple[int, int], worthwhile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflection, "_WORTHWHILE", worthwhile)
    torch.manual_seed(0)
    features, conv = torch.randn(2, 5, *size), nn.Conv2d(5, 6, 3)
    wanted = conv(reflect(features)).relu()
    assert 0 < int((wanted == 0).sum()) < wanted.numel()
    torch.testing.assert_close(reflected(conv, features, relu=True), wanted, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(reflected(conv, features, relu=True), wanted, atol=1e-5, rtol=1e-5)
        low = reflected(conv.bfloat16(), features.bfloat16(), relu=True)
    torch.testing.assert_close(low.float(), wanted, atol=0.05, rtol=0.02)


def test_bfloat16_on_a_processor_for_which_onednn_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    features, conv = torch.randn(1, 5, 9, 7).bfloat16(), nn.Conv2d(5, 6, 3).bfloat16()
    monkeypatch.setattr(fused, "OPERATOR", lambda *_: pytest.fail("asked of oneDNN"))
    monkeypatch.setattr(fused, "_takes_bf16", lambda: False)
    with torch.no_grad():
        torch.testing.assert_close(reflected(conv, features, relu=True), conv(reflect(features)).relu())


def test_gradients_and_hooks_go_through_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "_WORTHWHILE", 0)
    features, conv = torch.randn(1, 3, 6, 6, requires_grad=True), nn.Conv2d(3, 2, 3)
    reflected(conv, features).sum().backward()
    assert features.grad is not None
    seen: list[tuple[int, ...]] = []
    conv.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        reflected(conv, features)
    assert seen == [(1, 3, 8, 8)]


def test_a_single_line_repeats_itself() -> None:
    features = torch.randn(1, 2, 1, 5)
    assert torch.equal(reflect(features), features[..., [0, 0, 0], :][..., [0, 0, 1, 2, 3, 4, 4]])
