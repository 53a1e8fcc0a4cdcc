"""One training loop for every trainable method, on Lightning Fabric: CPU, one GPU, or several by torchrun.

What makes a resumed run equal to an unbroken one: the batch, the crops and the global random state of a step depend on
its number alone (data.py), and everything else that a step changes (weights, optimiser, moving average, gradient
scaler) is in the checkpoint, which is written whole or not at all. A cosine under a time limit follows the clock too.

A run's folder::

    run.json            the effective configuration, the data, the machine, and how long the training took; and as
                        they were given the task's options and the weights that it began from (never exported)
    losses.csv          a row per update: step, lr, grad_norm and each loss; cut back to the checkpoint on resume
    evaluation.csv      figures on the held-out images
    previews/           a sheet every ``preview_every`` updates, of the same images each time
    tensorboard/        the same figures, where the package tensorboard is installed
    checkpoint.pt       everything to go on from
    model.safetensors, card.md, losses.png      at the end (export.py)

Several processes must not drift apart: process 0's clock, and what it measured before the first update, count for all.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo import device as devices
from zoo import files
from zoo.errors import ConfigError, NumericalError
from zoo.stylizer import require_tensors
from zoo.training.clock import Clock
from zoo.training.data import Crops, ImageSet, Loader, Sampler, as_batch, to_float, without_folders
from zoo.training.identity import (
    derived_seed,
    identity,
    read_checkpoint,
    require_same,
    start_values,
    weights_named,
    with_digest,
)
from zoo.training.optimizers import Optimizers
from zoo.training.processes import make_fabric, processes
from zoo.training.progress import TrainProgress, TrainResult, TrainState
from zoo.training.records import Log, held, write_preview
from zoo.training.task import TrainConfig, TrainingTask, check_crop

_PATIENCE = 5.0  # seconds between two readings of the losses


def train(
    task: TrainingTask,
    config: TrainConfig,
    data: Mapping[str, ImageSet],
    folder: Path,
    *,
    held_out: Mapping[str, Sequence[Tensor]] | None = None,
    resume: bool = False,
    init_from: Path | None = None,
    options: Mapping[str, Any] | None = None,
    command: str = "",
    notes: str = "",
    progress: TrainProgress | None = None,
) -> TrainResult:
    """Train ``task`` into ``folder`` until the steps or the time are used up, or ``progress`` asks to stop.

    ``data`` has an :class:`ImageSet` for each of ``task.sets``. ``held_out`` images ((1, 3, H, W) by set) are
    evaluated and previewed, never trained on; without them the preview shows training images. ``resume`` goes on from
    the folder's checkpoint and starts anew where there is none; of ``config`` only what the losses do not depend on
    may differ then (steps, the time limit, intervals, the device). ``init_from`` starts a new run from the weights of
    a safetensors file, or of a run's checkpoint.pt. ``options`` are the task's, kept in run.json for whoever resumes;
    ``command`` and ``notes`` (the licence of the data, say) are recorded and stand on the card.

    Raises ConfigError (sets missing, crops of a side that the task cannot use, a run already there or at work there, a
    resumed run that differs, several processes that torchrun did not start), WeightsError (init_from or checkpoint do
    not fit), NumericalError (the loss or its gradient is no longer finite; the last checkpoint stays).
    """
    missing = [name for name in task.sets if name not in data]
    if missing:
        raise ConfigError(f"Training {task.method} needs {' and '.join(missing)} images: give their folder.")
    check_crop(task, config)
    run = _Run(task, config, data, folder, held_out or {}, progress)
    start = None if init_from is None else str(init_from.absolute())
    run.words = {"command": command, "notes": notes, "options": dict(options or {}), "init_from": start}
    # Steps seed the global generators; the caller's state comes back afterwards.
    kept = held(folder) if run.processes.first else contextlib.nullcontext()
    with torch.random.fork_rng(), devices.ieee_float32(run.device), kept:
        return run.go(resume, init_from)


class _Run:
    def __init__(
        self,
        task: TrainingTask,
        config: TrainConfig,
        data: Mapping[str, ImageSet],
        folder: Path,
        held_out: Mapping[str, Sequence[Tensor]],
        progress: TrainProgress | None,
    ) -> None:
        self.task, self.config, self.data, self.folder = task, config, data, folder
        self.held_out, self.progress = held_out, progress
        self.words: dict[str, Any] = {}
        self.origin = "its own start values"
        device = devices.resolve_device(config.accelerator)
        precision = devices.resolve_precision(config.precision, device, "bf16")
        if precision == "fp16" and device.type != "cuda":
            raise ConfigError("Training in fp16 needs CUDA: use --precision bf16 or fp32.")
        self.precision: devices.Precision = precision
        self.processes = processes()
        self.device = device
        self.step = 0
        self.clock = Clock()
        self.figures: dict[str, float] = {}
        self.evaluated = -1  # the step of these figures
        self.losses: dict[str, float] = {}
        self.recent: deque[dict[str, float]] = deque(maxlen=100)
        self.ema: list[Tensor] | None = None
        # Rows not yet read back: on a GPU every reading waits for the device.
        self.pending: list[tuple[int, float, dict[str, Tensor]]] = []

    # -- the run ------------------------------------------------------------------------------------------------

    def go(self, resume: bool, init_from: Path | None) -> TrainResult:
        config, task = self.config, self.task
        checkpoint = self.folder / "checkpoint.pt"
        resuming = resume and checkpoint.exists()
        if not resume and checkpoint.exists():
            raise ConfigError(f"{self.folder} already holds a run: resume it, or give another folder.")
        self.fabric = fabric = make_fabric(self.device, self.precision, self.processes)
        self.clock.start()
        crops = Crops(config.crop, (config.zoom[0], config.zoom[1]))
        self.samplers = {
            name: Sampler(self.data[name], name, crops, batch_size=config.batch_size, seed=config.seed)
            for name in task.sets
        }
        task.to(fabric.device)
        if not resuming:
            # The same draws in every process: what is measured by them must be the same.
            self._seed(-1, 0)
            self._begin(init_from)
        task.to(memory_format=torch.channels_last)
        parameters = [p for p in task.network.parameters() if p.requires_grad]
        with devices.autocast(fabric.device, self.precision):
            by_name = dict(task.optimizers(config, None if resuming else self._preparing()))
        if not resuming:
            for optimizer in by_name.values():
                self._share(optimizer)
        self.module, *made = fabric.setup(task, *by_name.values())
        self.optimizers = Optimizers(
            fabric,
            self.module,
            dict(zip(by_name, made, strict=True)),
            config,
            None if self.precision == "fp16" else lambda what: self._diverged(what, self.step + 1),
        )
        self.parameters = parameters
        if config.ema is not None:
            self.ema = [p.detach().clone() for p in parameters]
        if resuming:
            self._load(checkpoint)
        if fabric.is_global_zero:
            self._write_run()
        self.log = Log(self.folder, self.step, self.evaluated) if fabric.is_global_zero else None
        fabric.barrier()
        loader = Loader(
            self.samplers,
            first=self.step * config.accumulate,
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        try:
            ended = self._loop(loader)
        finally:
            loader.close()
            if self.log is not None:
                self.log.close()
        if fabric.is_global_zero:
            self._write_run()
            from zoo.training.export import export

            with self._averaged():
                export(self.task, self.folder)
        fabric.barrier()
        return TrainResult(self.folder, self._state(), ended)

    def _begin(self, init_from: Path | None) -> None:
        """Start values of a new run, and where they are from."""
        task = self.task
        if init_from is not None:
            state = task.adopt(start_values(init_from, task))
            require_tensors(state, task.network.state_dict(), str(init_from))
            task.network.load_state_dict(state)
            self.origin = with_digest(init_from)
            return
        task.prepare(self._preparing())
        named = [f"{option} {with_digest(path)}" for option, path in weights_named(task).items()]
        self.origin = ", ".join(named) or self.origin

    @torch.no_grad()
    def _share(self, optimizer: torch.optim.Optimizer) -> None:
        """Give every process what process 0's optimiser measured. Fabric makes the weights alike; nothing else
        would even out the last bits by which two machines differ."""
        if self.fabric.world_size == 1:
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                for value in optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor):
                        whole = value.contiguous()
                        # As bytes, which every backend can send.
                        torch.distributed.broadcast(whole.flatten().view(torch.uint8), 0)
                        value.copy_(whole)

    def _loop(self, loader: Loader) -> str:
        config = self.config
        saved = heard = time.monotonic()
        # Before the clock goes on, when every process reads the same.
        ended = "time" if self._late() and self.step < config.steps else ""
        self.clock.listen(loader)
        if self._due():  # the process was ended between this checkpoint and its evaluation
            self._evaluate()
        # Of several processes each has its own clock, and each by its own would follow another learning rate.
        shared = self.fabric.world_size > 1 and config.schedule == "cosine" and config.time_limit is not None
        while not ended:
            if self.step >= config.steps:
                ended = "steps"
                break
            if shared:
                self.clock.seconds = self.fabric.broadcast(self.clock.seconds)
            self._update(loader)
            self.clock.tick()
            # Slow steps must not keep a request to stop waiting; several processes have to read at the same step.
            slow = self.fabric.world_size == 1 and time.monotonic() - heard >= _PATIENCE
            if self.step % config.log_every == 0 or self.step == config.steps or slow:
                heard = time.monotonic()
                self._drain()
                asked = self.progress is not None and self.fabric.is_global_zero and self.progress(self._state())
                late = self._late()
                due = time.monotonic() - saved >= 60 * config.checkpoint_minutes
                # One process decides, so that all stop and save at the same step.
                asked, late, due = self.fabric.broadcast((bool(asked), late, due))
                ended = "asked" if asked else "time" if late else ""
                if due and not ended:
                    self._save()
                    saved = time.monotonic()
            if self._due() and not ended:
                self._evaluate()
            if config.preview_every and self.step % config.preview_every == 0:
                self._preview()
            self.clock.skip()
        self._drain()
        # Whoever asked may not wait for the evaluation, and it may fail.
        self._save()
        self._evaluate()
        self._preview()
        self._save()
        return ended

    def _update(self, loader: Loader) -> None:
        config, fabric = self.config, self.fabric
        lr = self._lr()
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("factor", 1.0)
        self._seed(self.step, fabric.global_rank)
        sums: dict[str, Tensor] = {}
        for part in range(config.accumulate):
            batch = to_float(next(loader), fabric.device)
            self.optimizers.last = part == config.accumulate - 1
            with fabric.no_backward_sync(self.module, enabled=not self.optimizers.last):
                losses = self.task.step(batch, self.optimizers)
            for name, value in losses.items():
                part_mean = value.detach().float() / config.accumulate
                sums[name] = sums[name] + part_mean if name in sums else part_mean
        sums["grad_norm"] = self.optimizers.norm
        self.step += 1
        if self.ema is not None and config.ema is not None:
            # The usual ramp: a young average must not remember the start.
            decay = min(config.ema, (1 + self.step) / (10 + self.step))
            for average, parameter in zip(self.ema, self.parameters, strict=True):
                average.lerp_(parameter.detach(), 1 - decay)
        self.pending.append((self.step, lr, sums))

    def _lr(self) -> float:
        config, step = self.config, self.step
        lr = config.lr * min(1.0, (step + 1) / config.warmup) if config.warmup else config.lr
        if config.schedule == "inverse":
            return lr / (1 + config.decay * step)
        if config.schedule == "step":
            return lr * config.decay ** (step // config.decay_every)
        if config.schedule == "cosine":
            done = step / config.steps
            if config.time_limit is not None:
                done = max(done, min(1.0, self.clock.seconds / (60 * config.time_limit)))
            return lr * 0.5 * (1 + math.cos(math.pi * done))
        return lr

    def _late(self) -> bool:
        return self.config.time_limit is not None and self.clock.seconds >= 60 * self.config.time_limit

    def _diverged(self, what: str, step: int) -> NumericalError:
        checkpoint = self.folder / "checkpoint.pt"
        begun = f"; --init-from {checkpoint} begins it from the last checkpoint" if checkpoint.exists() else ""
        return NumericalError(
            f"The {what} is no longer finite at step {step}: start a new run with a lower learning rate (--lr) or "
            f"with gradient clipping (--clip){begun}."
        )

    def _seed(self, step: int, rank: int) -> None:
        """Noise of a step from its number: nothing to save, and every process draws its own."""
        torch.manual_seed(derived_seed(self.config.seed, step, rank))

    def _preparing(self) -> Iterator[dict[str, Tensor]]:
        """Batches for :meth:`TrainingTask.prepare`: the same in every process, and not those of the first steps."""
        position, heard = 1 << 40, time.monotonic()
        while True:
            if self.progress is not None and self.fabric.world_size == 1 and time.monotonic() - heard >= _PATIENCE:
                heard = time.monotonic()
                if self.progress(self._state()):
                    raise KeyboardInterrupt  # there is nothing to keep yet
            yield to_float({name: s.batch(position) for name, s in self.samplers.items()}, self.fabric.device)
            position += 1

    # -- reading and writing ------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Read pending losses back, averaged over processes, into the logs."""
        if not self.pending:
            return
        names = list(self.pending[0][2])
        table = torch.stack([torch.stack([row[name].float() for name in names]) for _, _, row in self.pending])
        table = self.fabric.all_reduce(table, reduce_op="mean")
        assert isinstance(table, Tensor)
        for (step, lr, _), values in zip(self.pending, table.cpu().double().tolist(), strict=True):
            row = dict(zip(names, values, strict=True))
            if not all(math.isfinite(row[n]) for n in names if n != "grad_norm"):
                raise self._diverged("loss", step)
            self.losses = {name: row[name] for name in names if name != "grad_norm"}
            self.recent.append(self.losses)
            if self.log is not None:
                self.log.losses(step, lr, row)
        self.pending = []

    def _state(self) -> TrainState:
        return TrainState(
            self.step,
            self.config.steps,
            self.clock.seconds,
            self.clock.loading,
            dict(self.losses),
            dict(self.figures),
            self._lr(),
            self.config.time_limit,
        )

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The moving average in the network's place."""
        if self.ema is None:
            yield
            return
        own = [p.detach().clone() for p in self.parameters]
        _copy(self.ema, self.parameters)
        try:
            yield
        finally:
            _copy(own, self.parameters)

    def _due(self) -> bool:
        """Return whether the run is evaluated at this step, the last one apart."""
        every = self.config.evaluate_every
        return bool(every) and self.step > 0 and self.step % every == 0 and self.step < self.config.steps

    def _evaluate(self) -> None:
        """The figures of this step, once: they depend on the weights alone, as the noise is the same every time."""
        if not self.fabric.is_global_zero or self.evaluated == self.step:
            return
        self.figures = {}  # those of other weights
        if not self.held_out:
            return
        torch.manual_seed(derived_seed(self.config.seed, "evaluation"))
        with self._averaged(), torch.no_grad(), self.fabric.autocast():
            self.figures = self.task.evaluate(self._on_device(self.held_out))
        self.evaluated = self.step
        if self.figures and self.log is not None:
            self.log.figures(self.step, self.figures)

    def _preview(self) -> None:
        if not self.fabric.is_global_zero:
            return
        with self._averaged():
            write_preview(self.task, self._preview_images(), self.folder / f"previews/step_{self.step:07d}.png")

    def _preview_images(self) -> dict[str, list[Tensor]]:
        if self.held_out:
            return self._on_device(self.held_out)
        # Not from the stream of training samples: the same few whenever and wherever the run goes on.
        first = {
            name: as_batch([s.crops.cut(s.picture(i), np.random.default_rng(0)) for i in range(min(4, len(s.images)))])
            for name, s in self.samplers.items()
        }
        return {name: list(batch.split(1)) for name, batch in to_float(first, self.fabric.device).items()}

    def _on_device(self, held_out: Mapping[str, Sequence[Tensor]]) -> dict[str, list[Tensor]]:
        return {name: [image.to(self.fabric.device) for image in some] for name, some in held_out.items()}

    def _identity(self) -> dict[str, Any]:
        return identity(self.task, self.config, self.data, self.precision, self.fabric.world_size)

    def _save(self) -> None:
        self.fabric.barrier()
        if not self.fabric.is_global_zero:
            return
        if self.log is not None:
            self.log.flush()
        state = {
            "identity": json.dumps(self._identity(), sort_keys=True),
            # In the order in which this run counts them, wherever it goes on.
            "images": {name: "".join(sampler.hashes) for name, sampler in self.samplers.items()},
            "origin": self.origin,
            "recent": list(self.recent),
            "figures": self.figures,
            "evaluated": self.evaluated,
            "step": self.step,
            "seconds": self.clock.seconds,
            "waited": self.clock.waited,
            "network": self.task.network.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "ema": self.ema,
            "scaler": self.fabric.strategy.precision.state_dict() or None,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        files.write(self.folder / "checkpoint.pt", buffer.getbuffer())
        self._write_run()

    def _load(self, path: Path) -> None:
        state = read_checkpoint(path, self.fabric.device)
        require_same(path.parent, state["identity"], self._identity())
        for name, hashes in state["images"].items():
            self.samplers[name].arrange(hashes)
        require_tensors(state["network"], self.task.network.state_dict(), str(path))
        self.task.network.load_state_dict(state["network"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.ema is not None:
            _copy(state["ema"], self.ema)
        if state["scaler"] is not None:
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.step, self.origin = int(state["step"]), state["origin"]
        self.recent.extend(state["recent"])
        self.figures = dict(state["figures"])
        self.evaluated = int(state["evaluated"])
        self.clock.restore(float(state["seconds"]), float(state["waited"]))

    def _last_losses(self) -> dict[str, float]:
        """Means over the last hundred updates: single ones are noise."""
        names = self.recent[-1] if self.recent else ()
        return {name: sum(row[name] for row in self.recent) / len(self.recent) for name in names}

    def _write_run(self) -> None:
        from zoo.training.export import describe_machine, describe_set

        record = {
            "method": self.task.method,
            "paper": self.task.paper,
            "teacher": self.task.teacher,
            "task": without_folders(self.task.describe()),
            "config": self.config.to_dict(),
            "started_from": self.origin,
            **self.words,
            "data": {name: describe_set(self.data[name]) for name in self.task.sets},
            "machine": describe_machine(self.fabric.device, self.precision, self.fabric.world_size),
            "step": self.step,
            "hours": round(self.clock.seconds / 3600, 4),
            "loading_share": round(self.clock.loading, 4),
            "losses": self._last_losses(),
            "figures": self.figures,
        }
        files.write(self.folder / "run.json", json.dumps(record, indent=1))


@torch.no_grad()
def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    for ours, theirs in zip(target, source, strict=True):
        ours.copy_(theirs)


__all__ = ["TrainProgress", "TrainResult", "TrainState", "train"]
