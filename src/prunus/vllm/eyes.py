"""The vision side of a model as transformers has it, under prunus' engine, without its language
model: pixels in, what is left of each image out.

The engine is the one of ``prunus.prune``: the same hooks in tower and projector, the same views,
the same merging. What it is given as a prompt is the image's placeholders alone, a row for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from prunus.engine.hooks import sweep
from prunus.engine.layout import Layout
from prunus.engine.lent import give_back
from prunus.engine.plan import make_plan
from prunus.engine.prefill import Prefill
from prunus.engine.prompt import find_images
from prunus.engine.side import SideInputs
from prunus.engine.tower.vision import Vision
from prunus.engine.traffic import Traffic
from prunus.errors import PrunusError
from prunus.families import Beside
from prunus.vllm.counts import family_by
from prunus.vllm.setting import Setting


@dataclass(frozen=True)
class Left:
    """What is left of one image, or video.

    Attributes:
        features: ``[k, D]``, what the language model is given, in reading order.
        places: int64 ``[k]``, which of its placeholders each of them stands at.
        beside: ``[k, D]`` each, what is added behind the first decoder layers (DeepStack).
        kept: int64, ascending, the cells that are left.
    """

    features: Tensor
    places: Tensor
    beside: tuple[Tensor, ...]
    kept: Tensor


class Eyes:
    """Tower and projector ``core`` (a transformers model whose language model is a stub) with the
    methods of ``config``.

    Args:
        words: the language model's word embeddings, ``[V, D]``: learned selectors tell models apart
            by them.

    Raises:
        PrunusError: methods that this model, or vLLM, cannot serve.
    """

    def __init__(self, config: Any, core: Any, words: Tensor, dtype: torch.dtype) -> None:
        setting = Setting.of(config)
        table = SimpleNamespace(weight=words)
        top = SimpleNamespace(
            config=config, model=core, dtype=dtype, get_input_embeddings=lambda: table
        )
        self.core, self.dtype = core, dtype
        self.family = family_by(config, top)
        methods = setting.methods(self.family.depth)
        self.plan = make_plan(methods, self.family, "original", setting.budget)
        self._vision = Vision(self.family, self.plan)
        self._traffic = Traffic()
        self._vision.attach(self, {}, self._traffic)

    def close(self) -> None:
        """Take all hooks out of tower and projector."""
        give_back(self.core, self)
        sweep(self.core, self)

    def see(
        self,
        kind: str,
        call: Mapping[str, Any],
        beside: Mapping[str, Any] | None = None,
        places: Tensor | None = None,
    ) -> list[Left]:
        """What is left of each input of a ``kind`` that ``call`` brings, arguments as the model's
        own forward takes them; ``beside`` them what else of these says how inputs are laid out.
        Where positions are no line, ``places`` says them: int64 ``[A, inputs, longest]``, counted
        from the beginning of each input.

        Raises:
            PrunusError: pixels that are none, or an answer of a method that makes no sense.
        """
        whole = {**call, **(beside or {})}
        grids = self.family.grids_of(whole)
        self._traffic.enter()
        self._vision.called(whole)
        try:
            rows, deep = self._features(kind, call)
            rows = _by_input(rows, [len(self.family.cells(own)) for own in grids.get(kind, ())])
            return self._choose(kind, grids, rows, deep, places)
        finally:
            self._vision.leave()
            self._traffic.leave()

    def _features(self, kind: str, call: Mapping[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """Embeddings ``[n, D]`` of each input; and what is beside all of them, ``[sum of n, D]`` by
        decoder layer."""
        named = {"image": "get_image_features", "video": "get_video_features"}[kind]
        out = getattr(self.core, named)(**call, return_dict=True)
        rows = [own.reshape(-1, own.shape[-1]) for own in out.pooler_output]
        deep = getattr(out, "deepstack_features", None) or ()
        return rows, [torch.cat([*of_layer]) for of_layer in deep]

    def _choose(
        self,
        kind: str,
        grids: Mapping[str, Sequence[Any]],
        rows: Sequence[Tensor],
        deep: Sequence[Tensor],
        ids: Tensor | None,
    ) -> list[Left]:
        lengths = [len(own) for own in rows]
        states = torch.nn.utils.rnn.pad_sequence([*rows], batch_first=True)
        steps = torch.arange(states.shape[1], device=states.device)
        there = steps[None] < torch.tensor(lengths, device=states.device)[:, None]
        prompt = find_images(self.family, {kind: there}, {kind: [*grids.get(kind, ())]})
        if [image.row for image in prompt.images] != [*range(len(rows))]:
            raise PrunusError(
                f"{len(rows)} {kind}s were seen, and their grids are those of "
                f"{len(prompt.images)}: this model's inputs are not what prunus knows"
            )
        last = torch.tensor(lengths, device=states.device) - 1
        running = Prefill(self.family, there, prompt, last, self.plan)
        running.line = False
        running.looks.ids = ids
        running.side = SideInputs(
            {layer: Beside(layer, there, values) for layer, values in enumerate(deep)}
        )
        states = self._vision.hand_over(running, states)
        for step in self.plan.features:
            states = running.cut(step.method, step.stage, step.cut, states)
        if running.order:
            before = running.layout
            running.reorder()
            states = before.take(states, running.layout)
        return [
            _left(running, row, states, there, image.present)
            for row, image in enumerate(prompt.images)
        ]


def _by_input(rows: list[Tensor], lengths: list[int]) -> list[Tensor]:
    """Features of each input, of so many placeholders, where a model gives them tile by tile."""
    if len(rows) == len(lengths) or sum(map(len, rows)) != sum(lengths):
        return rows
    return [*torch.cat(rows).split(lengths)]


def _left(running: Prefill, row: int, states: Tensor, there: Tensor, kept: Tensor) -> Left:
    layout = running.layout
    real = _real(layout, row, there)
    places = layout.index[row][real]
    number = (there.flatten().long().cumsum(0) - 1).view_as(there)[row][places]
    beside = tuple(one.values[number] for _, one in sorted(running.side.by_layer.items()))
    return Left(states[row][real], places, beside, kept)


def _real(layout: Layout, row: int, there: Tensor) -> Tensor:
    """Bool ``[S]``: slots of ``row`` that hold a token, neither filled up nor padding."""
    real = there[row][layout.index[row]]
    return real if layout.valid is None else real & layout.valid[row]


class Stub(nn.Module):
    """In the place of the language model: as many layers as it has, and nothing in them."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(nn.Identity() for _ in range(config.num_hidden_layers))
