"""What a call computes: floating-point operations, counted and not timed.

Counted are matrix products, convolutions and their gradients (torch.utils.flop_counter); a multiplication and an
addition are two operations. Everything element by element (activations, normalisation, pooling, interpolation) is left
out, as papers leave it out. Decompositions of matrices cost more and are left out too, so they are named.

The counter's own imports take some 70 MiB, so what measures memory keeps away from this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from zoo.nn.fast import fused

# Operators of a cubic or similar cost that the counter knows nothing of, by the beginning of their names.
_HEAVY = ("linalg_", "_linalg_", "cholesky", "geqrf", "ormqr", "triangular_solve", "_fft_", "sort")
# Of these, what is only a sum over its elements.
_LIGHT = ("linalg_vector_norm", "linalg_cross")


def _fused(x: Sequence[int], weight: Sequence[int], *rest: Any, out_shape: Sequence[int], **options: Any) -> int:
    """Operations of a convolution that the counter does not know, because its ReLU is part of it."""
    return conv_flop_count(list(x), list(weight), list(out_shape))


@dataclass
class Operations:
    """Floating-point operations of a stretch, filled in when it ends; ``unseen``: heavy operators not in the sum.

    ``marks`` holds the sum at every call of :meth:`mark`.
    """

    total: int
    unseen: tuple[str, ...]
    marks: tuple[int, ...] = ()

    @property
    def remark(self) -> str:
        """What must be said beside the number."""
        return f"not counted: {', '.join(self.unseen)}" if self.unseen else ""


class _Unseen(TorchDispatchMode):
    """Notes which heavy operators ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func._overloadpacket.__name__
        if name.startswith(_HEAVY) and name not in _LIGHT:
            self.names.add(name.strip("_"))
        return func(*args, **(kwargs or {}))


def count(call: Callable[[Callable[[], None]], object]) -> Operations:
    """Operations of ``call(mark)``; whatever it calls ``mark`` at is remembered, such as the end of every step."""
    marks: list[int] = []
    known = {} if fused.OPERATOR is None else {fused.OPERATOR: _fused}
    counter = FlopCounterMode(display=False, custom_mapping=known)
    with _Unseen() as unseen, counter:
        call(lambda: marks.append(counter.get_total_flops()))
    return Operations(counter.get_total_flops(), tuple(sorted(unseen.names)), tuple(marks))
