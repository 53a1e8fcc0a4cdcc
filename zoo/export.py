"""A trained network as an ONNX file, checked against PyTorch before it is kept, and run from there by onnxruntime.

The file takes ``image``, float32 (batch, 3, height, width) in [0, 1], sRGB, of any size from the method's smallest up,
and gives ``stylized``, the same shape, clamped to [0, 1]; padding to the multiple of pixels that a method needs is part
of it. The style, or the mix of styles, is fixed. Metadata say which method, style and checkpoint (sha256) it is, and
under which licence.

Exported is what :meth:`zoo.Stylizer.as_network` gives. Needs the extra ``onnx``; without it everything here raises a
ConfigError that says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import __version__, exported, files, images
from zoo.download import home, make_folder
from zoo.errors import ConfigError, NumericalError, UnsupportedError, WeightsError
from zoo.exported import OPSET
from zoo.extras import need
from zoo.stylizer import Call, Mix, Style, StyleCode, Stylized, Stylizer

# Largest difference from PyTorch, of pixels in [0, 1], with which a file is kept: a quarter of a level of 255.
TOLERANCE = 1e-3
# A photograph whose sides no power of two divides, higher than wide, as the graph must serve any size.
_TRIAL = ("builtin:coffee", "exact:186x251")
# Before it, tracing ties height and width to multiples of four where sides are padded (2.9, 2.12 and 2.13 were tried).
_TORCH = (2, 14)


@dataclass(frozen=True)
class Exported:
    """What was written: the file, its bytes, its metadata, and the largest difference from PyTorch (pixels in [0, 1],
    over one photograph)."""

    path: Path
    bytes: int
    difference: float
    metadata: Mapping[str, str]


class _WholeImage(nn.Module):
    """A network behind the contract of the file: any size in, clamped values out."""

    def __init__(self, network: nn.Module, multiple_of: int) -> None:
        super().__init__()
        self.network, self.multiple_of = network, multiple_of

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if self.multiple_of > 1:
            image = _mirrored(_mirrored(image, -1, self.multiple_of), -2, self.multiple_of)
        return self.network(image)[..., :height, :width].clamp(0, 1)


def _mirrored(image: Tensor, dim: int, multiple_of: int) -> Tensor:
    """Reflected at the end of ``dim`` up to a multiple; by indices, as a computed width of padding cannot be traced."""
    length = image.shape[dim]
    last = length - 1
    places = torch.arange(length + (-length) % multiple_of, device=image.device)
    return image.index_select(dim, last - (last - places).abs())


# -- writing ----------------------------------------------------------------------------------------------------------


def export(
    stylizer: Stylizer, style: StyleCode | Mix, path: str | os.PathLike[str], *, license: str = "not stated"
) -> Exported:
    """Write ``style`` of ``stylizer`` to ``path`` as ONNX in float32.

    The file is run by onnxruntime on a photograph and compared with ``stylizer`` in float32 on the CPU before it gets
    its name. ``license`` is that of the weights. Raises UnsupportedError where the method is not one network,
    NumericalError where the two differ by more than TOLERANCE, ConfigError without the extra ``onnx`` or where the file
    cannot be written.
    """
    require()
    path = files.check_writable(path)
    if stylizer.precision != "fp32" or stylizer.device.type != "cpu":
        stylizer = type(stylizer)(
            stylizer.config, device="cpu", precision="fp32", checkpoint=stylizer.checkpoint, name=stylizer.name
        )
    mix = style if isinstance(style, Mix) else Mix([(style, 1.0)])
    traits = stylizer.traits
    model = _trace(_WholeImage(stylizer.as_network(mix), traits.multiple_of).eval(), traits.min_size)
    metadata = _metadata(stylizer, mix, license)
    _describe(model, metadata)
    with files.replacing(path) as work:
        work.write_bytes(model.SerializeToString())
        difference = _difference(work, stylizer, mix)
        if not difference <= TOLERANCE:
            raise NumericalError(
                f"{stylizer.name} was not exported: onnxruntime's picture differs from PyTorch's by {difference:.2g}, "
                f"more than {TOLERANCE:g}."
            )
        size = work.stat().st_size
    return Exported(path, size, difference, metadata)


def require() -> None:
    """Raise ConfigError unless what the extra ``onnx`` brings is installed."""
    need("onnx", "onnx", "onnxscript", "onnxruntime")
    if tuple(map(int, torch.__version__.split(".")[:2])) < _TORCH:
        wanted = ".".join(map(str, _TORCH))
        raise ConfigError(f"Exporting needs torch {wanted} or later, and this is {torch.__version__}: upgrade torch.")


def _trace(module: nn.Module, min_size: int) -> Any:
    """The ONNX model of ``module``, with batch, height and width left open and constants folded."""
    import onnxscript.optimizer

    sizes = {
        0: torch.export.Dim("batch", min=1),
        2: torch.export.Dim("height", min=min_size),
        3: torch.export.Dim("width", min=min_size),
    }
    # Two images, for a batch of one would be taken as a constant, and sides that differ, or they would be one size.
    example = torch.rand(2, 3, 2 * min_size + 5, 2 * min_size + 11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module.requires_grad_(False),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["stylized"],
            dynamic_shapes=(sizes,),
            verbose=False,
        )
        assert program is not None
        # What depends on weights alone is computed now, of whatever size.
        folded = onnxscript.optimizer.optimize(program.model, input_size_limit=1 << 30, output_size_limit=1 << 30)
        program.model = folded if folded is not None else program.model
        return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither the exporter's warnings, which concern its own internals, nor its log lines."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _metadata(stylizer: Stylizer, mix: Mix, license: str) -> dict[str, str]:
    facts = {
        "producer": f"style-transfer-zoo {__version__}",
        "method": stylizer.name,
        "style": ", ".join(f"{code.label} x {weight:g}" if len(mix) > 1 else code.label for code, weight in mix),
        "options": json.dumps(stylizer.config.to_dict()),
        "license": license,
        "opset": str(OPSET),
        "min_size": str(stylizer.traits.min_size),
        "input": f"image: float32 RGB in [0, 1], sRGB, sides of {stylizer.traits.min_size} pixels and more",
        "output": "stylized: as the input",
    }
    if stylizer.checkpoint is not None:
        facts["checkpoint"] = stylizer.checkpoint.name
        facts["checkpoint_sha256"] = stylizer.checkpoint_sha256
    return facts


def _describe(model: Any, metadata: Mapping[str, str]) -> None:
    """Metadata in, and out with what the exporter notes of every operator: source lines and paths of this machine."""
    import onnx

    onnx.helper.set_model_props(model, dict(metadata))
    model.producer_name, model.producer_version = "style-transfer-zoo", __version__
    graph = model.graph
    graph.name = metadata["method"]
    for part in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:], graph.metadata_props[:]
    graph.doc_string = model.doc_string = ""
    # The exporter names the output's sides by the formulas that lead to them.
    for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
        graph.output[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.checker.check_model(model)


def _difference(path: Path, stylizer: Stylizer, mix: Mix) -> float:
    source, size = _TRIAL
    photograph = images.read(source, size=size).pixels
    wanted = stylizer.stylize(photograph, mix).image
    return float((OnnxNetwork(path)(photograph) - wanted).abs().max())


# -- running ----------------------------------------------------------------------------------------------------------


class OnnxNetwork(exported.OnnxNetwork):
    """An exported file on onnxruntime, of tensors and with as many threads as torch uses unless ``threads`` says so."""

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        super().__init__(path, threads or torch.get_num_threads())

    def __call__(self, image: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # tensors, not arrays
        """(B, 3, H, W) float32 in [0, 1] to the stylised image of the same shape, on the CPU."""
        return torch.from_numpy(super().__call__(image.detach().cpu().numpy()))


def with_onnxruntime(stylizer: Stylizer) -> Stylizer:
    """``stylizer`` with its pictures made by onnxruntime from exported networks, in float32 on the CPU.

    Each style, or mix, is exported when it is first used, into the folder ``onnx`` of ``ZOO_HOME``, and found there
    afterwards. Style codes of either serve the other. Raises as :func:`export`, and UnsupportedError for a strength
    that the method applies inside its network.
    """
    require()

    class Through(_Through):
        traits = dataclasses.replace(stylizer.traits, tiled=False)
        Config = type(stylizer.config)

    through = Through(
        stylizer.config, device="cpu", precision="fp32", checkpoint=stylizer.checkpoint, name=stylizer.name
    )
    through.source = stylizer
    # What it draws with is the source's, whatever lies at the path by now.
    through.checkpoint_sha256 = stylizer.checkpoint_sha256
    return through


class _Through(Stylizer):
    source: Stylizer

    def _build(self) -> None:
        self._loaded: dict[Path, OnnxNetwork] = {}

    @property
    def style_names(self) -> tuple[str, ...]:
        return self.source.style_names

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        return self.source.encode_style(style, content_size).data

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        if call.strength != 1:
            raise UnsupportedError(
                f"{self.name} has its strength fixed at 1 in an exported network: use torch for this."
            )
        if call.context.given():
            raise UnsupportedError(f"{self.name} takes no masks in an exported network: use torch for this.")
        image = self._network(style)(content)
        call.report(1, 1, {}, lambda: image)
        return Stylized(image)

    def _network(self, style: Mix) -> OnnxNetwork:
        path = _place(self.source, style)
        if path not in self._loaded:
            if not path.is_file():
                make_folder(path.parent, "ZOO_HOME", WeightsError)
                export(self.source, style, path)
            self._loaded[path] = OnnxNetwork(path)
        return self._loaded[path]

    def _as_network(self, style: Mix) -> nn.Module:
        return self.source.as_network(style)


def _place(stylizer: Stylizer, style: Mix) -> Path:
    """Where the exported file lies: under a name that changes with whatever it depends on."""
    checkpoint = stylizer.checkpoint_sha256
    module = type(stylizer).__module__
    trained = [code.source.name for code, _ in style if code.source.image is None and code.source.name]
    if len(style) == 1 and trained and checkpoint and not stylizer.config.to_dict():
        return exported.place(stylizer.name, trained[0], checkpoint, module)
    digest = hashlib.sha256(f"{exported.basis(module)} {stylizer.config.digest} {checkpoint}".encode())
    for code, weight in style:
        digest.update(f"{weight!r}".encode())
        _feed(digest, code.data)
    return home() / "onnx" / f"{stylizer.name}-{digest.hexdigest()[:16]}.onnx"


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(repr(tuple(value.shape)).encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            digest.update(repr(key).encode())
            _feed(digest, inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _feed(digest, inner)
    else:
        digest.update(repr(value).encode())


__all__ = ["OPSET", "TOLERANCE", "Exported", "OnnxNetwork", "export", "require", "with_onnxruntime"]
