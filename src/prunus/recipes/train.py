"""Trains a built-in model: staged, seeded, resumable, on CPU or GPU."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from prunus.errors import PrunusError
from prunus.io import checkpoint
from prunus.io.claim import claim
from prunus.io.files import append_line, make_folder
from prunus.recipes.llava import LlavaRecipe
from prunus.recipes.optim import Optimisers, rate_factor
from prunus.recipes.qwen.recipe import QwenRecipe
from prunus.recipes.qwen.schedule import TINY_QWEN
from prunus.recipes.recipe import Recipe
from prunus.recipes.schedule import TINY_LLAVA, Stage

CHECKPOINT = "checkpoint.pt"
_LOG_EVERY = 20
_SAVE_SECONDS = 120.0

#: How each model is trained: its recipe (given shape and device) and its stages.
RECIPES: dict[str, tuple[Callable[[Any, str], Recipe], Sequence[Stage]]] = {
    "tiny-llava": (LlavaRecipe, TINY_LLAVA),
    "tiny-qwen": (QwenRecipe, TINY_QWEN),
}


class Log:
    """Appends one JSON object per line, with the time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path.parent)

    def write(self, **values: Any) -> None:
        """Append ``values``; floats are rounded to four places."""
        short = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
        append_line(self.path, json.dumps({"time": time.strftime("%H:%M:%S"), **short}))


class Run:
    """Everything that a training run consists of, so that it can stop and go on anywhere."""

    def __init__(self, output: Path, stages: Sequence[Stage], recipe: Recipe, device: str) -> None:
        self.output, self.stages, self.recipe, self.device = output, list(stages), recipe, device
        self.stage, self.step, self.seconds, self.canvases = 0, 0, 0.0, 0
        self.log = Log(output / "log.jsonl")
        self.optimisers: Optimisers | None = None

    def restore(self) -> None:
        """Go on from the checkpoint in the output folder."""
        state = checkpoint.load(self.output / CHECKPOINT)
        self.recipe.model.load_state_dict(state["model"])
        self.recipe.hints.load_state_dict(state["hints"])
        names = [stage.name for stage in self.stages]
        self.seconds, self.canvases = state["seconds"], state["canvases"]
        self.stage, self.step = names.index(state["stage"]), state["step"]
        if self.step >= self.stages[self.stage].steps:
            self.stage, self.step = self.stage + 1, 0
        else:
            self.optimisers = self.recipe.optimisers(self.stages[self.stage])
            self.optimisers.load_state_dict(state["optimisers"])

    def save(self) -> None:
        """Write the checkpoint."""
        stage = self.stages[self.stage]
        optimisers = self.optimisers.state_dict() if self.optimisers else []
        checkpoint.save(
            self.output / CHECKPOINT,
            {
                "model": self.recipe.model.state_dict(),
                "hints": self.recipe.hints.state_dict(),
                "optimisers": optimisers,
                "stage": stage.name,
                "step": self.step,
                "seconds": self.seconds,
                "canvases": self.canvases,
                "shape": asdict(self.recipe.shape),
            },
        )

    def train(self, deadline: float | None) -> bool:
        """Run the remaining stages; False where ``deadline`` (seconds of time.monotonic) came."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn()) as progress:
            while self.stage < len(self.stages):
                stage = self.stages[self.stage]
                if self.optimisers is None:
                    self.optimisers = self.recipe.optimisers(stage)
                task = progress.add_task(stage.name, total=stage.steps, completed=self.step)
                if not self._run_stage(stage, deadline, partial(progress.advance, task)):
                    return False
                self.optimisers = None
                self.stage, self.step = self.stage + 1, 0
        return True

    def _run_stage(self, stage: Stage, deadline: float | None, advance: Callable[[], None]) -> bool:
        assert self.optimisers is not None
        loss_of = self.recipe.loss(stage, self.stage)
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
    output: Path | None = None,
    minutes: float | None = None,
    resume: bool = False,
    stages: Sequence[Stage] | None = None,
    shape: Any = None,
) -> bool:
    """Train ``name`` into ``output`` (checkpoint.pt, log.jsonl); True when all stages are done.

    ``output`` is by default ``runs/NAME``. ``minutes`` stops earlier, at a checkpoint from which
    ``resume`` goes on. Stages that are still to come may be changed between the two. ``shape`` is
    the model's own shape class, by default that of the model that ships.

    Raises:
        PrunusError: an unknown name, or a checkpoint is there and not to be resumed.
        PrunusStateError: another run trains into ``output``.
    """
    if name not in RECIPES:
        raise PrunusError(f"no built-in model {name!r} to train; there is {', '.join(RECIPES)}")
    build, usual = RECIPES[name]
    output = Path(output or Path("runs") / name)
    with claim(output):
        exists = (output / CHECKPOINT).exists()
        if exists and not resume:
            raise PrunusError(
                f"{output} already holds a checkpoint: resume it or choose another folder"
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        run = Run(output, usual if stages is None else stages, build(shape, device), device)
        if exists:
            run.restore()
        return run.train(None if minutes is None else time.monotonic() + 60 * minutes)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: ``python -m prunus.recipes.train``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="tiny-llava", choices=list(RECIPES))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--set", action="append", default=[], help="STAGE.FIELD=NUMBER")
    args = parser.parse_args(argv)
    stages = _changed(RECIPES[args.name][1], args.set)
    train(args.name, args.output, args.minutes, args.resume, stages)


def _changed(stages: Sequence[Stage], settings: Sequence[str]) -> list[Stage]:
    """Stages with ``STAGE.FIELD=NUMBER`` applied."""
    changed = {stage.name: stage for stage in stages}
    for setting in settings:
        path, _, text = setting.partition("=")
        name, _, field = path.partition(".")
        if name not in changed or not hasattr(changed[name], field):
            raise PrunusError(f"no field {path!r}; stages are {', '.join(changed)}")
        value: Any = float(text) if "." in text or "e" in text else int(text)
        changed[name] = replace(changed[name], **{field: value})
    return list(changed.values())


if __name__ == "__main__":
    main()
