"""Generating an answer that is given beforehand, so that two runs can be compared step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from prunus.checking.dense import cache_of
from prunus.checking.probe import Probe


@dataclass(frozen=True)
class Answer:
    """``logits [B, steps, V]`` from which each token would have been taken, and the cache."""

    logits: Tensor
    cache: Any


class _Given(LogitsProcessor):  # type: ignore[misc]
    """Lets each step choose one token only."""

    def __init__(self, start: int, tokens: Sequence[int]) -> None:
        self._start, self._tokens = start, tokens

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        only = torch.full_like(scores, -torch.inf)
        only[:, self._tokens[input_ids.shape[1] - self._start]] = 0.0
        return only


def generate(model: Any, probe: Probe) -> Answer:
    """``model.generate`` on the batch, made to say ``probe.answer``."""
    steps = len(probe.answer)
    output = model.generate(
        **probe.batch,
        max_new_tokens=steps,
        do_sample=False,
        num_beams=1,
        logits_processor=[_Given(probe.valid.shape[1], probe.answer)],
        output_logits=True,
        return_dict_in_generate=True,
    )
    return Answer(torch.stack(output.logits, dim=1), cache_of(output))
