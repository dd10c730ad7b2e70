"""Reading a prompt: where its images are, which samples are beams of one, where it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.families import Family
from prunus.grid import AnyGrid
from prunus.signals.topk import places_of


@dataclass
class Image:
    """One image in one row of the batch."""

    row: int
    sample: int
    image: int
    positions: Tensor  # int64 [N], logical positions of its cells, in the order of these
    grid: AnyGrid
    present: Tensor  # int64 [n], ascending original indices still there
    kind: str  # of visual input: "image" or "video"
    order: int  # its number among those of its kind, before beams repeat it
    merged_into: Tensor | None = None  # int64 [N], the survivor each token is part of; -1: none
    sizes: Tensor | None = None  # float32 [n], original tokens that each stands for; None: one

    def counted(self) -> Tensor:
        """Float32 ``[n]``: how many original tokens each of those present stands for."""
        if self.sizes is None:
            return torch.ones_like(self.present, dtype=torch.float32)
        return self.sizes


@dataclass
class Prompt:
    """The images of a batch in the order of rows and positions; each sample has ``repeats`` rows
    (beams, or several returned sequences)."""

    images: list[Image]
    samples: int
    repeats: int


def find_images(
    family: Family, placeholders: dict[str, Tensor], grids: dict[str, list[AnyGrid]]
) -> Prompt:
    """Where the images (and videos) of a batch are.

    Args:
        placeholders: bool ``[B, L]`` for each kind of visual input.
        grids: by kind, those of all samples in order, before beams repeat them; a kind is missing
            where its features were computed beforehand.

    Raises:
        PrunusError: placeholders and grids do not match.
    """
    marks = torch.stack(list(placeholders.values()))
    rows = marks.shape[1]
    found: list[list[Image]] = [[] for _ in range(rows)]
    repeats: set[int] = set()
    counts: list[list[int]] = marks.sum(2).tolist()  # the one value that is read from the device
    order = places_of(marks, marks.shape[2])  # as far as there are any
    for kind, own, lengths in zip(placeholders, order, counts, strict=True):
        positions = [row[:length] for row, length in zip(own, lengths, strict=True)]
        if any(lengths):
            repeats.add(_place(family, kind, positions, grids.get(kind), found))
    if not repeats:
        return Prompt([], rows, 1)
    if len(repeats) > 1:
        raise PrunusError(
            f"the prompt repeats its kinds of visual input {sorted(repeats)} times each: give one "
            "image or video for each placeholder"
        )
    (step,) = repeats
    images: list[Image] = []
    if any(len({image.kind for image in row}) > 1 for row in found):
        _sort(found)  # they were found kind by kind
    for row in found:
        for number, image in enumerate(row):
            image.image = number
            images.append(image)
    return Prompt(images, rows // step, step)


def _sort(found: list[list[Image]]) -> None:
    """Bring the images of each row into the prompt's order."""
    starts = torch.stack([image.positions.min() for row in found for image in row]).tolist()
    for row in found:
        keys = {id(image): starts.pop(0) for image in row}
        row.sort(key=lambda image: keys[id(image)])


def _place(
    family: Family,
    kind: str,
    positions: list[Tensor],
    grids: list[AnyGrid] | None,
    found: list[list[Image]],
) -> int:
    """Add to ``found``, row by row, where the inputs of one kind lie; return how often every row
    is repeated."""
    per_row = [len(row) for row in positions]
    grids, repeats = _match(family, kind, per_row, grids)
    device = positions[0].device
    places = {grid: family.known_places(grid).to(device) for grid in dict.fromkeys(grids)}
    queue, first = list(grids), 0
    for sample in range(len(per_row) // repeats):
        own, need = [], per_row[sample * repeats]
        while need > 0 and queue:
            own.append(queue.pop(0))
            need -= family.placeholders_of(own[-1])
        if need:
            raise _mismatch(kind, per_row, grids)
        if repeats > 1 and len(own) > 1 and family.mixes_repeats:
            raise PrunusError(
                f"sample {sample} has {len(own)} {kind}s, and generate() of this model mixes them "
                "up when it repeats a sample (num_beams, num_return_sequences): give one each, or "
                "repeat nothing"
            )
        for row in range(sample * repeats, (sample + 1) * repeats):
            left = positions[row]
            for number, grid in enumerate(own):
                spot = left[places[grid]]
                left = left[family.placeholders_of(grid) :]
                present = torch.arange(grid.size, device=spot.device)
                order = first + number
                found[row].append(Image(row, sample, number, spot, grid, present, kind, order))
        first += len(own)
    if queue:
        raise _mismatch(kind, per_row, grids)
    return repeats


def _match(
    family: Family, kind: str, per_row: list[int], grids: list[AnyGrid] | None
) -> tuple[list[AnyGrid], int]:
    """Grids, and how often ``generate`` repeated every row for beams or several sequences."""
    total = sum(per_row)
    if not grids:
        default = None if kind == "video" else family.default_grid()
        if default is None:
            raise PrunusError(
                f"the prompt has {kind} placeholders, but the call does not say how large what "
                "fills them is: pass pixel values with their grid, or, beside features computed "
                "beforehand, the grid as the processor gave it"
            )
        count, rest = divmod(total, family.placeholders_of(default))
        if rest:
            raise _mismatch(kind, per_row, [default] * count)
        return [default] * count, 1
    seen = sum(family.placeholders_of(grid) for grid in grids)
    repeats, rest = divmod(total, seen)
    if rest or not repeats or len(per_row) % repeats:
        raise _mismatch(kind, per_row, grids)
    return grids, repeats


def _mismatch(kind: str, per_row: list[int], grids: list[AnyGrid]) -> PrunusError:
    return PrunusError(
        f"the prompt has {sum(per_row)} {kind} placeholder tokens ({per_row} per row), which do "
        f"not fit {len(grids)} {kind}s of {[grid.size for grid in grids]} visual tokens: give one "
        f"{kind} for each placeholder, in one piece (chunked prefill is not supported)"
    )


def tokens_in(present: Tensor) -> tuple[list[int], bool]:
    """Tokens of each row of ``present`` (bool ``[B, L]``), and whether all rows end with one."""
    *counts, last = torch.cat([present.sum(1), present[:, -1:].all()[None].long()]).tolist()
    return counts, bool(last)


def last_prompt_token(valid: Tensor, labels: Tensor | None, padded: bool = True) -> Tensor:
    """Int64 ``[B]``: the last valid position before the first label (not -100), or the last valid
    position where there are no labels. ``valid`` is bool ``[B, L]``; not ``padded``: it is known
    that all are.

    Raises:
        PrunusError: a row whose first token is labelled has no prompt at all.
    """
    length = valid.shape[1]
    if labels is None and not padded:
        return torch.full(valid.shape[:1], length - 1, device=valid.device)
    steps = torch.arange(length, device=valid.device)
    prompt = valid
    if labels is not None:
        if labels.shape != valid.shape:
            raise PrunusError(
                f"labels of shape {tuple(labels.shape)} for a prompt of {tuple(valid.shape)}: give "
                "one label for each token, -100 for the prompt and for padding"
            )
        labelled = labels.to(valid.device) != -100
        first = torch.where(labelled, steps, length).amin(dim=1, keepdim=True)
        prompt = valid & (steps < first)
    last = torch.where(prompt, steps, -1).amax(dim=1)
    if labels is not None and bool((last < 0).any()):
        raise PrunusError(
            "labels start at the first token of a row, which leaves no prompt to choose tokens by: "
            "set the labels of the prompt to -100"
        )
    return last


def check_last(told: Tensor, valid: Tensor) -> Tensor:
    """``told``, int64 ``[B]`` or one for all, positions of last prompt tokens, for each row of
    ``valid`` (bool ``[B, L]``).

    Raises:
        PrunusError: another number of rows, or a position that is none of a token.
    """
    batch, length = valid.shape
    told = told.to(valid.device).long()
    if told.ndim == 0:
        told = told.expand(batch)
    if told.shape != (batch,):
        raise PrunusError(
            f"run.prompt_ends was told {len(told)} positions, but the call has {batch} rows: give "
            "one for each row of the batch"
        )
    told = torch.where(told < 0, told + length, told)
    inside = (told >= 0) & (told < length)
    if not bool((inside & valid.gather(1, told.clamp(0, length - 1)[:, None])[:, 0]).all()):
        raise PrunusError(
            f"run.prompt_ends was told positions {told.tolist()}, but rows have {length} tokens, "
            "padding included: give the index of each row's last prompt token"
        )
    return told


def check_seen(images: Sequence[Image], last: Tensor) -> None:
    """Raise PrunusError where an image stands behind the ``last`` prompt token (int64 ``[B]``) of
    its row, which then sees nothing of it to choose by."""
    latest = torch.stack([image.positions.max() for image in images])
    ends, latest_of = last.tolist(), latest.tolist()
    for image, own in zip(images, latest_of, strict=True):
        if own > ends[image.row]:
            raise PrunusError(
                f"the prompt of row {image.row} ends at token {ends[image.row]}, before image "
                f"{image.image} of the row does, so that its last token cannot choose among that "
                "image's: an answer stands before the image. Say run.prompt_ends(...) where the "
                "question behind the last image ends, or choose a query-independent method"
            )


def find_valid(
    core: Mapping[str, Any], call: Mapping[str, Any], embeds: Tensor
) -> tuple[Tensor, bool]:
    """Bool ``[B, L]``, False for padding, as far as a 2-D mask tells: of the language model's
    ``call``, or of the multimodal ``core``'s, which may have made another of it; and whether there
    is one, so that there may be padding.

    Raises:
        PrunusError: a 4-D mask of another size than the prompt.
    """
    length = embeds.shape[1]
    given = call.get("attention_mask")
    if isinstance(given, Tensor) and given.ndim > 2 and given.shape[-2:] != (length, length):
        raise PrunusError(
            f"attention_mask has shape {tuple(given.shape)}, but the prompt has {length} tokens: "
            f"give a 2-D mask [batch, {length}] or a 4-D one [batch, 1, {length}, {length}]"
        )
    for mask in (given, core.get("attention_mask")):
        if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] == length:
            return mask.bool().to(embeds.device), True
    return torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device), False
