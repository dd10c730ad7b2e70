"""Position ids of the caller under ``positions="compact"``: gaps are closed, nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Uniform
from tests.support.models import Case
from tests.support.runs import gap

BEFORE = Uniform(keep=5, layer=None)


def two_steps(case: Case, inputs: dict[str, Tensor], offset: int | None = None) -> Any:
    """Last logits of the prompt, and those of one more token on its cache."""
    rows, length = inputs["input_ids"].shape
    where: dict[str, Tensor] = {}
    then: dict[str, Tensor] = {}
    if offset is not None:
        where["position_ids"] = torch.arange(length)[None] + offset
        then["position_ids"] = torch.tensor([[length + offset]])
    mask = torch.cat([inputs["attention_mask"], torch.ones(rows, 1, dtype=torch.long)], 1)
    with prunus.prune(case.model, BEFORE, positions="compact"), torch.no_grad():
        prompt = case.model(**inputs, **where, use_cache=True)
        step = case.model(
            input_ids=torch.tensor([[41]] * rows),
            attention_mask=mask,
            past_key_values=prompt.past_key_values,
            **then,
        )
    return prompt.logits[:, -1], step.logits[:, -1]


def test_a_padded_row_goes_on_where_it_ended(llava: Case) -> None:
    """forward() by itself counts padding; before, the next token then stood behind a gap."""
    inputs = llava.prompts.rows(1, 2)
    together = two_steps(llava, inputs)
    alone = two_steps(llava, llava.prompts.one(inputs, 0, True))
    for ours, theirs in zip(together, alone, strict=True):
        assert gap(ours[0], theirs[0]) < 1e-4


def test_positions_that_begin_elsewhere(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    for ours, theirs in zip(two_steps(llava, inputs, 100), two_steps(llava, inputs), strict=True):
        assert gap(ours, theirs) < 1e-4


def joined(case: Case) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Two prompts in one row, and each by itself."""
    both = case.prompts.rows(1, 1)
    parts = [case.prompts.one(both, row, True) for row in range(2)]
    names = ("input_ids", "pixel_values")
    call = {name: torch.cat([p[name] for p in parts], int(name == "input_ids")) for name in names}
    ends = [torch.arange(part["input_ids"].shape[1]) for part in parts]
    return {**call, "position_ids": torch.cat(ends)[None]}, parts


def test_packed_rows_without_a_mask_are_refused(llava: Case) -> None:
    """Closed up, the ids would no longer tell the model that there are two."""
    call, _ = joined(llava)
    with prunus.prune(llava.model, BEFORE, positions="compact"):
        with pytest.raises(prunus.PrunusError, match="several prompts in one row"):
            llava.model(**call, use_cache=False)


def test_packed_rows_with_a_mask_are_right(llava: Case) -> None:
    call, parts = joined(llava)
    lengths = [part["input_ids"].shape[1] for part in parts]
    owner = torch.tensor([0] * lengths[0] + [1] * lengths[1])
    mask = (owner[:, None] == owner[None]).tril()[None, None]
    with prunus.prune(llava.model, BEFORE, positions="compact"), torch.no_grad():
        found = llava.model(**call, attention_mask=mask, use_cache=False).logits[0]
        alone = [llava.model(**part, use_cache=False).logits[0] for part in parts]
    assert gap(found[lengths[0] - 1], alone[0][-1]) < 1e-4
    assert gap(found[-1], alone[1][-1]) < 1e-4
