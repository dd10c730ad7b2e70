"""Many questions at a time: batches of equal length, features computed once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from prunus.errors import PrunusError
from prunus.families import Family, family_of
from prunus.grid import AnyGrid
from prunus.inference.inputs import Parts, placed, process
from prunus.inference.prompts import render
from prunus.method import Method, acting, signals_of, tower_part
from prunus.method.signals import Signal
from prunus.tasks.sets import Clip

#: From this size on, a batch ends where prompts get longer: without padding no mask is needed,
#: and attention stays in its fastest kernel.
_ENOUGH = 8


@dataclass(frozen=True)
class Encoded:
    """Prompt of one question: token ids ``[t]`` with an image and ``[s]`` without one, and what
    else the processor says of each of the ``t`` (its modality), ``[t]`` by name."""

    query: int
    ids: Tensor
    blind_ids: Tensor
    per_token: Mapping[str, Tensor] = field(default_factory=dict)


def encode(
    processor: Any, number: int, question: str, seen: Image.Image | Clip
) -> tuple[Encoded, dict[str, Tensor]]:
    """Encode question ``number`` as the processor wants it, and its pixels with what stands beside
    them.

    Raises:
        PrunusError: a video, and the model takes none; or a question that holds the placeholder of
            an image or video, which would be taken for one.
    """
    if isinstance(seen, Clip):
        found = process(processor, render(processor, question, ["video"]), videos=[seen])
    else:
        found = process(processor, render(processor, question, ["image"]), [seen])
    parts = Parts.of(found)
    tokenizer = getattr(processor, "tokenizer", processor)
    blind = tokenizer(render(processor, question), return_tensors="pt")
    return Encoded(number, parts.ids, blind["input_ids"][0], parts.per_token), parts.pixels


def in_batches(encoded: Sequence[Encoded], size: int) -> Iterator[list[Encoded]]:
    """Batches of at most ``size``, by length; most of them need no padding."""
    batch: list[Encoded] = []
    for one in sorted(encoded, key=lambda e: (len(e.ids), e.query)):
        longer = bool(batch) and len(one.ids) != len(batch[-1].ids) and len(batch) >= _ENOUGH
        if len(batch) == size or longer:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def left_padded(
    rows: Sequence[Tensor], pad: int, per_token: Sequence[Mapping[str, Tensor]] = ()
) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask``, ``[b, t]`` int64, and what else is known ``per_token``
    of each row, with zeros where there is padding."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, longest - len(row) :] = row
        mask[at, longest - len(row) :] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    for at, known in enumerate(per_token):
        for name, values in known.items():
            table = inputs.setdefault(name, torch.zeros(ids.shape, dtype=values.dtype))
            table[at, longest - len(values) :] = values
    return inputs


def joined(parts: Sequence[Tensor], sized: bool = False) -> Tensor:
    """One kind of image input of several prompts, behind each other. Images ``[1, tiles, ...]`` of
    different numbers of tiles are filled up with empty ones, as processors do in a batch; images
    ``[1, channels, h, w]``, whose sizes stand beside them (``sized``), on the right and below.

    Raises:
        PrunusError: they have different sizes in another way.
    """
    if len({part.shape[1:] for part in parts}) > 1 and all(part.ndim == 5 for part in parts):
        most = max(part.shape[1] for part in parts)
        parts = [F.pad(part, (*(0, 0) * 3, 0, most - part.shape[1])) for part in parts]
    if sized and len({part.shape[1:2] for part in parts}) == 1 and parts[0].ndim == 4:
        height, width = (max(part.shape[side] for part in parts) for side in (2, 3))
        parts = [F.pad(p, (0, width - p.shape[3], 0, height - p.shape[2])) for p in parts]
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = " and ".join(str(list(part.shape)) for part in parts)
        raise PrunusError(
            f"images whose inputs have different shapes ({shapes}) cannot be put into one batch "
            "one by one: give images of one size, or inputs that the processor made of all at once"
        )
    return torch.cat(list(parts))


@dataclass(frozen=True)
class Prepared:
    """One image or video: what the processor made of it, its features ``[n, D]`` where they were
    computed beforehand, and where its visual tokens lie (None where that is unknown)."""

    pixels: dict[str, Tensor]
    features: Tensor | None
    grid: AnyGrid | None

    @property
    def kind(self) -> str:
        """``video`` or ``image``."""
        return "video" if "pixel_values_videos" in self.pixels else "image"


#: Height and width of each image, which may be padded.
IMAGE_SIZES = "image_sizes"
#: What has to stand beside features: they say nothing about grids and time.
_BESIDE = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")


class Vision:
    """Image inputs of ``generate``, where possible from features computed once per image.

    For methods behind the tower its output is the same. Where one acts inside it, or the model
    cannot be given features (transformers before ``mm_encoder_outputs``, images with more about
    them than a grid, features that enter at several layers), pixels are passed and the tower runs
    for every cell.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.family: Family = family_of(model)
        forward = inspect.signature(type(self.family.core).forward).parameters
        self._takes_features = "mm_encoder_outputs" in forward and not self.family.has_side_inputs

    @torch.no_grad()
    def prepare(self, pixels: Sequence[dict[str, Tensor]]) -> list[Prepared]:
        """What :meth:`inputs` wants for each image."""
        found = []
        for one in pixels:
            plain = Prepared(one, None, self._grid(one))
            features = self._features(plain) if self._can_encode(plain) else None
            found.append(replace(plain, features=features))
        return found

    def _grid(self, pixels: dict[str, Tensor]) -> AnyGrid | None:
        grids = [grid for own in self.family.grids_of(pixels).values() for grid in own]
        return grids[0] if len(grids) == 1 else self.family.default_grid()

    def _can_encode(self, one: Prepared) -> bool:
        if not self._takes_features or one.grid is None:
            return False
        return all(key in _BESIDE or key.startswith("pixel_values") for key in one.pixels)

    def _features(self, one: Prepared) -> Tensor:
        core, device = self.family.core, self._model.device
        name = "pixel_values_videos" if one.kind == "video" else "pixel_values"
        given = [one.pixels[name].to(device, self._model.dtype)]
        grid = one.pixels.get(f"{one.kind}_grid_thw")
        given += [] if grid is None else [grid.to(device)]
        encode_one = core.get_video_features if one.kind == "video" else core.get_image_features
        features: Tensor = encode_one(*given).pooler_output[0]
        return features

    def must_run(self, methods: Sequence[Method]) -> bool:
        """Whether the tower has to run for ``methods``: one acts inside it, or reads what it hands
        to the projector."""
        depth = self.family.depth
        return any(
            bool(tower_part(method)) or any(map(self._needs_tower, signals_of(method, depth)))
            for method in acting(methods, depth)
        )

    def _needs_tower(self, signal: Signal[Any]) -> bool:
        return signal.tower == "block" or (bool(signal.tower) and self.family.reads_tower)

    def inputs(self, prepared: Sequence[Prepared], in_tower: bool = False) -> dict[str, Any]:
        """Arguments of ``generate`` for one image per row: features, or pixels where the tower has
        to run (``in_tower``)."""
        features = [one.features for one in prepared if one.features is not None]
        encoded = not in_tower and len(features) == len(prepared)
        model = self._model
        keys = [key for key in prepared[0].pixels if not encoded or key in _BESIDE]
        sized = IMAGE_SIZES in prepared[0].pixels
        pixels = [one.pixels for one in prepared]
        pixels = [self.family.behind(one, pixels[:number]) for number, one in enumerate(pixels)]
        merged = {key: joined([one[key] for one in pixels], sized) for key in keys}
        inputs: dict[str, Any] = dict(placed(merged, model.device, model.dtype))
        if encoded:
            output = BaseModelOutputWithPooling(pooler_output=features)
            inputs["mm_encoder_outputs"] = {prepared[0].kind: output}
        return inputs
