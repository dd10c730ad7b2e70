"""Reading a prompt: where its images are, which samples are beams of one, where it ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.families import Family
from prunus.grid import Grid


@dataclass
class Image:
    """One image in one row of the batch."""

    row: int
    sample: int
    image: int
    positions: Tensor  # int64 [N], logical positions of its grid tokens
    grid: Grid
    present: Tensor  # int64 [n], ascending original indices still there
    kind: str  # of visual input: "image" or "video"
    order: int  # its number among those of its kind, before beams repeat it
    merged_into: Tensor | None = None  # int64 [N], the survivor each token is part of


@dataclass
class Prompt:
    """The images of a batch in the order of rows and positions; each sample has ``repeats`` rows
    (beams, or several returned sequences)."""

    images: list[Image]
    samples: int
    repeats: int


def find_images(
    family: Family, placeholders: dict[str, Tensor], grids: dict[str, list[Grid]]
) -> Prompt:
    """Where the images (and videos) of a batch are.

    Args:
        placeholders: bool ``[B, L]`` for each kind of visual input.
        grids: by kind, those of all samples in order, before beams repeat them; a kind is missing
            where its features were computed beforehand.

    Raises:
        ValueError: placeholders and grids do not match.
    """
    rows = len(next(iter(placeholders.values())))
    found: list[list[Image]] = [[] for _ in range(rows)]
    repeats: set[int] = set()
    for kind, places in placeholders.items():
        positions = [row.nonzero().flatten() for row in places]
        if any(map(len, positions)):
            repeats.add(_place(family, kind, positions, grids.get(kind), found))
    if not repeats:
        return Prompt([], rows, 1)
    if len(repeats) > 1:
        raise ValueError(
            f"the prompt repeats its kinds of visual input {sorted(repeats)} times each: give one "
            "image or video for each placeholder"
        )
    (step,) = repeats
    images: list[Image] = []
    for row in found:
        if len({image.kind for image in row}) > 1:  # found kind by kind: into the prompt's order
            row.sort(key=lambda image: int(image.positions[0]))
        for number, image in enumerate(row):
            image.image = number
            images.append(image)
    return Prompt(images, rows // step, step)


def _place(
    family: Family,
    kind: str,
    positions: list[Tensor],
    grids: list[Grid] | None,
    found: list[list[Image]],
) -> int:
    """Add to ``found``, row by row, where the inputs of one kind lie; return how often every row
    is repeated."""
    per_row = [len(row) for row in positions]
    grids, repeats = _match(family, kind, per_row, grids)
    queue, first = list(grids), 0
    for sample in range(len(per_row) // repeats):
        own, need = [], per_row[sample * repeats]
        while need > 0 and queue:
            own.append(queue.pop(0))
            need -= _tokens(family, own[-1])
        if need:
            raise _mismatch(kind, per_row, grids)
        for row in range(sample * repeats, (sample + 1) * repeats):
            start = 0
            for number, grid in enumerate(own):
                before, after = family.extra_tokens(grid)
                start += before
                spot = positions[row][start : start + grid.size]
                present = torch.arange(grid.size, device=spot.device)
                order = first + number
                found[row].append(Image(row, sample, number, spot, grid, present, kind, order))
                start += grid.size + after
        first += len(own)
    if queue:
        raise _mismatch(kind, per_row, grids)
    return repeats


def _tokens(family: Family, grid: Grid) -> int:
    return grid.size + sum(family.extra_tokens(grid))


def _match(
    family: Family, kind: str, per_row: list[int], grids: list[Grid] | None
) -> tuple[list[Grid], int]:
    """Grids, and how often ``generate`` repeated every row for beams or several sequences."""
    total = sum(per_row)
    if not grids:
        default = family.default_grid()
        if default is None:
            raise ValueError(
                f"the prompt has {kind} placeholders, but the call does not say how large what "
                "fills them is: pass pixel values with their grid, or, beside features computed "
                "beforehand, the grid as the processor gave it"
            )
        count, rest = divmod(total, _tokens(family, default))
        if rest:
            raise _mismatch(kind, per_row, [default] * count)
        return [default] * count, 1
    seen = sum(_tokens(family, grid) for grid in grids)
    repeats, rest = divmod(total, seen)
    if rest or not repeats or len(per_row) % repeats:
        raise _mismatch(kind, per_row, grids)
    return grids, repeats


def _mismatch(kind: str, per_row: list[int], grids: list[Grid]) -> ValueError:
    return ValueError(
        f"the prompt has {sum(per_row)} {kind} placeholder tokens ({per_row} per row), which do "
        f"not fit {len(grids)} {kind}s of {[grid.size for grid in grids]} visual tokens: give one "
        f"{kind} for each placeholder, in one piece (chunked prefill is not supported)"
    )


def last_prompt_token(valid: Tensor, labels: Tensor | None) -> Tensor:
    """Int64 ``[B]``: the last valid position before the first label (not -100), or the last valid
    position where there are no labels. ``valid`` is bool ``[B, L]``.

    Raises:
        ValueError: a row whose first token is labelled has no prompt at all.
    """
    length = valid.shape[1]
    steps = torch.arange(length, device=valid.device)
    prompt = valid
    if labels is not None:
        labelled = labels.to(valid.device) != -100
        first = torch.where(labelled, steps, length).amin(dim=1, keepdim=True)
        prompt = valid & (steps < first)
    last = torch.where(prompt, steps, -1).amax(dim=1)
    if labels is not None and bool((last < 0).any()):
        raise ValueError(
            "labels start at the first token of a row, which leaves no prompt to choose tokens by: "
            "set the labels of the prompt to -100"
        )
    return last
