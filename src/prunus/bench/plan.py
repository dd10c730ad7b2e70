"""From options to cases: what is built, and what is timed of it."""

from __future__ import annotations

import datetime
import math
import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prunus.bench.machine import machine, state
from prunus.bench.measure import Asked, measure, methods_named
from prunus.bench.papers import beside, papers
from prunus.bench.presets import DEFAULT, Preset, preset_of
from prunus.bench.report import FORMAT, Bench, Case
from prunus.bench.shapes import shape_of
from prunus.bench.workload import QUESTION, Workload, of_model, of_shape, weight_bytes
from prunus.errors import PrunusError, brief, shown
from prunus.families import family_of
from prunus.inference.params import parse_keep
from prunus.method.budget import Meaning

_DTYPES = ("float32", "bfloat16", "float16")
#: On a GPU the first calls tune and load kernels, and rounds are short.
_WARM_UP = {"cpu": 2, "cuda": 10}
_GPU_ROUNDS = 20
#: Text tokens of the prompt of a shape.
WORDS = 60


@dataclass(frozen=True)
class Plan:
    """What is to be timed; of ``shape`` and ``model`` one is None."""

    preset: str | None
    shape: str | None
    model: str | None
    scale: float
    image: Path | None
    batches: Sequence[int]
    attentions: Sequence[str]
    frames: int | None
    words: int
    dtype: str
    device: str
    compiled: bool
    published: Sequence[str]
    asked: Asked


def make_plan(
    *,
    preset: str | None = None,
    shape: str | None = None,
    scale: float | None = None,
    model: str | None = None,
    image: Path | None = None,
    methods: Sequence[str] | None = None,
    keep: str | None = None,
    budget: Meaning = "nominal",
    batches: Sequence[int] = (1,),
    tokens: Sequence[int] | None = None,
    frames: int | None = None,
    words: int | None = None,
    attentions: Sequence[str] = ("sdpa",),
    dtype: str = "auto",
    device: str = "cpu",
    compiled: bool = False,
    rounds: int | None = None,
) -> Plan:
    """The plan that these options mean; what was left out is the preset's, or, without one, that of
    ``cpu`` on a CPU.

    Raises:
        PrunusError: options that contradict each other, names that do not exist.
    """
    kind = _kind(device)
    if preset is None and shape is None and model is None and kind == "cpu":
        preset = "cpu"
    chosen: Preset = DEFAULT if preset is None else preset_of(preset)
    if model is not None and shape is not None:
        raise PrunusError("give either a shape or a model, not both")
    if model is None and image is not None:
        raise PrunusError("a shape draws its own picture: leave --image out, or give --model")
    if model is not None and not (scale is None and frames is None and words is None):
        raise PrunusError("--scale, --frames and --words are for shapes: leave out with --model")
    if scale is not None and not (math.isfinite(scale) and 0 < scale <= 1):
        raise PrunusError(f"--scale {scale:g}: give a number above 0, at most 1")
    if dtype != "auto" and dtype not in _DTYPES:
        raise PrunusError(f"--dtype {shown(dtype)}: choose auto, {', '.join(_DTYPES)}")
    named = chosen.shape if shape is None and model is None else shape
    if frames is None and named == chosen.shape and chosen.frames is not None:
        frames = chosen.frames[kind == "cpu"]
    if named is not None:
        shape_of(named)
    if dtype == "auto" and model is None:
        dtype = "bfloat16" if kind == "cuda" else "float32"
    keep = chosen.keep if keep is None else keep
    if keep is not None:
        parse_keep(keep)
    asked = Asked(
        tuple(chosen.methods if methods is None else methods),
        keep,
        budget,
        tuple(chosen.tokens if tokens is None else tokens),
        rounds or (chosen.rounds if kind == "cpu" else _GPU_ROUNDS),
        _WARM_UP[kind],
    )
    if len(set(asked.methods)) < len(asked.methods):
        raise PrunusError("a method is named twice")
    for name in asked.methods:  # what is misspelt is said at once
        methods_named(name, keep)
    scaled = chosen.scale if kind == "cpu" and shape is None and model is None else 1.0
    return Plan(
        preset,
        named,
        model,
        scaled if scale is None else scale,
        image,
        tuple(batches),
        tuple(attentions),
        frames,
        words or WORDS,
        dtype,
        device,
        compiled,
        chosen.published if named == chosen.shape else (),
        asked,
    )


def _kind(device: str) -> str:
    """What kind of device it is: cpu or cuda.

    Raises:
        PrunusError: another device, or one that is not there.
    """
    try:
        kind = torch.device(device).type
        if kind not in ("cpu", "cuda"):
            raise PrunusError(f"--device {device}: only cpu and cuda have a clock here")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch's own ways to say so
        if isinstance(error, PrunusError):
            raise
        raise PrunusError(
            f"device {shown(device)} cannot be used (auto takes what there is): {brief(error)}"
        ) from error
    return kind


def run_plan(
    plan: Plan, command: str, step: Callable[[str, int, int], None] = lambda *_: None
) -> Bench:
    """Build, time, and put together; ``step`` is told a name, and how many rounds of how many of a
    case are done.

    Raises:
        PrunusError: what is asked for does not run here.
    """
    device, began = torch.device(plan.device), time.time()
    before = state(device)
    work = _workload(plan, device)
    cases: list[Case] = []
    for attention in plan.attentions:
        _attend(work.model, attention)
        if plan.compiled:
            compile_layers(work.model)
        for batch in plan.batches:
            name = f"{work.name}, batch {batch}, {attention}"
            cases.append(measure(work, plan.asked, batch, partial(step, name)))
    dtype = str(work.model.dtype).removeprefix("torch.")  # what auto became
    settings = asdict(replace(plan, image=None, dtype=dtype))
    return Bench(
        format=FORMAT,
        made={
            "command": command,
            "date": datetime.date.today().isoformat(),
            "seconds": round(time.time() - began, 1),
            **machine(device),
            "before": before,
            "after": state(device),
            "settings": {**settings.pop("asked"), **settings},
        },
        notes=_notes(plan, device, command),
        cases=cases,
        published=[beside(papers()[one], cases[0]) for one in plan.published],
    )


def _workload(plan: Plan, device: torch.device) -> Workload:
    if plan.model is not None:
        return of_model(plan.model, plan.image, QUESTION, dtype=plan.dtype, device=device)
    assert plan.shape is not None
    kind: torch.dtype = getattr(torch, plan.dtype)
    need, there = weight_bytes(plan.shape, plan.scale, kind), _memory(device)
    if there is not None and need > 0.8 * there:
        raise PrunusError(
            f"{plan.shape} at scale {plan.scale:g} has {need / 1e9:.1f} GB of weights in "
            f"{plan.dtype}, and {there / 1e9:.1f} GB are free: give --scale, as in --scale 0.25, "
            "or another --dtype"
        )
    return of_shape(
        plan.shape,
        scale=plan.scale,
        words=plan.words,
        frames=plan.frames,
        dtype=kind,
        device=device,
        attention="sdpa",
    )


def _memory(device: torch.device) -> float | None:
    """Free bytes; None where nobody can tell."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:  # what caches of files occupy is free as well, but not among the free pages
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("MemAvailable:"):
            return 1024.0 * float(line.split()[1])
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" not in names:
        return None
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _attend(model: Any, attention: str) -> None:
    """Let ``model`` use this attention.

    Raises:
        PrunusError: it cannot.
    """
    try:
        model.set_attn_implementation(attention)
    except (ImportError, ValueError) as error:
        raise PrunusError(
            f"--attention {shown(attention)} cannot be used here: {brief(error)}"
        ) from error


def compile_layers(model: Any, backend: str = "inductor") -> None:
    """Compile each decoder layer of ``model`` by itself, as it is: the engine's work between them
    stays in Python, and lengths may change."""
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for layer in family_of(model).layers:
        layer.compile(backend=backend, dynamic=True)


def _notes(plan: Plan, device: torch.device, command: str = "") -> list[str]:
    if plan.model is not None or plan.scale == 1.0:
        return []
    found = []
    learned = [name for name in plan.asked.methods if _is_learned(name, plan.asked.keep)]
    if learned:
        found.append(
            f"{', '.join(learned)}: the selector has all layers of the paper's, the model only "
            f"{plan.scale:g} of its depth: choosing weighs more here than at full size, and ratios "
            "to the dense model mislead"
        )
    if device.type != "cuda" and plan.preset is not None:
        found.append(f"scaled down for a CPU; on a GPU: {on_gpu(plan.preset, command)}")
    return found


def _is_learned(name: str, keep: str | None) -> bool:
    return any(hasattr(one, "with_selector") for one in methods_named(name, keep))


def on_gpu(preset: str, command: str) -> str:
    """``command``, as it was typed, for the whole shape of ``preset`` on a GPU: with the options
    that were given, but those that say where, and how small."""
    words = iter(shlex.split(command) or ("prunus", "bench"))
    kept = []
    for word in words:
        if word in ("--scale", "--device", "--preset"):
            next(words, None)
        elif not word.startswith(("--scale=", "--device=", "--preset=")):
            kept.append(word)
    place = kept.index("bench") + 1 if "bench" in kept else len(kept)
    kept[place:place] = ["--preset", preset]
    written = any(word == "--output" or word.startswith("--output=") for word in kept)
    return shlex.join([*kept, "--device", "cuda", *(() if written else ("--output", "out"))])
