"""Authors' published weights as checkpoints of ours.

Each method that has importers is a file here, named like the method (``-`` as ``_``), with a function::

    def convert(files: Sequence[Source], encoder: Source | None) -> Draft

which renames keys and says what our network expects; :func:`import_weights` reads the files safely (torch pickles with
``weights_only=True``, or safetensors), compares, and writes a safetensors file only where everything fits. A method's
own package can register its converter under the entry point group ``zoo.importers``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import UnknownNameError, WeightsError
from zoo.files import check_creatable, write
from zoo.provenance import written

if TYPE_CHECKING:
    from torch import Tensor

ENTRY_POINT_GROUP = "zoo.importers"


@dataclass(frozen=True)
class Source:
    """A file of tensors: its name, its sha256, and what it holds by key."""

    name: str
    sha256: str
    state: Mapping[str, Tensor]


@dataclass
class Draft:
    """The product of a converter: our ``state``, the shapes ``expected`` of it, what was ``renamed`` (theirs, ours),
    keys that it could not place, and notes for the metadata."""

    state: dict[str, Tensor]
    expected: Mapping[str, tuple[int, ...]]
    renamed: list[tuple[str, str]]
    unexpected: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ImportReport:
    """The outcome of an import: ``rows`` of (their key, our key, shape, verdict), and whether everything ``fits``."""

    method: str
    rows: tuple[tuple[str, str, str, str], ...]
    notes: tuple[str, ...]

    @property
    def faults(self) -> list[str]:
        """Return what does not fit, one phrase each."""
        return [f"{ours or theirs} is {verdict}" for theirs, ours, _, verdict in self.rows if verdict != "mapped"]

    @property
    def fits(self) -> bool:
        return not self.faults


Converter = Callable[[Sequence[Source], Source | None], Draft]


def importers() -> dict[str, str]:
    """Methods whose published weights can be imported, and where their converter is (``module:function``)."""
    found = {
        module.name.replace("_", "-"): f"{__name__}.{module.name}:convert"
        for module in pkgutil.iter_modules(__path__)
        if module.name != "vgg"  # the layout of VGG files, which several converters read
    }
    return found | {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def import_weights(
    method: str,
    files: Sequence[Path],
    out: Path,
    *,
    encoder: Path | None = None,
    report: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """Convert ``files`` to the checkpoint ``out`` of ``method``.

    ``encoder`` is the authors' own encoder, where the method's weights belong to one. ``report`` hears the comparison
    also where it fails. Numbers keep the precision of the file. The metadata records the names and sha256 of the files.
    Raises UnknownNameError, ConfigError where ``out`` cannot be written, before anything is read, and WeightsError
    where a file is unsafe or unreadable or does not fit; then nothing is written.
    """
    import torch
    from safetensors.torch import save

    known = importers()
    if method not in known:
        raise UnknownNameError("importer", method, known)
    check_creatable(out)
    module, _, name = known[method].partition(":")
    convert: Converter = getattr(importlib.import_module(module), name)
    sources = [read_source(path) for path in files]
    own_encoder = None if encoder is None else read_source(encoder)
    draft = convert(sources, own_encoder)
    result = _compare(method, draft)
    if report is not None:
        report(result)
    if not result.fits:
        shown = "; ".join(result.faults[:4])
        shown += f"; and {len(result.faults) - 4} more" if len(result.faults) > 4 else ""
        raise WeightsError(f"{', '.join(s.name for s in sources)} does not fit {method}: {shown}. Nothing was written.")
    facts: dict[str, Any] = {
        "method": method,
        "provenance": "published",
        "files": {s.name: s.sha256 for s in sources},
        "notes": " ".join(draft.notes),
    }
    if own_encoder is not None:
        facts["encoder"] = {own_encoder.name: own_encoder.sha256}
    out.parent.mkdir(parents=True, exist_ok=True)
    # Copies, as the format takes no two tensors of one memory.
    state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in draft.state.items()}
    write(out, save(state, written(facts)))
    return result


def _compare(method: str, draft: Draft) -> ImportReport:
    rows = []
    theirs = {ours: name for name, ours in draft.renamed}
    for ours, value in draft.state.items():
        shape = tuple(value.shape)
        if ours not in draft.expected:
            verdict = "unexpected"
        elif shape != draft.expected[ours]:
            verdict = f"of another shape, {_times(shape)} instead of {_times(draft.expected[ours])}"
        elif not (value.is_floating_point() and value.isfinite().all()):
            verdict = "of values that are no finite weights"
        else:
            verdict = "mapped"
        rows.append((theirs.get(ours, ""), ours, _times(shape), verdict))
    rows += [("", ours, _times(shape), "missing") for ours, shape in draft.expected.items() if ours not in draft.state]
    rows += [(name, "", "", "unexpected") for name in draft.unexpected]
    return ImportReport(method, tuple(rows), tuple(draft.notes))


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def read_source(path: Path) -> Source:
    """A torch pickle, read without running any of its code, or a safetensors file.

    A dictionary under ``state_dict`` is unwrapped and ``module.`` (of parallel training) cut off; WeightsError where
    there is anything but tensors.
    """
    import torch
    from safetensors.torch import load

    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        if path.suffix == ".safetensors":
            state: Any = load(data)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path.name} is not a file of plain tensors, and nothing else is opened, since a pickle can run code "
            f"({reason.rstrip('.')})."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]

    def plain(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"

    if not isinstance(state, dict) or not state or not all(map(plain, state.values())):
        raise WeightsError(f"{path.name} is not a dictionary of tensors: give a file of weights (a state dict).")
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    return Source(path.name, hashlib.sha256(data).hexdigest(), state)


__all__ = ["Converter", "Draft", "ImportReport", "Source", "import_weights", "importers", "read_source"]
