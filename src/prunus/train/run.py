"""The training loop itself, on accelerate."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from prunus.errors import PrunusError, brief
from prunus.families import family_of
from prunus.method import Method
from prunus.pruners.one_shot import OneShot
from prunus.pruners.stepwise import Stepwise
from prunus.selector.config import TrainSettings
from prunus.selector.selector import Selector
from prunus.selector.store import Card, save_selector
from prunus.sharing.page import write_page
from prunus.tasks.faults import Faults, told
from prunus.train.data import Batch
from prunus.train.interrupt import Interrupt
from prunus.train.loader import Part, batches
from prunus.train.log import Log
from prunus.train.measure import Stopped, measure
from prunus.train.objective import Objective
from prunus.train.options import Options, Result, Stop, selector_config
from prunus.train.schedule import Schedule, rate_at
from prunus.train.sources import Split
from prunus.train.state import State
from prunus.train.watch import Watch

_LOG_EVERY = 10
_PARALLEL = ("NO", "MULTI_CPU", "MULTI_GPU")
_REASONS: tuple[Stop | None, ...] = (None, "minutes", "interrupt")


class Training:
    """One run; arguments as for :func:`.trainer.train`."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        split: Split,
        settings: TrainSettings,
        output: Path,
        options: Options,
        watch: Watch | None,
    ) -> None:
        self.accelerator = _accelerator(options)
        main = self.accelerator.is_main_process
        self.watch = watch if watch is not None and main else Watch()
        self.processor, self.split, self.settings = processor, split, settings
        self.output, self.options = output, options
        self.part = Part(
            settings.batch,
            options.accumulate,
            self.accelerator.num_processes,
            self.accelerator.process_index,
        )
        self.model = model.to(self.accelerator.device)
        family = family_of(self.model)
        if family.counts_through:
            raise PrunusError(
                f"training is not supported for {family.name}: its processor numbers patches "
                "through all pictures of a call, and training encodes them one by one"
            )
        torch.manual_seed(settings.seed)
        self.selector = Selector(selector_config(family, settings))
        self.objective = Objective(self.model, family, self.selector, settings)
        self.weights = [weight for weight in self.objective.parameters() if weight.requires_grad]
        adamw = torch.optim.AdamW(
            self.weights, lr=settings.rate, weight_decay=settings.weight_decay
        )
        # The objective itself stays at hand: what comes back may be a wrapper around it.
        self.parallel, self.optimizer = self.accelerator.prepare(self.objective, adamw)
        self.card = Card.of(name, family, processor)
        size = split.train.size
        self.about = {
            "model": name,
            "data": split.name if size is None else f"{split.name} ({size} examples)",
            "settings": settings.as_dict(),
        }
        self.step, self.seconds = 0, 0.0
        self.figures: dict[str, float] = {}
        self.held_out: dict[str, float] = {}
        self.left_out: dict[str, None] = {}

    def run(self, resume: bool) -> Result:
        """Train from the start or the checkpoint to the end, or until something stops it."""
        if resume:
            self._restore()
        main = self.accelerator.is_main_process
        log = Log(self.output, self.step, self.options.tensorboard) if main else None
        self.watch.start(self.step, self.settings.steps)
        for note in self.split.notes:
            self.watch.note(note)
        try:
            with Interrupt() as interrupt:
                stopped = self._train(log, interrupt) or self._finish(log, interrupt)
        finally:
            if log is not None:
                log.close()
        if self.left_out:
            self.watch.note(f"skipped: {len(self.left_out)}")
            for line in told(list(self.left_out)):
                self.watch.note(line)
        self.accelerator.wait_for_everyone()  # launchers end all processes when one has ended
        return Result(
            self.step,
            stopped,
            self.seconds,
            self.figures,
            self.held_out,
            self.selector.parameter_count(),
            self.selector.config,
            main,
            tuple(self.left_out),
        )

    def _train(self, log: Log | None, interrupt: Interrupt) -> Stop | None:
        """The steps that are left."""
        settings, options = self.settings, self.options
        pieces = batches(
            self.split.train,
            self.processor,
            self.part,
            settings.seed,
            self.step,
            options.workers,
            options.on_error,
        )
        began = saved = time.monotonic()
        before = self.seconds
        deadline = math.inf if options.minutes is None else began + 60 * options.minutes
        seen: list[dict[str, Tensor]] = []
        self.parallel.train()
        while self.step < settings.steps:
            seen.append(self._step(pieces))
            self.step += 1
            complete = self.step == settings.steps
            stopped = self._agree(interrupt.hit, time.monotonic() > deadline and not complete)
            if self.step % _LOG_EVERY == 0 or complete or stopped:
                self._report(log, seen)
                seen = []
            self.watch.step(self.step, self.figures)
            if not stopped and not complete and self.step % options.every == 0:
                stopped = self._measure(log, interrupt)
            now = time.monotonic()
            self.seconds = before + now - began
            if complete or stopped or now - saved > options.save_every:
                self._save()
                saved = now
            if stopped:
                return stopped
        return None

    def _finish(self, log: Log | None, interrupt: Interrupt) -> Stop | None:
        """The last measurement, beside the unpruned model."""
        stopped = self._measure(log, interrupt, dense=True)
        if not stopped:
            self._save()
        return stopped

    def _step(self, pieces: Iterator[Batch]) -> dict[str, Tensor]:
        """One optimiser step; the objective's figures, means over the pieces, and the gradient's
        ``norm``."""
        settings, accelerator, count = self.settings, self.accelerator, self.part.accumulate
        state = Schedule.at(self.step, settings)
        # Noise is a function of the step: it needs no replay to go on, and measuring between two
        # steps changes nothing.
        sequence = np.random.SeedSequence([settings.seed, self.step, accelerator.process_index])
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        found = []
        for piece in range(count):
            batch = self._next(pieces).to(accelerator.device, self.model.dtype)
            self.left_out |= dict.fromkeys(batch.left_out)
            last = piece == count - 1
            with nullcontext() if last else accelerator.no_sync(self.parallel):
                loss, figures = self.parallel(batch, state)
                accelerator.backward(loss / count)
            found.append(figures)
        norm = accelerator.clip_grad_norm_(self.weights, settings.clip or math.inf)
        if accelerator.scaler is None:  # which would leave such a step out by itself
            self._check(float(norm))
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, settings)
        self.optimizer.step()
        self.optimizer.zero_grad()
        means = {name: torch.stack([one[name] for one in found]).mean() for name in found[0]}
        return {**means, "norm": norm}

    def _next(self, pieces: Iterator[Batch]) -> Batch:
        """The next piece; where it cannot be made, what was learned so far is written first."""
        try:
            return next(pieces)
        except PrunusError:
            if self.step:
                self._save()
            raise

    def _report(self, log: Log | None, seen: list[dict[str, Tensor]]) -> None:
        """Means over the steps ``seen`` and all processes."""
        own = torch.stack([torch.stack([one[name] for one in seen]).mean() for name in seen[0]])
        means = self.accelerator.reduce(own, "mean").tolist()
        self.figures = dict(zip(seen[0], means, strict=True))
        self._check(self.figures["loss"])
        if log is not None:
            state = Schedule.at(self.step - 1, self.settings)
            scheduled = {
                "rate": rate_at(self.step - 1, self.settings),
                "text_gate": state.text_gate,
                "temperature": state.temperature,
            }
            log.write(self.step, {**self.figures, **scheduled})

    def _check(self, value: float) -> None:
        if not math.isfinite(value):
            raise PrunusError(
                f"the loss or its gradient is no number any more at step {self.step}: choose a "
                "smaller rate, or another precision. The last checkpoint is from before"
            )

    def _measure(self, log: Log | None, interrupt: Interrupt, dense: bool = False) -> Stop | None:
        """Ask the held-out questions; what stops the run meanwhile stops this, too."""
        if self.split.held_out is None:
            return None
        faults = Faults(self.options.on_error)
        try:
            found = measure(
                self.accelerator,
                self.model,
                self.processor,
                self.split.held_out,
                self._method(),
                dense,
                lambda: interrupt.hit,
                faults,
            )
        except Stopped:
            return "interrupt"
        self.held_out = found
        self.left_out |= dict.fromkeys(faults.found)
        if log is not None:
            log.write(self.step, found, "held_out")
        beside = f" (unpruned: {found['dense']:.1%})" if dense else ""
        self.watch.note(
            f"step {self.step}: {found['accuracy']:.1%} of {found['questions']:.0f} held-out "
            f"questions right{beside}, {found['kept']:.1f} visual tokens kept"
        )
        return None

    def _method(self) -> Method:
        """What prunes with the selector as it is now."""
        keep = self.settings.keep
        if self.selector.config.kind == "one-shot":
            assert keep is not None  # TrainSettings refuses anything else
            return OneShot(keep=keep).with_selector(self.selector, self.card)
        return Stepwise(keep=keep).with_selector(self.selector, self.card)

    def _agree(self, interrupted: bool, late: bool) -> Stop | None:
        """Why to stop, the same in all processes."""
        own = torch.tensor([2 if interrupted else int(late)], device=self.accelerator.device)
        return _REASONS[int(self.accelerator.gather(own).max())]

    def _save(self) -> None:
        """Write checkpoint and selector."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        State(
            run=self.about,
            step=self.step,
            seconds=self.seconds,
            objective=self.objective.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler={} if scaler is None else scaler.state_dict(),
        ).save(self.output)
        numbers = {"step": self.step, "seconds": self.seconds, **self.figures}
        training = {**self.about, **numbers, "held_out": self.held_out}
        save_selector(self.output, self.selector, replace(self.card, training=training))
        write_page(self.output)

    def _restore(self) -> None:
        state = State.load(self.output)
        state.check(self.about)
        self.step, self.seconds = state.step, state.seconds
        try:
            self.objective.load_state_dict(state.objective)
            self.optimizer.load_state_dict(state.optimizer)
            if state.scaler and self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state.scaler)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise PrunusError(
                f"the checkpoint in {str(self.output)!r} does not fit this run ({brief(error)}): "
                "train into another folder"
            ) from error


def _accelerator(options: Options) -> Accelerator:
    accelerator = Accelerator(
        mixed_precision=options.precision,
        # Where STOP is masked, its weights are part of no loss.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    kind = accelerator.distributed_type.value
    if kind not in _PARALLEL:
        raise PrunusError(
            f"a selector cannot be trained with {kind}: launch one process per GPU, without "
            "sharding (accelerate launch --multi_gpu)"
        )
    return accelerator
