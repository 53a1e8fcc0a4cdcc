"""Kernels for the CPU equal the plain operations beside them."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.nn import fast
from zoo.nn.bank import PatchBank
from zoo.nn.fast import (
    KERNELS,
    best_patches,
    channel_products,
    conv_relu,
    fused,
    in_order,
    in_phases,
    instance_norm,
    max_pool_relu,
    normalize,
    ranked,
    reflect,
    reflected,
    reflection,
    symmetric_inverse,
    upsampled,
    upsampled_twice_convolved,
)

pytestmark = pytest.mark.numerical

Case = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def _conv(inputs: int, outputs: int, side: int = 3, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, bias=bias)


def _cases() -> Iterator[Case]:
    """Every kernel with arguments; features are float32."""
    torch.manual_seed(0)
    for padding, bias in ((0, True), (1, False)):
        conv = _conv(5, 7, bias=bias)
        yield conv_relu, (torch.randn(2, 5, 8, 6), conv.weight, conv.bias, padding), {}
    for shape in ((1, 5, 9, 7), (2, 3, 4, 12), (3, 8, 2, 2)):
        for relu in (False, True):
            yield reflected, (_conv(shape[1], 6), torch.randn(shape)), {"relu": relu}
    for size in ((8, 6), (1, 5), (1, 1)):
        for bias in (False, True):
            features = torch.randn(2, 5, *size)
            yield upsampled_twice_convolved, (_conv(5, 7, bias=bias), _conv(7, 3, bias=bias), features), {}
            yield upsampled, (_conv(5, 7, bias=bias), features), {}
            yield upsampled, (_conv(5, 7, bias=bias), features), {"relu": True, "border": "reflect"}
    for kernel, bias in ((9, True), (3, False)):
        yield in_phases, (_conv(6, 3, kernel, bias=bias), torch.randn(2, 6, 13 + kernel, 7 + kernel)), {}
    for rows in ((), (3,)):
        yield instance_norm, (torch.randn(3, 5, 7, 6), torch.randn(*rows, 5), torch.randn(*rows, 5)), {}
    for size in ((8, 6), (7, 9)):
        for ceil_mode in (False, True):
            yield max_pool_relu, (torch.randn(2, 5, *size), ceil_mode), {}
    yield channel_products, (torch.randn(2, 5, 8, 6),), {}
    roots = torch.randn(3, 3, 4, 5)
    covariances = torch.einsum("ik...,jk...->ij...", roots, roots) + torch.eye(3)[..., None, None]
    yield symmetric_inverse, (covariances,), {}
    values = torch.randn(5, 300) * torch.logspace(-38, 30, 300)
    values[:, 40:90], values[:, 50:60] = 0.0, -0.0  # equals of other bits
    values[:2, 0], values[2:4, 1] = torch.inf, -torch.inf
    for rows in (values, torch.randn(300, 5).T, values[:, :0]):
        yield in_order, (rows,), {}
        yield ranked, (rows, torch.arange(300.0)[: rows.shape[1]].expand(rows.shape)), {}
    style = PatchBank.of([torch.randn(5, 8, 7), torch.randn(5, 11, 10)], 3, 1)
    for chunk_bytes in (3000, 1 << 20):
        yield best_patches, (PatchBank.of([torch.randn(5, 9, 12)], 3, 1), style, torch.float32, chunk_bytes, None), {}


CASES = list(_cases())


def _copied(value: Any, layout: torch.memory_format) -> Any:
    if isinstance(value, Tensor) and value.dim() == 4:
        return value.detach().clone(memory_format=layout)
    return value


@pytest.fixture(autouse=True)
def _small_maps_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "_WORTHWHILE", 0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_a_kernel_equals_its_reference(case: Case, layout: torch.memory_format) -> None:
    kernel, positional, named = case
    # Both may write over their input.
    mine, plain = ([_copied(value, layout) for value in positional] for _ in range(2))
    with torch.no_grad():
        wanted = KERNELS[kernel](*plain, **named)  # type: ignore[index]  # a function is its own key
        found = kernel(*mine, **named)
    if kernel is best_patches:
        assert torch.equal(found.index, wanted.index)
        found, wanted = found.score, wanted.score
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_every_kernel_has_a_reference_with_its_arguments_and_a_case() -> None:
    written = set()
    for module in pkgutil.iter_modules(fast.__path__, f"{fast.__name__}."):
        text = vars(__import__(module.name, fromlist=["_"]))
        written |= {name for name, value in text.items() if name.startswith("plain_") and callable(value)}
    assert {plain.__name__ for plain in KERNELS.values()} == written
    assert all(plain.__name__ == f"plain_{kernel.__name__}" for kernel, plain in KERNELS.items())
    for kernel, plain in KERNELS.items():
        assert inspect.signature(kernel).parameters == inspect.signature(plain).parameters
    assert {kernel for kernel, *_ in CASES} == set(KERNELS)


@pytest.mark.parametrize("size", [(9, 7), (2, 12), (1, 12)])
@pytest.mark.parametrize("worthwhile", [0, 1 << 30])
def test_reflection_agrees_with_gradients_in_bfloat16_and_below_the_size_that_is_worth_it(
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


def test_gradients_and_hooks_go_through_the_module() -> None:
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


def test_the_gradient_of_instance_norm_is_torchs() -> None:
    x = torch.randn(3, 5, 7, 6, dtype=torch.float64, requires_grad=True)
    scale, shift = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    found, wanted = instance_norm(x, scale, shift), KERNELS[instance_norm](x, scale, shift)
    torch.testing.assert_close(found, wanted)
    weight = torch.randn_like(wanted)
    ours, theirs = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, wanted))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_instance_norm_in_place_gives_the_same_numbers(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = torch.randn(2, 5, 7, 6).to(dtype).contiguous(memory_format=layout)
    scale, shift = torch.randn(2, 5), torch.randn(2, 5)
    wanted = instance_norm(x.clone(memory_format=torch.preserve_format), scale, shift)
    with torch.no_grad():
        found = instance_norm(x, scale, shift)
    assert found is x
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_large_map_is_normalised_by_moments_of_parts(
    dtype: torch.dtype, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (5 + torch.randn(2, 5, 23, 9)).to(dtype).contiguous(memory_format=layout)
    scale, shift = torch.randn(2, 5), torch.randn(2, 5)
    wanted = KERNELS[instance_norm](x.float(), scale, shift)
    monkeypatch.setattr(normalize, "_MANY", 20)
    monkeypatch.setattr(normalize, "_PART", 20)
    with torch.no_grad():
        found = instance_norm(x, scale, shift)
    assert found is x
    torch.testing.assert_close(found.float(), wanted, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=1e-2)


def test_moments_of_millions_of_positions_are_exact() -> None:
    """One after the other in float32, squares of deviations are lost on a sum of as many of them."""
    x = torch.randn(1, 2, 2048, 2048).square_().contiguous(memory_format=torch.channels_last)
    rows = x.double().permute(1, 0, 2, 3).flatten(1)
    wanted = (rows[:, :1000] - rows.mean(1, keepdim=True)) / rows.std(1, keepdim=True)
    with torch.no_grad():
        found = instance_norm(x, torch.ones(2), torch.zeros(2))[0].flatten(1)[:, :1000]
    torch.testing.assert_close(found.double(), wanted, atol=2e-6, rtol=5e-6)
