"""How ``tiny-llava`` is trained."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prunus.recipes.answers import (
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
from prunus.recipes.model import Shape, build_model
from prunus.recipes.naming import Hints, draw_windows, naming_loss
from prunus.recipes.optim import Optimisers
from prunus.recipes.recipe import Loss
from prunus.recipes.schedule import Stage
from prunus.recipes.tower import project


class LlavaRecipe:
    """Model, read-outs and losses of ``tiny-llava``; see :class:`prunus.recipes.recipe.Recipe`."""

    def __init__(self, shape: Shape | None, device: str) -> None:
        self.shape, self._device = shape or Shape(), device
        self.model = build_model(self.shape).to(device)
        torch.manual_seed(1)
        self.hints = Hints(self.shape.width).to(device)

    def optimisers(self, stage: Stage) -> Optimisers:
        """Tower, projector and words for naming; the language model for answers, and the tower
        where the stage has a rate for it."""
        model = self.model.model
        sight = [model.vision_tower, model.multi_modal_projector]
        self.model.requires_grad_(True)
        if stage.kind == "naming":
            words = model.language_model.embed_tokens
            return Optimisers([([*sight, words, self.hints], stage.rate)])
        groups = [([model.language_model, self.model.lm_head], stage.rate)]
        if stage.tower_rate:
            groups.append((sight, stage.rate * stage.tower_rate))
        else:
            for module in sight:
                module.requires_grad_(False)
        return Optimisers(groups)

    def loss(self, stage: Stage, number: int) -> Loss:
        """The loss of stage ``number``."""
        return self._naming(stage) if stage.kind == "naming" else self._answers(stage, number)

    def _naming(self, stage: Stage) -> Loss:
        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            windows = draw_windows(
                step, stage.batch, self.shape.side, stage.window, stage.objects, stage.per_canvas
            ).to(self._device)
            return naming_loss(self.model, self.hints, windows)

        return loss

    def _answers(self, stage: Stage, number: int) -> Loss:
        base = 1_000_000 * number  # so that no two stages see the same scenes
        pool: Pool | None = None
        current = -1

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            nonlocal pool, current
            rng = np.random.default_rng([base + step, 5])
            if stage.tower_rate:
                scenes = draw_scenes(base + step, stage.batch, stage.objects)
                places = all_places(self.model, len(scenes))
                features = project(self.model, pixels_of(scenes).to(self._device), places)
            else:
                number, turn, slot = pool_slot(step, stage.reuse)
                if pool is None or number != current:
                    pool, current = None, number  # free the old one first
                    pool = fill_pool(self.model, base + number, stage.batch, stage.objects)
                scenes, features = pool_batch(pool, number, turn, slot)
                places = all_places(self.model, len(scenes))
            if stage.tokens:
                tokens = draw_tokens(stage.tokens, stage.most, rng)
                places = choose_places(scenes, self.shape.side, tokens, rng).to(self._device)
                index = places[..., None].expand(-1, -1, features.shape[-1])
                features = features.gather(1, index)
            visual = self.shape.side**2
            text = ask_all(scenes, stage.questions, base + step, visual, rng).to(self._device)
            return answer_loss(self.model, features, places, text)

        return loss
