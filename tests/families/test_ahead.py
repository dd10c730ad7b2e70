"""The first decoder layer run ahead, on every family: as its own language model would on the image
alone, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.signals.change import residual_norm
from tests.support.families import Kind
from tests.support.family_invariants import case_of, load
from tests.support.kinds import kinds
from tests.support.runs import plain

KINDS = {kind.name: kind for kind in kinds()}
REFUSED = {
    "gemma3": "see what stands behind",
    "gemma4": "something of its own in each layer",
    "gemma4-large": "see what stands behind",
    "molmo2": "see what stands behind",
    "paligemma": "see what stands behind",
    "paligemma2": "see what stands behind",
    "qwen3-vl": "more of an image than its embeddings",
    "qwen3-vl-moe": "more of an image than its embeddings",
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def first_layer(case: Any, inputs: dict[str, Tensor], change: int | None = None) -> Any:
    """What enters the first decoder layer of the unmodified model, and leaves it; with noise on the
    token at the place ``change``."""
    seen: dict[str, Any] = {}

    def before(module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        states = args[0] if args else given["hidden_states"]
        if change is not None:
            states = states.clone()
            states[0, change] += 1.0
        seen["enter"] = states
        return ((states, *args[1:]), given) if args else ((), {**given, "hidden_states": states})

    def after(module: Any, args: Any, output: Any) -> None:
        seen["leave"] = output[0] if isinstance(output, tuple) else output

    family = family_of(case.model)
    handles = [
        family.layers[0].register_forward_pre_hook(before, with_kwargs=True),
        family.layers[0].register_forward_hook(after),
        family.language_model.register_forward_pre_hook(
            lambda module, args, given: seen.update(ids=given.get("position_ids")), with_kwargs=True
        ),
    ]
    plain(case.model, inputs)
    for handle in handles:
        handle.remove()
    return seen


def alone(case: Any, states: Tensor, ids: Tensor) -> Tensor:
    """What leaves the first layer where the language model itself runs on ``states [1, n, D]``, at
    positions ``ids [A, 1, n]``."""
    seen: list[Any] = []
    family = family_of(case.model)
    handle = family.layers[0].register_forward_hook(lambda module, args, out: seen.append(out))
    mask = torch.ones(states.shape[:2], dtype=torch.long)
    with torch.no_grad():
        family.language_model(
            inputs_embeds=states,
            attention_mask=mask,
            position_ids=ids[0] if len(ids) == 1 else ids,
            use_cache=False,
        )
    handle.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


def test_it_is_the_layer_on_the_image_alone_or_refused(kind: Kind, tmp_path: Path) -> None:
    case = case_of(kind, load(kind, tmp_path), "I")
    inputs = case.prompts.rows(1)
    [places] = case.prompts.spots(inputs["input_ids"])[0]
    unmoved, moved = (first_layer(case, inputs, change) for change in (None, places[-1]))
    early = places[: len(places) // 2]
    same = torch.equal(unmoved["leave"][0, early], moved["leave"][0, early])
    assert same or kind.name in REFUSED  # a family that says nothing of it is of one way
    method = CLSE(keep=5, ahead=True, score_type="residual")
    if kind.name in REFUSED:
        with pytest.raises(PrunusError, match=REFUSED[kind.name]):
            prunus.prune(case.model, method)
        return
    with prunus.prune(case.model, method) as run:
        plain(case.model, inputs)
    ids, states = unmoved["ids"], unmoved["enter"]
    if ids is None:
        ids = torch.arange(states.shape[1])[None]
    ids = ids[None] if ids.ndim == 2 else ids[-3:]
    own, at = states[:, places], ids[:, :1, places]
    after = alone(case, own, at - at[..., :1])
    assert (after - own).abs().max() > 1e-3
    wanted = residual_norm(after, own)[0]
    torch.testing.assert_close(run.trace[0].scores[0][0], wanted, rtol=1e-4, atol=1e-5)
