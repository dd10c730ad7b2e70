"""First training stage: every visual token learns to name itself in the language model's words.

The tower's output, multiplied with the word embeddings of a group (kinds, colours, digits,
motions), has to single out the right word. The embeddings are those of ``tiny-llava`` and stay
as they are, so that its language model can read the new tower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from prunus.recipes.qwen.labels import GROUPS, TokenLabels, label_scene, label_video
from prunus.recipes.qwen.probe import Probe
from prunus.recipes.qwen.tower import project
from prunus.recipes.qwen.words import vocabulary
from prunus.tasks.labels import IGNORE
from prunus.tasks.pictures import VIDEO_SIDES, draw_size, image_pixels, video_pixels
from prunus.tasks.scenes import make_scene
from prunus.tasks.videos import make_video

_VIDEO_OBJECTS = (4, 7)


class Hints(nn.Module):
    """Linear read-outs that training adds and the finished model does not have.

    They ask visual tokens for the direction to the centre of their object and for being that
    centre; ``probe`` belongs to the second stage.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.center = nn.Linear(width, 2)
        self.middle = nn.Linear(width, 1)
        self.probe = Probe(width)


@dataclass
class Named:
    """A batch of frame pairs with the targets of their ``n`` tokens, row-major."""

    pixels: Tensor  # (b, 3, 2, h, w) float32
    words: dict[str, Tensor]  # each (b, n) int64
    owner: Tensor  # (b, n) int64
    center: Tensor  # (b, n, 2) float32
    middle: Tensor  # (b, n) bool

    def to(self, device: str) -> Named:
        """The same batch on another device."""
        words = {name: target.to(device) for name, target in self.words.items()}
        others = (self.owner, self.center, self.middle)
        owner, center, middle = (tensor.to(device) for tensor in others)
        return Named(self.pixels.to(device), words, owner, center, middle)


def draw_named(step: int, batch: int, cell: int, objects: tuple[int, int], videos: float) -> Named:
    """Fresh training scenes for one step: crowded images of one size, or crowded videos.

    ``videos`` is the share of steps that show videos, ``cell`` the side of a token in pixels.
    """
    rng = np.random.default_rng([step, 9])
    labels: list[TokenLabels]
    if rng.random() < videos:
        side = int(rng.choice(VIDEO_SIDES))
        moving = [make_video(step * batch + i, "train", _VIDEO_OBJECTS) for i in range(batch)]
        pixels = video_pixels(moving, side)
        grid = (side // cell, side // cell)
        labels = [part for video in moving for part in label_video(video, *grid)]
    else:
        size = draw_size(rng)
        scenes = [make_scene(step * batch + i, "train", objects) for i in range(batch)]
        pixels = image_pixels(scenes, size)
        labels = [label_scene(scene, size[0] // cell, size[1] // cell) for scene in scenes]
    words = {name: np.stack([one.words[name].ravel() for one in labels]) for name in GROUPS}
    return Named(
        pixels,
        {name: torch.from_numpy(target) for name, target in words.items()},
        torch.from_numpy(np.stack([one.owner.ravel() for one in labels])),
        torch.from_numpy(np.stack([one.center.reshape(-1, 2) for one in labels])),
        torch.from_numpy(np.stack([one.middle.ravel() for one in labels])),
    )


def naming_loss(
    model: Qwen2_5_VLForConditionalGeneration, hints: Hints, batch: Named
) -> tuple[Tensor, dict[str, float]]:
    """Loss (scalar) and how often object tokens get the right word, per group."""
    features = project(model, batch.pixels).float()
    table = model.get_input_embeddings().weight.detach()
    ids = {token: index for index, token in enumerate(vocabulary())}
    on_object, on_ground = batch.owner >= 0, batch.owner == -1
    loss = features.new_zeros(())
    report: dict[str, float] = {}
    for name, choices in GROUPS.items():
        target = batch.words[name]
        asked = on_object & (target != IGNORE)
        if not asked.any():
            continue
        logits = (features @ table[[ids[word] for word in choices]].T).float()
        costs = nn.functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=IGNORE, reduction="none"
        ).view_as(target)
        loss = loss + costs[asked].mean()
        right = logits.detach().argmax(-1) == target
        if name == "kind":
            loss = loss + 0.5 * costs[on_ground].mean()
            report["background"] = float(right[on_ground].float().mean())
        report[name] = float(right[asked].float().mean())
    offset = hints.center(features).float() - batch.center
    loss = loss + 0.5 * offset[on_object].square().sum(-1).mean()
    report["center"] = float(offset.detach()[on_object].abs().mean())
    middle = nn.functional.binary_cross_entropy_with_logits(
        hints.middle(features)[..., 0].float(), batch.middle.float(), reduction="none"
    )
    loss = loss + middle[on_object].mean() + 0.5 * middle[on_ground].mean()
    report["middle"] = float(middle.detach()[on_object | on_ground].mean())
    return loss, report
