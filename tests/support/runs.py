"""What a run gives, what the oracles give for it, and how far the two are apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import prunus
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.oracles import layered, masked
from tests.support.oracles.edited import edited
from tests.support.oracles.made import made
from tests.support.oracles.masked import Visible, continued, visibility
from tests.support.oracles.merged import merged


def plain(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Logits ``[B, L, V]`` of one call."""
    with torch.no_grad():
        logits: Tensor = model(**inputs).logits
    return logits


def gap(a: Tensor, b: Tensor, valid: Tensor | None = None) -> float:
    """The largest difference, where ``valid`` is true if that is given."""
    difference = (a - b).abs()
    if valid is not None:
        difference = difference[valid.bool()]
    return float(difference.max())


def masked_logits(
    model: Any, inputs: dict[str, Tensor], visible: Visible, trace: list[Any]
) -> Tensor:
    """Logits of the oracles: tokens merged by hand in the tower, or made new at cuts, dropped ones
    hidden by masks, attention edited query by query. Where cuts close positions up, or make new
    tokens inside the decoder, or a layer has no attention to hide them from, layers run one by one
    on what is left."""
    removes = any(one.place != "attention" for one in trace)
    if (removes and layered.has_states(model)) or any(
        one.compact or (one.mix is not None and one.place == "decoder") for one in trace
    ):
        with merged(model, inputs, trace), made(model, inputs, trace, visible.spots):
            return layered.replayed(model, inputs, visible, trace)
    with (
        merged(model, inputs, trace),
        made(model, inputs, trace, visible.spots),
        edited(model, trace, visible.spots, visible.last),
    ):
        return masked.masked_logits(model, inputs, visible)


def survivors(case: Case, inputs: dict[str, Tensor], trace: list[Any]) -> Tensor:
    """Bool ``[B, L]``: valid positions that were never dropped."""
    alive = inputs["attention_mask"].bool().clone()
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for number, places in enumerate(images):
            for entry in trace:
                kept = set(entry.kept[row][number].tolist())
                alive[row, [p for n, p in enumerate(places) if n not in kept]] = False
    return alive


def decoded(
    case: Case, method: Any, inputs: dict[str, Tensor], steps: int
) -> tuple[prunus.Run, float]:
    """The run of ``steps`` greedy tokens, and how far their logits are from the oracle's."""
    with prunus.prune(case.model, method) as run:
        out = case.model.generate(
            **inputs,
            max_new_tokens=steps,
            min_new_tokens=steps,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    length = inputs["input_ids"].shape[1]
    full = continued(inputs, out.sequences)
    spots = case.prompts.spots(inputs["input_ids"])
    visible = visibility(run.trace, spots, full["attention_mask"], DEPTH, length)
    expected = masked_logits(case.model, full, visible, run.trace)
    cached = torch.stack(out.logits, dim=1)
    return run, gap(cached, expected[:, length - 1 : length - 1 + steps])
