"""First training stage: every patch learns to name itself in the language model's own words.

The projected patch, multiplied with the word embeddings of a group (kinds, colours, digits,
rows, columns), has to single out the right word. Object patches weigh twice as much as the
background as a whole, which would drown them otherwise. Windows of a crowded canvas keep their
position embeddings, so that position words mean the full canvas throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from prunus.recipes.tower import project
from prunus.tasks.labels import GROUPS, IGNORE, label_patches
from prunus.tasks.pictures import normalise
from prunus.tasks.scenes import make_scene, render_array
from prunus.tasks.words import vocabulary


class Hints(nn.Module):
    """Linear read-outs that training adds and the finished model does not have.

    They ask projected patches for the centre of their object and for being that centre (one
    patch per object: what counting needs).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.center = nn.Linear(width, 2)
        self.middle = nn.Linear(width, 1)


@dataclass
class Windows:
    """A batch of windows. ``n`` is patches per window, row-major."""

    pixels: Tensor  # (b, 3, h, w) float32
    places: Tensor  # (b, n) int64, patch index on the full canvas
    words: dict[str, Tensor]  # each (b, n) int64
    owner: Tensor  # (b, n) int64
    center: Tensor  # (b, n, 2) float32, in 0..1
    middle: Tensor  # (b, n) bool

    def to(self, device: str) -> Windows:
        """The same batch on another device."""
        words = {name: target.to(device) for name, target in self.words.items()}
        others = (self.pixels, self.places, self.owner, self.center, self.middle)
        pixels, places, owner, center, middle = (tensor.to(device) for tensor in others)
        return Windows(pixels, places, words, owner, center, middle)


def draw_windows(
    seed: int, canvases: int, side: int, window: int, objects: tuple[int, int], per_canvas: int
) -> Windows:
    """Windows of ``window`` x ``window`` patches from fresh training scenes.

    Objects that a window cuts are left out of its targets (their patches are ignored).
    """
    rng = np.random.default_rng([seed, 2])
    pixels, places, owners, centers, middles = [], [], [], [], []
    words: dict[str, list[np.ndarray]] = {name: [] for name in GROUPS}
    index = np.arange(side * side).reshape(side, side)
    for number in range(canvases):
        scene = make_scene(seed * canvases + number, "train", objects)
        image = render_array(scene)
        labels = label_patches(scene, side)
        patch = image.shape[0] // side
        for _ in range(per_canvas):
            top, left = rng.integers(0, side - window + 1, size=2)
            area = (slice(top, top + window), slice(left, left + window))
            whole = np.array(
                [
                    o.x >= left * patch
                    and o.y >= top * patch
                    and o.x + o.size <= (left + window) * patch
                    and o.y + o.size <= (top + window) * patch
                    for o in scene.objects
                ]
                + [True]  # background, by index -1
            )
            owner = labels.owner[area]
            asked = whole[np.where(owner == IGNORE, -1, owner)]
            for name, targets in words.items():
                targets.append(np.where(asked, labels.words[name][area], IGNORE).ravel())
            owners.append(np.where(asked, owner, IGNORE).ravel())
            centers.append(labels.center[area].reshape(-1, 2))
            middles.append(labels.middle[area].ravel())
            places.append(index[area].ravel())
            at = slice(top * patch, (top + window) * patch)
            pixels.append(image[at, left * patch : (left + window) * patch])
    return Windows(
        normalise(torch.from_numpy(np.stack(pixels))),
        torch.from_numpy(np.stack(places)),
        {name: torch.from_numpy(np.stack(v)) for name, v in words.items()},
        torch.from_numpy(np.stack(owners)),
        torch.from_numpy(np.stack(centers)),
        torch.from_numpy(np.stack(middles)),
    )


def naming_loss(
    model: LlavaForConditionalGeneration, hints: Hints, batch: Windows
) -> tuple[Tensor, dict[str, float]]:
    """Loss (scalar) and how often object patches get the right word, per group."""
    return name_features(model, hints, project(model, batch.pixels, batch.places).float(), batch)


def name_features(
    model: LlavaForConditionalGeneration, hints: Hints, features: Tensor, batch: Windows
) -> tuple[Tensor, dict[str, float]]:
    """As :func:`naming_loss`, for projected patches ``(b, n, width)`` float32."""
    table = model.get_input_embeddings().weight
    ids = {token: index for index, token in enumerate(vocabulary())}
    on_object, on_ground = batch.owner >= 0, batch.owner == -1
    loss = features.new_zeros(())
    report: dict[str, float] = {}
    for name, choices in GROUPS.items():
        target = batch.words[name]
        logits = (features @ table[[ids[word] for word in choices]].T).float()
        costs = nn.functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=IGNORE, reduction="none"
        ).view_as(target)
        asked = on_object & (target != IGNORE)
        loss = loss + costs[asked].mean()
        if name in ("kind", "row", "column"):
            loss = loss + 0.5 * costs[on_ground].mean()
        report[name] = float((logits.argmax(-1) == target)[asked].float().mean())
        if name == "kind":
            report["background"] = float((logits.argmax(-1) == target)[on_ground].float().mean())
    offset = hints.center(features).float() - batch.center
    loss = loss + 20 * offset[on_object].square().sum(-1).mean()
    report["center_px"] = float(offset.detach()[on_object].abs().mean()) * 192
    known = on_object | on_ground
    middle = nn.functional.binary_cross_entropy_with_logits(
        hints.middle(features)[..., 0].float(), batch.middle.float(), reduction="none"
    )
    loss = loss + middle[on_object].mean() + 0.5 * middle[on_ground].mean()
    report["middle"] = float(middle.detach()[known].mean())
    return loss, report
