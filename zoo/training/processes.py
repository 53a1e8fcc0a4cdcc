"""Who trains: this process alone, or several that torchrun started together.

torchrun's own variables say so, and nothing else is asked. Left to itself Fabric takes a scheduler's variables
(SLURM_NTASKS, PMI_SIZE, LSB_JOBID) for a launch of many processes, which they are not in a batch script or in a
terminal inside a job, and what its own launcher leaves (LT_DEVICES) for a wish.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from zoo.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

# What torchrun sets for each of several processes.
_RANKS = ("RANK", "LOCAL_RANK")
_SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
_PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
# Read by Fabric as it is imported, as a number whatever it is; and read by it later.
_READ_AT_IMPORT = (*_RANKS, "SLURM_PROCID", "JSM_NAMESPACE_RANK")
_OF_ITS_LAUNCHER = ("LT_CLI_USED", "LT_ACCELERATOR", "LT_STRATEGY", "LT_DEVICES", "LT_NUM_NODES", "LT_PRECISION")


@dataclass(frozen=True)
class Processes:
    """This process is ``rank`` of ``world``, and ``local_rank`` of the ``local`` ones on its machine; ``address`` and
    ``port`` are where they meet."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local: int = 1
    address: str = "127.0.0.1"
    port: int = 0

    @property
    def first(self) -> bool:
        """Return whether this is the process that writes and speaks for all."""
        return self.rank == 0


def processes(environment: Mapping[str, str] = os.environ) -> Processes:
    """Return who trains with this process, by torchrun's variables; alone where WORLD_SIZE is 1 or not set.

    ConfigError where WORLD_SIZE asks for several and the rest of what torchrun sets is missing or does not fit: several
    processes that do not know of each other would write into one folder.
    """
    world = _number("WORLD_SIZE", environment.get("WORLD_SIZE") or "1", 1)
    if world == 1:
        return Processes()
    missing = [name for name in (*_RANKS, *_SIZES, *_ADDRESS) if not environment.get(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(
            f"WORLD_SIZE={world} asks for so many processes, but {' and '.join(missing)} {verb} not set: start them by "
            f"torchrun --nproc-per-node {world} -m zoo train ..., or unset WORLD_SIZE to train in this process alone."
        )
    local = _number("LOCAL_WORLD_SIZE", environment["LOCAL_WORLD_SIZE"], 1, world)
    if world % local:
        raise ConfigError(f"WORLD_SIZE is {world}, no multiple of the {local} processes of this machine: use torchrun.")
    return Processes(
        _number("RANK", environment["RANK"], 0, world - 1),
        world,
        _number("LOCAL_RANK", environment["LOCAL_RANK"], 0, local - 1),
        local,
        environment["MASTER_ADDR"],
        _number("MASTER_PORT", environment["MASTER_PORT"], 1, 65_535),
    )


def _number(name: str, text: str, low: int, high: int = 1_000_000) -> int:
    text = text.strip()
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 8 else -1
    if not low <= number <= high:
        raise ConfigError(
            f"{name} is {text!r} and not a number from {low} to {high}: start several processes by torchrun, or unset "
            "WORLD_SIZE to train alone."
        )
    return number


def make_fabric(device: torch.device, precision: str, own: Processes) -> Fabric:
    """Return Fabric for these processes on ``device`` (alone: that very one), its processes connected.

    ``precision`` is fp32, bf16 or fp16. Raises what torch raises where the processes cannot meet.
    """
    with _hidden(name for name in _READ_AT_IMPORT if not os.environ.get(name, "0").isdecimal()):
        from lightning_fabric import Fabric

    # It announces its precision at level INFO on a handler of its own.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with _hidden(_OF_ITS_LAUNCHER):
        fabric = Fabric(
            accelerator=device.type,
            devices=[device.index] if device.index is not None and own.world == 1 else own.local,
            num_nodes=own.world // own.local,
            precision=_PRECISIONS[precision],
            plugins=[_environment(own)],
        )
        if own.world > 1:
            with _endable():
                fabric.launch()
    return fabric


@contextlib.contextmanager
def _hidden(names: Iterator[str] | tuple[str, ...]) -> Iterator[None]:
    """Variables of the environment, absent in the block."""
    kept = {name: os.environ.pop(name) for name in tuple(names) if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextlib.contextmanager
def _endable() -> Iterator[None]:
    """Let a signal end the process at once while it waits for the others, where no handler of Python's would run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in kept:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _environment(own: Processes) -> Any:
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

    class Environment(ClusterEnvironment):
        """Tells Fabric what it would otherwise guess."""

        @property
        def creates_processes_externally(self) -> bool:
            return True

        @property
        def main_address(self) -> str:
            return own.address

        @property
        def main_port(self) -> int:
            return own.port

        @staticmethod
        def detect() -> bool:
            return True

        def world_size(self) -> int:
            return own.world

        def set_world_size(self, size: int) -> None: ...

        def global_rank(self) -> int:
            return own.rank

        def set_global_rank(self, rank: int) -> None: ...

        def local_rank(self) -> int:
            return own.local_rank

        def node_rank(self) -> int:
            return own.rank // own.local

    return Environment()
