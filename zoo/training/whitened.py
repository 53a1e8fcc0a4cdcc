"""Adam in whitened coordinates, for convolutions whose inputs are strongly correlated.

Features of a deep network have a covariance whose eigenvalues span many orders of magnitude, so plain gradient steps on
a decoder's weights, Adam's included, move almost only along the few strong directions; from a good start Adam's equal
step on every weight even destroys what is there. Writing each convolution as ``W = V P``, where P is the inverse of the
Cholesky factor of ``G + d I`` and G the second moment of its input patches, makes all directions alike: Adam runs on V.
This is the input half of Kronecker-factored curvature (Martens and Grosse 2015, section 4), measured once and kept. The
symmetric root of G would serve as well, but its eigenvectors cost some fifty times as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo import device as devices
from zoo.errors import InputError
from zoo.training.task import Batch, TrainConfig, TrainingTask

# Of the mean eigenvalue: weaker directions are noise of the sample.
_DAMPING = 1e-3


class WhitenedAdam(torch.optim.Optimizer):
    """Adam over the convolutions of ``network`` (stride 1, no padding of their own, with bias), each in the whitened
    coordinates of its own inputs.

    ``whitening`` has per convolution the matrix P, (9 C + 1, 9 C + 1) with the bias last, from :func:`measure`;
    without it the optimiser must be given its state by ``load_state_dict`` before its first step. A step changes the
    output of a convolution by about ``lr`` times the root of its number of inputs, whatever their scale.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        whitening: dict[str, Tensor] | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        groups = [{"params": [conv.weight, conv.bias], "name": name} for name, conv in _convolutions(network)]
        super().__init__(groups, {"lr": lr, "betas": betas})
        if whitening is not None:
            for group in self.param_groups:
                weight = group["params"][0]
                moment = torch.zeros(weight.shape[0], whitening[group["name"]].shape[0], device=weight.device)
                self.state[weight] = {
                    "step": 0,
                    "mean": moment,
                    "square": moment.clone(),
                    "whitening": whitening[group["name"]].to(weight.device, _product_type(weight.device)),
                }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for state in self.state.values():
            # torch casts an optimiser's state to the weights' float32; back again is exact.
            state["whitening"] = state["whitening"].to(_product_type(state["whitening"].device))

    @torch.no_grad()
    def step(  # pyright: ignore[reportIncompatibleMethodOverride]  # no closure, so no loss is returned
        self, closure: Callable[[], float] | None = None
    ) -> None:
        """One update of every convolution that has a gradient. ``closure`` is not supported."""
        for group in self.param_groups:
            weight, bias = group["params"]
            if weight.grad is None:
                continue
            state = self.state[weight]
            if "whitening" not in state:
                raise InputError("WhitenedAdam has no whitening: measure it or load the state of a run.")
            first, second = group["betas"]
            state["step"] += 1
            whitening = state["whitening"]
            joined = torch.cat([weight.grad.permute(0, 2, 3, 1).flatten(1), bias.grad[:, None]], 1)
            gradient = (joined.to(whitening.dtype) @ whitening.T).float()
            state["mean"].lerp_(gradient, 1 - first)
            state["square"].lerp_(gradient.square(), 1 - second)
            mean = state["mean"] / (1 - first ** state["step"])
            square = state["square"] / (1 - second ** state["step"])
            change = mean / square.sqrt().add_(1e-12)
            change = (change.to(whitening.dtype) @ whitening).float().mul_(-group["lr"])
            outputs, inputs, height, width = weight.shape
            weight.add_(change[:, :-1].view(outputs, height, width, inputs).permute(0, 3, 1, 2))
            bias.add_(change[:, -1])


@torch.no_grad()
def measure(
    network: nn.Module, run: Callable[[Any], Any], batches: Iterator[Any], *, count: int = 24, samples: int = 4
) -> dict[str, Tensor]:
    """P of every convolution of ``network``, from ``count`` batches that ``run`` sends through it.

    ``samples`` times as many input patches are taken as P has rows, fewer where the batches do not hold as many.
    """
    convolutions = _convolutions(network)
    sums: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    handles = []
    for name, conv in convolutions:

        def collect(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            assert isinstance(module, nn.Conv2d)
            with devices.autocast(inputs[0].device, "fp32"):
                patches, _ = sample_patches(inputs[0].detach().float(), module, samples, count, generator)
                moment = patches.T @ patches
            sums[name] = sums[name] + moment if name in sums else moment

        handles.append(conv.register_forward_pre_hook(collect))
    try:
        for _ in range(count):
            run(next(batches))
    finally:
        for handle in handles:
            handle.remove()
    whitening = {}
    for name, _ in convolutions:
        gram = sums.pop(name)
        # The appended one counts the patches: its own entry turns sums into means.
        gram /= gram[-1, -1].clone()
        gram.diagonal().add_(_DAMPING * gram.diagonal().mean())
        factor = torch.linalg.cholesky(devices.exact(gram).double())
        identity = torch.eye(len(gram), dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        whitening[name] = inverse.to(_product_type(gram.device)).to(gram.device)
    return whitening


def sample_patches(
    padded: Tensor, conv: nn.Conv2d, samples: int, batches: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random kernel-sized patches of ``padded`` (B, C, H, W), each with a one appended, (n, k k C + 1), and where in
    the flattened output (B h w) of ``conv`` each belongs, (n,). Each of ``batches`` such calls takes its share of
    ``samples`` times the number of columns.
    """
    high, wide = conv.kernel_size
    batch, channels, height, width = padded.shape
    rows, columns = height - high + 1, width - wide + 1
    wanted = math.ceil(samples * (high * wide * channels + 1) / batches)
    chosen = torch.randperm(batch * rows * columns, generator=generator)[:wanted].to(padded.device)
    image, row, column = chosen // (rows * columns), chosen // columns % rows, chosen % columns
    last = padded.permute(0, 2, 3, 1)
    parts = [last[image, row + y, column + x] for y in range(high) for x in range(wide)]
    return torch.cat([*parts, torch.ones(len(chosen), 1, device=padded.device)], 1), chosen


def _convolutions(network: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """Return the convolutions that are trained; the others keep their weights."""
    everything = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    found = [(name, conv) for name, conv in everything if conv.weight.requires_grad]
    plain = all(
        c.stride == (1, 1) and c.padding == (0, 0) and c.dilation == (1, 1) and c.groups == 1 and c.bias is not None
        for _, c in found
    )
    covered = sum(p.numel() for _, c in found for p in c.parameters())
    if not plain or covered != sum(p.numel() for p in network.parameters() if p.requires_grad):
        raise InputError("WhitenedAdam is for networks of plain convolutions with bias and without their own padding.")
    return found


def _product_type(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if devices.fast_bf16(device) else torch.float32


class WhitenedTask(TrainingTask):
    """A task with an option ``whiten``: Adam in whitened coordinates, or the optimiser that the run names."""

    config: Any

    def optimizer(self, config: TrainConfig, batches: Iterator[Batch] | None) -> torch.optim.Optimizer:
        if not self.config.whiten:
            return super().optimizer(config, batches)
        # Where a run goes on its checkpoint brings what was measured.
        whitening = None if batches is None else measure(self.network, self.loss, batches)
        return WhitenedAdam(self.network, config.lr, whitening, (0.9, config.beta2))


__all__ = ["WhitenedAdam", "WhitenedTask", "measure", "sample_patches"]
