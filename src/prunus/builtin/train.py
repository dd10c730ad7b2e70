"""Trains a built-in model from nothing: staged, seeded, resumable, on CPU or GPU."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from prunus.builtin import checkpoint
from prunus.builtin.answers import (
    Pool,
    all_places,
    answer_loss,
    ask_all,
    choose_places,
    draw_scenes,
    draw_tokens,
    fill_pool,
    pixels_of,
    pool_batch,
    pool_slot,
)
from prunus.builtin.model import Shape, build_model
from prunus.builtin.naming import Hints, draw_windows, naming_loss
from prunus.builtin.optim import Optimisers, rate_factor
from prunus.builtin.schedule import TINY_LLAVA, Stage
from prunus.builtin.tower import project

CHECKPOINT = "checkpoint.pt"
_LOG_EVERY = 20
_SAVE_SECONDS = 120.0

Loss = Callable[[int], tuple[Tensor, dict[str, float]]]


class Run:
    """Everything that a training run consists of, so that it can stop and go on anywhere."""

    def __init__(self, output: Path, stages: Sequence[Stage], shape: Shape, device: str) -> None:
        self.output, self.stages, self.shape, self.device = output, list(stages), shape, device
        self.model = build_model(shape).to(device)
        torch.manual_seed(1)
        self.hints = Hints(shape.width).to(device)
        self.stage, self.step, self.seconds, self.canvases = 0, 0, 0.0, 0
        self.log = checkpoint.Log(output / "log.jsonl")
        self.optimisers: Optimisers | None = None

    def restore(self) -> None:
        """Go on from the checkpoint in the output folder."""
        state = checkpoint.load(self.output / CHECKPOINT)
        self.model.load_state_dict(state["model"])
        self.hints.load_state_dict(state["hints"])
        names = [stage.name for stage in self.stages]
        self.seconds, self.canvases = state["seconds"], state["canvases"]
        self.stage, self.step = names.index(state["stage"]), state["step"]
        if self.step >= self.stages[self.stage].steps:
            self.stage, self.step = self.stage + 1, 0
        else:
            self.optimisers = self._optimisers(self.stages[self.stage])
            self.optimisers.load_state_dict(state["optimisers"])

    def save(self) -> None:
        """Write the checkpoint."""
        stage = self.stages[self.stage]
        optimisers = self.optimisers.state_dict() if self.optimisers else []
        checkpoint.save(
            self.output / CHECKPOINT,
            {
                "model": self.model.state_dict(),
                "hints": self.hints.state_dict(),
                "optimisers": optimisers,
                "stage": stage.name,
                "step": self.step,
                "seconds": self.seconds,
                "canvases": self.canvases,
                "shape": asdict(self.shape),
            },
        )

    def _optimisers(self, stage: Stage) -> Optimisers:
        model = self.model.model
        sight = [model.vision_tower, model.multi_modal_projector]
        if stage.kind == "naming":
            self.model.requires_grad_(True)
            words = model.language_model.embed_tokens
            return Optimisers([([*sight, words, self.hints], stage.rate)])
        self.model.requires_grad_(True)
        groups = [([model.language_model, self.model.lm_head], stage.rate)]
        if stage.tower_rate:
            groups.append((sight, stage.rate * stage.tower_rate))
        else:
            for module in sight:
                module.requires_grad_(False)
        return Optimisers(groups)

    def _loss(self, stage: Stage) -> Loss:
        return self._naming(stage) if stage.kind == "naming" else self._answers(stage)

    def _naming(self, stage: Stage) -> Loss:
        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            windows = draw_windows(
                step, stage.batch, self.shape.side, stage.window, stage.objects, stage.per_canvas
            ).to(self.device)
            return naming_loss(self.model, self.hints, windows)

        return loss

    def _answers(self, stage: Stage) -> Loss:
        base = 1_000_000 * self.stage  # so that no two stages see the same scenes
        pool: Pool | None = None
        current = -1

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            nonlocal pool, current
            rng = np.random.default_rng([base + step, 5])
            if stage.tower_rate:
                scenes = draw_scenes(base + step, stage.batch, stage.objects)
                places = all_places(self.model, len(scenes))
                features = project(self.model, pixels_of(scenes).to(self.device), places)
            else:
                number, turn, slot = pool_slot(step, stage.reuse)
                if pool is None or number != current:
                    pool, current = None, number  # free the old one first
                    pool = fill_pool(self.model, base + number, stage.batch, stage.objects)
                scenes, features = pool_batch(pool, number, turn, slot)
                places = all_places(self.model, len(scenes))
            if stage.tokens:
                tokens = draw_tokens(stage.tokens, stage.most, rng)
                places = choose_places(scenes, self.shape.side, tokens, rng).to(self.device)
                index = places[..., None].expand(-1, -1, features.shape[-1])
                features = features.gather(1, index)
            visual = self.shape.side**2
            text = ask_all(scenes, stage.questions, base + step, visual, rng).to(self.device)
            return answer_loss(self.model, features, places, text)

        return loss

    def train(self, deadline: float | None) -> bool:
        """Run the remaining stages; False where ``deadline`` (seconds of time.monotonic) came."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn()) as progress:
            while self.stage < len(self.stages):
                stage = self.stages[self.stage]
                if self.optimisers is None:
                    self.optimisers = self._optimisers(stage)
                task = progress.add_task(stage.name, total=stage.steps, completed=self.step)
                if not self._run_stage(stage, deadline, partial(progress.advance, task)):
                    return False
                self.optimisers = None
                self.stage, self.step = self.stage + 1, 0
        return True

    def _run_stage(self, stage: Stage, deadline: float | None, advance: Callable[[], None]) -> bool:
        assert self.optimisers is not None
        loss_of = self._loss(stage)
        saved = began = time.monotonic()
        while self.step < stage.steps:
            with torch.autocast(self.device, torch.bfloat16):
                loss, report = loss_of(self.step)
            loss.backward()
            factor = rate_factor(self.step, stage.steps, stage.warmup, stage.decay)
            self.optimisers.step(factor)
            self.step += 1
            self.canvases += stage.batch
            now = time.monotonic()
            self.seconds, began = self.seconds + now - began, now
            advance()
            if self.step % _LOG_EVERY == 0:
                self.log.write(
                    stage=stage.name,
                    step=self.step,
                    minutes=self.seconds / 60,
                    canvases=self.canvases,
                    loss=float(loss.detach()),
                    **report,
                )
            late = deadline is not None and now > deadline
            if late or now - saved > _SAVE_SECONDS or self.step == stage.steps:
                self.save()
                saved = now
            if late:
                return False
        return True


def train(
    name: str = "tiny-llava",
    output: Path = Path("runs/tiny-llava"),
    minutes: float | None = None,
    resume: bool = False,
    stages: Sequence[Stage] = TINY_LLAVA,
    shape: Shape | None = None,
) -> bool:
    """Train ``name`` into ``output`` (checkpoint.pt, log.jsonl); True when all stages are done.

    ``minutes`` stops earlier, at a checkpoint from which ``resume`` goes on. Stages that are
    still to come may be changed between the two.
    """
    if name != "tiny-llava":
        raise ValueError(f"no built-in model {name!r} to train; there is tiny-llava")
    output = Path(output)
    exists = (output / CHECKPOINT).exists()
    if exists and not resume:
        raise ValueError(f"{output} already holds a checkpoint: resume it or choose another folder")
    run = Run(output, stages, shape or Shape(), "cuda" if torch.cuda.is_available() else "cpu")
    if exists:
        run.restore()
    return run.train(None if minutes is None else time.monotonic() + 60 * minutes)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: ``python -m prunus.builtin.train``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="tiny-llava")
    parser.add_argument("--output", type=Path, default=Path("runs/tiny-llava"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--set", action="append", default=[], help="STAGE.FIELD=NUMBER")
    args = parser.parse_args(argv)
    train(args.name, args.output, args.minutes, args.resume, _changed(TINY_LLAVA, args.set))


def _changed(stages: Sequence[Stage], settings: Sequence[str]) -> list[Stage]:
    """Stages with ``STAGE.FIELD=NUMBER`` applied."""
    changed = {stage.name: stage for stage in stages}
    for setting in settings:
        path, _, text = setting.partition("=")
        name, _, field = path.partition(".")
        if name not in changed or not hasattr(changed[name], field):
            raise ValueError(f"no field {path!r}; stages are {', '.join(changed)}")
        value: Any = float(text) if "." in text or "e" in text else int(text)
        changed[name] = replace(changed[name], **{field: value})
    return list(changed.values())


if __name__ == "__main__":
    main()
