"""Prompts as real processors make them, for the invariants of tests/engine/test_invariants.py.

Where visual tokens lie is told from token ids and the unmodified model, never from the family's
adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from tests.support.families import SIZES, Kind, encoded

_BY_INPUT = {
    "image": ("pixel_values", "image_grid_thw"),
    "video": ("pixel_values_videos", "video_grid_thw"),
}
#: Beside these, one entry for each input.
_EACH = {"image": ("pixel_values_images", "image_sizes", "batch_num_images"), "video": ()}


@dataclass
class RealPrompts:
    """Prompts of one ``kind``; the inputs of a row take turns between ``signs`` (``I``: an image,
    ``V``: a video, of which a row has one at most)."""

    kind: Kind
    model: Any
    processor: Any
    signs: str = "I"

    def rows(self, *images: int, text: int = 6, seed: int = 1) -> dict[str, Tensor]:
        """A left-padded batch; row i has ``images[i]`` images or videos and text around each."""
        rows = []
        for number, count in enumerate(images):
            row = "s" * seed
            for turn in range(count):
                row += "what "[: 3 + number] + self.signs[turn % len(self.signs)]
            rows.append(row + "is this, then?"[: text + number])
        return encoded(self.kind, self.processor, *rows)

    def spots(self, ids: Tensor) -> list[list[list[int]]]:
        """``[row][image]`` logical positions of the visual tokens, in the order of their cells."""
        return [[places for _, places in self._found(row)] for row in ids.tolist()]

    def one(self, inputs: dict[str, Tensor], row: int, trim: bool = False) -> dict[str, Tensor]:
        """One row of a batch by itself; ``trim`` takes its padding off."""
        ids = inputs["input_ids"]
        kept = inputs["attention_mask"][row].bool() if trim else slice(None)
        if self.kind.tile is not None:
            return self._tiles(inputs, row, kept)
        found = [[kind for kind, _ in self._found(own)] for own in ids.tolist()]
        alone = {
            name: inputs[name][row : row + 1, kept]
            for name in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
            if name in inputs
        }
        if "pixel_attention_mask" in inputs:  # pixels row by row, whatever images there are
            names = ("pixel_values", "pixel_attention_mask") if found[row] else ()
            return alone | {name: inputs[name][row : row + 1] for name in names}
        for kind, (pixels, grid) in _BY_INPUT.items():
            start = sum(own.count(kind) for own in found[:row])
            own = slice(start, start + found[row].count(kind))
            if own.start == own.stop:
                continue
            if self.kind.alone is not None:
                alone |= self.kind.alone(inputs, kind, own)
                continue
            if grid not in inputs:  # one entry of these for each image
                names = [name for name in (pixels, *_EACH[kind]) if name in inputs]
                names += [name for name in inputs if name == f"{kind}_position_ids"]
                alone |= {name: inputs[name][own] for name in names}
                continue
            ends = [0, *inputs[grid].prod(1).cumsum(0).tolist()]
            alone[pixels] = inputs[pixels][ends[own.start] : ends[own.stop]]
            alone[grid] = inputs[grid][own]
            names = [name for name in self.kind.each if name.startswith(kind)]
            alone |= {name: inputs[name][own] for name in names}
        return alone

    def _tiles(self, inputs: dict[str, Tensor], row: int, kept: Any) -> dict[str, Tensor]:
        """:meth:`one` where images have different numbers of rows of ``pixel_values``."""
        alone = {
            name: inputs[name][row : row + 1, kept] for name in ("input_ids", "attention_mask")
        }
        ends = [0]
        for own in inputs["input_ids"].tolist():
            tokens = sum(len(places) for _, places in self._found(own))
            ends.append(ends[-1] + tokens // (self.kind.tile or 1))
        if ends[row] < ends[row + 1]:
            alone["pixel_values"] = inputs["pixel_values"][ends[row] : ends[row + 1]]
        return alone

    def _found(self, row: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Kind and positions of each image or video of a row."""
        if self.kind.found is not None:
            return self.kind.found(self.model, row)
        config = self.model.config
        names = {config.image_token_id: "image"}
        if "V" in self.signs:
            names[config.video_token_id] = "video"
        found: list[tuple[str, list[int]]] = []
        for token, run in groupby(enumerate(row), key=lambda item: item[1]):
            if token not in names:
                continue
            kind, places = names[token], [place for place, _ in run]
            if kind == "image" and self.kind.name == "llava-next":
                places = [places[n] for n in cells_of(self.model, len(places))]
            if kind == "video" and found and found[-1][0] == "video":  # the next time step
                found[-1][1].extend(places)
            else:
                found.append((kind, places))
        return found


def cells_of(model: Any, count: int) -> list[int]:
    """Which of the ``count`` placeholders of a LLaVA-NeXT image of one of :data:`SIZES` are no
    newlines: the model itself packs features that are numbers."""
    for width, height in SIZES:
        packed = packed_numbers(model, (height, width))
        if len(packed) == count:
            return [place for place, number in enumerate(packed) if number >= 0]
    raise AssertionError(f"no image of {count} placeholders is in these prompts")


def packed_numbers(model: Any, size: tuple[int, int]) -> list[int]:
    """What LLaVA-NeXT makes of the tiles of an image of ``size`` (height, width), whose features
    are numbered tile by tile; newlines are -1."""
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    vision = model.config.vision_config
    tiles = image_size_to_num_patches(size, model.config.image_grid_pinpoints, vision.image_size)
    each = (vision.image_size // vision.patch_size) ** 2
    numbers = torch.arange(tiles * each).view(tiles, each, 1)
    packed, _ = model.pack_image_features(
        [numbers],
        [size],
        vision_feature_select_strategy="default",
        image_newline=torch.tensor([-1]),
    )
    return [int(number) for number in packed[0].flatten()]
