"""Every error that the zoo raises on purpose, told in one place.

    ZooError                      base: one clear sentence, shown by the command line without a traceback (exit 2)
    ├── UnknownNameError          a method, checkpoint, encoder, metric, tap or style that the registry lacks
    ├── RegistryError             registry.yaml or a plugin's entry is malformed
    ├── ConfigError               an option that does not exist or whose value is out of range
    ├── ImageError                a file that cannot be read as, or written as, an image
    ├── InputError                a tensor or argument that breaks the contract of a call
    │   └── UnsuitedError         a picture that lacks what the method is about (UnsupportedError too)
    ├── UnsupportedError          the method cannot do this (see its traits)
    ├── WeightsError              a checkpoint is missing, damaged or of another shape
    │   └── DownloadRequiredError weights that must be fetched first, and how
    ├── DataError                 a set of benchmark images is not here, incomplete or another one
    ├── ProtocolError             a benchmark protocol or its results folder is malformed or in use
    ├── StudyError                a blind study, its key or a judge's answers do not fit
    ├── MemoryLimitError          a picture too large for the memory that is free
    └── NumericalError            a method produced NaN or infinity

All are raised before anything is written, so a failed call leaves no half-made file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from zoo.words import shown


class ZooError(Exception):
    """Base of all errors meant for the user. ``str(error)`` is one sentence that says what to do."""


class UnknownNameError(ZooError):
    """A name that is not in the registry; the message offers the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        if close:
            advice = "did you mean " + " or ".join(close) + "?"
        elif known:
            first = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            advice = f"known: {first}."
        else:
            advice = "none is known."
        super().__init__(f"Unknown {kind} {shown(name)}: {advice}" + (f" {hint}" if hint else ""))
        self.kind, self.name, self.suggestions = kind, name, close


class RegistryError(ZooError):
    """registry.yaml or a plugin's entry is malformed, duplicated or points nowhere."""


class ConfigError(ZooError):
    """An option does not exist for this method, or its value is out of range."""


class ImageError(ZooError):
    """A file cannot be read as an image, or an image cannot be written."""


class InputError(ZooError):
    """A tensor or argument breaks the documented contract of a call."""


class UnsupportedError(ZooError):
    """The method's traits say that it cannot do this."""


class UnsuitedError(InputError, UnsupportedError):
    """A picture lacks what the method is about, such as a face; others would do."""


class WeightsError(ZooError):
    """A checkpoint is missing, damaged or does not fit its network."""


class DownloadRequiredError(WeightsError):
    """Weights are not on this machine and may be fetched only when the user asks."""


class DataError(ZooError):
    """A set of benchmark images is not on this machine, incomplete, or not the one its manifest lists."""


class ProtocolError(ZooError):
    """A benchmark protocol, or a results folder, is malformed or in use."""


class StudyError(ZooError):
    """A blind study cannot be made or scored: pictures are missing, or a key or answers do not fit it."""


class MemoryLimitError(ZooError):
    """Raised before the work when a picture cannot fit into the memory that is free."""


class NumericalError(ZooError):
    """A method produced a value that is not finite."""


def reason(error: BaseException) -> str:
    """Return an error's own words, short enough to stand in a sentence."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.strip().rstrip(".").splitlines()[0][:120]


# What the libraries say whose own exceptions tell no more than that something failed: torch on a CPU (Linux, Windows),
# on CUDA and on MPS, cuBLAS and cuDNN, oneDNN, ONNX Runtime, C++, the system and its loader of libraries.
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can'?t allocate|cannot allocate(?! memory in static TLS)|unable to allocate"
    r"|failed to allocate|alloc_failed|bad.?alloc|could not create a memory|failed to map segment"
    r"|storage size calculation overflowed",
    re.IGNORECASE,
)


def out_of_memory(error: BaseException) -> str | None:
    """Return one sentence where an error, of whatever library, is a failed allocation, else None."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's own
    if not (named or _NO_MEMORY.search(str(error))):
        return None
    asked = re.search(r"allocate (\d+) bytes", str(error))
    amount = f", another {int(asked[1]) / 1e9:.2f} GB were asked for" if asked else ""
    return (
        f"There is not enough memory{amount}: take smaller pictures, batches or crops, close other programs, or raise "
        "the limit (ulimit -v)."
    )
