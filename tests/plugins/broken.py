"""Methods with one fault each: for every contract check at least one that it must catch.

``BROKEN`` pairs the name of a check with its culprit. Each class repeats what a real method could get wrong, mostly
in the private hooks; where the base class guards against a fault, the culprit overrides the guard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from plugins.good.zoo_tint.drift import Drift, DriftConfig
from plugins.good.zoo_tint.tint import Tint, TintConfig
from torch import Tensor
from torch.nn import functional as F

from zoo.config import option
from zoo.nn.tiles import Local, Whole, store
from zoo.stylizer import Call, Context, Mix, Style, StyleCode, Stylized, Stylizer, Traits

BROKEN: list[tuple[str, type[Stylizer]]] = []


def caught_by(*checks: str) -> Any:
    """Enter the decorated class into ``BROKEN`` for each of ``checks``."""

    def enter(cls: type[Stylizer]) -> type[Stylizer]:
        BROKEN.extend((name, cls) for name in checks)
        return cls

    return enter


class Plain(Tint):
    """A good method without strength and without padding."""

    traits = Traits(strength="none", min_size=4)


class Named(Tint):
    """A good method that knows its styles by name."""

    traits = Traits(strength="blend", styles="trained", mixes=True, min_size=2)
    style_names = ("dawn", "dusk")

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        index = self.style_names.index(style.name or "")
        mean = torch.tensor([0.8, 0.5, 0.2 + 0.5 * index]).view(1, 3, 1, 1).to(self.device)
        return {"mean": mean, "std": torch.full_like(mean, 0.2)}


class Smooth(Tint):
    """A good method that blurs in the precision asked for."""

    traits = dataclasses.replace(Tint.traits, strength_zero="reconstruction")

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return super()._stylize(self._blurred(content), style, call)

    def _blurred(self, content: Tensor) -> Tensor:
        with self.autocast():
            return self.blur(content).float()


class Tiled(Smooth):
    """A good method whose blur can go by tiles."""

    traits = dataclasses.replace(Smooth.traits, tiled=True)

    def _stylize_tiles(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        blurred = store(Local(self._blurred, Whole(content), halo=1), call.tile or 0).tensor
        return super(Smooth, self)._stylize(blurred, style, call)


GOOD: list[type[Stylizer]] = [Tint, Drift, Plain, Named, Smooth, Tiled]


# -- what comes out ----------------------------------------------------------------


@caught_by("sizes")
class CropsToEven(Plain):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        image = super()._stylize(content, style, call).image
        return Stylized(image[..., : image.shape[-2] // 2 * 2, : image.shape[-1] // 2 * 2])


@caught_by("range")
class Brightens(Tint):
    def stylize(self, content: Tensor, style: StyleCode | Mix, **arguments: Any) -> Stylized:
        result = super().stylize(content, style, **arguments)
        return dataclasses.replace(result, image=result.image * 1.5)


@caught_by("finite")
class DividesByZero(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return Stylized(super()._stylize(content / content.std() * 0.2, style, call).image)


@caught_by("not-finite-refused")
class HidesNan(Tint):
    def _finish(self, image: Tensor, device: torch.device) -> Tensor:
        return super()._finish(image.nan_to_num(0.5, 1.0, 0.0), device)


@caught_by("output")
class ReturnsDouble(Tint):
    def stylize(self, content: Tensor, style: StyleCode | Mix, **arguments: Any) -> Stylized:
        result = super().stylize(content, style, **arguments)
        return dataclasses.replace(result, image=result.image.double())


@caught_by("output")
class AssumesContiguous(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        raw = torch.as_strided(content, content.shape, torch.empty(content.shape).stride())
        return super()._stylize(raw, style, call)

    traits = Traits(strength="none", min_size=4)


@caught_by("style-matters")
class OneStyleForAll(Tint):
    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        return super()._encode_style(Style(torch.linspace(0, 1, 48).view(1, 3, 4, 4)), content_size)


@caught_by("repeat", "random-state")
class DrawsFromGlobalState(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return Stylized(super()._stylize(content, style, call).image + 0.05 * torch.rand_like(content))


@caught_by("repeat")
class Remembers(Tint):
    previous: float | Tensor = 0.5

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        mean = content.mean(dim=(2, 3), keepdim=True)
        image = super()._stylize(content, style, call).image + 0.1 * (self.previous - mean)
        self.previous = mean[:1]
        return Stylized(image)


@caught_by("rebuild")
class UntrainedWeights(Tint):
    def _build(self) -> None:
        super()._build()
        self.tilt = torch.nn.Linear(3, 3).requires_grad_(False).weight.to(self.device)

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return super()._stylize(content + torch.einsum("bchw,dc->bdhw", content, self.tilt), style, call)


@caught_by("batch")
class MixesTheBatch(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        shared = content.mean(dim=(0, 2, 3), keepdim=True)
        return Stylized(super()._stylize(content, style, call).image + 0.5 * (shared - 0.5))


@caught_by("batch")
class NoiseByPosition(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        noise = torch.rand(content.shape, generator=call.generator()).to(content)
        return Stylized(super()._stylize(content, style, call).image + 0.1 * noise)


@caught_by("precision")
class CancelsInHalf(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        dtype = torch.float32 if self.precision == "fp32" else torch.bfloat16
        return super()._stylize((content.to(dtype) + 100).float() - 100, style, call)


# -- what goes in ----------------------------------------------------------------


@caught_by("content-refused")
class ConvertsContent(Tint):
    def stylize(self, content: Tensor, style: StyleCode | Mix, **arguments: Any) -> Stylized:
        return super().stylize(content.float().clamp(0, 1), style, **arguments)


@caught_by("style-refused")
class ConvertsStyle(Tint):
    def encode_style(self, style: Any, content_size: tuple[int, int] | None = None) -> StyleCode:
        if isinstance(style, np.ndarray):
            style = torch.from_numpy(style)
        return super().encode_style(style.float().clamp(0, 1) if isinstance(style, Tensor) else style, content_size)


@caught_by("min-size")
class NeedsMoreThanItSays(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        F.avg_pool2d(content, 16)
        return super()._stylize(content, style, call)


@caught_by("min-size")
class EnlargesSmallPictures(Tint):
    def stylize(self, content: Tensor, style: StyleCode | Mix, **arguments: Any) -> Stylized:
        if isinstance(content, Tensor) and content.dim() == 4 and min(content.shape[-2:]) < 4:
            content = content.repeat(1, 1, 4, 4)
        return super().stylize(content, style, **arguments)


@caught_by("intact")
class ChangesContent(Plain):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return super()._stylize(content.mul_(0.5), style, call)


@caught_by("intact")
class ChangesStyle(Tint):
    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        assert style.image is not None
        style.image.sub_(0.5)
        return super()._encode_style(style, content_size)


@caught_by("intact")
class ChangesCode(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        for code, _ in style:
            code.data["mean"].mul_(0.9)
        return super()._stylize(content, style, call)


@caught_by("code")
class HidesTensors(Tint):
    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        data = super()._encode_style(style, content_size)
        return {**data, "more": SimpleNamespace(mean=data["mean"])}


@caught_by("code")
class KeepsGradients(Tint):
    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        return {name: value.requires_grad_() for name, value in super()._encode_style(style, content_size).items()}


@caught_by("code-refused")
class TakesAnyCode(Tint):
    def _as_mix(self, style: StyleCode | Mix) -> Mix:
        return style if isinstance(style, Mix) else Mix([(style, 1.0)])


@caught_by("context-refused")
class IgnoresContext(Tint):
    def _check_context(self, context: Context, content: Tensor, mix: Mix) -> None:
        pass


@caught_by("context")
class HalvesMasks(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        masks = call.context.content_masks
        if masks is not None:
            call = dataclasses.replace(call, context=Context(content_masks=masks / 2))
        return super()._stylize(content, style, call)


@caught_by("context")
class CannotStartElsewhere(Drift):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        if call.context.init is not None:
            raise NotImplementedError
        return super()._stylize(content, style, call)


# -- what a caller steers ----------------------------------------------------------------


@caught_by("strength-zero", "strength-half")
class IgnoresStrength(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return super()._stylize(content, style, dataclasses.replace(call, strength=1.0))


@caught_by("strength-zero")
class ReconstructsNothing(Smooth):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return Stylized(super()._stylize(content, style, call).image + 0.5 * (1 - call.strength))


@caught_by("strength-one")
class AnotherDefaultStrength(Tint):
    def stylize(self, content: Tensor, style: StyleCode | Mix, *, strength: float = 0.8, **rest: Any) -> Stylized:
        return super().stylize(content, style, strength=strength, **rest)


@caught_by("strength-half")
class AllOrNothing(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return super()._stylize(content, style, dataclasses.replace(call, strength=float(call.strength > 0)))


@caught_by("strength-half")
class Overshoots(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        image = super()._stylize(content, style, call).image
        return Stylized(image + 2 * call.strength * (1 - call.strength))


@caught_by("strength-range")
class ClampsStrength(Tint):
    def stylize(self, content: Tensor, style: StyleCode | Mix, *, strength: float = 1.0, **rest: Any) -> Stylized:
        return super().stylize(content, style, strength=min(max(strength, 0.0), 1.0), **rest)


@caught_by("strength-refused")
class DropsStrength(Plain):
    def stylize(self, content: Tensor, style: StyleCode | Mix, *, strength: float = 1.0, **rest: Any) -> Stylized:
        return super().stylize(content, style, **rest)


@caught_by("mix-single", "mix-weights")
class EqualWeights(Tint):
    def _as_mix(self, style: StyleCode | Mix) -> Mix:
        mix = super()._as_mix(style)
        return Mix([(code, 1 / len(mix)) for code, _ in mix])


@caught_by("mix-order")
class FirstStyleLeads(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        (first, _), *rest = style
        parts = [(dataclasses.replace(c, data={**c.data, "std": first.data["std"]}), w) for c, w in rest]
        return super()._stylize(content, Mix([(first, style.parts[0][1]), *parts]), call)


@caught_by("mix-weights")
class SwapsWeights(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        codes, weights = zip(*style, strict=True)
        return super()._stylize(content, Mix(list(zip(codes, reversed(weights), strict=True))), call)


@caught_by("mix-refused")
class TakesTheFirst(Drift):
    def _as_mix(self, style: StyleCode | Mix) -> Mix:
        return super()._as_mix(style.parts[0][0] if isinstance(style, Mix) else style)


@caught_by("texture")
class TextureOfEvenSize(Drift):
    def _synthesize(self, style: Mix, size: tuple[int, int], call: Call) -> Stylized:
        return super()._synthesize(style, (size[0] // 2 * 2, size[1] // 2 * 2), call)


@caught_by("texture-seed")
class OneTextureForAll(Drift):
    def _synthesize(self, style: Mix, size: tuple[int, int], call: Call) -> Stylized:
        return super()._synthesize(style, size, dataclasses.replace(call, seed=0))


@caught_by("texture-refused")
class UnannouncedTexture(Tint):
    def synthesize(self, style: StyleCode | Mix, size: tuple[int, int], **arguments: Any) -> Stylized:
        return Stylized(torch.full((1, 3, *size), 0.5))


@caught_by("tiles")
class TakesEachTileForThePicture(Tint):
    traits = dataclasses.replace(Tint.traits, tiled=True)

    def _stylize_tiles(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        def tile(part: Tensor) -> Tensor:
            return self._stylize(part, style, call).image

        return Stylized(store(Local(tile, Whole(content)), call.tile or 0).tensor)


@caught_by("tiles-refused")
class IgnoresTiles(Tint):
    def _check_tile(self, tile: int) -> None: ...

    def _stylize_tiles(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return self._stylize(content, style, call)


# -- progress ----------------------------------------------------------------


@caught_by("progress")
class Silent(Drift):
    def _descend(self, start: Tensor, anchor: Tensor, pull: float, style: Mix, call: Call) -> Stylized:
        return super()._descend(start, anchor, pull, style, dataclasses.replace(call, progress=None))


def _relay(call: Call, change: Any) -> Call:
    """The same call with every report changed on its way to the caller."""
    progress = call.progress
    if progress is None:
        return call
    return dataclasses.replace(call, progress=lambda *report: progress(*change(*report)))


@caught_by("progress")
class CountsBeyondItsTotal(Drift):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return super()._stylize(content, style, _relay(call, lambda step, *rest: (step + 1, *rest)))


@caught_by("progress")
class ReportsNan(Drift):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        spoil = lambda step, total, losses, image: (step, total, {"style": float("nan")}, image)  # noqa: E731
        return super()._stylize(content, style, _relay(call, spoil))


@caught_by("progress")
class ShowsAThumbnail(Drift):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        shrink = lambda step, total, losses, image: (step, total, losses, lambda: image()[..., ::2, ::2])  # noqa: E731
        return super()._stylize(content, style, _relay(call, shrink))


@caught_by("progress")
class DisturbedByWatching(Drift):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        blur = lambda step, total, losses, image: (step, total, losses, lambda: image().sub_(0.01))  # noqa: E731
        return super()._stylize(content.clone(), style, _relay(call, blur))


@caught_by("stop")
class Deaf(Drift):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        progress = call.progress
        if progress is not None:
            call = dataclasses.replace(call, progress=lambda *report: progress(*report) and False)
        return super()._stylize(content, style, call)


@caught_by("stop")
class KeepsQuietAboutStopping(Drift):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return dataclasses.replace(super()._stylize(content, style, call), stopped=False)


@caught_by("interrupt")
class SwallowsExceptions(Drift):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        try:
            return super()._stylize(content, style, call)
        except Exception:
            return Stylized(content, stopped=True)


@caught_by("losses")
class ForgetsLosses(Drift):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return dataclasses.replace(super()._stylize(content, style, call), losses=())


@caught_by("losses")
class LossesWithoutSteps(Drift):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        result = super()._stylize(content, style, call)
        return dataclasses.replace(result, losses=[{"style": row["style"]} for row in result.losses])


# -- options and traits ----------------------------------------------------------------


@dataclass(frozen=True)
class UndocumentedConfig(TintConfig):
    amount: float = option(1.0, "", ge=0)


@caught_by("config")
class Undocumented(Tint):
    Config = UndocumentedConfig


@dataclass
class _Loose:
    grain: float = 0.01


@caught_by("config")
class BorrowsAnotherConfig(Tint):
    Config = _Loose  # pyright: ignore[reportAssignmentType]

    def __init__(self, *, device: str, precision: str) -> None:
        super().__init__(None, device=device, precision=precision)


@caught_by("config-source")
class HidesOptions(Drift):
    Config = type("Hidden", (DriftConfig,), {})


@caught_by("traits")
class MisspeltTrait(Plain):
    traits = Traits(strength="nothing")  # pyright: ignore[reportArgumentType]


@caught_by("traits")
class NoTrainedStyles(Named):
    style_names = ()


# -- the process's state ----------------------------------------------------------------


@caught_by("grad-mode")
class TurnsGradientsOff(Tint):
    def _build(self) -> None:
        super()._build()
        torch.set_grad_enabled(False)


@caught_by("random-state")
class SeedsTheProcess(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        torch.manual_seed(call.seed)
        return super()._stylize(content, style, call)


@caught_by("random-state")
class SeedsNumpy(Tint):
    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        np.random.seed(0)
        return super()._encode_style(style, content_size)


@caught_by("threads")
class SetsThreads(Tint):
    def _build(self) -> None:
        super()._build()
        torch.set_num_threads(torch.get_num_threads() + 1)


@caught_by("defaults")
class SetsDefaultType(Tint):
    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        torch.set_default_dtype(torch.float64)
        return super()._encode_style(style, content_size)


@caught_by("backends")
class TurnsAnomalyDetectionOn(Tint):
    def _build(self) -> None:
        super()._build()
        torch.autograd.set_detect_anomaly(True)


@caught_by("backends")
class TurnsBenchmarkOn(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        torch.backends.cudnn.benchmark = True
        return super()._stylize(content, style, call)


@caught_by("backends")
class DeterministicUntilInterrupted(Drift):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        torch.use_deterministic_algorithms(True)
        result = super()._stylize(content, style, call)
        torch.use_deterministic_algorithms(False)
        return result


@caught_by("autocast")
class LeavesAutocastOn(Tint):
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        torch.set_autocast_enabled("cpu", True)
        return super()._stylize(content, style, call)
