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
    order: int = 0  # number of the image in the call of the tower, before beams repeat it
    merged_into: Tensor | None = None  # int64 [N], the survivor each token is part of


@dataclass
class Prompt:
    """The images of a batch in the order of rows and positions; each sample has ``repeats`` rows
    (beams, or several returned sequences)."""

    images: list[Image]
    samples: int
    repeats: int


def find_images(family: Family, placeholders: Tensor, grids: list[Grid] | None) -> Prompt:
    """Where the images of a batch are.

    Args:
        placeholders: bool ``[B, L]``.
        grids: of the images as the tower was given them, before beams repeat them; None if the
            tower did not run under our eyes (features computed beforehand).

    Raises:
        ValueError: placeholders and images do not match.
    """
    positions = [row.nonzero().flatten() for row in placeholders]
    per_row = [len(row) for row in positions]
    if not sum(per_row):
        return Prompt([], len(per_row), 1)
    grids, repeats = _match(family, per_row, grids)
    images: list[Image] = []
    queue, first = list(grids), 0
    for sample in range(len(per_row) // repeats):
        found, need = [], per_row[sample * repeats]
        while need > 0 and queue:
            found.append(queue.pop(0))
            need -= _tokens(family, found[-1])
        if need:
            raise _mismatch(per_row, grids)
        for row in range(sample * repeats, (sample + 1) * repeats):
            start = 0
            for number, grid in enumerate(found):
                before, after = family.extra_tokens(grid)
                start += before
                spot = positions[row][start : start + grid.size]
                present = torch.arange(grid.size, device=spot.device)
                order = first + number
                images.append(Image(row, sample, number, spot, grid, present, order))
                start += grid.size + after
        first += len(found)
    if queue:
        raise _mismatch(per_row, grids)
    return Prompt(images, len(per_row) // repeats, repeats)


def _tokens(family: Family, grid: Grid) -> int:
    return grid.size + sum(family.extra_tokens(grid))


def _match(family: Family, per_row: list[int], grids: list[Grid] | None) -> tuple[list[Grid], int]:
    """Grids, and how often ``generate`` repeated every row for beams or several sequences."""
    total = sum(per_row)
    if not grids:
        default = family.default_grid()
        if default is None:
            raise ValueError(
                "the vision tower did not run inside prunus.prune, so the image grids are unknown: "
                "pass pixel values instead of features computed beforehand"
            )
        count, rest = divmod(total, _tokens(family, default))
        if rest:
            raise _mismatch(per_row, [default] * count)
        return [default] * count, 1
    seen = sum(_tokens(family, grid) for grid in grids)
    repeats, rest = divmod(total, seen)
    if rest or not repeats or len(per_row) % repeats:
        raise _mismatch(per_row, grids)
    return grids, repeats


def _mismatch(per_row: list[int], grids: list[Grid]) -> ValueError:
    return ValueError(
        f"the prompt has {sum(per_row)} image placeholder tokens ({per_row} per row), which do not "
        f"fit {len(grids)} images of {[grid.size for grid in grids]} visual tokens: give one image "
        "for each placeholder, in one piece (chunked prefill is not supported)"
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
