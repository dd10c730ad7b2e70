"""How ``tiny-qwen`` is trained."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prunus.recipes.answers import draw_tokens, pool_slot
from prunus.recipes.optim import Optimisers
from prunus.recipes.qwen.answers import (
    POOL,
    Batch,
    answer_loss,
    ask_all,
    choose,
    draw_batch,
    encode,
)
from prunus.recipes.qwen.model import QwenShape, build_model
from prunus.recipes.qwen.naming import Hints, draw_named, naming_loss
from prunus.recipes.qwen.warm import start_from
from prunus.recipes.recipe import Loss
from prunus.recipes.schedule import Stage


class QwenRecipe:
    """Model, read-outs and losses of ``tiny-qwen``; see :class:`prunus.recipes.recipe.Recipe`.

    In its own shape the language model begins as that of ``tiny-llava``, in others from nothing.
    """

    def __init__(self, shape: QwenShape | None, device: str) -> None:
        from prunus.builtin import load_builtin

        self.shape, self._device = shape or QwenShape(), device
        self.model = build_model(self.shape)
        if self.shape == QwenShape():
            start_from(self.model, load_builtin("tiny-llava")[0])
        self.model.to(device)
        torch.manual_seed(1)
        self.hints = Hints(self.shape.width).to(device)

    def optimisers(self, stage: Stage) -> Optimisers:
        """The tower for naming; the language model for answers, and the tower where the stage has
        a rate for it."""
        model = self.model.model
        self.model.requires_grad_(True)
        if stage.kind == "naming":
            return Optimisers([([model.visual, self.hints], stage.rate)])
        groups = [([model.language_model, self.model.lm_head, self.hints], stage.rate)]
        if stage.tower_rate:
            groups.append(([model.visual], stage.rate * stage.tower_rate))
        else:
            model.visual.requires_grad_(False)
        return Optimisers(groups)

    def loss(self, stage: Stage, number: int) -> Loss:
        """The loss of stage ``number``."""
        return self._naming(stage) if stage.kind == "naming" else self._answers(stage, number)

    def _naming(self, stage: Stage) -> Loss:
        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            batch = draw_named(step, stage.batch, self.shape.cell, stage.objects, stage.videos)
            return naming_loss(self.model, self.hints, batch.to(self._device))

        return loss

    def _draw(self, stage: Stage, number: int) -> Batch:
        return draw_batch(number, stage.batch, self.shape.cell, stage.objects, stage.videos)

    def _answers(self, stage: Stage, number: int) -> Loss:
        base = 1_000_000 * number  # so that no two stages see the same scenes
        pool: list[tuple[Batch, Tensor]] = []
        current = -1

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            nonlocal pool, current
            rng = np.random.default_rng([base + step, 11])
            if stage.tower_rate:
                batch = self._draw(stage, base + step)
                features = encode(self.model, batch)
            else:
                number, turn, slot = pool_slot(step, stage.reuse)
                if number != current:
                    current, pool = number, []  # free the old one first
                    pool = self._fill(stage, base + number)
                order = np.random.default_rng([number, turn, 12]).permutation(POOL)
                batch, kept = pool[order[slot]]
                features = kept.float()
            chosen = None
            if stage.tokens:
                tokens = min(draw_tokens(stage.tokens, stage.most, rng), features.shape[1])
                chosen = choose(batch, tokens, rng).to(self._device)
            text = ask_all(batch, stage.questions, base + step, rng).to(self._device)
            return answer_loss(self.model, self.hints, batch, features, text, chosen)

        return loss

    @torch.no_grad()
    def _fill(self, stage: Stage, number: int) -> list[tuple[Batch, Tensor]]:
        """Encode pool ``number``: several batches, their pixels thrown away after."""
        pool = []
        for slot in range(POOL):
            batch = self._draw(stage, number * POOL + slot)
            features = encode(self.model, batch).bfloat16()
            batch.pixels = batch.pixels[:0]
            pool.append((batch, features))
        return pool
