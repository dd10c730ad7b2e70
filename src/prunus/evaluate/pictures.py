"""Pictures of what each method keeps of the same scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from prunus.errors import PrunusError
from prunus.evaluate.asker import answer_tokens
from prunus.evaluate.cells import Cell
from prunus.evaluate.scoring import is_right
from prunus.inference.batches import Vision, encode, left_padded
from prunus.method.budget import Meaning
from prunus.results.trace import TraceEntry
from prunus.run import prune
from prunus.tasks.sets import Clip, EvalSet
from prunus.viz import Panel, as_picture, draw_panels, heat_map
from prunus.viz.entry import Spot, draw_entry, last_removal


@torch.inference_mode()
def draw_choices(
    model: Any,
    processor: Any,
    data: EvalSet,
    queries: Sequence[int],
    cells: Sequence[Cell],
    path: Path,
    size: float = 1.7,
    budget: Meaning = "nominal",
) -> Path:
    """One row of panels per question: the image, then for each pruning cell its scores (as ranks,
    where it has any) and the patches left at the last layer, with the answer below. The file has
    256 colours, which grey and flat colours do not miss, and is a third of the size.

    Raises:
        PrunusError: no such question, or matplotlib is missing.
    """
    vision = Vision(model)
    tokenizer = getattr(processor, "tokenizer", processor)
    new_tokens = answer_tokens(processor, data)
    rows = []
    for number in queries:
        if not 0 <= number < len(data.queries):
            raise PrunusError(f"there is no question {number}: the set has {len(data.queries)}")
        query = data.queries[number]
        image = data.seen(query.image)
        if isinstance(image, Clip):
            raise PrunusError("pictures are drawn of images, and these questions are about videos")
        encoded, pixels = encode(processor, number, query.text, image)
        padded = left_padded([encoded.ids], 0, [encoded.per_token])
        ids = {name: values.to(model.device) for name, values in padded.items()}
        prepared = vision.prepare([pixels])
        grid = prepared[0].grid
        if grid is None or len(grid.parts) > 1:
            raise PrunusError("pictures are drawn for models with one grid for each image")
        picture = as_picture(image.resize((grid.cols * grid.cell[1], grid.rows * grid.cell[0])))
        row = []
        for cell in cells:
            inputs = ids | vision.inputs(prepared, vision.must_run(cell.methods))
            if not cell.prunes:
                output = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
                text = _text(tokenizer, output, inputs)
                row.append(
                    Panel(picture, cell.name, f"{query.text}\n{_verdict(text, query.answer)}")
                )
                continue
            method = cell.method_for([(data.scenes[query.image], query.asked)], [grid])
            with prune(model, method, budget=budget) as run:
                output = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
                trace = run.trace
            text = _text(tokenizer, output, inputs)
            row += _panels(picture, cell, trace, _verdict(text, query.answer))
        rows.append(row)
    return draw_panels(rows, path, size=size, few_colours=True)


def _panels(picture: Any, cell: Cell, trace: Sequence[TraceEntry], verdict: str) -> list[Panel]:
    panels = []
    # scores of random and uniform are mere numbers of a lot: the choice says it all
    scored = [entry for entry in trace if entry.scores is not None]
    if scored and cell.name not in ("random", "uniform"):
        first = scored[0]
        assert first.scores is not None
        drawn = heat_map(picture, first.scores[0][0], first.grid[0][0])
        panels.append(Panel(drawn, f"{cell.name}: score"))
    removal = last_removal(trace)
    if removal is None:  # nothing but edits of attention, or nothing at all
        return [*panels, Panel(picture, f"{cell.name}: all left", verdict)]
    last, before = removal
    drawn, _ = draw_entry(last, Spot(picture), before)
    panels.append(Panel(drawn, f"{cell.name}: {len(last.kept[0][0])} left", verdict))
    return panels


def _text(tokenizer: Any, output: Any, inputs: Any) -> str:
    new = output[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True)).strip()


def _verdict(text: str, truth: str) -> str:
    return f"{text} (right)" if is_right(text, truth) else f"{text or 'nothing'} (true: {truth})"
